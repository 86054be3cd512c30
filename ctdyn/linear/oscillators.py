"""Oscillators that noise keeps going, stable by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._tensors import as_tensor, keep, positive, with_tensors
from .diagonal import _blocks, _flow
from .dynamics import LinearDynamics
from .phi import phi1


__all__ = ["Oscillators"]


class Oscillators(LinearDynamics):
    r"""Complex eigenvalues as a stationary prior: damped rotations, each driven so that its variance stays what it is.

    .. math::
        dz_j = (-\gamma_j + i \omega_j)\, z_j\,dt + \sqrt{2 \gamma_j v_j}\,dW_j, \qquad
        k(\tau) = \sum_j v_j\, e^{-\gamma_j |\tau|} \cos \omega_j \tau

    The decay is positive whatever its parameter is, so the dynamics are stable by construction. Without decay they stay
    on the unit circle: rotations that are known for ever once they are seen, without noise.

    Args:
        frequency: :math:`\omega`, in radians per unit of time, `(*parameter_batch, pair)`; the state is
            `(a_1, b_1, a_2, b_2, ...)`, the real and imaginary parts.
        decay: :math:`\gamma > 0`, per unit of time, likewise; None: none, on the unit circle.
        variance: :math:`v > 0`, of each of the two parts, likewise, or one number.
        fixed: keep the frequencies as given.

    Raises:
        ValueError: a number is not positive, or the shapes do not broadcast.

    Reference:
        Explicit link between periodic covariance functions and state space models, A. Solin, S. Sarkka, 2014,
        https://proceedings.mlr.press/v33/solin14.html

    Example:
        >>> cycle = Oscillators([6.2832], decay=[0.1])
        >>> cycle.kernel(torch.tensor([0.0, 0.5, 1.0])).detach()
        tensor([ 1.0000, -0.9512,  0.9048])
    """

    frequency: Tensor
    log_decay: Tensor | None
    log_variance: Tensor

    def __init__(
        self,
        frequency: Tensor | Sequence[float] | Sequence[Sequence[float]],
        *,
        decay: Tensor | float | Sequence[float] | Sequence[Sequence[float]] | None = None,
        variance: Tensor | float | Sequence[float] | Sequence[Sequence[float]] = 1.0,
        fixed: bool = False,
    ) -> None:
        omega = as_tensor("frequency", frequency)
        spread = positive("variance", variance).to(omega)
        if omega.dim() < 1:
            raise ValueError("frequency must be (*parameter_batch, pair); got a single number.")
        gamma = None if decay is None else positive("decay", decay).to(omega)
        scales = torch.broadcast_tensors(omega, spread, *([] if gamma is None else [gamma]))
        super().__init__(2 * scales[0].shape[-1])
        keep(self, "frequency", scales[0])
        keep(self, "log_variance", scales[1].log())
        self.log_decay = None
        if gamma is not None:
            keep(self, "log_decay", scales[2].log())
        if fixed:
            self.frequency.requires_grad_(False)
        self.B = None

    @property
    def decay(self) -> Tensor:
        """How fast each rotation forgets, per unit of time, `(*parameter_batch, pair)`."""
        return torch.zeros_like(self.frequency) if self.log_decay is None else self.log_decay.exp()

    @property
    def eigenvalues(self) -> Tensor:
        """One of each pair of complex eigenvalues, `(*parameter_batch, pair)`."""
        return torch.complex(-self.decay, self.frequency)

    @property
    def period(self) -> Tensor:
        """The time of one turn, `(*parameter_batch, pair)`; infinite where nothing turns."""
        return 2.0 * math.pi / self.frequency.abs()

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return _blocks(self.eigenvalues)

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the parameters."""
        return self.frequency.shape[:-1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.frequency.dtype

    @property
    def readout(self) -> Tensor:
        """As in `LinearDynamics`: the sum of the real parts."""
        return torch.tensor([1.0, 0.0], dtype=self.dtype, device=self.frequency.device).repeat(self.state_size // 2)

    def apart(self) -> Oscillators:
        """As in `LinearDynamics`: a rotation each."""
        decay = None if self.log_decay is None else self.log_decay[..., None]
        return with_tensors(
            self, 2, frequency=self.frequency[..., None], log_decay=decay, log_variance=self.log_variance[..., None]
        )

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`."""
        return tuple(_blocks(value) for value in _flow(self.eigenvalues, dt, order))

    def noise(self, dt: Tensor) -> Tensor:
        """As in `LinearDynamics`; zero without decay."""
        step, rate = dt[..., None], 2.0 * self.decay.to(dt.dtype)[..., None, :]
        variance = self.log_variance.to(dt.dtype).exp()[..., None, :] * rate * step * phi1(-rate * step)
        return torch.diag_embed(variance.repeat_interleave(2, -1))

    def density(self) -> Tensor:
        """As in `LinearDynamics`."""
        return torch.diag_embed((2.0 * self.decay * self.log_variance.exp()).repeat_interleave(2, -1))

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`."""
        return torch.diag_embed(self.log_variance.exp().repeat_interleave(2, -1))
