"""DSS: diagonal state spaces, with free exponentials or with exponentials normalized over a horizon."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..holds import Hold
from .channelwise import DiagonalChannels
from .initialization import legs_normal, log_uniform


__all__ = ["DSSExp", "DSSSoftmax"]

# What keeps the normalization finite where an eigenvalue is zero.
_EPSILON = 1e-7


class DSSExp(DiagonalChannels):
    r"""The DSS layer, variant EXP: eigenvalues that all channels share, kept stable, and complex weights per channel.

    .. math:: K_l = \mathrm{Re} \sum_n W_n \frac{e^{\lambda_n \delta \Delta} - 1}{\lambda_n}
        e^{\lambda_n \delta \Delta l}, \qquad \lambda = -e^{\alpha} + i \omega

    The factor :math:`\delta`, one per channel, is the paper's step, for gaps :math:`\Delta` of one unit of time. The
    states are not paired with conjugates; the real part of the output is taken.

    Args:
        channels: channels of the inputs, and of the outputs.
        state_size: complex states per channel. They begin at those eigenvalues of the normal part of HiPPO-LegS, of
            twice that size, that have a positive imaginary part.
        steps: the :math:`\delta` begin between these two, per unit of time.
        hold: what an input does between its time and the next; default `HeldBefore()`. The paper's is `HeldAfter()`.
        tile: times per tile of a scan; None: everything at once.

    Raises:
        ValueError: a size is below 1, or the steps are not positive and in order.

    Reference:
        Diagonal State Spaces are as Effective as Structured State Spaces, A. Gupta, A. Gu, J. Berant, 2022,
        https://arxiv.org/abs/2203.14343

    Example:
        >>> ys, state = DSSExp(3, state_size=8)(torch.tensor([0.0, 0.1, 4.0]), torch.randn(2, 3, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([2, 3, 3]), torch.Size([2, 24]))
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
        lam, dtype = legs_normal(2 * state_size)[0], torch.get_default_dtype()
        self.log_decay = nn.Parameter((-lam.real).log().to(dtype))
        self.frequency = nn.Parameter(lam.imag.to(dtype))
        self.log_step = nn.Parameter(log_uniform((channels,), *steps))
        self.W = nn.Parameter(torch.randn(channels, state_size, 2))

    def system(self) -> tuple[Tensor, Tensor]:
        """As in `DiagonalChannels`."""
        step = self.log_step.exp()[:, None]
        lam = step * torch.complex(-self.log_decay.exp(), self.frequency)
        return lam, step * torch.view_as_complex(self.W)


class DSSSoftmax(DiagonalChannels):
    r"""The DSS layer, variant SOFTMAX: exponentials normalized to a sum of 1 over a horizon, of any growth.

    .. math:: K_l = \mathrm{Re} \sum_n \frac{W_n}{\lambda_n}
        \frac{e^{\lambda_n \delta \Delta l}}{\sum_{m < L} e^{\lambda_n \delta \Delta m}}
        = \mathrm{Re} \sum_n \frac{W_n}{e^{\lambda_n \delta T} - 1} \frac{e^{\lambda_n \delta \Delta} - 1}{\lambda_n}
        e^{\lambda_n \delta \Delta l}

    The horizon :math:`T = L \Delta` is what the paper's length stands for at irregular times. An eigenvalue may grow;
    over the horizon its state stays bounded, and beyond it nothing holds it. The weight
    :math:`1 / (e^x - 1)` is regularized, as in the paper, so that it is finite at 0.

    Args:
        channels: channels of the inputs, and of the outputs.
        state_size: complex states per channel, as in `DSSExp`.
        horizon: length of the series that are expected, in units of time.
        steps: the :math:`\delta` begin between these two, per unit of time.
        hold: what an input does between its time and the next; default `HeldBefore()`. The paper's is `HeldAfter()`.
        tile: times per tile of a scan; None: everything at once.

    Raises:
        ValueError: a size is below 1, the horizon is not positive, or the steps are not positive and in order.

    Reference:
        Diagonal State Spaces are as Effective as Structured State Spaces, A. Gupta, A. Gu, J. Berant, 2022,
        https://arxiv.org/abs/2203.14343

    Example:
        >>> layer = DSSSoftmax(3, state_size=8, horizon=10.0)
        >>> layer(torch.tensor([0.0, 0.1, 4.0]), torch.randn(2, 3, 3))[0].shape
        torch.Size([2, 3, 3])
    """

    def __init__(
        self,
        channels: int,
        state_size: int,
        horizon: float,
        *,
        steps: tuple[float, float] = (1e-3, 1e-1),
        hold: Hold | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__(channels, hold=hold, tile=tile)
        if not 0 < horizon < float("inf"):
            raise ValueError(f"horizon must be positive and finite, in units of time; got {horizon}.")
        lam, dtype = legs_normal(2 * state_size)[0], torch.get_default_dtype()
        self.horizon = horizon
        self.growth = nn.Parameter(lam.real.to(dtype))
        self.frequency = nn.Parameter(lam.imag.to(dtype))
        self.log_step = nn.Parameter(log_uniform((channels,), *steps))
        self.W = nn.Parameter(torch.randn(channels, state_size, 2))

    def system(self) -> tuple[Tensor, Tensor]:
        """As in `DiagonalChannels`."""
        step = self.log_step.exp()[:, None]
        lam = step * torch.complex(self.growth, self.frequency)
        whole = torch.expm1(lam * self.horizon)
        inverse = whole.conj() / (whole * whole.conj() + _EPSILON)
        return lam, step * inverse * torch.view_as_complex(self.W)
