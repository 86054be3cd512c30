"""The selective layer: a diagonal system whose clock, inputs and outputs depend on what it reads."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..._checks import check_count
from ..holds import Hold, Impulse
from ..recurrence import zoh_scan
from .base import StateSpaceLayer
from .initialization import log_uniform


__all__ = ["Selective"]


class Selective(StateSpaceLayer):
    r"""The selective state-space layer of Mamba (S6), with its steps taken as speeds of a true clock.

    .. math:: \dot h_{dn} = \delta_d(u) \left(-a_{dn} h_{dn} + B_n(u)\,u_d\right), \qquad
        y_d = \sum_n C_n(u)\,h_{dn} + D_d u_d, \qquad \delta(u) = \mathrm{softplus}(W u + b)

    Over a gap of :math:`\Delta` units of time the state decays by :math:`e^{-a \delta(u) \Delta}`: what the layer reads
    decides how fast its clock runs, and the gap how long. Every channel has a system of `state_size` real states;
    :math:`B` and :math:`C` are shared by the channels.

    The input that acts on a gap sets its :math:`\delta` and :math:`B`. In Mamba that is the input at its end,
    `hold=HeldAfter()`. Mamba drops the integral of the decay and adds :math:`\delta B u` in place of
    :math:`a^{-1}(1 - e^{-a \delta \Delta}) B u`; here it is exact. The short convolution and the gate around Mamba's
    layer are not part of this one.

    Args:
        channels: channels of the inputs, and of the outputs.
        state_size: states per channel.
        rank: of the matrix :math:`W`; `channels / 16`, rounded up, if not given.
        steps: :math:`\delta` begins between these two for an input of zero, per unit of time; with gaps that are
            typically g units long, divide the paper's by g.
        hold: what an input does between its time and the next; default `HeldBefore()`. Not `Impulse()`: a kick has no
            length in which a clock could run.
        tile: times per tile, for memory that does not grow with the length; None: everything at once.

    Raises:
        ValueError: a size is below 1, the steps are not positive and in order, or the hold is `Impulse()`.

    Reference:
        Mamba: Linear-Time Sequence Modeling with Selective State Spaces, A. Gu, T. Dao, 2023,
        https://arxiv.org/abs/2312.00752

    Example:
        >>> layer = Selective(3, state_size=4)
        >>> ys, state = layer(torch.tensor([[0.0, 0.1, 4.0], [0.0, 2.0, 2.0]]), torch.randn(2, 3, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([2, 3, 3]), torch.Size([2, 12]))
    """

    def __init__(
        self,
        channels: int,
        state_size: int = 16,
        *,
        rank: int | None = None,
        steps: tuple[float, float] = (1e-3, 1e-1),
        hold: Hold | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__(channels, channels, hold=hold, tile=tile)
        if isinstance(self.hold, Impulse):
            raise ValueError("a Selective layer needs inputs that last: hold=HeldBefore() or HeldAfter().")
        rank = math.ceil(channels / 16) if rank is None else rank
        for name, size in (("state_size", state_size), ("rank", rank)):
            check_count(name, size)
        self.state_size = state_size
        self.log_decay = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(channels, 1))
        self.select = nn.Linear(channels, rank + 2 * state_size, bias=False)
        self.speed = nn.Linear(rank, channels)
        with torch.no_grad():
            self.speed.weight.uniform_(-(rank**-0.5), rank**-0.5)
            step = log_uniform((channels,), *steps).exp()
            # The inverse of softplus.
            self.speed.bias.copy_(step + (-torch.expm1(-step)).log())
        self.D = nn.Parameter(torch.ones(channels))

    def rest(self) -> Tensor:
        """As in `StateSpaceLayer`: nothing."""
        return torch.zeros_like(self.log_decay.detach()).flatten()

    def march(self, dt: Tensor, us: Tensor, h0: Tensor, reset: Tensor | None) -> Tensor:
        """As in `StateSpaceLayer`; the channels of a series are series of their own, with a clock each."""
        width = self.speed.in_features
        chosen = self.select(us)
        own = softplus(self.speed(chosen[..., :width])).mT
        clock = dt[..., None, :].to(own.dtype) * own
        B = chosen[..., width : width + self.state_size]
        v = us.mT[..., None] * B[..., None, :, :]
        first = h0.unflatten(-1, self.log_decay.shape)
        cleared = None if reset is None else reset[..., None, :]
        hs = zoh_scan(-self.log_decay.exp(), clock, v, first, reset=cleared)
        return hs.movedim(-3, -2).flatten(-2)

    def readout(self, hs: Tensor, us: Tensor) -> Tensor:
        """As in `StateSpaceLayer`."""
        C = us @ self.select.weight[-self.state_size :].mT
        states = hs.unflatten(-1, self.log_decay.shape)
        return (states @ C[..., None]).squeeze(-1) + self.D * us
