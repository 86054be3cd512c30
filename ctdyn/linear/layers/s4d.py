"""S4D: the diagonal state-space layer, one system per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..holds import Hold
from .channelwise import DiagonalChannels
from .decays import Decay, ExpDecay, check_hold
from .initialization import LegSSpectrum, Spectrum, log_uniform


__all__ = ["S4D"]


class S4D(DiagonalChannels):
    r"""The S4D layer: one diagonal system per channel, with the spectrum of a Fourier series or of HiPPO to begin with.

    .. math:: \dot h = \delta (\lambda \odot h + u), \qquad y = 2\,\mathrm{Re} \sum_n C_n h_n + D u, \qquad
        K_l = 2\,\mathrm{Re} \sum_n C_n \frac{e^{\lambda_n \delta \Delta} - 1}{\lambda_n} e^{\lambda_n \delta \Delta l}

    Of each conjugate pair one state is kept; :math:`\lambda = -r + i \omega` with :math:`r > 0`. The factor
    :math:`\delta`, one per channel, is the paper's step, for gaps :math:`\Delta` of one unit of time. On regular grids
    it convolves (see `ChannelwiseLayer`), with the paper's kernel.

    Args:
        channels: channels of the inputs, and of the outputs.
        state_size: size :math:`N` of the real system of a channel, even; half as many complex numbers are kept.
        spectrum: where the eigenvalues begin; default `LegSSpectrum()`.
        steps: the :math:`\delta` begin between these two, per unit of time; with gaps that are typically g units long,
            divide the paper's by g.
        decay: how the real parts of the eigenvalues are kept negative; default `ExpDecay()`.
        hold: what an input does between its time and the next; default `HeldBefore()`. The paper's is `HeldAfter()`.
        tile: times per tile of a scan; None: everything at once.

    Raises:
        ValueError: a size is odd or below 1, or the steps are not positive and in order.

    Reference:
        On the Parameterization and Initialization of Diagonal State Space Models, A. Gu, A. Gupta, K. Goel, C. Re,
        2022, https://arxiv.org/abs/2206.11893

    Example:
        >>> from ctdyn.linear.layers import LinSpectrum
        >>> layer = S4D(3, state_size=16, spectrum=LinSpectrum())
        >>> ys, state = layer(torch.tensor([0.0, 0.1, 4.0]), torch.randn(2, 3, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([2, 3, 3]), torch.Size([2, 24]))
    """

    def __init__(
        self,
        channels: int,
        state_size: int,
        *,
        spectrum: Spectrum | None = None,
        steps: tuple[float, float] = (1e-3, 1e-1),
        decay: Decay | None = None,
        hold: Hold | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__(channels, hold=hold, tile=tile)
        spectrum = LegSSpectrum() if spectrum is None else spectrum
        lam = spectrum.eigenvalues(state_size).expand(channels, -1)
        dtype = torch.get_default_dtype()
        self.decay = ExpDecay() if decay is None else decay
        check_hold(self.decay, self.hold, lam.shape[-1])
        self.raw_decay = nn.Parameter(self.decay.begin(-lam.real).to(dtype))
        self.frequency = nn.Parameter(lam.imag.to(dtype, copy=True, memory_format=torch.contiguous_format))
        self.log_step = nn.Parameter(log_uniform((channels,), *steps))
        # Complex numbers of variance one.
        self.C = nn.Parameter(torch.randn(*lam.shape, 2) / 2**0.5)

    def system(self) -> tuple[Tensor, Tensor]:
        """As in `DiagonalChannels`."""
        step = self.log_step.exp()[:, None]
        lam = step * self.decay.eigenvalues(self.raw_decay, self.frequency)
        weights = self.decay.weights(lam.shape[-1])
        gains = step if weights is None else step * weights.to(step)
        return lam, 2.0 * gains * torch.view_as_complex(self.C)
