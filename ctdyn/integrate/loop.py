"""The clocked loop: plan the steps of every series without gradients, then replay them with gradients.

A plan is data. The replay of a plan is a fixed program, so that memory policies (`adjoint`) are ways to run it, and no
gradient ever passes through the choice of a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .._types import State, States, Time, Times
from ..solvers.base import Solver, Step, StepState
from ..terms import Term
from .clock import Clock, landing_times
from .controllers import AdaptiveController, GridController, StepController
from .dense import Record, locate, rows_of
from .status import Status


__all__ = ["Limits", "Replay", "Segment", "StepPlan", "Watch", "plan"]


@dataclass(frozen=True)
class StepPlan:
    """The steps of every series, and how each of them ended.

    Args:
        grid: ends of the steps, the start included, `(step + 1, *batch)`; a series that is done stays on its last time.
        steps: steps taken by each series, `(*batch,)`.
        rejected: attempts that were thrown away, `(*batch,)`.
        evaluations: evaluations of the field spent on planning, `(*batch,)`.
        status: a `Status` per series, `(*batch,)`.
        final: the state at the last time reached, `(*batch, state)`; None where planning needed no state.
        taken: the steps as planned, where they were kept.

    Example:
        >>> count = torch.tensor(1)
        >>> StepPlan(torch.tensor([0.0, 2.0]), count, count - 1, count, count - 1).reached
        tensor(2.)
    """

    grid: Tensor
    steps: Tensor
    rejected: Tensor
    evaluations: Tensor
    status: Tensor
    final: Tensor | None = None
    taken: Record | None = None

    @property
    def reached(self) -> Time:
        """The last time of each series, `(*batch,)`."""
        return self.grid[-1]


class Watch(ABC):
    """What looks at every step of a search and may end the solve of a series inside it.

    Example:
        >>> Watch.__name__
        'Watch'
    """

    @abstractmethod
    def inspect(self, solver: Solver, term: Term, t0: Time, t1: Time, y0: State, step: Step) -> tuple[Tensor, Time]:
        """Whether the solve of each series ends inside the step, `(*batch,)`, and when; the step then lands there."""


@dataclass(frozen=True)
class Limits:
    """How far a plan goes, what it looks at, and what it keeps.

    Args:
        max_steps: the most attempts of one series.
        keep: keep the steps of an adaptive plan, so that no replay is needed.
        judged: how many leading entries of the state the error is measured on; None for all.
        watch: what may end the solve of a series before its last time.

    Example:
        >>> Limits(max_steps=100)
        Limits(max_steps=100, keep=False, judged=None, watch=None)
    """

    max_steps: int
    keep: bool = False
    judged: int | None = None
    watch: Watch | None = None


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
        return _Search(term, solver, controller, y0, clock, limits).run(limits.max_steps)


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


class _Search:
    """The state of an adaptive plan: where each series is, how far it dares to go, and what it has done so far."""

    def __init__(
        self,
        term: Term,
        solver: Solver,
        controller: AdaptiveController,
        y0: State,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self.term, self.solver, self.controller = term, solver, controller
        self.keep = limits.keep and solver.interpolates
        self.judged, self.watch = limits.judged, limits.watch
        self.direction = clock.direction
        self.start, self.end = clock.t0.detach(), clock.end.detach()
        self.t, self.y = self.start, y0
        knots = term.knots()
        self.knotted = knots is not None
        ends = torch.stack([self.start, self.end], -1)
        stops = ends if knots is None else landing_times(ends, clock, knots.detach())
        self.stops = torch.movedim(stops, -1, 0)
        self.next_stop = torch.ones_like(self.start, dtype=torch.int64).clamp(max=len(self.stops) - 1)
        self.status = torch.zeros_like(self.next_stop)
        self.active = self.t != self.end
        self.until = clock.direction * torch.inf
        self.ended = torch.zeros_like(self.active)
        self.reaches: list[Tensor] = []
        self.accepts: list[Tensor] = []
        self.spans: list[tuple[Tensor, Tensor]] = []
        self.starts: list[Tensor] = []
        self.interpolants: list[tuple[Tensor, ...]] = []
        self.attempts = torch.zeros_like(self.next_stop)

    def run(self, max_steps: int) -> StepPlan:
        """Step until every series is done or has failed."""
        # Reading a flag stalls an accelerator; a few idle attempts cost it less.
        patience = 1 if self.t.device.type == "cpu" else 4
        piece = self._piece(self.t, self._stop())
        state = self.solver.init(piece, self.t, self.y)
        velocity = state if isinstance(state, Tensor) else piece.derivative(self.t, self.y)
        self.state: StepState = None if self.knotted else state
        self.dt = self.controller.first(piece, self.solver, self.t, self._stop(), self.y, velocity)
        self.memory = self.controller.start(self.t)
        for attempt in range(max_steps):
            if attempt % patience == 0 and not bool(self.active.any()):
                break
            self._attempt()
        else:
            self.status = torch.where(self.active, int(Status.MAX_STEPS), self.status)
        return self._plan()

    def _piece(self, t0: Time, t1: Time) -> Term:
        return self.term.restrict(t0, t1) if self.knotted else self.term

    def _stop(self) -> Time:
        stop = self.stops[-1] if len(self.stops) == 2 else self.stops.gather(0, self.next_stop[None])[0]
        if self.watch is None:
            return stop
        return torch.where((self.until - stop) * self.direction < 0, self.until, stop)

    def _attempt(self) -> None:
        stop = self._stop()
        lands = self.dt * (1.0 + 1e-10) >= (stop - self.t).abs()
        t1 = torch.where(self.active, torch.where(lands, stop, self.t + self.direction * self.dt), self.t)
        step = self.solver.step(self._piece(self.t, t1), self.t, t1, self.y, self.state, dense=True, estimate=True)
        if step.error is None:
            raise TypeError(f"{type(self.solver).__name__} returned no error estimate; it cannot be adaptive.")
        seen = slice(None, self.judged)
        verdict = self.controller.next(
            self.solver, step.error[..., seen], self.y[..., seen], step.y1[..., seen], self.memory
        )
        accept = verdict.accept & self.active
        if self.watch is not None:
            accept = self._look(t1, step, accept)
        span = t1 - self.t
        self.reaches.append(torch.where(accept, t1, self.t))
        self.accepts.append(accept)
        if self.keep:
            self.spans.append((self.t, t1))
            self.starts.append(self.y)
            self.interpolants.append(step.interpolant)
        self.attempts = self.attempts + self.active
        # A step that was cut short to land says little about how far the next one may go.
        wanted = span.abs() * verdict.factor
        dt = torch.where(accept & lands, torch.maximum(wanted, self.dt), wanted)
        self.memory = verdict.memory
        smallest = 10.0 * torch.finfo(torch.float64).eps * self.t.abs() + 1e-300
        stuck = self.active & ~accept & (dt < smallest)
        reason = torch.where(verdict.finite, int(Status.STEP_SIZE), int(Status.NON_FINITE))
        self.status = torch.where(stuck, reason, self.status)
        self.y = torch.where(accept[..., None], step.y1, self.y)
        if self.state is not None:
            self.state = _select(accept, step.state, self.state)
        self.t = self.reaches[-1]
        self.dt = torch.where(self.active, dt, self.dt)
        self.active = self.active & ~stuck & ~self.ended & (self.t != self.end)
        if len(self.stops) > 2:
            self.next_stop = (self.next_stop + (accept & lands)).clamp(max=len(self.stops) - 1)

    def _look(self, t1: Time, step: Step, accept: Tensor) -> Tensor:
        """Take back a step inside which the watch ends the series: the next attempt lands exactly there."""
        if self.watch is None:
            return accept
        landed = accept & (t1 == self.until)
        self.ended = self.ended | landed
        hit, when = self.watch.inspect(self.solver, self._piece(self.t, t1), self.t, t1, self.y, step)
        hit = hit & accept & ~landed & (when != self.t)
        self.until = torch.where(hit, when, self.until)
        return accept & ~hit

    def _plan(self) -> StepPlan:
        per_attempt = self.solver.stages + self.knotted
        evaluations = self.attempts * per_attempt + 2
        if not self.accepts:
            grid = torch.stack([self.start, self.start])
            none = torch.zeros_like(self.attempts)
            return StepPlan(grid, none, none, evaluations, self.status, self.y)
        accepts = torch.stack(self.accepts)
        steps = accepts.sum(0)
        longest = max(int(steps.amax()), 1)
        # Accepted attempts first, in their order: series that rejected often line up with those that did not.
        rows = (~accepts).to(torch.uint8).argsort(dim=0, stable=True)[:longest]
        held = torch.arange(longest, device=steps.device).reshape(-1, *[1] * steps.dim()) < steps
        ends = torch.where(held, torch.stack(self.reaches).gather(0, rows), self.t)
        grid = torch.cat([self.start[None], ends])
        taken = None
        if self.keep:
            starts, stops = zip(*self.spans, strict=True)
            spans = torch.stack(starts), torch.stack(stops)
            taken = Record.create(self.term, self.solver, grid, spans, self.starts, self.interpolants, rows)
        return StepPlan(grid, steps, self.attempts - steps, evaluations, self.status, self.y, taken)


def _select(accept: Tensor, new: StepState, old: StepState) -> StepState:
    """What the next step can use: of the step that was taken, or what was there before it."""
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        return torch.where(accept.reshape(*accept.shape, *[1] * (new.dim() - accept.dim())), new, old)
    if isinstance(new, tuple) and isinstance(old, tuple):
        pairs = zip(new, old, strict=True)
        return tuple(
            torch.where(accept.reshape(*accept.shape, *[1] * (a.dim() - accept.dim())), a, b) for a, b in pairs
        )
    return None


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
            whole = planned.status == Status.SUCCESS
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
        for t0, t1 in pairwise(grid.unbind(0)):
            piece = self.term.restrict(t0, t1) if knotted else self.term
            step = self.solver.step(piece, t0, t1, y, None if knotted else state, dense=dense)
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
        """Outputs of a method without dense output: all of them by one shorter step each from the node before."""
        step = (node - 1).clamp(min=0)
        t0, t1 = torch.movedim(rows_of(grid, step), -1, 0), torch.movedim(ts, -1, 0)
        y0 = torch.movedim(rows_of(nodes, step), -2, 0)
        piece = self.term.restrict(t0, t1)
        return torch.movedim(self.solver.step(piece, t0, t1, y0, None, dense=False).y1, 0, -2)
