"""Events: what happens to a series when a condition crosses zero, found inside steps and differentiated exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import NonFiniteError
from .._options import with_suggestions
from .._types import State, States, Time, Times
from ..solvers.base import Solver, Step
from ..terms import Term
from .loop import Watch


__all__ = ["Crossing", "Event", "EventWatch", "Events", "first_crossing"]

_SAMPLES = 8
_REFINEMENTS = 18  # each cuts an interval into eight: 54 bits


@with_suggestions
@dataclass(frozen=True)
class Event:
    r"""Something that happens to a series when a condition crosses zero: it stops there, or jumps and goes on.

    .. math:: g(t^*, y(t^*)) = 0, \qquad y(t^*) \leftarrow \mathrm{jump}(t^*, y(t^*))

    The crossing is found on the dense output of every step of every series, also where the condition crosses twice
    within one step, and the step is then made to end there. Gradients reach the time, the state and everything after,
    by the implicit function theorem, from the parameters of the field, of the condition and of the jump.

    With `PIDController` the times are good to about :math:`rtol \max(1, |t^*|)`: they are compared with those of a
    looser solve, half as dear, and series whose times hang on the states more than that, because the condition is flat
    or the solution sensitive, are solved again within a smaller share of the tolerances.

    Several events in one moment all happen, as given where their times are equal: each sees the state that the one
    before it left, and happens only if that is still on its root; behind one that stops the series there is no other.

    A condition that only touches zero is no event, and one that passes it by less than the tolerance may be missed. A
    root at the start of the solve is skipped: the event is armed once the condition has left zero. Two crossings closer
    than an eighth of a step apart are found where the condition is smooth between them; for a rougher one, bound the
    steps with a fixed `ConstantStep`.

    Args:
        condition: `g(t, y)`, a number per series, `(*batch,)`; it must accept extra leading axes, as a field does.
        direction: 1: only where it rises through zero; -1: only where it falls; 0: both.
        jump: the state after the event, `jump(t, y) -> (*batch, state)`; None stops the series. The identity records
            the event and goes on.

    Raises:
        TypeError: the condition or the jump is not callable.
        ValueError: the direction is not -1, 0 or 1.

    Example:
        >>> import ctdyn
        >>> fall = lambda t, y: torch.stack([y[..., 1], torch.full_like(t, -9.81)], -1)
        >>> bounce = Event(lambda t, y: y[..., 0], direction=-1, jump=lambda t, y: y * torch.tensor([0.0, -0.8]))
        >>> solution = ctdyn.solve(fall, torch.tensor([10.0, 0.0]), torch.tensor([0.0, 4.0]), event=bounce)
        >>> solution.events.times
        tensor([1.4278, 3.7124], dtype=torch.float64)
    """

    condition: Callable[[Tensor, Tensor], Tensor]
    direction: int = 0
    jump: Callable[[Tensor, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        for name, value in (("condition", self.condition), ("jump", self.jump)):
            if not callable(value) and (name == "condition" or value is not None):
                raise TypeError(f"the {name} of an event must be a callable f(t, y); got {type(value).__name__}.")
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"the direction of an event must be -1 (falling), 0 or 1 (rising); got {self.direction}.")

    def evaluate(self, t: Time, y: State) -> Tensor:
        """The condition, checked, in float64, `(*batch,)`."""
        value = self.condition(t.to(y.dtype.to_real()), y)
        if not isinstance(value, Tensor) or value.shape != y.shape[:-1]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"the condition of an event must return one number per series, {tuple(y.shape[:-1])} for a state "
                f"(*batch, state) of {tuple(y.shape)}; got {got}."
            )
        if not value.is_floating_point():
            raise TypeError(
                "the condition of an event must be a real number that changes its sign where the event is, such as "
                f"y[..., 0] - 1.0; got {value.dtype}."
            )
        wrong = ~torch.isfinite(value.detach()) & torch.isfinite(y.detach()).all(-1)
        if bool(wrong.any()):
            time = float(t.expand(wrong.shape)[wrong][0])
            raise NonFiniteError(
                f"the event's condition is NaN or infinite at t={time:.10g}, where the state is finite; a condition "
                "must be defined wherever the solution may come."
            )
        return value.to(torch.float64)

    def slope(self, t: Time, y: State, velocity: State) -> Tensor:
        r"""The rate at which the condition changes along the solution, :math:`g_t + g_y \cdot f`, `(*batch,)`."""
        with torch.enable_grad():
            t, y = t.detach().requires_grad_(), y.detach().requires_grad_()
            value = self.evaluate(t, y)
            if not value.requires_grad:
                return torch.zeros_like(value)
            by_t, by_y = torch.autograd.grad(value.sum(), (t, y), allow_unused=True, materialize_grads=True)
        return by_t + (by_y * velocity.detach()).sum(-1)


@dataclass(frozen=True)
class Events:
    """The events of a solve, in their order.

    Args:
        times: when they happened, float64, `(*batch, event)`; NaN behind the last event of a series.
        states: the states just before, `(*batch, event, state)`; NaN there too.
        which: the number of the event in the sequence that was given, `(*batch, event)`; -1 there.
        stopped: whether the series ended at its last event, `(*batch,)`.

    Example:
        >>> import ctdyn
        >>> reach = Event(lambda t, y: y[..., 0] - 2.0)
        >>> ts = torch.tensor([0.0, 9.0])
        >>> solution = ctdyn.solve(lambda t, y: torch.ones_like(y), torch.zeros(1), ts, event=reach)
        >>> solution.events.times, solution.events.stopped
        (tensor([2.0000], dtype=torch.float64), tensor(True))
    """

    times: Times
    states: States
    which: Tensor
    stopped: Tensor

    @classmethod
    def none(cls, y0: State) -> Events:
        """No event in any series that starts from these states, `(*batch, state)`."""
        times = y0.new_zeros(*y0.shape[:-1], 0, dtype=torch.float64)
        stopped = torch.zeros(y0.shape[:-1], dtype=torch.bool, device=y0.device)
        return cls(times, y0.new_zeros(*y0.shape[:-1], 0, y0.shape[-1]), times.to(torch.int64), stopped)


class Crossing(NamedTuple):
    """Where a condition first crosses zero in each step.

    Args:
        hit: whether it does, `(row, *batch)`.
        time: when, `(row, *batch)`.

    Example:
        >>> Crossing(torch.tensor([False]), torch.zeros(1)).hit
        tensor([False])
    """

    hit: Tensor
    time: Time


class _Curve:
    """A condition along the dense output of many steps, as a function of the share of the step that has passed."""

    def __init__(self, event: Event, t0: Tensor, t1: Tensor, polynomials: Tensor) -> None:
        self.event, self.t0, self.span, self.polynomials = event, t0, t1 - t0, polynomials

    def state(self, theta: Tensor) -> State:
        """The state at `theta`, `(*lead, row, *batch)`."""
        share = theta.to(self.polynomials.dtype).unsqueeze(-1)
        *lower, value = self.polynomials.unbind(1)
        for coefficient in reversed(lower):
            value = coefficient + value * share
        return value.expand(*theta.shape, value.shape[-1])

    def __call__(self, theta: Tensor) -> Tensor:
        """The condition at `theta`, checked, `(*lead, row, *batch)`."""
        return self.event.evaluate(self.t0 + theta * self.span, self.state(theta))

    def value(self, theta: Tensor) -> Tensor:
        """The condition between points where it was checked."""
        y = self.state(theta)
        return self.event.condition((self.t0 + theta * self.span).to(y.dtype.to_real()), y)

    def sign(self, theta: Tensor) -> Tensor:
        """Its sign."""
        return self.value(theta).sign().to(torch.float64)


@torch.no_grad()
def first_crossing(
    event: Event, t0: Time, t1: Time, polynomials: Tensor, leaving: Tensor, tolerance: float
) -> Crossing:
    """The first crossing of each step, by samples, extrema between them, and bisection.

    Args:
        event: the event.
        t0: start of each step, `(row, *batch)`.
        t1: its end.
        polynomials: its dense output, `(row, degree + 1, *batch, state)`.
        leaving: the sign with which the condition leaves its value at the start of the step where that value counts
            as zero, 0 where it counts as it is, `(row, *batch)`.
        tolerance: how far past zero, relative to its size nearby, a condition must come between two samples.

    Example:
        >>> line = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)  # y = theta
        >>> zero = torch.zeros(1, dtype=torch.float64)
        >>> event = Event(lambda t, y: (y[..., 0] - 0.30) * (y[..., 0] - 0.31))
        >>> first_crossing(event, zero, zero + 1, line, zero, 1e-9).time
        tensor([0.3000], dtype=torch.float64)
    """
    curve = _Curve(event, t0, t1, polynomials)
    axes = [1] * t0.dim()
    grid = torch.linspace(0.0, 1.0, _SAMPLES + 1, dtype=torch.float64, device=t0.device).reshape(-1, *axes)
    theta = grid.expand(_SAMPLES + 1, *t0.shape)
    value = curve(theta)
    theta, value = _with_extrema(curve, theta, value, tolerance)
    sign = value.sign()
    sign[0] = torch.where(leaving == 0, sign[0], leaving)
    before, after = sign[:-1], sign[1:]
    crosses = (before != 0) & (after != before)
    if event.direction:
        crosses = crosses & (before == -event.direction)
    hit = crosses.any(0) & (t0 != t1)
    if not bool(hit.any()):
        return Crossing(hit, t1)
    first = crosses.to(torch.uint8).argmax(0, keepdim=True)
    low, high = theta[:-1].gather(0, first)[0], theta[1:].gather(0, first)[0]
    start = before.gather(0, first)[0]
    for _ in range(_REFINEMENTS):
        points = torch.lerp(low, high, grid)
        # The ends need no look: the low one has the sign of the start, the high one has not.
        changed = curve.sign(points[1:-1]) != start
        last = torch.cat([changed, torch.ones_like(changed[:1])]).to(torch.uint8).argmax(0, keepdim=True)
        low, high = points.gather(0, last)[0], points.gather(0, last + 1)[0]
    return Crossing(hit, torch.where(high >= 1.0, t1, t0 + high * (t1 - t0)))


def _with_extrema(curve: _Curve, theta: Tensor, value: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The samples, and between two of one sign the point where the condition comes closest to zero, if past it."""
    nudge = 1e-4
    slope = curve.value(theta + nudge) - curve.value(theta - nudge)
    sign = value.sign()
    turns = (sign[:-1] == sign[1:]) & (sign[:-1] * slope[:-1] < 0) & (sign[:-1] * slope[1:] > 0)
    if not bool(turns.any()):
        return theta, value
    low, high, side = theta[:-1], theta[1:], sign[:-1]
    share = torch.linspace(0.0, 1.0, _SAMPLES + 1, dtype=theta.dtype, device=theta.device)
    share = share.reshape(-1, *[1] * theta.dim())
    for _ in range(_REFINEMENTS):
        points = torch.lerp(low, high, share)
        nearest = (side * curve.value(points)).argmin(0, keepdim=True)
        low = points.gather(0, (nearest - 1).clamp(min=0))[0]
        high = points.gather(0, (nearest + 1).clamp(max=_SAMPLES))[0]
    middle = 0.5 * (low + high)
    there = curve(middle)
    size = torch.maximum(value[:-1].abs(), value[1:].abs())
    past = turns & (side * there < -tolerance * size)
    inner = torch.where(past, middle, theta[:-1]), torch.where(past, there, value[:-1])
    merged = [torch.stack([a[:-1], b], 1).flatten(0, 1) for a, b in zip((theta, value), inner, strict=True)]
    return torch.cat([merged[0], theta[-1:]]), torch.cat([merged[1], value[-1:]])


