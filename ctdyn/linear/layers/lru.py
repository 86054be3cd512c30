"""LRU: the linear recurrent unit, a diagonal system whose inputs are kicks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..._checks import check_count
from ..holds import Impulse
from ._projections import narrow, widen
from .diagonal import DiagonalLayer


__all__ = ["LRU"]


class LRU(DiagonalLayer):
    r"""The linear recurrent unit: a diagonal recurrence with normalized inputs, on irregular times.

    .. math:: h_k = \lambda^{\Delta_k} \odot h_{k-1} + \gamma \odot B u_k, \qquad
        y_k = \mathrm{Re}(C h_k) + D u_k, \qquad \lambda = e^{-e^\nu + i e^\theta}

    The eigenvalues begin uniformly on a ring in the complex plane, and :math:`\gamma = \sqrt{1 - |\lambda|^2}`, so that
    white inputs one unit of time apart give states of variance one; after that all are learned. A gap of
    :math:`\Delta_k` units of time takes the power :math:`\lambda^{\Delta_k}`; at unit gaps this is the paper's
    recurrence. An input is a kick at its time (`Impulse`): pad short series by repeating the last time with inputs
    of 0.

    Args:
        input_size: channels of the inputs.
        state_size: complex states.
        output_size: channels of the outputs; `input_size` if not given. :math:`D` is diagonal if they are equal.
        radius: the ring begins between these two radii, 0 to 1, for a gap of one unit of time.
        max_phase: angles begin between 0 and this, in radians per unit of time.
        tile: times per tile, for memory that does not grow with the length; None: everything at once.

    Raises:
        ValueError: a size is below 1, or the ring is not inside of the unit circle.

    Reference:
        Resurrecting Recurrent Neural Networks for Long Sequences, A. Orvieto, S. L. Smith, A. Gu, A. Fernando,
        C. Gulcehre, R. Pascanu, S. De, 2023, https://arxiv.org/abs/2303.06349

    Example:
        >>> layer = LRU(3, state_size=16, output_size=2, radius=(0.9, 0.999))
        >>> ys, state = layer(torch.tensor([[0.0, 0.1, 4.0], [0.0, 2.0, 3.0]]), torch.randn(2, 3, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([2, 3, 2]), torch.Size([2, 16]))
    """

    def __init__(
        self,
        input_size: int,
        state_size: int,
        output_size: int | None = None,
        *,
        radius: tuple[float, float] = (0.0, 1.0),
        max_phase: float = 2.0 * math.pi,
        tile: int | None = None,
    ) -> None:
        output_size = input_size if output_size is None else output_size
        super().__init__(input_size, output_size, hold=Impulse(), tile=tile)
        check_count("state_size", state_size)
        low, high = radius
        if not 0 <= low < high <= 1 or not 0 < max_phase < math.inf:
            raise ValueError(
                f"the ring must have 0 <= radius[0] < radius[1] <= 1 and a positive max_phase; got {radius} and "
                f"{max_phase}."
            )
        # In the open interval: the area between the radii is filled evenly, and neither end has a logarithm.
        share = torch.rand(state_size).clamp(1e-6, 1 - 1e-6)
        log_modulus = 0.5 * (low**2 + share * (high**2 - low**2)).log()
        self.log_decay = nn.Parameter((-log_modulus).log())
        self.log_phase = nn.Parameter((max_phase * torch.rand(state_size).clamp(min=1e-6)).log())
        self.log_gain = nn.Parameter(0.5 * (-torch.expm1(2.0 * log_modulus)).log())
        self.B = nn.Parameter(torch.randn(state_size, input_size, 2) / math.sqrt(2.0 * input_size))
        # `narrow` gives twice the real part.
        self.C = nn.Parameter(torch.randn(output_size, state_size, 2) / math.sqrt(state_size) / 2.0)
        shape = (input_size,) if output_size == input_size else (output_size, input_size)
        self.D = nn.Parameter(torch.randn(shape) / math.sqrt(1 if output_size == input_size else input_size))

    def rates(self) -> Tensor:
        """As in `DiagonalLayer`."""
        return torch.complex(-self.log_decay.exp(), self.log_phase.exp())

    def drive(self, us: Tensor) -> Tensor:
        """As in `DiagonalLayer`."""
        return widen(us, self.B * self.log_gain.exp()[:, None, None])

    def readout(self, hs: Tensor, us: Tensor) -> Tensor:
        """As in `StateSpaceLayer`."""
        direct = self.D * us if self.D.dim() == 1 else us @ self.D.mT
        return narrow(hs, self.C) + direct
