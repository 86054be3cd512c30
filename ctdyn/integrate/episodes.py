"""A solve with events: one stretch after the other, each ended by the next event of every series."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._checks import SolveError
from .._types import State, Time, Times
from ..paths.base import Path
from .clock import Clock
from .controllers import GridController, PIDController
from .events import Event, Events, EventWatch
from .loop import Limits, Replay, StepPlan, plan
from .problem import Answer, Problem
from .status import Status


__all__ = ["EpisodePath", "run_episodes"]

_LOOSER = 30.0
"""How much looser the solve is with which one with events is compared: half as dear, and so much less exact."""

_LEAST = 1e-4
"""The smallest share of the tolerances that the time of an event may ask for."""

_MOMENT = 1e-6
"""The share of a solve within which two events are one moment."""


def run_episodes(problem: Problem, events: Sequence[Event]) -> tuple[Answer, Events]:
    """Solve to the next event of each series, let it jump, and go on from there on a clock of its own.

    Tolerances bound the error of states. Where a condition is flat, or the solution leads past a saddle, times are far
    worse: those of adaptive steps are compared with the times of a looser solve, and series in which they are not good
    to about the relative tolerance are solved within as small a share of it as that takes.

    Args:
        problem: the problem without its events.
        events: what may happen.

    Raises:
        ValueError: the method has no dense output.
        SolveError: events accumulate at a point in time, as the bounces of a ball do when it comes to rest.

    Example:
        >>> from ctdyn.integrate import Direct
        >>> from ctdyn.solvers import Tsit5
        >>> from ctdyn.terms import ODETerm
        >>> clock = Clock.create(torch.tensor([0.0, 4.0]), None, torch.Size([]), torch.float32)
        >>> rise = ODETerm(lambda t, y: torch.ones_like(y))
        >>> problem = Problem(rise, torch.zeros(1), clock, Tsit5(), PIDController(), Direct(), 100, True)
        >>> run_episodes(problem, [Event(lambda t, y: y[..., 0] - 3.0)])[1].times
        tensor([3.0000], dtype=torch.float64)
    """
    if not problem.solver.interpolates:
        raise ValueError(
            f"{type(problem.solver).__name__} has no dense output to find an event on; use a method for ordinary "
            "equations such as Tsit5()."
        )
    run = _solved(problem, events)
    share, spent = _shares(run)
    if share is not None:
        tighter = problem.tightened(share)
        again = None if tighter is None else _solved(replace(tighter, throw=False), events)
        if again is not None and not bool(((again.status != Status.SUCCESS) & (run.status == Status.SUCCESS)).any()):
            spent, run = spent + run.stats["evaluations"], again
    run.stats["evaluations"] = run.stats["evaluations"] + spent
    return run.result()


def _solved(problem: Problem, events: Sequence[Event]) -> _Run:
    run = _Run(problem, events)
    while run.go_on():
        run.episode()
    return run


@torch.no_grad()
def _shares(run: _Run) -> tuple[Tensor | None, Tensor]:
    """The share of the tolerances that the events of each series need, None where all of it will do; and evaluations.

    The error of the looser solve is what the two differ by, and errors go with a power of the tolerance.
    """
    problem, one = run.problem, torch.ones_like(run.reached.detach())
    nothing = torch.zeros_like(run.status)
    control, finest = problem.controller, 100.0 * torch.finfo(problem.y0.dtype).eps
    if not isinstance(control, PIDController) or not run.happened:
        return None, nothing
    rtol = torch.as_tensor(control.rtol, dtype=torch.float64, device=one.device)
    rtol = rtol.amax(-1) if rtol.dim() > one.dim() else rtol
    looser = problem.tightened(_LOOSER * one)
    if looser is None or not bool((rtol > 0).all()):
        return None, nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = _solved(replace(looser, y0=problem.y0.detach(), throw=False), run.events)
    times, loose = _side_by_side(run.times(), other.times())
    apart = (times - loose).abs() / (rtol.unsqueeze(-1) * times.abs().clamp(min=1.0))
    # An event of one solve alone: nothing is known of its time but that it is hard to tell.
    apart = torch.where(times.isnan() & loose.isnan(), 0.0, apart).nan_to_num(nan=torch.inf).amax(-1)
    power = problem.solver.order / (problem.solver.order + 1.0)
    error = apart * _LOOSER**-power
    share = torch.where(error > 1.0, (0.5 / error) ** (1.0 / power), one)
    least = torch.maximum(torch.full_like(share, _LEAST), finest / rtol).clamp(max=1.0)
    share = torch.where((error > 1.0) & (run.status == Status.SUCCESS), torch.maximum(share, least), one)
    return (share if bool((share < 1.0).any()) else None), other.stats["evaluations"]


def _side_by_side(*times: Tensor) -> list[Tensor]:
    """Times of different counts, filled up with NaN."""
    width = max(x.shape[-1] for x in times)
    return [torch.nn.functional.pad(x, (0, width - x.shape[-1]), value=torch.nan) for x in times]


class _Run:
    """Where every series is, and what has happened to it so far."""

    def __init__(self, problem: Problem, events: Sequence[Event]) -> None:
        self.problem, self.events = problem, events
        self.judged = problem.y0.shape[-1] if problem.judged is None else problem.judged
        clock = problem.clock
        self.y, self.start = problem.y0, clock.t0
        self.running = torch.ones_like(clock.t0, dtype=torch.bool)
        self.leaving = self._leaving(torch.zeros_like(self.running))
        self.ys = problem.y0.unsqueeze(-2).expand(*clock.ts.shape, problem.y0.shape[-1])
        self.status = torch.zeros_like(clock.t0, dtype=torch.int64)
        self.stopped = torch.zeros_like(self.running)
        self.stats: dict[str, Tensor] = {}
        self.description = ""
        self.happened: list[tuple[Time, State, Tensor]] = []
        self.starts: list[Time] = []
        self.paths: list[Callable[[], Path]] = []
        self.reached = clock.t0

    def times(self) -> Times:
        """When the events of each series happened, `(*batch, event)`."""
        return _collect(self.happened, self.stopped, self.problem.y0, self.judged).times.detach()

    def go_on(self) -> bool:
        return bool(self.running.any())

    def episode(self) -> None:
        """From where each series is to its next event, or to its end."""
        clock = self._clock()
        watch = EventWatch(self.events, clock.t0.detach(), self.leaving, self.judged, self._tolerance())
        problem = replace(self.problem, y0=self.y, clock=clock)
        if isinstance(problem.controller, GridController):
            problem = replace(problem, controller=_Until(problem.controller, _first_events(problem, watch)))
        answer = problem.run(watch)
        self._keep(answer, clock)
        arrived = answer.planned.reached.detach()
        fired = self.running & (arrived == watch.when) & (answer.planned.status == Status.SUCCESS)
        self.running = fired
        if not self.go_on():
            return
        time, after, goes_on = self._happen(arrived, answer.final, torch.where(fired, watch.which, -1), watch.each)
        self._refuse_accumulation(arrived, clock)
        self.reached = torch.where(fired, time.detach(), self.reached)
        self.y = torch.where(goes_on[..., None], after, self.y)
        self.start = torch.where(goes_on, time, self.start)
        self.running = self.running & goes_on & (arrived != self.problem.clock.end.detach())
        self.leaving = self._leaving(goes_on)

    def _clock(self) -> Clock:
        """What is left of each clock; a series that is done stands still."""
        clock = self.problem.clock
        start = torch.where(self.running, self.start, self.start.detach())
        ahead = (clock.ts.detach() - start.detach()[..., None]) * clock.direction[..., None] > 0
        ahead = ahead & self.running[..., None]
        return replace(clock, ts=torch.where(ahead, clock.ts, start[..., None]), t0=start, from_first=False)

    def _tolerance(self) -> float:
        control = self.problem.controller
        return float(torch.as_tensor(control.rtol).amax()) if isinstance(control, PIDController) else 1e-9

    def _keep(self, answer: Answer, clock: Clock) -> None:
        """The outputs of this stretch: those behind its start, and at the start of the solve."""
        first = not self.starts
        ahead = (clock.ts.detach() != clock.t0.detach()[..., None]) | first
        self.ys = torch.where((ahead & self.running[..., None])[..., None], answer.ys, self.ys)
        self.status = torch.where(self.running, answer.planned.status, self.status)
        self.reached = torch.where(self.running, answer.planned.reached.detach(), self.reached)
        counts = {name: torch.where(self.running, count, 0) for name, count in answer.stats.items()}
        self.stats = {name: count + self.stats.get(name, 0) for name, count in counts.items()}
        self.description = self.description or answer.description
        self.starts.append(torch.where(self.running, clock.t0, torch.inf * clock.direction).detach())
        self.paths.append(answer.dense)
        spent = self.stats["steps"] + self.stats["rejected"]
        over = self.running & (spent > self.problem.max_steps)
        if bool(over.any()):
            self.status = torch.where(over, int(Status.MAX_STEPS), self.status)
            self.running = self.running & ~over
            if self.problem.throw:
                self.problem.fail(self.status, self.stats["steps"], self.reached, answer.final)

    def _happen(self, time: Time, y: State, which: Tensor, due: Tensor) -> tuple[Time, State, Tensor]:
        """An event of each series, and all that come in the same moment: the time, the state behind, and who goes on.

        Args:
            time: when, `(*batch,)`.
            y: the state before, `(*batch, state)`.
            which: the event, `(*batch,)`; -1 where there is none.
            due: when each event of the sequence was to come, NaN where it was not, `(event, *batch)`.
        """
        jumps = torch.tensor([event.jump is not None for event in self.events], device=which.device)
        number = torch.arange(len(self.events), device=which.device).reshape(-1, *[1] * which.dim())
        goes_on = which >= 0
        while bool((which >= 0).any()):
            time, before, y = self._jump(time, y, which)
            now = which >= 0
            self.happened.append((torch.where(now, time, torch.nan), before, which))
            goes_on = goes_on & (~now | jumps[which.clamp(min=0)])
            self.stopped = self.stopped | (now & ~goes_on)
            due = torch.where(number == which, torch.nan, due)
            which = self._next(time.detach(), y.detach(), due, now & goes_on)
        return time, y, goes_on

    @torch.no_grad()
    def _next(self, time: Time, y: State, due: Tensor, among: Tensor) -> Tensor:
        """The event that comes in the very moment of another and is still due behind its jump, -1 for none."""
        clock = self.problem.clock
        *_, near = self._roots(time, y)
        close = (due - time).abs() <= 2.0 * _MOMENT * (clock.end - clock.t0).detach().abs()
        order = torch.where(close & near & among, due * clock.direction, torch.inf)
        first = (order == order.amin(0)).to(torch.uint8).argmax(0)
        return torch.where(torch.isfinite(order).any(0), first, -1)

    def _roots(self, t: Time, y: State) -> tuple[Tensor, Tensor, Tensor]:
        """Each condition, its slope along the solution, and whether a root is a moment away, `(event, *batch)` each."""
        clock, seen = self.problem.clock, slice(None, self.judged)
        velocity = self.problem.term.restrict(t, clock.end.detach()).derivative(t, y)
        values = torch.stack([event.evaluate(t, y[..., seen]) for event in self.events])
        slopes = torch.stack([event.slope(t, y[..., seen], velocity[..., seen]) for event in self.events])
        return values, slopes, values.abs() <= _MOMENT * slopes.abs() * (clock.end - clock.t0).detach().abs()

    def _jump(self, arrived: Time, y: State, which: Tensor) -> tuple[Time, State, State]:
        """The time of each series' event, the state before and the state after, as functions of all that they hang on.

        One Newton step from the root that was found gives the derivatives of the root, and its last digits.
        """
        piece = self.problem.term.restrict(self._episode_start(), arrived)
        with torch.no_grad():
            velocity = piece.derivative(arrived, y)
        time = arrived
        for number, event in enumerate(self.events):
            seen = slice(None, self.judged)
            slope = event.slope(arrived, y[..., seen], velocity[..., seen])
            step = event.evaluate(arrived, y[..., seen]) / torch.where(slope == 0, torch.inf, slope)
            time = torch.where(which == number, arrived - step, time)
        before = torch.addcmul(y, (time - arrived).to(y.dtype).unsqueeze(-1), velocity)
        after = before
        for number, event in enumerate(self.events):
            if event.jump is not None and bool((which == number).any()):
                jumped = self._apply(event.jump, time, before)
                after = torch.where((which == number)[..., None], jumped, after)
        return time, before, after

    def _apply(self, jump: Callable[[Tensor, Tensor], Tensor], time: Time, y: State) -> State:
        inner = y[..., : self.judged]
        jumped = jump(time.to(y.dtype.to_real()), inner)
        if not isinstance(jumped, Tensor) or jumped.shape != inner.shape or jumped.dtype != inner.dtype:
            got = f"{jumped.dtype} {tuple(jumped.shape)}" if isinstance(jumped, Tensor) else type(jumped).__name__
            raise ValueError(
                f"the jump of an event must return the state after it, {inner.dtype} {tuple(inner.shape)}; got {got}."
            )
        return torch.cat([jumped, y[..., self.judged :]], -1)

    def _episode_start(self) -> Time:
        return torch.where(torch.isfinite(self.starts[-1]), self.starts[-1], self.start.detach())

    @torch.no_grad()
    def _leaving(self, restarted: Tensor) -> Tensor:
        """With what sign each condition leaves zero: where the series starts on a root, or comes from one."""
        values, slopes, near = self._roots(self.start.detach(), self.y.detach())
        # Behind a jump the root was met up to the error of the solve.
        zero = (values == 0) | (restarted & near)
        return torch.where(zero, slopes.sign() * self.problem.clock.direction, 0.0)

    def _refuse_accumulation(self, arrived: Time, clock: Clock) -> None:
        """Events that follow each other faster than times can tell apart never end."""
        interval = (arrived - clock.t0.detach()).abs()
        size = torch.maximum(arrived.abs(), (self.problem.clock.end - self.problem.clock.t0).detach().abs())
        stuck = self.running & (interval <= 1e3 * torch.finfo(torch.float64).eps * size) & (len(self.happened) > 1)
        if not bool(stuck.any()):
            return
        self.status = torch.where(stuck, int(Status.STEP_SIZE), self.status)
        self.running = self.running & ~stuck
        if self.problem.throw:
            where = tuple(torch.nonzero(stuck)[0].tolist())
            name = f"series {', '.join(map(str, where))}" if where else "the series"
            raise SolveError(
                f"the events of {name} accumulate at t={float(arrived[where]):.10g}: {len(self.happened)} of them, the "
                "last two closer than float64 times resolve. Stop the series before, for example by an Event without "
                "a jump on how slow it is, or pass throw=False."
            )

    def result(self) -> tuple[Answer, Events]:
        """Everything together."""
        clock = self.problem.clock
        gone = (clock.ts.detach() - self.reached[..., None]) * clock.direction[..., None] > 0
        gone = gone & (self.stopped | (self.status != Status.SUCCESS))[..., None]
        ys = torch.where(gone[..., None], torch.nan, self.ys)
        grid = torch.stack([clock.t0.detach(), self.reached])
        steps, rejected, evaluations = (self.stats[name] for name in ("steps", "rejected", "evaluations"))
        planned = StepPlan(grid, steps, rejected, evaluations, self.status, self.y)
        starts, makers, direction = torch.stack(self.starts), tuple(self.paths), clock.direction
        events = _collect(self.happened, self.stopped, self.problem.y0, self.judged)
        answer = Answer(
            ys,
            self.y,
            planned,
            self.stats,
            f"{self.description}; {events.times.shape[-1]} events in the series that had most",
            lambda: EpisodePath(tuple(make() for make in makers), starts, direction),
        )
        return answer, events


def _collect(happened: list[tuple[Time, State, Tensor]], stopped: Tensor, y0: State, size: int) -> Events:
    """The events of each series, in their order, without the integrals in the states."""
    if not happened:
        return Events.none(y0[..., :size])
    times, states, which = (torch.stack(column) for column in zip(*happened, strict=True))
    # In some rows only those series have an event that have several in one moment.
    count = int((which >= 0).sum(0).amax())
    order = (which < 0).to(torch.uint8).argsort(dim=0, stable=True)[:count]
    times, which = times.gather(0, order), which.gather(0, order)
    states = states.gather(0, order[..., None].expand(*order.shape, states.shape[-1]))
    states = torch.where((which >= 0)[..., None], states[..., :size], torch.nan)
    return Events(times.movedim(0, -1), states.movedim(0, -2), which.movedim(0, -1), stopped)


class _Until(GridController):
    """Fixed steps that end early: for each series at a time of its own."""

    def __init__(self, base: GridController, until: Time) -> None:
        self.base, self.until = base, until

    def __repr__(self) -> str:
        return repr(self.base)

    @property
    def lands(self) -> bool:
        return self.base.lands

    def count(self, clock: Clock, knots: Times | None) -> int:
        return self.base.count(clock, knots)

    def grid(self, clock: Clock, knots: Times | None) -> Tensor:
        grid = self.base.grid(clock, knots)
        return torch.where((grid.detach() - self.until) * clock.direction > 0, self.until, grid)


@torch.no_grad()
def _first_events(problem: Problem, watch: EventWatch) -> Time:
    """When the first event of each series falls into steps that are known beforehand; infinity where none does."""
    clock = problem.clock
    planned = plan(problem.term, problem.solver, problem.controller, problem.y0, clock, Limits(problem.max_steps))
    record = Replay.create(problem.term, problem.solver, planned, clock, lands=False).run(problem.y0).record
    if record is None:
        raise TypeError(f"{type(problem.solver).__name__} has no dense output.")
    polynomials = record.trajectory().coefficients.movedim(-2, 1)
    grid = planned.grid.detach()
    found, when = watch.look(polynomials, grid[:-1], grid[1:], torch.ones_like(planned.status, dtype=torch.bool))
    return torch.where(found, when, torch.inf * clock.direction)


@dataclass(frozen=True)
class EpisodePath(Path):
    """A solution with jumps: one path after the other. At the time of an event it has the state before.

    Args:
        parts: the paths.
        starts: where each begins in each series, infinite where it has none, `(part, *batch)`.
        direction: 1 where time runs forward, -1 backward, `(*batch,)`.
        chosen: the one part to follow in each series, `(*batch,)`; None: whichever covers the time.

    Example:
        >>> from ctdyn.paths import ConstantPath
        >>> parts = ConstantPath(torch.tensor([1.0])), ConstantPath(torch.tensor([2.0]))
        >>> path = EpisodePath(parts, torch.tensor([0.0, 3.0]), torch.tensor(1.0))
        >>> path.evaluate(torch.tensor(3.0)), path.evaluate(torch.tensor(3.5))
        (tensor([1.]), tensor([2.]))
    """

    parts: tuple[Path, ...]
    starts: Tensor
    direction: Time
    chosen: Tensor | None = None

    @property
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""
        return self.direction.shape

    def _number(self, t: Time) -> Tensor:
        if self.chosen is not None:
            return self.chosen.expand(t.shape)
        number = torch.zeros_like(t, dtype=torch.int64)
        for part, start in enumerate(self.starts[1:], 1):
            number = torch.where((t.detach() - start) * self.direction > 0, part, number)
        return number

    def _pick(self, t: Time, of: Callable[[Path], State]) -> State:
        number = self._number(t)
        value = of(self.parts[0])
        for part, path in enumerate(self.parts[1:], 1):
            value = torch.where((number == part)[..., None], of(path), value)
        return value

    def evaluate(self, t: Time) -> State:
        """The state at one time per series, `(*batch, state)`."""
        return self._pick(t, lambda path: path.evaluate(t))

    def derivative(self, t: Time) -> State:
        """The velocity at one time per series, `(*batch, state)`."""
        return self._pick(t, lambda path: path.derivative(t))

    def restrict(self, t0: Time, t1: Time) -> EpisodePath:
        """The path between `t0` and `t1`: that of the part which covers the middle of the interval."""
        middle = 0.5 * (t0 + t1)
        parts = tuple(path.restrict(t0, t1) for path in self.parts)
        return replace(self, parts=parts, chosen=self._number(middle))

    def knots(self) -> Times | None:
        """The ends of the steps, and the events."""
        knots = [knots for path in self.parts if (knots := path.knots()) is not None]
        if not knots:
            return None
        return torch.cat([k.expand(*self.batch_shape, k.shape[-1]) for k in knots], -1).sort(-1).values

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of all parts."""
        return tuple(tensor for path in self.parts for tensor in path.tensors())

    def replace(self, tensors: tuple[Tensor, ...]) -> EpisodePath:
        """The same path made of other tensors."""
        rest, parts = list(tensors), []
        for path in self.parts:
            count = len(path.tensors())
            parts.append(path.replace(tuple(rest[:count])))
            rest = rest[count:]
        return replace(self, parts=tuple(parts))
