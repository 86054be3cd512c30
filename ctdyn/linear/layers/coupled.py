"""Layers with a full matrix per channel: exact at irregular times at the cost of a matrix per step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .._matrix_scan import matrix_recurrence
from ..holds import Hold
from .channelwise import ChannelwiseLayer
from .initialization import log_uniform


__all__ = ["CoupledChannels"]


class CoupledChannels(ChannelwiseLayer, ABC):
    r"""One system per channel whose states are coupled, with a time scale of its own.

    .. math:: \dot h_c = \delta_c (A h_c + b u_c), \qquad y_c = c_c^\top h_c + D_c u_c

    At irregular times each step of each channel has a transition matrix of its own, :math:`e^{A \delta_c \Delta_k}`:
    :math:`O(N^2)` numbers per time and channel, so use a `tile`, or a diagonal layer. On a regular grid there is one
    matrix per channel, and the outputs are a convolution. Subclass it with `transitions`.

    Args:
        channels: channels of the inputs, and of the outputs.
        state_size: states per channel, :math:`N`.
        steps: the :math:`\delta` begin between these two, per unit of time.
        hold: what an input does between its time and the next; default `HeldBefore()`.
        tile: times per tile of a scan; None: everything at once.

    Raises:
        ValueError: as for `StateSpaceLayer`, or the steps are not positive and in order.

    Reference:
        Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers, A. Gu et al.,
        2021, https://arxiv.org/abs/2110.13985

    Example:
        >>> from ctdyn.linear import HippoLegT
        >>> from ctdyn.linear.layers import LSSL
        >>> isinstance(LSSL(3, HippoLegT(4, window=1.0)), CoupledChannels)
        True
    """

    def __init__(
        self,
        channels: int,
        state_size: int,
        *,
        steps: tuple[float, float] = (1e-3, 1e-1),
        hold: Hold | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__(channels, hold=hold, tile=tile)
        self.state_size = state_size
        self.log_step = nn.Parameter(log_uniform((channels,), *steps))

    @abstractmethod
    def transitions(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        r"""The transitions, and what an input of 1 that acts in the step adds by the hold.

        Args:
            steps: :math:`\delta_c \Delta`, `(*batch, channel, time)`.

        Returns:
            `(*batch, channel, time, state, state)` and `(*batch, channel, time, state)`.
        """

    @abstractmethod
    def weights(self) -> Tensor:
        """:math:`c`, `(channel, state)`."""

    def rest(self) -> Tensor:
        """As in `StateSpaceLayer`: nothing."""
        return self.log_step.new_zeros(self.input_size * self.state_size)

    def march(self, dt: Tensor, us: Tensor, h0: Tensor, reset: Tensor | None) -> Tensor:
        """As in `StateSpaceLayer`."""
        transition, gain = self._over(dt)
        if reset is not None:
            transition = torch.where(reset[..., None, :, None, None], 0.0, transition)
        forcing = gain * us.mT[..., None]
        hs = matrix_recurrence(transition, forcing, self._by_channel(h0))
        return hs.movedim(-3, -2).flatten(-2)

    def readout(self, hs: Tensor, us: Tensor) -> Tensor:
        """As in `StateSpaceLayer`."""
        return (self._by_channel(hs) * self.weights()).sum(-1) + self.D * us

    def kernel(self, dt: Tensor | float, length: int) -> Tensor:
        r"""As in `ChannelwiseLayer`: :math:`K_l = c^\top \bar A^l \bar b`."""
        step = torch.as_tensor(dt, dtype=torch.float64, device=self.D.device).reshape(1)
        transition, gain = (x.squeeze(1) for x in self._over(step))
        return self._responses(transition, gain, length)[0]

    def fade(self, dt: Tensor, h: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """As in `ChannelwiseLayer`."""
        transition = self._over(dt)[0].squeeze(1)
        begun = (transition @ self._by_channel(h)[..., None]).squeeze(-1)
        ys, last = self._responses(transition, begun, length)
        return ys, last.flatten(-2)

    def gather(self, dt: Tensor, us: Tensor) -> Tensor:
        """As in `ChannelwiseLayer`: blocks of the inputs, each by one product, and then one block after another."""
        transition, gain = (x.squeeze(1) for x in self._over(dt))
        span = math.isqrt(us.shape[-2] - 1) + 1
        near = [gain]
        for _ in range(span - 1):
            near.append((transition @ near[-1][..., None]).squeeze(-1))
        # The first block may be short: what is missing are inputs of zero before the series.
        padding = us.new_zeros(*us.shape[:-2], span * span - us.shape[-2], us.shape[-1])
        blocks = torch.cat([padding, us], -2).unflatten(-2, (span, span)).flip(-2).movedim(-1, -3)
        parts = (blocks @ torch.stack(near, -2)).unbind(-2)
        far, h = torch.linalg.matrix_power(transition, span), parts[0]
        for part in parts[1:]:
            h = (far @ h[..., None]).squeeze(-1) + part
        return h.flatten(-2)

    def _over(self, dt: Tensor) -> tuple[Tensor, Tensor]:
        """The transitions and gains of the channels over steps `(*batch, time)`."""
        steps = self.log_step.double().exp()[:, None] * dt[..., None, :]
        return self.transitions(steps.to(self.log_step.dtype))

    def _by_channel(self, h: Tensor) -> Tensor:
        return h.unflatten(-1, (self.input_size, self.state_size))

    def _responses(self, transition: Tensor, x: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Outputs of the states x, A x, A A x ..., `(*batch, lag, channel)`, and the last of these states.

        Rows c A^j for short lags and states for every so many lags: a product of them has all lags.
        """
        span = math.isqrt(length - 1) + 1
        rows, states = [self.weights()], [x]
        for _ in range(span - 1):
            rows.append((rows[-1][..., None, :] @ transition).squeeze(-2))
        far = torch.linalg.matrix_power(transition, span)
        for _ in range(span - 1):
            states.append((far @ states[-1][..., None]).squeeze(-1))
        ys = torch.stack(states, -2) @ torch.stack(rows, -2).mT
        place, rest = divmod(length - 1, span)
        last = torch.linalg.matrix_power(transition, rest) @ states[place][..., None]
        return ys.flatten(-2)[..., :length].mT, last.squeeze(-1)
