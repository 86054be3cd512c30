"""The clocked loop: plan the steps of every series without gradients, then replay them with gradients.

A plan is data. The replay of a plan is a fixed program, so that memory policies (`adjoint`) are ways to run it, and no
gradient ever passes through the choice of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .._types import State, States, Time, Times
from ..solvers.base import Solver, StepState
from ..terms import Term
from ._perceptron_loop import perceptron_steps
from .clock import Clock, rounding
from .compaction import Rows, cuts, divisible, stand_alone
from .compiled import Program, fresh
from .controllers import AdaptiveController, GridController, StepController
from .dense import Record, locate, rows_of
from .search import Limits, Search, StepPlan, Watch
from .status import Status


__all__ = ["Limits", "Replay", "Segment", "StepPlan", "Watch", "plan"]


def plan(
    term: Term,
    solver: Solver,
    controller: StepController,
    y0: State,
    clock: Clock,
    limits: Limits,
) -> StepPlan:
    """Find the steps of every series.

    Args:
        term: the equation.
        solver: the method.
        controller: fixed in advance or adaptive.
        y0: states at the start, `(*batch, state)`.
        clock: times of the batch.
        limits: how far to go, and what to keep.

    Example:
        >>> from ctdyn.integrate.controllers import StepTo
        >>> from ctdyn.solvers import RK4
        >>> from ctdyn.terms import ODETerm
        >>> clock = Clock.create(torch.tensor([0.0, 1.0]), None, torch.Size([]), torch.float64)
        >>> plan(ODETerm(lambda t, y: -y), RK4(), StepTo(2), torch.ones(1), clock, Limits(100)).grid
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if isinstance(controller, GridController):
        return _fixed(term, controller, clock, limits.max_steps)
    if not isinstance(controller, AdaptiveController):
        raise TypeError(
            f"controller must be a GridController or an AdaptiveController; got {type(controller).__name__}."
        )
    # Kept steps are the answer itself; a field that turns out to carry gradients then shows in the final state.
    with torch.set_grad_enabled(limits.keep and torch.is_grad_enabled()):
        return Search.create(term, solver, controller, clock, limits).run(y0)


def _fixed(term: Term, controller: GridController, clock: Clock, max_steps: int) -> StepPlan:
    knots = term.knots()
    zeros = torch.zeros_like(clock.t0, dtype=torch.int64)
    if controller.count(clock, knots) > max_steps + 1_000_000:
        # A grid this long would not fit into memory: nothing of it is built.
        start = clock.t0.detach()
        return StepPlan(torch.stack([start, start]), zeros, zeros, zeros, torch.full_like(zeros, Status.MAX_STEPS))
    grid = controller.grid(clock, knots)
    steps = (grid.detach().diff(dim=0) != 0).sum(0)
    status = torch.where(steps > max_steps, int(Status.MAX_STEPS), int(Status.SUCCESS))
    return StepPlan(grid[: max_steps + 1], steps.clamp(max=max_steps), zeros, zeros, status)


@dataclass(frozen=True)
class Segment:
    """What a run of steps returns.

    Args:
        ys: states at the times that were asked for, `(*batch, time, state)`.
        y1: state at the end, `(*batch, state)`.
        state: what the next step can use.
        record: what the dense output is made of, where the replay is dense.
        nodes: the states at the ends of the steps, the start included.

    Example:
        >>> y = torch.ones(1)
        >>> Segment(y[None], y, None, None, [y]).y1
        tensor([1.])
    """

    ys: States
    y1: State
    state: StepState
    record: Record | None
    nodes: list[Tensor]


