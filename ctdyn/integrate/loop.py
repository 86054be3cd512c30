"""The clocked loop: plan the steps of every series without gradients, then replay them with gradients.

A plan is data. The replay of a plan is a fixed program, so that memory policies (`adjoint`) are ways to run it, and no
gradient ever passes through the choice of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .._types import State, States, Times
from ..solvers.base import Solver, StepState
from ..terms import Term
from .clock import Clock
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

    @classmethod
    def create(cls, term: Term, solver: Solver, planned: StepPlan, clock: Clock, lands: bool) -> Replay:
        """The replay of a plan for the outputs of a clock."""
        grid = planned.grid
        if not lands and not grid.requires_grad and (clock.ts.requires_grad or clock.t0.requires_grad):
            # The steps between the ends are data; the first starts at t0 and the last ends at the last time.
            shape = (-1, *[1] * planned.steps.dim())
            number = torch.arange(len(grid), device=grid.device).reshape(shape)
            whole = planned.reached == clock.end.detach()
            grid = torch.where((number >= planned.steps.clamp(min=1)) & whole, clock.end, grid)
            grid = torch.where(number == 0, clock.t0, grid)
        return cls(term, solver, grid, clock.ts, locate(grid, clock.ts, clock.direction), lands)

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
        knotted = self.term.knots() is not None
        dense = not self.lands and self.solver.interpolates
        y, nodes, interpolants = y0, [y0], []
        ends = grid.unbind(0)
        pieces = self.solver.pieces(self.term, ends, y0.dtype)
        for (t0, t1), piece in zip(pairwise(ends), pieces, strict=True):
            step = self.solver.step(piece, t0, t1, y, self.solver.across(state) if knotted else state, dense=dense)
            y, state = step.y1, step.state
            nodes.append(y)
            interpolants.append(step.interpolant)
        if self.lands:
            return Segment(rows_of(torch.stack(nodes), node), y, state, None, nodes)
        if not dense:
            return Segment(self._step_to(grid, torch.stack(nodes), ts, node), y, state, None, nodes)
        spans = grid[:-1], grid[1:]
        record = Record.create(self.term, self.solver, grid, spans, nodes[:-1], interpolants)
        return Segment(record.read(ts, node), y, state, record, nodes)

    def _step_to(self, grid: Tensor, nodes: Tensor, ts: Times, node: Tensor) -> States:
        """Outputs of a method without dense output: by one shorter step each from the node before, all at once."""
        step = (node - 1).clamp(min=0)
        start, end, times = rows_of(grid, step), rows_of(grid, node), ts.detach()
        rounding = 4.0 * torch.finfo(times.dtype).eps * times.abs() + 1e-12 * (end - start).abs().detach()
        at_start = (times - start).abs() <= rounding
        on_node = at_start | ((times - end).abs() <= rounding)
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
