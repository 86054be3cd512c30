"""What implicit methods share: the derivatives of the field at a point, and one small linear system per series."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._types import State, Time
from ..linear._rows import pull_rows
from ..terms import Term


__all__ = ["Linearisation", "Systems", "inside", "larger", "like", "linearise", "real"]


class Linearisation(NamedTuple):
    """The field near one point per series; complex states count as pairs of real entries.

    Args:
        velocity: the field there, `(*batch, state)`.
        by_state: its derivative by the state, `(*batch, state, state)`.
        by_time: its derivative by the time, `(*batch, state)`; None where it was not asked for, or
            does not matter.
    """

    velocity: State
    by_state: Tensor
    by_time: Tensor | None


def linearise(term: Term, t: Time, y: State, *, timed: bool = False) -> Linearisation:
    """The field and its derivatives; where gradients are wanted, they reach whatever the derivatives depend on.

    One evaluation, and one backward pass for all rows: less than half the price of forward mode in eager PyTorch, and
    it asks nothing of the field but that it can be differentiated.
    """
    if torch.is_grad_enabled() and _learns(term, t, y):
        return _differentiate(term, t, y, timed, graph=True)
    # Nothing can be differentiated that was made in inference mode.
    with torch.inference_mode(False), torch.enable_grad():
        found = _differentiate(term, t.detach().clone(), y.detach().clone(), timed, graph=False)
    by_time = None if found.by_time is None else found.by_time.detach()
    return Linearisation(found.velocity.detach(), found.by_state.detach(), by_time)


def _learns(term: Term, t: Time, y: State) -> bool:
    """Whether anything can take a gradient. What a closure holds shows only when it is evaluated."""
    declared = (t, y, *term.tensors(), *term.parameters())
    return any(x.requires_grad for x in declared) or term.derivative(t, y).requires_grad


def _differentiate(term: Term, t: Time, y: State, timed: bool, graph: bool) -> Linearisation:
    state, time = real(y), t
    if graph and (state.requires_grad or t.requires_grad):
        state, time = _Here.apply(state, t)
    else:
        state, time = state.detach().requires_grad_(), t.detach().requires_grad_(timed)
    velocity = term.derivative(time, like(state, y))
    flat = real(velocity)
    size = flat.shape[-1]
    if not flat.requires_grad or not size:
        return Linearisation(velocity, flat.new_zeros(*flat.shape, size), None)
    rows = torch.eye(size, dtype=flat.dtype, device=flat.device)
    rows = rows.reshape(size, *[1] * (flat.dim() - 1), size).expand(size, *flat.shape)
    by_state, *others = pull_rows(flat, (state, time) if timed else (state,), rows, graph=graph)
    by_state = flat.new_zeros(*flat.shape, size) if by_state is None else torch.movedim(by_state, 0, -2)
    if not others or others[0] is None:
        return Linearisation(velocity, by_state, None)
    return Linearisation(velocity, by_state, like(torch.movedim(others[0], 0, -1).to(flat.dtype), y))


class _Here(torch.autograd.Function):
    """The same point as one node of its own: a backward pass that ends here does not search all that lies before."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        return state.clone(), time.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients


class Systems:
    r"""One linear system per series, :math:`(I - h \gamma J)\, x = b`, factorised once; gradients reach b, h and J.

    What is singular shows as solutions that are not finite.

    Args:
        matrix: J, `(*batch, state, state)`.
        dt: the step times the diagonal coefficient, `(*batch, 1)`.
    """

    def __init__(self, matrix: Tensor, dt: Tensor) -> None:
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        # The step has the type of the state, whose entries are pairs of real ones here.
        length = dt.real if dt.is_complex() else dt
        self.matrix = torch.addcmul(identity, length.to(matrix.dtype).unsqueeze(-1), matrix, value=-1.0)
        self.factors, self.pivots, _ = torch.linalg.lu_factor_ex(self.matrix.detach())

    def solve(self, x: State) -> State:
        """The solution of each series, `(*batch, state)`."""
        right = real(x)
        if self.matrix.requires_grad or x.requires_grad:
            return like(_Solved.apply(self.matrix, right, self.factors, self.pivots, False), x)
        return like(torch.linalg.lu_solve(self.factors, self.pivots, right.unsqueeze(-1)).squeeze(-1), x)

    @torch.no_grad()
    def outgrown(self) -> Tensor:
        r"""Which series have a direction that grows faster than the step resolves, `(*batch,)`.

        A real eigenvalue :math:`\lambda > 1 / (h \gamma)` lies beyond the pole of the method, which would damp what in
        truth grows; no error estimate sees that. Each one turns the sign of the determinant, which the factors know.
        """
        pivots = torch.diagonal(self.factors, dim1=-2, dim2=-1)
        if not pivots.shape[-1]:
            return torch.zeros(pivots.shape[:-1], dtype=torch.bool, device=pivots.device)
        order = torch.arange(1, pivots.shape[-1] + 1, dtype=self.pivots.dtype, device=pivots.device)
        negative = ((pivots < 0) ^ (self.pivots != order)).sum(-1) % 2 == 1
        # A sign that rounding may have made says nothing.
        noise = 10.0 * torch.finfo(pivots.dtype).eps * self.matrix.abs().amax((-2, -1))
        return negative & (pivots.abs().amin(-1) > noise)

    def solve_adjoint(self, x: State) -> State:
        """The solution with the transposed matrix."""
        right = real(x)
        return like(_Solved.apply(self.matrix, right, self.factors, self.pivots, True), x)


class _Solved(torch.autograd.Function):
    """A solve with given factors, differentiated by the matrix; its derivative is a solve too, so all orders exist."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor, factors: Tensor, pivots: Tensor, adjoint: bool) -> Tensor:
        solved = torch.linalg.lu_solve(factors, pivots, x.unsqueeze(-1), adjoint=adjoint).squeeze(-1)
        ctx.save_for_backward(matrix, solved, factors, pivots)
        ctx.adjoint = adjoint
        return solved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        matrix, solved, factors, pivots = ctx.saved_tensors
        behind = _Solved.apply(matrix, gradients[0], factors, pivots, not ctx.adjoint)
        left, right = (solved, behind) if ctx.adjoint else (behind, solved)
        return -left.unsqueeze(-1) * right.unsqueeze(-2), behind, None, None, None


def inside(dense: tuple[tuple[float, ...], ...], theta: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """For each stage its weight in the dense output at one place inside the step, and in the slope of that."""
    values = tuple(sum(weight * theta**power for power, weight in enumerate(row, 1)) for row in dense)
    slopes = tuple(sum(power * weight * theta ** (power - 1) for power, weight in enumerate(row, 1)) for row in dense)
    return values, slopes


def larger(error: State, other: State) -> State:
    """Entry by entry, the error that is larger."""
    return torch.where(other.abs() > error.abs(), other, error)


def real(y: State) -> Tensor:
    """Complex entries as pairs of real ones."""
    return torch.view_as_real(y).flatten(-2) if y.is_complex() else y


def like(state: Tensor, y: State) -> State:
    """Pairs as complex entries again, where `y` has such."""
    return torch.view_as_complex(state.unflatten(-1, (-1, 2)).contiguous()) if y.is_complex() else state
