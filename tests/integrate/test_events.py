"""Events: found where they are, in the right order, with exact gradients, for every series on its own."""

import json
import math
import os
from pathlib import Path

import pytest
import scipy.special
import torch

from ctdyn import solve
from ctdyn._checks import NonFiniteError, SolveError
from ctdyn.integrate import ConstantStep, Direct, Event, PIDController, StepTo
from ctdyn.paths import LinearPath
from ctdyn.solvers import RK4, Dopri5, Dopri8


F64 = torch.float64
ROOT = Path(os.environ.get("CTDYN_REFERENCE", "/nonexistent"))
FINE = PIDController(1e-9, 1e-9)
CONTROLS = [FINE, ConstantStep(0.05), StepTo(50)]


def rise(t, y):
    return torch.ones_like(y)


def turn(t, y):
    return torch.stack([y[..., 1], -y[..., 0]], -1)


def keep(t, y):
    return y


def span(*ends):
    return torch.tensor(ends, dtype=F64)


def ball(gravity):
    def fall(t, y):
        return torch.stack([y[..., 1], -gravity + 0 * t], -1)

    def bounce(t, y):
        return torch.stack([torch.zeros_like(y[..., 0]), -0.8 * y[..., 1]], -1)

    return fall, Event(lambda t, y: y[..., 0], direction=-1, jump=bounce)


def bounces(height, gravity, count):
    first = math.sqrt(2 * height / gravity)
    return [first * (1 + 2 * sum(0.8**k for k in range(1, n + 1))) for n in range(count)]


@pytest.mark.parametrize("controller", CONTROLS, ids=repr)
def test_a_ball_bounces_at_the_times_of_its_closed_form(controller):
    fall, event = ball(9.81)
    y0 = torch.tensor([[10.0, 0.0], [4.0, 0.0]], dtype=F64)
    events = solve(fall, y0, span(0.0, 7.0), controller=controller, event=event).events
    for times, height in zip(events.times, (10.0, 4.0), strict=True):
        happened = times[torch.isfinite(times)]
        truth = torch.tensor(bounces(height, 9.81, len(happened) + 1), dtype=F64)
        torch.testing.assert_close(happened, truth[:-1], atol=1e-8, rtol=0)
        assert truth[-1] > 7.0
    assert not events.stopped.any()


def test_outputs_follow_the_jumps_and_the_path_too():
    saw = Event(lambda t, y: y[..., 0] - 1.0, jump=lambda t, y: torch.zeros_like(y))
    ts = span(0.0, 0.5, 1.25, 3.5)
    solution = solve(rise, torch.zeros(1, dtype=F64), ts, event=saw, controller=FINE)
    expected = torch.tensor([0.0, 0.5, 0.25, 0.5], dtype=F64)
    torch.testing.assert_close(solution.ys[..., 0], expected)
    torch.testing.assert_close(solution(ts)[..., 0], expected)
    torch.testing.assert_close(solution.events.times, span(1.0, 2.0, 3.0))
    torch.testing.assert_close(solution.events.states[..., 0], torch.ones(3, dtype=F64))
    middle = solution.restrict(torch.tensor(2.1, dtype=F64), torch.tensor(2.9, dtype=F64))
    torch.testing.assert_close(middle.evaluate(torch.tensor(2.4, dtype=F64)), torch.tensor([0.4], dtype=F64))


def test_a_series_stops_on_its_own_and_is_unknown_behind():
    reach = Event(lambda t, y: y[..., 0] - 2.0)
    y0 = torch.tensor([[0.0], [1.0], [-9.0]], dtype=F64)
    ts = torch.tensor([[0.0, 1.5, 4.0], [0.0, 0.5, 2.0], [0.0, 1.0, 5.0]], dtype=F64)
    solution = solve(rise, y0, ts, event=reach)
    assert solution.events.stopped.tolist() == [True, True, False]
    assert (solution.status == 0).all()
    assert torch.isnan(solution.ys[..., 0]).tolist() == [[False, False, True], [False, False, True], [False] * 3]
    torch.testing.assert_close(solution.events.times[:2, 0], span(2.0, 1.0))
    assert torch.isnan(solution.events.times[2]).all()
    assert solution.events.which.tolist() == [[0], [0], [-1]]


