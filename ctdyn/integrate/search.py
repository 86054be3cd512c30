"""The search for the steps of every series: attempts that stand or are taken back, on a clock per series."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .._types import State, Time
from ..solvers.base import Solver, Step, StepState
from ..terms import Term
from .clock import Clock, landing_times
from .compaction import Rows, divisible, fewer, stand_alone
from .compiled import Program, fresh
from .controllers import AdaptiveController
from .dense import Record
from .status import Status


__all__ = ["Front", "Limits", "Search", "StepPlan", "Trial", "Watch"]


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
        doubtful: whether a step had to be shortened because errors grew faster than it resolved, `(*batch,)`; None
            where nothing is known.

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
    doubtful: Tensor | None = None

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
    def inspect(
        self, solver: Solver, term: Term, t0: Time, t1: Time, y0: State, step: Step, accept: Tensor
    ) -> tuple[Tensor, Time]:
        """Whether the solve of each series ends inside a step that stands, `(*batch,)`, and when; it then lands there.

        Args:
            solver: the method that took the step.
            term: the equation, restricted to the step.
            t0: its start, `(*batch,)`.
            t1: its end.
            y0: state at its start, `(*batch, state)`.
            step: what the method returned.
            accept: whether the step of each series stands, `(*batch,)`.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget what was seen: another search begins."""


@dataclass(frozen=True)
class Limits:
    """How far a plan goes, what it looks at, and what it keeps.

    Args:
        max_steps: the most attempts of one series.
        keep: keep the steps of an adaptive plan, so that no replay is needed.
        judged: how many leading entries of the state the error is measured on; None for all.
        watch: what may end the solve of a series before its last time.
        compile: make several attempts per call of a compiled program.

    Example:
        >>> Limits(max_steps=100)
        Limits(max_steps=100, keep=False, judged=None, watch=None, compile=False)
    """

    max_steps: int
    keep: bool = False
    judged: int | None = None
    watch: Watch | None = None
    compile: bool = False


class Front(NamedTuple):
    """Where every series stands between two attempts.

    Args:
        t: the time reached, `(*batch,)`.
        y: the state there, `(*batch, state)`.
        state: what the next step can use.
        dt: length of the next attempt, `(*batch,)`; 0 once a series is done or stuck.
        memory: what the controller wants to see again.
        active: whether the series still steps, `(*batch,)`.
        stop: number of the next time that no step may straddle, `(*batch,)`.
        until: where a watch ends the series, infinite where it does not, `(*batch,)`.
        doubtful: whether errors have grown faster than a step resolved, `(*batch,)`.

    Example:
        >>> Front._fields[:2]
        ('t', 'y')
    """

    t: Time
    y: State
    state: StepState
    dt: Time
    memory: tuple[Tensor, ...]
    active: Tensor
    stop: Tensor
    until: Time
    doubtful: Tensor


class Trial(NamedTuple):
    """What one attempt leaves behind.

    Args:
        tried: whether the series was still stepping, `(*batch,)`.
        accept: whether the step stands.
        finite: False where the attempt was NaN or infinite.
        reach: the time reached.
        span: the start and the end of the attempt; empty where steps are not kept.
        y0: the state at its start.
        interpolant: what the method says of it; empty where steps are not kept.

    Example:
        >>> Trial._fields[:2]
        ('tried', 'accept')
    """

    tried: Tensor
    accept: Tensor
    finite: Tensor
    reach: Time
    span: tuple[Time, ...]
    y0: State
    interpolant: tuple[Tensor, ...]


@dataclass(frozen=True)
class Search:
    """The rules of an adaptive plan; all that changes from attempt to attempt is a `Front`.

    Args:
        term: the equation.
        solver: the method.
        controller: what judges the attempts.
        direction: 1 forward, -1 backward, `(*batch,)`.
        stops: times that no step may straddle, the start and the end included, `(stop, *batch)`.
        knotted: whether the equation has knots, and so must be restricted to each step.
        keep: whether the steps are kept.
        limits: how far to go, and what to look at.

    Example:
        >>> from ctdyn.integrate.controllers import PIDController
        >>> from ctdyn.solvers import Tsit5
        >>> from ctdyn.terms import ODETerm
        >>> clock = Clock.create(torch.tensor([0.0, 1.0]), None, torch.Size([]), torch.float64)
        >>> search = Search.create(ODETerm(lambda t, y: -y), Tsit5(), PIDController(), clock, Limits(100))
        >>> search.run(torch.ones(1, dtype=torch.float64)).steps
        tensor(3)
    """

    term: Term
    solver: Solver
    controller: AdaptiveController
    direction: Tensor
    stops: Tensor
    knotted: bool
    keep: bool
    limits: Limits

    @classmethod
    def create(cls, term: Term, solver: Solver, controller: AdaptiveController, clock: Clock, limits: Limits) -> Search:
        """The search for the steps of a clock."""
        knots = term.knots()
        stops = torch.stack([clock.t0.detach(), clock.end.detach()], -1)
        if knots is not None:
            stops = landing_times(stops, clock, knots.detach())
        stops = torch.movedim(stops, -1, 0)
        keep = limits.keep and solver.interpolates
        return cls(term, solver, controller, clock.direction, stops, knots is not None, keep, limits)

    def run(self, y0: State) -> StepPlan:
        """Step until every series is done or has failed."""
        if self.limits.compile:
            return self._run_compiled(y0)
        return self._plan(*self._follow(self.begin(y0), self.limits.max_steps))

    def _follow(self, front: Front, left: int) -> tuple[Front, Trial | None]:
        """At most so many attempts; once few series are left, of these alone."""
        # Reading a flag stalls an accelerator; a few idle attempts cost it less.
        patience = 1 if front.y.device.type == "cpu" else 4
        trials: list[Trial] = []
        apart = self.limits.watch is None and divisible(self.term, self.solver, self.controller)
        for attempt in range(left):
            if attempt % patience == 0:
                count = int(front.active.sum())
                if not count:
                    break
                rows = fewer(front.active, count, front.y.shape[-1]) if apart else None
                apart = apart and (rows is None or stand_alone(self.term, front.t, front.y, rows))
                if rows is not None and apart:
                    few = replace(self, direction=rows.take(self.direction), stops=rows.take(self.stops, 1))
                    ended, more = few._follow(rows.take(front), left - attempt)
                    runs = [_joined(trials, torch.stack)] if trials else []
                    runs += [] if more is None else [_spread(more, rows, front)]
                    return rows.put(ended, front), _joined(runs, torch.cat) if runs else None
            front, trial = self.attempt(front)
            trials.append(trial)
        return front, _joined(trials, torch.stack) if trials else None

    def _run_compiled(self, y0: State) -> StepPlan:
        """The same attempts, several in one call: a series that is done waits for the end of the call."""
        front, runs, left = fresh(self.begin(y0)), [], self.limits.max_steps
        parts = self.term.field, self.solver, self.controller, self.limits.watch
        while left and bool(front.active.any()):
            count = min(_ATTEMPTS, left)
            arguments = self, front, count
            # The last few attempts of a search that runs out are not worth a program of their own.
            whole = count == _ATTEMPTS
            front, run = _PROGRAM(parts, y0.device, *arguments) if whole else _PROGRAM.uncompiled(*arguments)
            runs.append(run)
            left -= count
        return self._plan(front, _joined(runs, torch.cat) if runs else None)

    def begin(self, y0: State) -> Front:
        """Where every series stands before its first attempt."""
        t, end = self.stops[0], self.stops[-1]
        stop = torch.ones_like(t, dtype=torch.int64).clamp(max=len(self.stops) - 1)
        goal = self.stops.gather(0, stop[None])[0]
        piece = self._piece(t, goal)
        state = self.solver.init(piece, t, y0)
        velocity = state if isinstance(state, Tensor) else piece.derivative(t, y0)
        with torch.no_grad():
            dt = self.controller.first(piece, self.solver, t, goal, y0, velocity, self.limits.judged)
            memory = self.controller.start(t)
        state = self.solver.across(state) if self.knotted else state
        doubtful = torch.zeros_like(t, dtype=torch.bool)
        return Front(t, y0, state, dt, memory, t != end, stop, self.direction * torch.inf, doubtful)

    def attempt(self, front: Front) -> tuple[Front, Trial]:
        """One step of every series that is not done, taken back where its error is too large."""
        t, y = front.t, front.y
        goal = self._goal(front)
        lands = front.dt * (1.0 + 1e-10) >= (goal - t).abs()
        # A series that is done stands on its goal, one that is stuck has a step of 0: neither moves.
        t1 = torch.where(lands, goal, torch.addcmul(t, self.direction, front.dt))
        piece = self._piece(t, t1)
        step = self.solver.step(piece, t, t1, y, front.state, dense=True, estimate=True)
        if step.error is None:
            raise TypeError(f"{type(self.solver).__name__} returned no error estimate; it cannot be adaptive.")
        with torch.no_grad():
            seen = slice(None, self.limits.judged)
            verdict = self.controller.next(
                self.solver, step.error[..., seen], y[..., seen], step.y1[..., seen], front.memory
            )
            accept, factor, doubtful = verdict.accept & front.active, verdict.factor, front.doubtful
            if step.outgrown is not None:
                outgrown = front.active & step.outgrown
                accept, doubtful = accept & ~outgrown, doubtful | outgrown
                factor = torch.where(outgrown, factor.clamp(max=0.2), factor)
            until, ended = front.until, None
            if self.limits.watch is not None:
                landed = accept & (t1 == until)
                hit, when = self.limits.watch.inspect(self.solver, piece, t, t1, y, step, accept & ~landed)
                # Taken back: the next attempt lands exactly where the watch ends the series.
                accept, until, ended = accept & ~hit, torch.where(hit, when, until), landed
            arrived = accept & lands
            dt = (t1 - t).abs() * factor
            # A step that was cut short to land says little about how far the next one may go.
            dt = torch.where(arrived, torch.maximum(dt, front.dt), dt)
            # Attempts that are tried and not accepted, at the resolution of the clock.
            stuck = (front.active ^ accept) & (dt <= t.abs() * (10.0 * torch.finfo(torch.float64).eps))
            dt = torch.where(stuck, 0.0, dt)
            reach = torch.where(accept, t1, t)
            active = (front.active ^ stuck) & (reach != self.stops[-1])
            if ended is not None:
                active = active & ~ended
            stop = front.stop if len(self.stops) == 2 else (front.stop + arrived).clamp(max=len(self.stops) - 1)
        y1 = torch.where(accept.unsqueeze(-1), step.y1, y)
        after = self.solver.across(step.state) if self.knotted else step.state
        state = None if front.state is None else _select(accept, after, front.state)
        trial = Trial(front.active, accept, verdict.finite, reach, (), y, ())
        if self.keep:
            trial = trial._replace(span=(t, t1), interpolant=step.interpolant)
        return Front(reach, y1, state, dt, verdict.memory, active, stop, until, doubtful), trial

    def _piece(self, t0: Time, t1: Time) -> Term:
        return self.term.restrict(t0, t1) if self.knotted else self.term

    def _goal(self, front: Front) -> Time:
        """The time that the next step of each series must not pass."""
        goal = self.stops[-1] if len(self.stops) == 2 else self.stops.gather(0, front.stop[None])[0]
        if self.limits.watch is None:
            return goal
        return torch.where((front.until - goal) * self.direction < 0, front.until, goal)

    def _plan(self, front: Front, trials: Trial | None) -> StepPlan:
        """The plan, of all attempts stacked."""
        start = self.stops[0]
        if trials is None:
            none = torch.zeros_like(front.stop)
            return StepPlan(torch.stack([start, start]), none, none, none + 2, none, front.y, doubtful=front.doubtful)
        attempts, steps = trials.tried.sum(0), trials.accept.sum(0)
        longest = max(int(steps.amax()), 1)
        # Accepted attempts first, in their order: series that rejected often line up with those that did not.
        rows = (~trials.accept).to(torch.uint8).argsort(dim=0, stable=True)[:longest]
        held = torch.arange(longest, device=steps.device).reshape(-1, *[1] * steps.dim()) < steps
        ends = torch.where(held, trials.reach.gather(0, rows), front.t)
        grid = torch.cat([start[None], ends])
        taken = None
        if self.keep:
            t0, t1 = trials.span
            parts = torch.stack(trials.interpolant).transpose(0, 1)
            taken = Record(self.term, self.solver, grid, t0, t1, trials.y0, parts, front.y, rows)
        status = self._status(front, trials.finite, attempts)
        evaluations = attempts * (self.solver.stages + self.knotted) + 2
        return StepPlan(grid, steps, attempts - steps, evaluations, status, front.y, taken, front.doubtful)

    def _status(self, front: Front, finite: Tensor, attempts: Tensor) -> Tensor:
        """How each series ended: at its goal, out of attempts, or with a last attempt that could not be shortened."""
        last = finite.gather(0, (attempts - 1).clamp(min=0)[None])[0]
        reason = torch.where(last, int(Status.STEP_SIZE), int(Status.NON_FINITE))
        reason = torch.where(front.active, int(Status.MAX_STEPS), reason)
        done = front.t == self.stops[-1] if self.limits.watch is None else (front.t == self._goal(front))
        return torch.where(done, int(Status.SUCCESS), reason)


def _attempts(
    attempt: Callable[[Search, Front], tuple[Front, Trial]], search: Search, front: Front, count: int
) -> tuple[Front, Trial]:
    """Several attempts, their trials stacked."""
    trials = []
    for _ in range(count):
        front, trial = attempt(search, front)
        trials.append(trial)
    return front, _joined(trials, torch.stack)


def _attempt(search: Search, front: Front) -> tuple[Front, Trial]:
    front, trial = search.attempt(front)
    return fresh(front), fresh(trial)


_ATTEMPTS = 4
_PROGRAM = Program(_attempts, _attempt)


def _joined(trials: list[Trial], join: Callable[[tuple[Tensor, ...]], Tensor]) -> Trial:
    """All trials in one, the attempts along the first axis."""
    tried, accept, finite, reach, span, y0, interpolant = zip(*trials, strict=True)
    spans, parts = zip(*span, strict=True), zip(*interpolant, strict=True)
    return Trial(
        join(tried), join(accept), join(finite), join(reach), tuple(map(join, spans)), join(y0), tuple(map(join, parts))
    )


def _spread(trials: Trial, rows: Rows, front: Front) -> Trial:
    """The attempts of some series as those of all: the others stand still."""
    count = len(trials.tried)

    def held(x: Tensor) -> Tensor:
        return x.expand(count, *x.shape)

    off = torch.zeros_like(front.active)
    still = Trial(
        held(off),
        held(off),
        held(~off),
        held(front.t),
        tuple(held(front.t) for _ in trials.span),
        held(front.y),
        tuple(torch.zeros_like(held(front.y)) for _ in trials.interpolant),
    )
    return rows.put(trials, still, 1)


def _select(accept: Tensor, new: StepState, old: StepState) -> StepState:
    """What the next step can use: of the step that was taken, or what was there before it."""
    if isinstance(new, tuple) and isinstance(old, tuple):
        return tuple(_choose(accept, a, b) for a, b in zip(new, old, strict=True))
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        return _choose(accept, new, old)
    return None


def _choose(accept: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(accept.reshape(*accept.shape, *[1] * (new.dim() - accept.dim())), new, old)