@dataclass(frozen=True)
class Replay:
    """The steps of a plan as a program with gradients, to be run whole or in segments.

    Args:
        term: the equation.
        solver: the method.
        grid: ends of the steps, `(step + 1, *batch)`; may require gradients.
        ts: output times, `(*batch, time)`.
        node: the grid node at or beyond each output time, `(*batch, time)`.
        lands: every output time is a node.
        compile: take several steps per call of a compiled program.
        cut: the last time of each series whose last step was shortened to end there, NaN for the others, `(*batch,)`.
        epsilon: the relative spacing of the numbers that the times were given in.

    Example:
        >>> from ctdyn.solvers import Euler
        >>> from ctdyn.terms import ODETerm
        >>> grid = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
        >>> replay = Replay(ODETerm(lambda t, y: -y), Euler(), grid, grid[2:], torch.tensor([2]), lands=True)
        >>> replay.run(torch.ones(1)).ys
        tensor([[0.2500]])
    """

    term: Term
    solver: Solver
    grid: Tensor
    ts: Times
    node: Tensor
    lands: bool
    compile: bool = False
    cut: Time | None = None
    epsilon: float = Clock.epsilon

    @classmethod
    def create(cls, term: Term, solver: Solver, planned: StepPlan, clock: Clock, lands: bool) -> Replay:
        """The replay of a plan for the outputs of a clock."""
        grid, knots = planned.grid, term.knots()
        moves = clock.ts.requires_grad or clock.t0.requires_grad or (knots is not None and knots.requires_grad)
        if not lands and not grid.requires_grad and moves:
            # The steps between are data, but for what moves of itself: the first start, the last end, and the knots.
            shape = (-1, *[1] * planned.steps.dim())
            number = torch.arange(len(grid), device=grid.device).reshape(shape)
            whole = planned.reached == clock.end.detach()
            grid = grid if knots is None else _on_knots(grid, knots)
            grid = torch.where((number >= planned.steps.clamp(min=1)) & whole, clock.end, grid)
            grid = torch.where(number == 0, clock.t0, grid)
        node = locate(grid, clock.ts, clock.direction)
        if lands or solver.interpolates:
            return cls(term, solver, grid, clock.ts, node, lands)
        spans, last = grid.detach().diff(dim=0).abs(), (planned.steps - 1).clamp(min=0)
        end = clock.end.detach()
        digits = rounding(torch.maximum(clock.t0.detach().abs(), end.abs()), spans[0], clock.epsilon)
        short = spans.gather(0, last[None])[0] < spans[0] - digits
        cut = torch.where(short, end, torch.nan)
        return cls(term, solver, grid, clock.ts, node, lands, cut=cut, epsilon=clock.epsilon)

    @property
    def num_steps(self) -> int:
        """How many steps the longest series takes."""
        return len(self.grid) - 1

    def run(
        self, y0: State, state: StepState = None, steps: tuple[int, int] | None = None, *, at: Tensor | None = None
    ) -> Segment:
        """Take the steps.

        Args:
            y0: states at the start, `(*batch, state)`.
            state: what the step before returned.
            steps: the first step and the one after the last; None for all.
            at: which output times to read, `(*batch, query)`; those outside the segment give values without meaning.
                None for all.
        """
        first, last = (0, self.num_steps) if steps is None else steps
        grid = self.grid[first : last + 1]
        ts, node = (self.ts, self.node) if at is None else (self.ts.gather(-1, at), self.node.gather(-1, at))
        node = (node - first).clamp(0, last - first)
        dense = not self.lands and self.solver.interpolates
        path, state, parts = self._walk(grid, y0, state, dense)
        nodes, y1 = torch.stack(path), path[-1]
        if self.lands:
            return Segment(rows_of(nodes, node), y1, state, None, path)
        if parts is None:
            return Segment(self._step_to(grid, nodes, ts, node, state is not None), y1, state, None, path)
        record = Record(self.term, self.solver, grid, grid[:-1], grid[1:], nodes[:-1], parts, y1)
        return Segment(record.read(ts, node), y1, state, record, path)

    def _walk(
        self, grid: Tensor, y: State, state: StepState, dense: bool
    ) -> tuple[list[Tensor], StepState, Tensor | None]:
        """The states at the nodes, what the last step left, and the interpolants `(step, part, *batch, state)`."""
        if not self.compile:
            return self._walk_on(grid, y, state, dense)
        if state is None and dense and self.term.knots() is None:
            # With a state from the start the first run is the same program as the others.
            state = self.solver.init(self.term, grid[0], y)
        steps, path, parts = len(grid) - 1, [y], []
        # Steps of no length fill the last run.
        grid = torch.cat([grid, grid[-1:].expand(-steps % _STEPS, *grid.shape[1:])])
        y, state = fresh((y, state))
        for first in range(0, len(grid) - 1, _STEPS):
            run = grid[first : first + _STEPS + 1].clone()
            term = self.solver.prepared(self.term, run, y.dtype)
            arguments = self.solver, term, run, y, state, dense
            nodes, state, part = _PROGRAM((self.term.field, self.solver), y.device, *arguments)
            path.extend(nodes.unbind(0))
            y = path[-1]
            parts.append(part)
        return path[: steps + 1], state, torch.cat(parts)[:steps] if dense else None

    def _walk_on(
        self, grid: Tensor, y: State, state: StepState, dense: bool
    ) -> tuple[list[Tensor], StepState, Tensor | None]:
        """As `_walk`, step after step; once few series still move, of these alone."""
        found = cuts(grid, y.shape[-1]) if divisible(self.term, self.solver) else []
        bounds = [0, *(cut for cut in found if cut), len(grid) - 1]
        path, parts = [y], []
        for first, last in pairwise(bounds):
            rows = None
            if first:
                moves = (grid[first:].detach() != grid[-1].detach()).any(0)
                rows = Rows.where(moves)
                if not stand_alone(self.term, grid[first].detach(), y.detach(), rows):
                    rows, last = None, len(grid) - 1
            run = grid[first : last + 1]
            given = (run, y, state) if rows is None else (rows.take(run, 1), *rows.take((y, state)))
            walked = perceptron_steps(self.term, self.solver, *given[:2], dense=dense)
            if walked is None:
                ends, left, inner = _walk(_take, self.solver, self.term, given[0].unbind(0), *given[1:], dense)
                part = _stacked(inner) if dense else None
            else:
                ends, left, part = [given[1], *walked.ends], walked.state, walked.parts
            if rows is None:
                path.extend(ends[1:])
                state = left
            else:
                moved = torch.stack(ends[1:])
                path.extend(rows.put(moved, y.expand(len(moved), *y.shape), 1).unbind(0))
                state = None if state is None or left is None else rows.put(left, state)
                part = None if part is None else rows.put(part, part.new_zeros(*part.shape[:2], *y.shape), 2)
            y = path[-1]
            parts.append(part)
            if last == len(grid) - 1:
                break
        return path, state, torch.cat(parts) if dense else None

    def _step_to(self, grid: Tensor, nodes: Tensor, ts: Times, node: Tensor, carries: bool) -> States:
        """Outputs of a method without dense output: by one shorter step each from the node before, all at once."""
        step = (node - 1).clamp(min=0)
        start, end, times = rows_of(grid, step), rows_of(grid, node), ts.detach()
        size = torch.maximum(times.abs(), self.grid[0].detach().abs().unsqueeze(-1))
        near = rounding(size, (end - start).detach().abs(), self.epsilon)
        at_start = (times - start).abs() <= near
        on_node = (times - end).abs() <= near
        if carries and self.cut is not None:
            # The last step is cut short where the last time happens to lie: what is carried there is not what would be
            # if a later time were asked for as well. All times inside a step are read alike.
            on_node = on_node & (times != self.cut.unsqueeze(-1))
        on_node = on_node | at_start
        ys = rows_of(nodes, torch.where(at_start, step, node))
        # A node that is read as it is has no gradient to the time that was asked for.
        if not ts.requires_grad and bool(on_node.all()):
            return ys
        elsewhere = (times - start) * (times - end) > 0
        t0, t1 = torch.movedim(start, -1, 0), torch.movedim(torch.where(elsewhere, start, ts), -1, 0)
        y0 = torch.movedim(rows_of(nodes, step), -2, 0)
        inside = self.solver.step(self.term.restrict(t0, t1), t0, t1, y0, None, dense=False).y1
        inside = torch.movedim(inside, 0, -2)
        return inside if ts.requires_grad else torch.where(on_node.unsqueeze(-1), ys, inside)