class EventWatch(Watch):
    """Looks for the first event in every step of one stretch of a solve.

    Args:
        events: what to look for.
        start: where the stretch begins, `(*batch,)`.
        leaving: for each event, the sign with which its condition leaves zero at the start, 0 where it is not zero
            there, `(event, *batch)`.
        judged: how many leading entries of the state the conditions see.
        tolerance: that of the solve.

    Example:
        >>> EventWatch((Event(lambda t, y: y[..., 0]),), torch.zeros(2), torch.zeros(1, 2), 1, 1e-6).which
        tensor([-1, -1])
    """

    def __init__(self, events: Sequence[Event], start: Time, leaving: Tensor, judged: int, tolerance: float) -> None:
        self.events, self.start, self.leaving = events, start, leaving
        self.judged, self.tolerance = judged, tolerance
        self.reset()

    def reset(self) -> None:
        """No event has been seen."""
        self.which = torch.full(self.start.shape, -1, dtype=torch.int64, device=self.start.device)
        self.when = torch.full_like(self.start, torch.nan)
        # When each of the events crosses in the step that the first of them ends, `(event, *batch)`.
        self.each = self.when.repeat(len(self.events), *[1] * self.when.dim())

    def inspect(
        self, solver: Solver, term: Term, t0: Time, t1: Time, y0: State, step: Step, accept: Tensor
    ) -> tuple[Tensor, Time]:
        """Whether an event falls into the step of each series, and when."""
        parts = torch.stack(step.interpolant)[None]
        return self.look(solver.coefficients(term, t0[None], t1[None], y0[None], parts), t0[None], t1[None], accept)

    def look(self, polynomials: Tensor, t0: Tensor, t1: Tensor, accept: Tensor) -> tuple[Tensor, Tensor]:
        """The first event in a run of steps.

        Args:
            polynomials: their dense output, `(row, degree + 1, *batch, state)`.
            t0: start of each step, `(row, *batch)`.
            t1: its end.
            accept: whether the steps of each series stand, `(*batch,)`.
        """
        polynomials = polynomials[..., : self.judged]
        found = torch.zeros_like(accept)
        when = torch.full_like(self.when, torch.nan)
        which, each = self.which, []
        for number, event in enumerate(self.events):
            leaving = torch.where(t0 == self.start, self.leaving[number], 0.0)
            crossing = first_crossing(event, t0, t1, polynomials, leaving, self.tolerance)
            row = crossing.hit.to(torch.uint8).argmax(0, keepdim=True)
            time, hit = crossing.time.gather(0, row)[0], crossing.hit.any(0) & accept
            each.append(torch.where(hit, time, torch.nan))
            sooner = hit & (~found | ((time - self.start).abs() < (when - self.start).abs()))
            found, when, which = found | hit, torch.where(sooner, time, when), torch.where(sooner, number, which)
        self.which, self.when = which, torch.where(found, when, self.when)
        self.each = torch.where(found, torch.stack(each), self.each)
        return found, when
