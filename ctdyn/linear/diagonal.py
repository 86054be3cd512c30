"""Dynamics without coupling: eigenvalues, damped rotations, and the Ornstein-Uhlenbeck process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._tensors import as_tensor, check_matrix, check_psd, keep, positive, with_tensors
from .dynamics import LinearDynamics
from .holds import Hold
from .phi import phi1, phi2


__all__ = ["OU", "Diagonal", "Rotations"]


class Diagonal(LinearDynamics):
    r"""Dynamics given by eigenvalues, real or complex: the core of diagonal state-space layers.

    .. math:: dy_i = (\lambda_i y_i + (B u)_i)\,dt + dW_i, \qquad
        Q_{ij}(dt) = S_{ij}\,dt\,\varphi_1\big((\lambda_i + \bar\lambda_j)\,dt\big)

    An eigenvalue of zero integrates. None is required to be stable here; `stationary` is what needs it.

    Args:
        eigenvalues: :math:`\lambda`, per unit of time, `(*parameter_batch, state)`.
        B: input matrix, `(*parameter_batch, state, input)`; None: the input has the size of the state.
        S: spectral density of the noise, Hermitian, `(*parameter_batch, state, state)`; None: no noise.

    Raises:
        ValueError: a shape does not fit, or `S` is not a covariance.

    Reference:
        Simplified State Space Layers for Sequence Modeling, J. T. H. Smith, A. Warrington, S. W. Linderman, 2023,
        https://arxiv.org/abs/2208.04933

    Example:
        >>> oscillator = Diagonal(torch.tensor([-0.1 + 6.2832j]))
        >>> oscillator.scan(torch.tensor([0.0, 0.5, 1.0]), y0=torch.ones(1)).real.flatten().detach()
        tensor([ 1.0000, -0.9512,  0.9048])
    """

    diagonal = True

    eigenvalues: Tensor
    S: Tensor | None

    def __init__(self, eigenvalues: Tensor, *, B: Tensor | None = None, S: Tensor | None = None) -> None:
        eigenvalues = as_tensor("eigenvalues", eigenvalues)
        if eigenvalues.dim() < 1:
            raise ValueError("eigenvalues must be (*parameter_batch, state); got a single number.")
        n = eigenvalues.shape[-1]
        super().__init__(n)
        keep(self, "eigenvalues", eigenvalues)
        _keep_input_matrix(self, B)
        if S is None:
            self.S = None
            return
        check_matrix("S", S, n, n)
        check_psd("S", S)
        keep(self, "S", S)

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return torch.diag_embed(self.eigenvalues)

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the parameters."""
        return self.eigenvalues.shape[:-1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.eigenvalues.dtype

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`."""
        return _flow(self.eigenvalues, dt, order)

    def noise(self, dt: Tensor) -> Tensor:
        """As in `LinearDynamics`."""
        if self.S is None:
            return super().noise(dt)
        rates = self.eigenvalues[..., :, None] + self.eigenvalues[..., None, :].conj()
        step = dt[..., None, None]
        return self.S[..., None, :, :] * step * phi1(rates[..., None, :, :].to(_wide(rates, dt)) * step)

    def density(self) -> Tensor:
        """As in `LinearDynamics`."""
        return super().density() if self.S is None else self.S

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`."""
        if self.S is None:
            return super().stationary()
        _check_stable(self.eigenvalues)
        rates = self.eigenvalues[..., :, None] + self.eigenvalues[..., None, :].conj()
        return -self.S / rates


class Rotations(LinearDynamics):
    r"""Damped rotations, two real numbers each: complex eigenvalues for a state that must be real.

    .. math:: d\begin{pmatrix} a \\ b \end{pmatrix} = \begin{pmatrix} -\gamma & -\omega \\ \omega & -\gamma
        \end{pmatrix} \begin{pmatrix} a \\ b \end{pmatrix} dt + \sigma\,dW

    A scan runs on complex numbers, at the cost of diagonal dynamics.

    Args:
        decay: :math:`\gamma`, per unit of time, `(*parameter_batch, pair)`; the state is `(a_1, b_1, a_2, b_2, ...)`.
        frequency: :math:`\omega`, in radians per unit of time, `(*parameter_batch, pair)`.
        B: input matrix, `(*parameter_batch, 2 * pair, input)`; None: the input has the size of the state.
        sigma: diffusion of each pair, `(*parameter_batch, pair)`; None: no noise.

    Raises:
        ValueError: a shape does not fit, or `sigma` is not positive.

    Example:
        >>> wheel = Rotations(decay=torch.tensor([0.0]), frequency=torch.tensor([3.14159265 / 2]))
        >>> wheel.scan(torch.tensor([0.0, 1.0]), y0=torch.tensor([1.0, 0.0]))[-1].detach().round(decimals=4).abs()
        tensor([0., 1.])
    """

    decay: Tensor
    frequency: Tensor
    log_sigma: Tensor | None

    def __init__(
        self,
        decay: Tensor | Sequence[float],
        frequency: Tensor | Sequence[float],
        *,
        B: Tensor | None = None,
        sigma: Tensor | float | None = None,
    ) -> None:
        gamma, omega = as_tensor("decay", decay), as_tensor("frequency", frequency)
        if gamma.dim() < 1 or omega.dim() < 1 or gamma.shape[-1] != omega.shape[-1]:
            raise ValueError(
                "decay and frequency must be (*parameter_batch, pair) with the same number of pairs; got "
                f"{tuple(gamma.shape)} and {tuple(omega.shape)}."
            )
        super().__init__(2 * gamma.shape[-1])
        keep(self, "decay", gamma)
        keep(self, "frequency", omega)
        _keep_input_matrix(self, B)
        if sigma is None:
            self.log_sigma = None
        else:
            keep(self, "log_sigma", positive("sigma", sigma).log())

    @property
    def eigenvalues(self) -> Tensor:
        """One of each pair of complex eigenvalues, `(*parameter_batch, pair)`."""
        return torch.complex(*torch.broadcast_tensors(-self.decay, self.frequency))

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return _blocks(self.eigenvalues)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.decay.dtype

    def apart(self) -> Rotations:
        """As in `LinearDynamics`: a rotation each, where no input couples them."""
        if self.B is not None:
            return self
        sigma = self.log_sigma
        # One number may serve all rotations.
        sigma = sigma if sigma is None or not sigma.dim() else sigma[..., None]
        return with_tensors(self, 2, decay=self.decay[..., None], frequency=self.frequency[..., None], log_sigma=sigma)

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`."""
        return tuple(_blocks(value) for value in _flow(self.eigenvalues, dt, order))

    def noise(self, dt: Tensor) -> Tensor:
        """As in `LinearDynamics`."""
        if self.log_sigma is None:
            return super().noise(dt)
        step, decay = dt[..., None], self.decay.to(dt.dtype)[..., None, :]
        variance = (2.0 * self.log_sigma.to(dt.dtype)).exp()
        variance = (variance[..., None, :] if variance.dim() else variance) * step * phi1(-2.0 * decay * step)
        return torch.diag_embed(variance.repeat_interleave(2, -1))

    def density(self) -> Tensor:
        """As in `LinearDynamics`."""
        if self.log_sigma is None:
            return super().density()
        variance, _ = torch.broadcast_tensors((2.0 * self.log_sigma).exp(), self.decay)
        return torch.diag_embed(variance.repeat_interleave(2, -1))

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`."""
        if self.log_sigma is None:
            return super().stationary()
        _check_stable(self.eigenvalues)
        variance = (2.0 * self.log_sigma).exp() / (2.0 * self.decay)
        return torch.diag_embed(variance.repeat_interleave(2, -1))

    def _march(self, dt: Tensor, us: Tensor | None, y0: Tensor | None, hold: Hold) -> Tensor:
        modes = Diagonal(self.eigenvalues)
        driven = None
        if us is not None:
            driven = us if self.B is None else us.to(self._wide([us])) @ self.B.to(self._wide([us])).mT
            driven = _pairs(driven)
        found = modes._march(dt, driven, None if y0 is None else _pairs(y0), hold)
        return torch.view_as_real(found).flatten(-2)


class OU(LinearDynamics):
    r"""Independent Ornstein-Uhlenbeck processes: noise with a memory, and the prior of a filter without structure.

    .. math:: dy_i = -\theta_i y_i\,dt + \sigma_i\,dW_i, \qquad Q_{ii}(dt) = \sigma_i^2\,dt\,\varphi_1(-2 \theta_i dt)

    Args:
        rate: :math:`\theta > 0`, per unit of time, `(*parameter_batch, state)`, or one number.
        sigma: :math:`\sigma > 0`, in the unit of the state per square root of time, likewise.

    Raises:
        ValueError: a number is not positive, or the shapes do not broadcast.

    Reference:
        On the theory of the Brownian motion, G. E. Uhlenbeck, L. S. Ornstein, 1930,
        https://doi.org/10.1103/PhysRev.36.823

    Example:
        >>> OU(rate=2.0, sigma=1.0).stationary().detach()
        tensor([[0.2500]])
    """

    diagonal = True

    log_rate: Tensor
    log_sigma: Tensor

    def __init__(self, rate: Tensor | float | Sequence[float], sigma: Tensor | float | Sequence[float]) -> None:
        scales = torch.broadcast_tensors(positive("rate", rate), positive("sigma", sigma))
        theta, spread = (x if x.dim() else x[None] for x in scales)
        super().__init__(theta.shape[-1])
        keep(self, "log_rate", theta.log())
        keep(self, "log_sigma", spread.log())
        self.B = None

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return torch.diag_embed(-self.log_rate.exp())

    def apart(self) -> OU:
        """As in `LinearDynamics`: a process each."""
        return with_tensors(self, 1, log_rate=self.log_rate[..., None], log_sigma=self.log_sigma[..., None])

    @property
    def readout(self) -> Tensor | None:
        """As in `LinearDynamics`: the process itself where there is one, their sum where there are several."""
        return torch.ones_like(self.log_rate[(0,) * (self.log_rate.dim() - 1)])

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`."""
        return _flow(-self.log_rate.exp(), dt, order)

    def noise(self, dt: Tensor) -> Tensor:
        """As in `LinearDynamics`."""
        return torch.diag_embed(self.variance(dt))

    def variance(self, dt: Tensor) -> Tensor:
        """The variances that the noise gathers over each step, `(*batch, time, state)`: the diagonal of `noise`."""
        step, rate = dt[..., None], self.log_rate.to(dt.dtype).exp()[..., None, :]
        return (2.0 * self.log_sigma.to(dt.dtype)).exp()[..., None, :] * step * phi1(-2.0 * rate * step)

    def density(self) -> Tensor:
        """As in `LinearDynamics`."""
        return torch.diag_embed((2.0 * self.log_sigma).exp())

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`."""
        return torch.diag_embed((2.0 * self.log_sigma - self.log_rate).exp() / 2.0)


def _keep_input_matrix(dynamics: LinearDynamics, B: Tensor | None) -> None:
    if B is None:
        dynamics.B = None
        return
    check_matrix("B", as_tensor("B", B), dynamics.state_size, None)
    keep(dynamics, "B", B)


def _flow(eigenvalues: Tensor, dt: Tensor, order: int) -> tuple[Tensor, ...]:
    step = dt[..., None]
    z = eigenvalues[..., None, :].to(_wide(eigenvalues, dt)) * step
    found = [torch.polar(z.real.exp(), z.imag) if z.is_complex() else z.exp()]
    return (*found, *(step * phi(z) for phi in (phi1, phi2)[:order]))


def _wide(x: Tensor, dt: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, dt.dtype)


def _pairs(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())


def _blocks(values: Tensor) -> Tensor:
    """Complex numbers as real matrices with blocks of two by two."""
    count = values.shape[-1]
    entries = torch.stack([values.real, -values.imag, values.imag, values.real], -1).unflatten(-1, (2, 2))
    eye = torch.eye(count, dtype=entries.dtype, device=entries.device)
    return (entries[..., :, :, None, :] * eye[:, None, :, None]).flatten(-4, -3).flatten(-2)


def _check_stable(eigenvalues: Tensor) -> None:
    worst = float(eigenvalues.detach().real.amax())
    if worst >= 0:
        raise ValueError(
            f"there is no stationary distribution: an eigenvalue has real part {worst:.3g}, and it must be negative. "
            "Give the distribution of the initial state instead, or keep the eigenvalues stable."
        )
