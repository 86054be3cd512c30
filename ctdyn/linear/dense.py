"""Dynamics given by a matrix."""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor

from ._exponentials import exponentials, noise_integrals
from ._tensors import as_tensor, check_matrix, check_psd, keep
from .dynamics import LinearDynamics


__all__ = ["Dense", "MatrixDynamics"]

_MAX_DOUBLINGS = 200


class MatrixDynamics(LinearDynamics, ABC):
    r"""Dynamics known by their matrix alone: transitions of many steps from a few matrix exponentials.

    .. math:: \bar A = e^{A\,dt}, \qquad Q(dt) = \int_0^{dt} e^{A s}\,S\,e^{A^\top s}\,ds

    Subclass it with a property `A`, and `S` where there is noise.

    Example:
        >>> issubclass(Dense, MatrixDynamics)
        True
    """

    S: Tensor | None

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`."""
        return exponentials(self.A.to(torch.promote_types(self.dtype, dt.dtype)), dt, order)

    def noise(self, dt: Tensor) -> Tensor:
        """As in `LinearDynamics`, computed in float64."""
        if self.S is None:
            return super().noise(dt)
        Q = noise_integrals(self.A.to(torch.float64), self.S.to(torch.float64), dt.to(torch.float64))
        return Q.to(torch.promote_types(self.dtype, dt.dtype))

    def density(self) -> Tensor:
        """As in `LinearDynamics`."""
        return super().density() if self.S is None else self.S

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`, by doubling."""
        if self.S is None:
            return super().stationary()
        A, S = self.A.to(torch.float64), self.S.to(torch.float64)
        worst = float(torch.linalg.eigvals(A.detach()).real.amax())
        if worst >= 0:
            raise ValueError(
                f"there is no stationary distribution: an eigenvalue of A has real part {worst:.3g}, and it must be "
                "negative. Give the distribution of the initial state instead, or keep A stable."
            )
        step = 1.0 / torch.linalg.matrix_norm(A.detach(), 1).amax()
        transition, P = exponentials(A, step[None], 0)[0].squeeze(-3), noise_integrals(A, S, step[None]).squeeze(-3)
        for _ in range(_MAX_DOUBLINGS):
            gained = transition @ P @ transition.mT
            P = P + gained
            # Variance by variance, which bound the rest: states and series may be of very different sizes.
            more, so_far = (x.detach().diagonal(dim1=-2, dim2=-1) for x in (gained, P))
            if bool((more <= 1e-17 * so_far).all()):
                break
            transition = transition @ transition
        return (0.5 * (P + P.mT)).to(self.dtype)


class Dense(MatrixDynamics):
    r"""Dynamics with a full matrix, with inputs and noise if wanted: Koopman models, filters, physics.

    .. math:: dy = (A y + B u)\,dt + dW, \qquad \mathrm{Cov}(dW) = S\,dt

    Args:
        A: matrix, per unit of time, `(*parameter_batch, state, state)`.
        B: input matrix, `(*parameter_batch, state, input)`; None: the input has the size of the state.
        S: spectral density of the noise, `(*parameter_batch, state, state)`: :math:`L L^\top` for noise
            :math:`L\,dW`; None: no noise. It is kept as a factor, so that learning leaves it a covariance.

    Raises:
        ValueError: a shape does not fit, or `S` is not a covariance.

    Reference:
        Computing integrals involving the matrix exponential, C. Van Loan, 1978,
        https://doi.org/10.1109/TAC.1978.1101743 (the integrals; computed here by series and doubling)

    Example:
        >>> spring = Dense(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), B=torch.tensor([[0.0], [1.0]]))
        >>> spring.scan(torch.tensor([0.0, 3.14159265]), torch.ones(2, 1))[-1].detach().round(decimals=4)
        tensor([2., 0.])
    """

    matrix: Tensor
    factor: Tensor | None

    def __init__(self, A: Tensor, *, B: Tensor | None = None, S: Tensor | None = None) -> None:
        check_matrix("A", as_tensor("A", A), None, None)
        if A.is_complex():
            raise TypeError("A must be real; for complex eigenvalues use Diagonal, or Rotations for a real state.")
        n = A.shape[-1]
        super().__init__(n)
        keep(self, "matrix", A)
        self.B = None
        if B is not None:
            check_matrix("B", as_tensor("B", B), n, None)
            keep(self, "B", B)
        self.factor = self._density = None
        if S is not None:
            check_matrix("S", S, n, n)
            check_psd("S", S)
            if S.requires_grad:
                # A singular covariance has no differentiable factor.
                self._density = S
            else:
                keep(self, "factor", _factor(S))

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return self.matrix

    @property
    def S(self) -> Tensor | None:  # noqa: N802  # type: ignore[override]
        """The spectral density of the noise."""
        return self._density if self.factor is None else self.factor @ self.factor.mT


def _factor(S: Tensor) -> Tensor:
    """`L` with `L L' = S`, where `S` may be singular."""
    L, info = torch.linalg.cholesky_ex(S)
    if not bool((info > 0).any()):
        return L
    values, vectors = torch.linalg.eigh(S.to(torch.float64))
    return (vectors * values.clamp(min=0.0).sqrt()[..., None, :]).to(S.dtype)
