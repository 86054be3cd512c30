"""LSSL: any linear dynamics as a layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..dynamics import LinearDynamics
from ..holds import Hold, Impulse
from .coupled import CoupledChannels


__all__ = ["LSSL"]


class LSSL(CoupledChannels):
    r"""The linear state-space layer: any linear dynamics for each channel, on a clock of its own speed.

    .. math:: \dot h_c = \delta_c (A h_c + B u_c), \qquad y_c = C_c h_c + D_c u_c

    With `HippoLegT` each channel keeps a window of its past of learned length; with `Dense`, of a parameter batch
    `(channel,)` or of none, each learns a matrix of its own or all learn one. The discretization is exact; the paper's
    is a generalized bilinear one.

    Args:
        channels: channels of the inputs, and of the outputs.
        dynamics: real linear dynamics with one input, whose clock is time itself (not `HippoLegS`).
        steps: the :math:`\delta` begin between these two, per unit of time.
        hold: what an input does between its time and the next; default `HeldBefore()`.
        tile: times per tile of a scan; None: everything at once.

    Raises:
        ValueError: the dynamics do not have one input, or run on another clock, or have other batch axes.
        TypeError: the dynamics are complex.

    Reference:
        Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers, A. Gu,
        I. Johnson, K. Goel, K. Saab, T. Dao, A. Rudra, C. Re, 2021, https://arxiv.org/abs/2110.13985

    Example:
        >>> from ctdyn.linear import HippoLegT
        >>> layer = LSSL(3, HippoLegT(8, window=1.0))
        >>> layer(torch.tensor([0.0, 0.1, 4.0]), torch.randn(2, 3, 3))[0].shape
        torch.Size([2, 3, 3])
    """

    def __init__(
        self,
        channels: int,
        dynamics: LinearDynamics,
        *,
        steps: tuple[float, float] = (1e-3, 1e-1),
        hold: Hold | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__(channels, dynamics.state_size, steps=steps, hold=hold, tile=tile)
        name = type(dynamics).__name__
        if dynamics.input_size != 1:
            raise ValueError(f"dynamics must have one input; {name} has input_size={dynamics.input_size}. Give it a B.")
        if float(dynamics.elapsed(torch.ones(()), 3.0 * torch.ones(()))) != 2.0:
            raise ValueError(f"{name} runs on a clock of its own, on which a layer's steps have no meaning.")
        if dynamics.dtype.is_complex:
            raise TypeError(f"dynamics must be real; {name} is of {dynamics.dtype}. Use S4D or S5.")
        if dynamics.batch_shape not in ((), (channels,)):
            raise ValueError(
                f"dynamics may have the batch axes () or (channel,)=({channels},); got {tuple(dynamics.batch_shape)}."
            )
        self.dynamics = dynamics
        self.C = nn.Parameter(torch.randn(channels, dynamics.state_size) / math.sqrt(dynamics.state_size))

    def transitions(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """As in `CoupledChannels`."""
        transition, before, after = self.dynamics.discretize(steps, hold=self.hold).matrices()
        gain = after if before is None else before
        assert gain is not None
        gain = gain.squeeze(-1)
        return transition, gain * self.log_step.exp()[:, None, None] if isinstance(self.hold, Impulse) else gain

    def weights(self) -> Tensor:
        """As in `CoupledChannels`."""
        return self.C