def test_a_series_has_the_same_events_alone_and_in_company():
    fall, event = ball(9.81)
    y0 = torch.tensor([[10.0, 0.0], [1.0, 2.0]], dtype=F64)
    ts = torch.tensor([[0.0, 3.0, 6.0], [1.0, 2.0, 2.5]], dtype=F64)
    both = solve(fall, y0, ts, event=event)
    for series in range(2):
        alone = solve(fall, y0[series], ts[series], event=event)
        count = alone.events.times.shape[-1]
        torch.testing.assert_close(both.events.times[series, :count], alone.events.times, atol=1e-12, rtol=0)
        torch.testing.assert_close(both.ys[series], alone.ys, atol=1e-12, rtol=0)


@pytest.mark.parametrize("controller", [PIDController(), ConstantStep(2.0), StepTo(1)], ids=repr)
def test_two_events_in_one_step_come_in_the_order_of_time(controller):
    later, sooner = (Event(lambda t, y, at=at: y[..., 0] - at, jump=keep) for at in (1.0, 0.5))
    events = solve(rise, torch.zeros(1, dtype=F64), span(0.0, 2.0), controller=controller, event=[later, sooner]).events
    torch.testing.assert_close(events.times, span(0.5, 1.0))
    assert events.which.tolist() == [1, 0]


@pytest.mark.parametrize("controller", [PIDController(), ConstantStep(0.3), StepTo(1)], ids=repr)
@pytest.mark.parametrize("ends", [(0.0, 2.0, 4.0), (4.0, 2.0, 0.0)])
def test_events_of_one_moment_all_happen_each_on_the_state_behind_the_other(controller, ends):
    when = torch.tensor([2.0, 2.3, 2.3], dtype=F64, requires_grad=True)
    gap = torch.tensor([0.0, 0.0, 0.4], dtype=F64) * (1.0 if ends[0] < ends[-1] else -1.0)
    twice = Event(lambda t, y: t - when - gap, jump=lambda t, y: 2.0 * y)
    more = Event(lambda t, y: t - when, jump=lambda t, y: y + t[..., None])
    solution = solve(rise, torch.ones(3, 1, dtype=F64), span(*ends), controller=controller, event=[more, twice])
    at = when.detach()
    torch.testing.assert_close(
        solution.ys[:, -1, 0], 2 * (1 + at - ends[0] + at + gap) + ends[-1] - at - gap, atol=1e-9, rtol=0
    )
    torch.testing.assert_close(solution.events.times, torch.stack([at, at + gap], -1))
    assert solution.events.which.tolist() == [[0, 1]] * 3
    (gradient,) = torch.autograd.grad(solution.events.times.sum(), when)
    torch.testing.assert_close(gradient, torch.full((3,), 2.0, dtype=F64))


def test_a_stop_in_the_moment_of_another_event_stops():
    record, stop = Event(lambda t, y: y[..., 0] - 0.5, jump=keep), Event(lambda t, y: 2 * y[..., 0] - 1.0)
    y0 = torch.tensor([[0.0], [0.6]], dtype=F64)
    solution = solve(rise, y0, span(0.0, 1.0), event=[record, stop])
    assert solution.events.stopped.tolist() == [True, False]
    assert solution.events.which.tolist() == [[0, 1], [-1, -1]]
    away = Event(record.condition, jump=lambda t, y: y - 1.0)
    solution = solve(rise, y0, span(0.0, 1.0), event=[away, stop])
    assert not solution.events.stopped.any()


@pytest.mark.parametrize("controller", [PIDController(), ConstantStep(10.0)], ids=repr)
def test_a_condition_that_crosses_twice_within_a_step_is_found(controller):
    event = Event(lambda t, y: (y[..., 0] - 2.5) * (y[..., 0] - 2.6), jump=keep)
    events = solve(rise, torch.zeros(1, dtype=F64), span(0.0, 20.0), controller=controller, event=event).events
    torch.testing.assert_close(events.times, span(2.5, 2.6))
    falling = Event(event.condition, direction=-1, jump=keep)
    events = solve(rise, torch.zeros(1, dtype=F64), span(0.0, 20.0), controller=controller, event=falling).events
    torch.testing.assert_close(events.times, span(2.5))


