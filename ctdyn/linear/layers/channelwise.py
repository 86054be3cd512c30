"""Layers that treat each channel by a system of its own: by a scan at any times, by FFT on a regular grid."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .._coefficients import held_gain
from ..convolution import causal_convolution, exponential_kernel
from ..holds import Hold, Impulse
from .base import StateSpaceLayer
from .diagonal import DiagonalLayer


__all__ = ["ChannelwiseLayer", "DiagonalChannels"]

# Shorter series are scanned: a convolution does not pay.
_SHORTEST = 64
# How far steps may be from their mean, relative to it, to be taken as one: a clock in float64 is rounded.
_REGULAR = 1e-9


class ChannelwiseLayer(StateSpaceLayer, ABC):
    r"""One linear system per channel, of one input and one output.

    .. math:: \dot h_c = A_c h_c + b_c u_c, \qquad y_c = c_c^\top h_c + D_c u_c

    At irregular times all states are scanned, `channels * state` numbers per time, in tiles if wanted. On a regular
    grid that all series share, from 64 times on, the outputs are a convolution with the kernel and are made by FFT; the
    answer is the same, and the states in between do not exist. A gradient to the times themselves needs the scan and
    gets it. Subclass it with `march`, `readout` and the three parts of the convolution.

    Args:
        channels: channels of the inputs, and of the outputs.
        hold: what an input does between its time and the next; default `HeldBefore()`.
        tile: times per tile of a scan; None: everything at once.

    Raises:
        ValueError: as for `StateSpaceLayer`.

    Reference:
        Efficiently Modeling Long Sequences with Structured State Spaces, A. Gu, K. Goel, C. Re, 2022,
        https://arxiv.org/abs/2111.00396

    Example:
        >>> from ctdyn.linear.layers import S4D
        >>> layer = S4D(3, state_size=16)
        >>> irregular, _ = layer(torch.rand(100).cumsum(0), torch.randn(100, 3))
        >>> by_convolution, _ = layer(torch.arange(100.0), torch.randn(100, 3))
        >>> irregular.shape == by_convolution.shape
        True
    """

    def __init__(self, channels: int, *, hold: Hold | None = None, tile: int | None = None) -> None:
        super().__init__(channels, channels, hold=hold, tile=tile)
        self.D = nn.Parameter(torch.randn(channels))

    @abstractmethod
    def kernel(self, dt: Tensor | float, length: int) -> Tensor:
        """The response on a regular grid to an input of 1 that acts in one step; without the direct term.

        Args:
            dt: the step, one number.
            length: number of lags.

        Returns:
            `(lag, channel)`.
        """

    @abstractmethod
    def fade(self, dt: Tensor, h: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """What a state gives in steps without input.

        Args:
            dt: the step, `(1,)`.
            h: the state before the first of them, `(*batch, state)`.
            length: number of steps.

        Returns:
            Outputs after each step, `(*batch, time, channel)`, and the last state.
        """

    @abstractmethod
    def gather(self, dt: Tensor, us: Tensor) -> Tensor:
        """The state, `(*batch, state)`, that inputs `(*batch, time, input)` in steps of `dt` make of an empty one."""

    def _through(
        self, dt: Tensor, acting: Tensor, us: Tensor, h0: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if reset is not None or not _is_regular(dt):
            return super()._through(dt, acting, us, h0, reset)
        # The first step leads to the grid and has a length of its own.
        first = self.march(dt[..., :1], acting[..., :1, :], h0, None)
        opening = self.readout(first, us[..., :1, :])
        step, acting = dt.flatten()[-1:], acting[..., 1:, :]
        length = acting.shape[-2]
        ys = causal_convolution(self.kernel(step, length), acting) + self.D * us[..., 1:, :]
        last = self.gather(step, acting)
        is_empty = bool((dt[..., 0] == 0).all()) and not isinstance(self.hold, Impulse)
        if not is_empty or h0.requires_grad or bool((h0 != 0).any()):
            free, carried = self.fade(step, first.squeeze(-2), length)
            ys, last = ys + free, last + carried
        return torch.cat([opening.expand(*ys.shape[:-2], 1, -1), ys], -2), last.expand_as(h0).clone()


class DiagonalChannels(ChannelwiseLayer, DiagonalLayer, ABC):
    r"""One diagonal system per channel.

    .. math:: \dot h_c = \lambda_c \odot h_c + u_c, \qquad y_c = \mathrm{Re} \sum_n w_{cn} h_{cn} + D_c u_c

    The weights of the inputs are in those of the outputs, where they say the same. Subclass it with `system`.

    Args:
        channels: channels of the inputs, and of the outputs.
        hold: what an input does between its time and the next; default `HeldBefore()`.
        tile: times per tile of a scan; None: everything at once.

    Raises:
        ValueError: as for `StateSpaceLayer`.

    Reference:
        On the Parameterization and Initialization of Diagonal State Space Models, A. Gu, A. Gupta, K. Goel, C. Re,
        2022, https://arxiv.org/abs/2206.11893

    Example:
        >>> from ctdyn.linear.layers import S4D
        >>> [part.shape for part in S4D(3, state_size=16).system()]
        [torch.Size([3, 8]), torch.Size([3, 8])]
    """

    @abstractmethod
    def system(self) -> tuple[Tensor, Tensor]:
        r""":math:`\lambda` and :math:`w`, time scales included, `(channel, state)`, complex."""

    def kernel(self, dt: Tensor | float, length: int) -> Tensor:
        r"""As in `ChannelwiseLayer`.

        .. math:: K_l = \mathrm{Re} \sum_n w_n \frac{e^{\lambda_n \Delta} - 1}{\lambda_n} e^{\lambda_n \Delta l}
        """
        lam, weights = self.system()
        step = torch.as_tensor(dt, dtype=torch.float64, device=lam.device).reshape(1)
        return exponential_kernel(lam, weights * self._gain(lam, step), step, length)

    def rates(self) -> Tensor:
        """As in `DiagonalLayer`."""
        return self.system()[0].flatten()

    def drive(self, us: Tensor) -> Tensor:
        """As in `DiagonalLayer`."""
        lam = self.system()[0]
        return us[..., None].expand(*us.shape, lam.shape[-1]).to(lam.dtype).flatten(-2)

    def readout(self, hs: Tensor, us: Tensor) -> Tensor:
        """As in `StateSpaceLayer`."""
        weights = self.system()[1]
        # The real part of a product, as one real product per channel.
        columns = torch.stack([weights.real, -weights.imag], -1).flatten(-2)[..., None]
        rows = torch.view_as_real(hs.unflatten(-1, weights.shape)).flatten(-2).flatten(0, -3)
        ys = (rows.transpose(0, 1) @ columns).squeeze(-1).mT
        return ys.reshape(*hs.shape[:-1], len(weights)) + self.D * us

    def fade(self, dt: Tensor, h: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """As in `ChannelwiseLayer`."""
        lam, weights = self.system()
        h, z = h.unflatten(-1, lam.shape), lam * dt.to(lam)
        ys = exponential_kernel(lam, weights * torch.exp(z) * h, dt, length)
        return ys.movedim(0, -2), (torch.exp(z * length) * h).flatten(-2)

    def gather(self, dt: Tensor, us: Tensor) -> Tensor:
        """As in `ChannelwiseLayer`, in two levels of lags as the kernel has them."""
        lam = self.system()[0]
        span = math.isqrt(us.shape[-2] - 1) + 1
        wide = lam.to(torch.complex128) * dt.double()
        lags = torch.arange(span, dtype=torch.float64, device=lam.device)
        near = torch.view_as_real(torch.exp(wide[:, None, :] * lags[:, None])).flatten(-2)
        far = torch.exp(wide[:, None, :] * (lags * span)[:, None]).to(lam.dtype)
        parts = _by_lag(us, span) @ near.to(us.dtype)
        sums = torch.view_as_complex(parts.unflatten(-1, (-1, 2))) * far
        return (sums.sum(-2) * self._gain(lam, dt)).flatten(-2)

    def _gain(self, lam: Tensor, dt: Tensor) -> Tensor:
        """What an input of 1 adds to the state in a step."""
        return torch.ones_like(lam) if isinstance(self.hold, Impulse) else held_gain(lam, dt.to(lam.dtype.to_real()))


def _is_regular(dt: Tensor) -> bool:
    """Whether all series have one step in common, from the second time on; a gradient to the times needs a scan."""
    if dt.shape[-1] < _SHORTEST or dt.requires_grad:
        return False
    steps = dt[..., 1:]
    mean = steps.mean()
    return bool((mean > 0) & ((steps - mean).abs() <= _REGULAR * mean).all())


def _by_lag(us: Tensor, span: int) -> Tensor:
    """Inputs by their distance from the last one, `i * span + j`: `(*batch, channel, i, j)`."""
    padding = us.new_zeros(*us.shape[:-2], span * span - us.shape[-2], us.shape[-1])
    return torch.cat([us.flip(-2), padding], -2).unflatten(-2, (span, span)).movedim(-1, -3)
