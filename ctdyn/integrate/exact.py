"""Equations that need no steps: what is known in closed form, from the start of each series to every asked time."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import State, States, Time, Times
from ..nn import take_items
from ..paths import LinearPath
from ..paths.base import Path
from ..paths.piecewise import PolygonalPath
from ..structure import ExactCDEField
from ..terms import CDETerm, Term
from .clock import Clock, landing_times


__all__ = ["FollowedPath", "follow_exactly", "is_exact"]


def is_exact(term: Term) -> bool:
    """Whether the equation is solved without steps: a linear controlled one along straight lines.

    Example:
        >>> from ctdyn.fields import LinearCDEField, MLPCDEField
        >>> line = LinearPath(torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [1.0]]))
        >>> is_exact(CDETerm(LinearCDEField(2, 1), line)), is_exact(CDETerm(MLPCDEField(2, 1), line))
        (True, False)
    """
    return (
        isinstance(term, CDETerm) and isinstance(term.field, ExactCDEField) and isinstance(term.control, PolygonalPath)
    )


def follow_exactly(term: Term, y0: State, clock: Clock) -> tuple[States, Tensor, Path]:
    """The states at the times of the clock, the number of straight pieces of each series, and the path between.

    Args:
        term: an equation that `is_exact`.
        y0: states at the start, `(*batch, state)`.
        clock: times of the batch.

    Example:
        >>> from ctdyn.fields import LinearCDEField
        >>> line = LinearPath(torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [1.0]]))
        >>> clock = Clock.create(torch.tensor([0.0, 1.0]), None, torch.Size([]), torch.float32)
        >>> follow_exactly(CDETerm(LinearCDEField(2, 1), line), torch.ones(2), clock)[0].shape
        torch.Size([2, 2])
    """
    assert isinstance(term, CDETerm)
    field, control = term.field, term.control
    assert isinstance(field, ExactCDEField)
    nodes = landing_times(torch.cat([clock.t0[..., None], clock.ts], -1), clock, control.knots())
    grid = torch.movedim(nodes, -1, 0)
    if len(grid) > 1:
        # The slope of a piece, and not the difference of two values: a jump of the control takes no time and is none.
        gaps = grid.diff(dim=0)
        slopes = control.restrict(grid[:-1], grid[1:]).derivative(grid[:-1])
        moves = torch.movedim((slopes * gaps[..., None]).to(y0.dtype.to_real()), 0, -2)
        states = torch.cat([y0[..., None, :], field.follow(y0, moves)], -2)
    else:
        moves = y0.new_zeros(*y0.shape[:-1], 0, control.derivative(clock.t0).shape[-1], dtype=y0.dtype.to_real())
        states = y0[..., None, :]
    path = FollowedPath.create(field, nodes, moves, states, clock.direction)
    direction = clock.direction[..., None]
    ordered, asked = (nodes.detach() * direction).contiguous(), (clock.ts.detach() * direction).contiguous()
    place = torch.searchsorted(ordered, asked).clamp(max=nodes.shape[-1] - 1)
    pieces = (nodes.detach().diff(dim=-1) != 0).sum(-1)
    return take_items(states, place, -2), pieces, path


class FollowedPath(Path):
    """The solution of a linear controlled equation as a path in time: exact everywhere, not only at the asked times.

    Before and after the solve it holds the end states.

    Args:
        field: the equation.
        control: what drove it, between the nodes of the solve.
        states: the solution at these nodes, `(*batch, node, state)`.
        within: the first and the last piece that are looked at, and whether the interval is not empty, `(*batch,)`
            each; None: all pieces.

    Example:
        >>> from ctdyn.fields import LinearCDEField
        >>> line = LinearPath(torch.tensor([0.0, 2.0]), torch.tensor([[0.0], [1.0]]))
        >>> FollowedPath(LinearCDEField(1, 1), line, torch.ones(2, 1)).evaluate(torch.tensor(0.0)).item()
        1.0
    """

    def __init__(
        self,
        field: ExactCDEField,
        control: LinearPath,
        states: States,
        within: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        self._field = field
        self._control = control
        self._states = states
        self._within = within

    @classmethod
    def create(cls, field: ExactCDEField, nodes: Times, moves: Tensor, states: States, direction: Time) -> FollowedPath:
        """Put the nodes of every series in the order of time.

        Args:
            field: the equation.
            nodes: times of the nodes, monotone, `(*batch, node)`.
            moves: change of the control between them, `(*batch, node - 1, control)`.
            states: the solution there, `(*batch, node, state)`.
            direction: 1 forward, -1 backward, `(*batch,)`.
        """
        xs = torch.cat([moves.new_zeros(*moves.shape[:-2], 1, moves.shape[-1]), moves], -2).cumsum(-2)
        forward = direction[..., None] > 0
        nodes = torch.where(forward, nodes, nodes.flip(-1))
        forward = forward[..., None]
        control = LinearPath(nodes, torch.where(forward, xs, xs.flip(-2)))
        return cls(field, control, torch.where(forward, states, states.flip(-2)))

    @property
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""
        return self._control.batch_shape if self._within is None else self._within[0].shape

    def evaluate(self, t: Time) -> State:
        """The state at one time per series, `(*batch, state)`."""
        piece = self._piece(t)
        node = self._control._as_columns((piece - 1).clamp(min=0))[..., None]
        start, before = (
            torch.movedim(torch.take_along_dim(x, node, -2), -2, 0).reshape(*t.shape, x.shape[-1])
            for x in (self._states, self._control.xs)
        )
        moved = self._control._at(t, piece).evaluate(t) - before
        return self._field.follow(start, moved[..., None, :]).squeeze(-2)

    def derivative(self, t: Time) -> State:
        """The velocity at one time per series, `(*batch, state)`."""
        moving = None if self._within is None else self._within[2].expand(t.shape)
        pace = self._control._at(t, self._piece(t), moving).derivative(t)
        y = self.evaluate(t)
        return self._field.prod(t.to(y.dtype.to_real()), y, pace.to(y.dtype))

    def restrict(self, t0: Time, t1: Time) -> Path:
        """The path between `t0` and `t1` of each series."""
        first = self._control._piece(torch.minimum(t0, t1))
        last = torch.maximum(self._control._piece(torch.maximum(t0, t1), from_left=True), first)
        return FollowedPath(self._field, self._control, self._states, (first, last, t0 != t1))

    def knots(self) -> Times | None:
        """The times where the path is not smooth."""
        return self._control.knots()

    def tensors(self) -> tuple[Tensor, ...]:
        """The nodes, the control and the states there."""
        return (*self._control.tensors(), self._states)

    def replace(self, tensors: tuple[Tensor, ...]) -> FollowedPath:
        """The same path made of other tensors."""
        ts, xs, states = tensors
        return FollowedPath(self._field, LinearPath(ts, xs), states, self._within)

    def _piece(self, t: Time) -> Tensor:
        piece = self._control._piece(t)
        return piece if self._within is None else piece.maximum(self._within[0]).minimum(self._within[1])