def _on_knots(grid: Tensor, knots: Times) -> Tensor:
    """The ends of steps, `(step + 1, *batch)`; those that lie on a knot are the knot, with its gradient."""
    nodes = torch.movedim(grid.detach(), 0, -1).contiguous()
    knots = knots.to(nodes.dtype).expand(*nodes.shape[:-1], knots.shape[-1])
    place = torch.searchsorted(knots.detach().contiguous(), nodes).clamp(max=knots.shape[-1] - 1)
    found = torch.movedim(knots.gather(-1, place), -1, 0)
    return torch.where(found.detach() == grid, found, grid)


def _walk(
    take: Callable[..., tuple[State, StepState, tuple[Tensor, ...]]],
    solver: Solver,
    term: Term,
    ends: Sequence[Tensor],
    y: State,
    state: StepState,
    dense: bool,
) -> tuple[list[Tensor], StepState, list[tuple[Tensor, ...]]]:
    """Step from end to end: the states there, what the last step left, and what each says of its inside."""
    knotted = term.knots() is not None
    path, interpolants = [y], []
    for (t0, t1), piece in zip(pairwise(ends), solver.pieces(term, ends, y.dtype), strict=True):
        y, state, interpolant = take(solver, piece, t0, t1, y, solver.across(state) if knotted else state, dense)
        path.append(y)
        interpolants.append(interpolant)
    return path, state, interpolants


def _take(
    solver: Solver, piece: Term, t0: Tensor, t1: Tensor, y: State, state: StepState, dense: bool
) -> tuple[State, StepState, tuple[Tensor, ...]]:
    step = solver.step(piece, t0, t1, y, state, dense=dense)
    return step.y1, step.state, step.interpolant


def _take_afresh(*arguments: Any) -> tuple[State, StepState, tuple[Tensor, ...]]:
    return fresh(_take(*arguments))


def _run(
    take: Callable[..., tuple[State, StepState, tuple[Tensor, ...]]],
    solver: Solver,
    term: Term,
    grid: Tensor,
    y: State,
    state: StepState,
    dense: bool,
) -> tuple[Tensor, StepState, Tensor | None]:
    """A walk that a program is made of: the ends of its steps share no memory."""
    path, state, interpolants = _walk(take, solver, term, [end.clone() for end in grid.unbind(0)], y, state, dense)
    return torch.stack(path[1:]), state, _stacked(interpolants) if dense else None


_STEPS = 8
_PROGRAM = Program(_run, _take_afresh)


def _stacked(interpolants: list[tuple[Tensor, ...]]) -> Tensor:
    """`(step, part, *batch, state)`, part by part in memory: all polynomials are then one product of two matrices."""
    parts = torch.stack([part for parts in zip(*interpolants, strict=True) for part in parts])
    return parts.unflatten(0, (len(interpolants[0]), len(interpolants))).transpose(0, 1)
