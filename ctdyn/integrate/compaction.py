"""Leaving series behind that are done: where few of many still step, only those are evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._types import State, Time
from ..solvers.base import Solver
from ..terms import ODETerm, Term
from .controllers import StepController


__all__ = ["Rows", "cuts", "divisible", "fewer", "stand_alone"]

T = TypeVar("T")

_SHARE = 4
"""Series are left behind where no more than one in so many still steps."""

_WORTH = 2048
"""So many entries of states must be saved in every evaluation: below, steps cost the same for any number of series."""


@dataclass(frozen=True)
class Rows:
    """Some of the series of a batch, in one axis.

    Args:
        index: their numbers in the batch, its axes taken as one, `(row,)`.
        shape: the axes of the batch, at least one.

    Example:
        >>> rows = Rows(torch.tensor([2, 0]), torch.Size([3]))
        >>> rows.take(torch.tensor([5.0, 6.0, 7.0]))
        tensor([7., 5.])
        >>> rows.put(torch.tensor([1.0, 2.0]), torch.zeros(3))
        tensor([2., 0., 1.])
    """

    index: Tensor
    shape: torch.Size

    @classmethod
    def where(cls, chosen: Tensor) -> Rows:
        """The series for which a condition holds, `(*batch,)`."""
        return cls(torch.nonzero(chosen.reshape(-1))[:, 0], chosen.shape)

    def take(self, value: T, lead: int = 0) -> T:
        """Their entries of `(*lead, *batch, ...)`, `(*lead, row, ...)`; also of every tensor in a tuple.

        Args:
            value: a tensor, a tuple of what may be taken from, or None.
            lead: how many axes stand before those of the batch.
        """
        return _each(lambda x: x.flatten(lead, lead + len(self.shape) - 1).index_select(lead, self.index), value)

    def put(self, part: T, whole: T, lead: int = 0) -> T:
        """`whole` with other entries for these series; tuples entry by entry, as in `take`."""

        def one(x: Tensor, full: Tensor) -> Tensor:
            table = full.flatten(lead, lead + len(self.shape) - 1)
            return table.index_copy(lead, self.index, x).unflatten(lead, self.shape)

        return _each(one, part, whole)


def _each(function: Callable[..., Tensor], value: Any, *others: Any) -> Any:
    """A function of the tensors of nested tuples, in the same nesting."""
    if isinstance(value, Tensor):
        return function(value, *others)
    if isinstance(value, tuple):
        parts = [_each(function, *entries) for entries in zip(value, *others, strict=True)]
        return type(value)(*parts) if type(value) is not tuple else tuple(parts)
    return value


def divisible(term: Term, *parts: Solver | StepController) -> bool:
    """Whether nothing of an equation, a method and a control is known to belong to every series of the whole batch.

    Args:
        term: the equation; one that is driven, by noise or by inputs, has a driver for every series.
        parts: the method and the control; a tensor that they hold might be one for every series.

    Example:
        >>> from ctdyn.integrate import PIDController
        >>> term, tolerances = ODETerm(lambda t, y: -y), torch.tensor([1e-3, 1e-4])
        >>> divisible(term, PIDController(rtol=1e-3)), divisible(term, PIDController(rtol=tolerances))
        (True, False)
    """
    return isinstance(term, ODETerm) and term.inputs is None and all(map(_alike, parts))


def _alike(part: Solver | StepController) -> bool:
    return not any(isinstance(x, Tensor) or (isinstance(x, Solver) and not _alike(x)) for x in vars(part).values())


def fewer(active: Tensor, count: int, size: int) -> Rows | None:
    """The series that still step, where going on with them alone pays; otherwise None.

    Args:
        active: which do, `(*batch,)`.
        count: how many that are.
        size: of the state.

    Example:
        >>> active = torch.arange(1000) < 10
        >>> fewer(active, 10, size=16).index.tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        >>> fewer(active[:100], 10, size=16)
    """
    if not active.dim() or not _pays(count, active.numel(), size):
        return None
    return Rows.where(active)


def cuts(grid: Tensor, size: int) -> list[int]:
    """The steps of a known grid at which it pays to leave series behind that are done.

    Args:
        grid: ends of the steps, `(step + 1, *batch)`; a series that is done stays at its end.
        size: of the state.

    Example:
        >>> long = torch.arange(1000) < 10
        >>> grid = torch.stack([torch.zeros(1000), torch.ones(1000), 1.0 + long, 1.0 + 2 * long])
        >>> cuts(grid, size=16)
        [1]
    """
    total = grid[0].numel()
    if grid.dim() == 1 or not _pays(1, total, size):
        return []
    moves = (grid.detach().diff(dim=0) != 0).flatten(1)
    # A series is done behind its last step that moves.
    left = moves.flip(0).cummax(0).values.flip(0).sum(1).tolist()
    found, among = [], total
    for step, count in enumerate(left):
        if count and _pays(count, among, size):
            found.append(step)
            among = count
    return found


def _pays(count: int, among: int, size: int) -> bool:
    return _SHARE * count <= among and (among - count) * size >= _WORTH


@torch.no_grad()
def stand_alone(term: Term, t: Time, y: State, rows: Rows) -> bool:
    """Whether the field gives some series the velocities that it gives them in the whole batch, by a trial.

    A field may hold tensors of its own for every series of the batch; one that does has no place for fewer.

    Args:
        term: the equation.
        t: a time per series, `(*batch,)`.
        y: states there, `(*batch, state)`.
        rows: the series.

    Example:
        >>> rates, rows = torch.rand(3, 1), Rows(torch.tensor([1]), torch.Size([3]))
        >>> stand_alone(ODETerm(lambda t, y: -y), torch.zeros(3), torch.ones(3, 1), rows)
        True
        >>> stand_alone(ODETerm(lambda t, y: -rates * y), torch.zeros(3), torch.ones(3, 1), rows)
        False
    """
    try:
        alone = term.derivative(rows.take(t), rows.take(y))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    among = rows.take(term.derivative(t, y))
    close = 1e3 * torch.finfo(y.dtype).eps
    return torch.allclose(alone, among, rtol=close, atol=close * float(among.abs().amax()))
