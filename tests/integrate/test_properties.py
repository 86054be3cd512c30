"""What must hold of every solve, whatever the problem: drawn at random."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctdyn.integrate import ConstantStep, PIDController, StepTo, solve
from ctdyn.solvers import RK4, Bosh3, Dopri8, Tsit5


F64 = torch.float64
TIGHT = PIDController(1e-9, 1e-9)
WAYS = [(Tsit5(), TIGHT), (Dopri8(), TIGHT), (RK4(), ConstantStep(0.01)), (Bosh3(), StepTo(40))]
few = settings(max_examples=4, deadline=None)
numbers = st.floats(-1.5, 1.5).map(lambda x: round(x, 3))
lengths = st.lists(st.floats(0.05, 0.6).map(lambda x: round(x, 3)), min_size=2, max_size=5)


def pendulum(t, y):
    return torch.stack([y[..., 1], -torch.sin(y[..., 0]) - 0.1 * y[..., 1] + 0.3 * torch.cos(2.0 * t)], -1)


def close(one, other, tolerance=2e-7):
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def times(start, gaps):
    return start + torch.tensor([0.0, *gaps], dtype=F64).cumsum(-1)


def by_name(value):
    return type(value).__name__


@pytest.mark.parametrize(("solver", "controller"), WAYS, ids=by_name)
@few
@given(start=numbers, gaps=lengths, y=st.tuples(numbers, numbers), shift=st.integers(-64, 64))
def test_a_shift_of_the_clock_changes_nothing(solver, controller, start, gaps, y, shift):
    y0, ts = torch.tensor(y, dtype=F64), times(start, gaps)
    here = solve(pendulum, y0, ts, solver=solver, controller=controller).ys
    there = solve(lambda t, y: pendulum(t - shift, y), y0, ts + shift, solver=solver, controller=controller).ys
    close(there, here, 1e-8)


@pytest.mark.parametrize(("solver", "controller"), WAYS, ids=by_name)
@few
@given(start=numbers, gaps=lengths, y=st.tuples(numbers, numbers), scale=st.sampled_from([1e-6, 0.25, 8.0, 1e6]))
def test_the_unit_of_time_changes_nothing(solver, controller, start, gaps, y, scale):
    y0, ts = torch.tensor(y, dtype=F64), times(start, gaps)
    here = solve(pendulum, y0, ts, solver=solver, controller=controller).ys
    if isinstance(controller, ConstantStep):
        controller = ConstantStep(controller.dt * scale)
    field = lambda t, y: pendulum(t / scale, y) / scale  # noqa: E731
    close(solve(field, y0, ts * scale, solver=solver, controller=controller).ys, here, 1e-8)


@pytest.mark.parametrize(("solver", "controller"), WAYS, ids=by_name)
@few
@given(start=numbers, gaps=lengths, y=st.tuples(numbers, numbers))
def test_forward_and_backward_lead_home(solver, controller, start, gaps, y):
    y0, ts = torch.tensor(y, dtype=F64), times(start, gaps)
    there = solve(pendulum, y0, ts, solver=solver, controller=controller).ys
    home = solve(pendulum, there[-1], ts.flip(-1), solver=solver, controller=controller).ys
    close(home.flip(0), there, 1e-6)


@pytest.mark.parametrize(("solver", "controller"), WAYS, ids=by_name)
@few
@given(start=numbers, gaps=lengths, y=st.tuples(numbers, numbers), data=st.data())
def test_two_solves_in_a_row_are_one(solver, controller, start, gaps, y, data):
    y0, ts = torch.tensor(y, dtype=F64), times(start, gaps)
    whole = solve(pendulum, y0, ts, solver=solver, controller=controller).ys
    cut = data.draw(st.integers(1, len(gaps) - 1))
    first = solve(pendulum, y0, ts[: cut + 1], solver=solver, controller=controller).ys
    second = solve(pendulum, first[-1], ts[cut:], solver=solver, controller=controller).ys
    close(torch.cat([first, second[1:]]), whole, 1e-6)


@pytest.mark.parametrize(("solver", "controller"), WAYS, ids=by_name)
@few
@given(start=numbers, gaps=lengths, y=st.tuples(numbers, numbers), backward=st.booleans())
def test_the_solution_at_the_times_that_were_asked_for_is_what_was_returned(
    solver, controller, start, gaps, y, backward
):
    y0, ts = torch.tensor(y, dtype=F64), times(start, gaps)
    ts = ts.flip(-1) if backward else ts
    solution = solve(pendulum, y0, ts, solver=solver, controller=controller)
    close(solution(ts), solution.ys, 1e-13)