def test_a_root_at_the_start_is_skipped_and_a_touch_is_no_event():
    y0 = torch.tensor([0.0, 1.0], dtype=F64)
    at_start = solve(turn, y0, span(0.0, 7.0), controller=FINE, event=Event(lambda t, y: y[..., 0], direction=1))
    torch.testing.assert_close(at_start.events.times, span(2 * math.pi), atol=1e-7, rtol=0)
    touch = solve(turn, y0, span(0.0, 3.0), controller=FINE, event=Event(lambda t, y: y[..., 0] - 1.0))
    assert touch.events.times.shape == (0,)


def test_events_are_found_backwards_in_time():
    y0 = torch.tensor([1.0, 0.0], dtype=F64)
    solution = solve(turn, y0, span(0.0, -4.0), controller=FINE, event=Event(lambda t, y: y[..., 0]))
    torch.testing.assert_close(solution.events.times, span(-math.pi / 2), atol=1e-8, rtol=0)
    assert torch.isnan(solution.ys[-1]).all()


@pytest.mark.parametrize("controller", CONTROLS, ids=repr)
@pytest.mark.parametrize("adjoint", [Direct()], ids=repr)
def test_gradients_pass_through_times_states_and_jumps(controller, adjoint):
    def outcome(height, gravity, loss):
        fall, event = ball(gravity)
        y0 = torch.stack([height, torch.zeros_like(height)])
        solver = None if controller is FINE else RK4()
        solution = solve(
            fall, y0, span(0.0, 2.0, 4.5), solver=solver, controller=controller, adjoint=adjoint, event=event
        )
        return solution.events.times[1] + solution.ys[2, 0] + loss * solution.events.states[1, 1]

    def closed_form(height, gravity, loss):
        first = (2 * height / gravity).sqrt()
        speed = gravity * first
        second = first + 2 * 0.8 * speed / gravity
        since = 4.5 - second
        return second + 0.64 * speed * since - 0.5 * gravity * since**2 + loss * (-0.8 * speed)

    given = [torch.tensor(v, dtype=F64, requires_grad=True) for v in (10.0, 9.81, 0.3)]
    value, truth = outcome(*given), closed_form(*given)
    torch.testing.assert_close(value, truth, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value, given), torch.autograd.grad(truth, given), atol=1e-5, rtol=1e-6
    )


def test_the_parameters_of_a_condition_can_be_learnt():
    threshold = torch.tensor([0.3, 0.6], dtype=F64, requires_grad=True)
    event = Event(lambda t, y: y[..., 0] - threshold)
    solution = solve(lambda t, y: -y, torch.ones(2, 1, dtype=F64), span(0.0, 5.0), event=event, controller=FINE)
    (gradient,) = torch.autograd.grad(solution.events.times.sum(), threshold)
    torch.testing.assert_close(solution.events.times[:, 0], -threshold.log(), atol=1e-7, rtol=0)
    torch.testing.assert_close(gradient, -1 / threshold, atol=1e-6, rtol=0)


def test_events_see_inputs_through_the_equation():
    path = LinearPath(span(0.0, 1.0, 2.0), torch.tensor([[0.0], [2.0], [0.0]], dtype=F64))
    event = Event(lambda t, y: y[..., 0] - 1.5)
    solution = solve(lambda t, y, u: u, torch.zeros(1, dtype=F64), span(0.0, 2.0), inputs=path, event=event)
    # The integral is t^2 up to 1, and 2 - (2 - t)^2 from there.
    torch.testing.assert_close(solution.events.times, span(2 - math.sqrt(0.5)), atol=1e-6, rtol=0)


@pytest.mark.usefixtures("_unchecked")
def test_events_that_accumulate_end_in_an_error_that_says_so():
    fall, event = ball(9.81)
    y0 = torch.tensor([10.0, 0.0], dtype=F64)
    with pytest.raises(SolveError, match=r"accumulate at t=12\.85"):
        solve(fall, y0, span(0.0, 14.0), event=event)
    both = solve(fall, torch.stack([y0, 2 * y0]), span(0.0, 13.0), event=event, throw=False)
    assert (both.status != 0).tolist() == [True, False]
    assert torch.isnan(both.ys[:, -1]).all(-1).tolist() == [True, False]


