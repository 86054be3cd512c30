"""Layers that treat each channel by a diagonal system of its own: by a scan at any times, by FFT on a regular grid."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .._coefficients import held_gain
from ..convolution import causal_convolution, exponential_kernel
from ..holds import Hold, Impulse
from .diagonal import DiagonalLayer


__all__ = ["ChannelwiseLayer"]

# Shorter series are scanned: a convolution does not pay.
_SHORTEST = 64
# How far steps may be from their mean, relative to it, to be taken as one: a clock in float64 is rounded.
_REGULAR = 1e-9


class ChannelwiseLayer(DiagonalLayer, ABC):
    r"""One diagonal system per channel, of one input and one output.

    .. math:: \dot h_{c} = \lambda_{c} \odot h_{c} + b_{c} u_c, \qquad
        y_c = \mathrm{Re} \sum_n c_{cn} h_{cn} + D_c u_c

    At irregular times all states are scanned: `channels * state` complex numbers per time, in tiles if wanted. On a
    regular grid that all series share, from 64 times on, the outputs are a convolution with the kernel and are made by
    FFT; the answer is the same, and the states in between do not exist. Subclass it with `system`.

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
    def system(self) -> tuple[Tensor, Tensor, Tensor]:
        r""":math:`\lambda`, :math:`b` and :math:`c`, time scales included, `(channel, state)`, complex."""

    def kernel(self, dt: Tensor | float, length: int) -> Tensor:
        r"""The response on a regular grid to an input of 1 that acts in one step; without the direct term.

        .. math:: K_l = \mathrm{Re} \sum_n c_n b_n \frac{e^{\lambda_n \Delta} - 1}{\lambda_n} e^{\lambda_n \Delta l}

        Args:
            dt: the step :math:`\Delta`, one number.
            length: number of lags.

        Returns:
            `(lag, channel)`.
        """
        lam, b, c = self.system()
        step = torch.as_tensor(dt, dtype=torch.float64, device=lam.device).reshape(1)
        gain = b if isinstance(self.hold, Impulse) else b * held_gain(lam, step.to(lam.dtype.to_real()))
        return exponential_kernel(lam, c * gain, step, length)

    def rates(self) -> Tensor:
        """As in `DiagonalLayer`."""
        return self.system()[0].flatten()

    def drive(self, us: Tensor) -> Tensor:
        """As in `DiagonalLayer`."""
        return (us[..., None] * self.system()[1]).flatten(-2)

    def readout(self, hs: Tensor, us: Tensor) -> Tensor:
        """As in `StateSpaceLayer`."""
        c = self.system()[2]
        # The real part of a product, as one real product per channel.
        weights = torch.stack([c.real, -c.imag], -1).flatten(-2)[..., None]
        pairs = torch.view_as_real(hs.unflatten(-1, c.shape)).flatten(-2)
        return (pairs[..., None, :] @ weights).flatten(-3) + self.D * us

    def _through(
        self, dt: Tensor, acting: Tensor, us: Tensor, h0: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if reset is not None or not _is_regular(dt):
            return super()._through(dt, acting, us, h0, reset)
        first = self.march(dt[..., :1], acting[..., :1, :], h0, None)
        step, length = dt.flatten()[-1:], us.shape[-2]
        ys = causal_convolution(self.kernel(step, length - 1), acting[..., 1:, :])
        last = self._last(step, acting[..., 1:, :])
        begins = bool((dt[..., 0] == 0).all()) and not isinstance(self.hold, Impulse)
        if not begins or h0.requires_grad or bool((h0 != 0).any()):
            lam, _, c = self.system()
            carried = first.squeeze(-2).unflatten(-1, lam.shape)
            free = exponential_kernel(lam, c * carried * torch.exp(lam * step.to(lam)), step, length - 1)
            ys = ys + free.movedim(0, -2)
            last = last + (torch.exp(lam * (step * (length - 1)).to(lam)) * carried).flatten(-2)
        ys = ys + self.D * us[..., 1:, :]
        opening = self.readout(first, us[..., :1, :])
        return torch.cat([opening.expand(*ys.shape[:-2], 1, -1), ys], -2), last.expand_as(h0).clone()

    def _last(self, step: Tensor, acting: Tensor) -> Tensor:
        """The state that the inputs leave behind, in two levels of lags as the kernel has them."""
        lam, b, _ = self.system()
        count, (channels, states) = acting.shape[-2], lam.shape
        span = math.isqrt(count - 1) + 1
        wide = lam.to(torch.complex128) * step.double()
        lags = torch.arange(span, dtype=torch.float64, device=lam.device)
        near = torch.exp(wide[:, None, :] * lags[:, None])
        far = torch.exp(wide[:, None, :] * (lags * span)[:, None]).to(lam.dtype)
        reals = torch.view_as_real(near).flatten(-2).to(acting.dtype)
        padding = acting.new_zeros(*acting.shape[:-2], span * span - count, channels)
        # The latest input first: its lag is 0.
        backward = torch.cat([acting.flip(-2), padding], -2).unflatten(-2, (span, span))
        parts = backward.movedim(-1, -3) @ reals
        sums = torch.view_as_complex(parts.unflatten(-1, (states, 2))) * far
        gain = b if isinstance(self.hold, Impulse) else b * held_gain(lam, step.to(lam.dtype.to_real()))
        return (sums.sum(-2) * gain).flatten(-2)


def _is_regular(dt: Tensor) -> bool:
    """Whether all series have one step in common, from the second time on; a gradient to the times needs a scan."""
    if dt.shape[-1] < _SHORTEST or dt.requires_grad:
        return False
    steps = dt[..., 1:]
    mean = steps.mean()
    return bool((mean > 0) & ((steps - mean).abs() <= _REGULAR * mean).all())
