"""The periodic kernel as linear dynamics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .._checks import check_count
from ._tensors import keep, positive
from .diagonal import _blocks, _flow
from .dynamics import LinearDynamics


__all__ = ["Periodic"]

#: Points of the trapezoidal rule over a period, which converges faster than any power.
_POINTS = 256


class Periodic(LinearDynamics):
    r"""The periodic kernel: a cycle of any shape that repeats for ever, as a sum of harmonics.

    .. math::
        k(\tau) = \sigma^2 \exp\left(-\frac{2 \sin^2(\pi \tau / p)}{\ell^2}\right)
        = \sigma^2 \sum_{j=0}^{J} q_j \cos \frac{2 \pi j \tau}{p} + \dots, \qquad
        q_j = \frac{(2 - \delta_{j0})\, I_j(\ell^{-2})}{e^{\ell^{-2}}}

    The weights fall faster than any power of `j`. There is no noise: a product with a `Matern` process lets the cycle
    change its shape.

    Args:
        period: :math:`p > 0`, in units of time, `(*parameter_batch,)`.
        lengthscale: :math:`\ell > 0`, in units of a cycle's shape: 1 is smooth, 0.3 has several bumps; likewise.
        variance: :math:`\sigma^2 > 0`, of the process, likewise.
        harmonics: :math:`J`, the highest.

    Raises:
        ValueError: a number is not positive.

    Reference:
        Explicit link between periodic covariance functions and state space models, A. Solin, S. Sarkka, 2014,
        https://proceedings.mlr.press/v33/solin14.html

    Example:
        >>> cycle = Periodic(period=2.0)
        >>> cycle.kernel(torch.tensor([0.0, 1.0, 2.0])).detach()
        tensor([1.0000, 0.1353, 1.0000])
    """

    log_period: Tensor
    log_lengthscale: Tensor
    log_variance: Tensor

    def __init__(
        self,
        period: Tensor | float | Sequence[float],
        *,
        lengthscale: Tensor | float | Sequence[float] = 1.0,
        variance: Tensor | float | Sequence[float] = 1.0,
        harmonics: int = 8,
    ) -> None:
        check_count("harmonics", harmonics)
        super().__init__(2 * harmonics + 1)
        names = ("period", "lengthscale", "variance")
        given = [positive(name, x) for name, x in zip(names, (period, lengthscale, variance), strict=True)]
        dtype = torch.result_type(given[0] + given[1], given[2])
        for name, scale in zip(names, torch.broadcast_tensors(*given), strict=True):
            keep(self, f"log_{name}", scale.to(dtype).log())
        self.harmonics = harmonics
        self.B = None

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return self._whole(_blocks(self._eigenvalues), 0.0)

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the parameters."""
        return self.log_period.shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.log_period.dtype

    @property
    def readout(self) -> Tensor:
        """As in `LinearDynamics`: the constant and the real parts of the harmonics."""
        row = torch.zeros(self.state_size, dtype=self.dtype, device=self.log_period.device)
        row[0] = 1.0
        row[1::2] = 1.0
        return row

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`."""
        found = [_blocks(value) for value in _flow(self._eigenvalues, dt, order)]
        corners = (torch.ones_like(dt), dt, 0.5 * dt)
        return tuple(self._whole(value, corner) for value, corner in zip(found, corners, strict=False))

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`."""
        shape = (-2.0 * self.log_lengthscale).exp()[..., None, None]
        angle = torch.arange(_POINTS, dtype=shape.dtype, device=shape.device) * (2.0 * math.pi / _POINTS)
        number = torch.arange(self.harmonics + 1, dtype=shape.dtype, device=shape.device)[:, None]
        weights = ((shape * (angle.cos() - 1.0)).exp() * (number * angle).cos()).mean(-1)
        doubled = weights * torch.where(number.squeeze(-1) > 0, 2.0, 1.0)
        # The rule sums to the whole kernel, up to rounding, which may leave a tiny negative weight.
        variance = self.log_variance.exp()[..., None] * doubled.clamp(min=1e-15)
        return torch.diag_embed(torch.cat([variance[..., :1], variance[..., 1:].repeat_interleave(2, -1)], -1))

    @property
    def _eigenvalues(self) -> Tensor:
        number = torch.arange(1, self.harmonics + 1, dtype=self.dtype, device=self.log_period.device)
        frequencies = 2.0 * math.pi * number * (-self.log_period).exp()[..., None]
        return torch.complex(torch.zeros_like(frequencies), frequencies)

    def _whole(self, blocks: Tensor, corner: Tensor | float) -> Tensor:
        """Matrices of the harmonics with that of the constant before them."""
        whole = torch.nn.functional.pad(blocks, (1, 0, 1, 0))
        first = torch.zeros_like(whole)
        first[..., 0, 0] = 1.0
        scale = corner[..., None, None] if isinstance(corner, Tensor) else corner
        return whole + first * scale