@pytest.mark.usefixtures("_unchecked")
def test_bad_events_are_named():
    y0 = torch.zeros(1, dtype=F64)
    with pytest.raises(TypeError, match=r"Event\(condition\)"):
        solve(rise, y0, span(0.0, 1.0), event=lambda t, y: y[..., 0])
    with pytest.raises(ValueError, match="direction"):
        Event(lambda t, y: y[..., 0], direction=2)
    with pytest.raises(TypeError, match="condition"):
        Event(3.0)
    with pytest.raises(ValueError, match="one number per series"):
        solve(rise, y0, span(0.0, 1.0), event=Event(lambda t, y: y))
    with pytest.raises(NonFiniteError, match="event"):
        solve(rise, y0, span(0.0, 1.0), event=Event(lambda t, y: torch.log(y[..., 0] - 0.5)))
    with pytest.raises(ValueError, match="state after it"):
        solve(rise, y0, span(0.0, 1.0), event=Event(lambda t, y: y[..., 0] - 0.5, jump=lambda t, y: y[..., 0]))


def swing(t, y):
    return torch.stack([y[..., 1], -torch.sin(y[..., 0])], -1)


record = Event(lambda t, y: y[..., 0], jump=keep)


def within(found, truth, tolerance):
    return bool(((found - truth).abs() <= tolerance * truth.abs().clamp(min=1.0)).all())


def crossings(level, controller):
    rising = Event(lambda t, y: y[..., 0] - level, direction=1)
    return solve(turn, span(0.0, 1.0), span(0.0, 2.0), controller=controller, event=rising).events.times


@pytest.mark.parametrize(("rtol", "solver"), [(1e-4, Dopri5()), (1e-6, Dopri8()), (1e-6, None)], ids=repr)
def test_times_are_good_to_the_tolerance_where_the_solution_is_sensitive(rtol, solver):
    # Let go near the top, the pendulum comes to the other side almost to rest: errors grow by some hundred on the way.
    angles = span(1.0, 3.0, 3.1)
    y0 = torch.stack([angles, 0 * angles], -1)
    quarter = torch.from_numpy(scipy.special.ellipk(torch.sin(angles / 2).square().numpy()))
    found = solve(swing, y0, span(0.0, 16.0), solver=solver, controller=PIDController(rtol, rtol), event=record)
    assert within(found.events.times[:, :2], quarter[:, None] * span(1.0, 3.0), 2 * rtol)
    alone = solve(swing, y0[0], span(0.0, 16.0), solver=solver, controller=PIDController(rtol, rtol), event=record)
    torch.testing.assert_close(alone.events.times, found.events.times[0, : len(alone.events.times)], atol=1e-12, rtol=0)


@pytest.mark.parametrize("level", [0.5, 0.999, 0.999999])
def test_times_are_good_to_the_tolerance_where_the_condition_is_flat(level):
    assert within(crossings(level, PIDController(1e-6, 1e-6)), span(math.asin(level)), 2e-6)


@pytest.mark.skipif(not ROOT.is_dir(), reason="CTDYN_REFERENCE is not set")
def test_reference_events():
    reference = json.loads((ROOT / "events" / "event_times.json").read_text())
    rtol = 1e-9
    given = reference["bouncing_ball"]
    height, gravity = (torch.tensor(float(given[key]), dtype=F64, requires_grad=True) for key in ("h0", "g"))
    fall, event = ball(gravity)
    times = solve(fall, torch.stack([height, 0 * height]), span(0.0, 12.0), controller=FINE, event=event).events.times
    truth = span(*map(float, given["bounce_times"]))
    assert float((times.detach() - truth).abs().max()) <= 2 * rtol
    gradient = torch.stack(torch.autograd.grad(times[0], (height, gravity)))
    expected = span(float(given["d_first_bounce_dh0"]), float(given["d_first_bounce_dg"]))
    torch.testing.assert_close(gradient, expected, atol=0, rtol=1e-6)

    for case in reference["pendulum"]["cases"]:
        y0 = torch.tensor([float(case["theta0"]), 0.0], dtype=F64)
        found = solve(swing, y0, span(0.0, 17.0), controller=FINE, event=record).events.times
        truth = span(*(float(case[key]) for key in ("first_zero", "second_zero")))
        assert within(found[:2], truth, 2 * rtol), case
    for case in reference["sine_level"]["cases"][1:]:
        assert within(crossings(float(case["level"]), FINE), span(float(case["first_up_cross"])), 2 * rtol), case
