import math
import warnings

import pytest
import torch
from torch import nn

from ctdyn._checks import MaxStepsError, NonFiniteError, SolveError, StepSizeError
from ctdyn.integrate import (
    Backsolve,
    Checkpoint,
    ConstantStep,
    Direct,
    Engine,
    Event,
    PIDController,
    Reversible,
    Status,
    StepTo,
    TorchDiffEq,
    evolve,
    solve,
)
from ctdyn.paths import ConstantPath, HermitePath, LinearPath
from ctdyn.solvers import RK4, Dopri5, Euler, Heun, Midpoint, Tsit5
from ctdyn.systems import OrnsteinUhlenbeck
from ctdyn.terms import ODETerm


F64 = torch.float64
TS = torch.tensor([0.0, 1.0], dtype=F64)


def decay(t, y):
    return -y


def ask(field=decay, y0=(1.0, 1.0), ts=TS, **options):
    y0 = y0 if isinstance(y0, torch.Tensor) else torch.tensor(y0, dtype=F64)
    return solve(field, y0, ts, **options)


def check(call, error, *fragments):
    with pytest.raises(error) as caught:
        call()
    for fragment in fragments:
        assert fragment in str(caught.value), f"{fragment!r} is missing from: {caught.value}"


def test_a_state_that_cannot_be_solved_is_refused():
    check(lambda: ask(y0=(float("inf"), 1.0)), NonFiniteError, "y0", "index (0,)")
    check(lambda: ask(y0=(1.0, float("nan"))), NonFiniteError, "y0", "index (1,)")
    check(lambda: ask(y0=torch.ones(2).half()), TypeError, "float16")
    check(lambda: ask(y0=torch.ones(2).bfloat16()), TypeError, "float16")
    check(lambda: ask(y0=torch.ones(2, dtype=torch.int64)), TypeError, "y0", "float32")
    check(lambda: ask(y0=torch.tensor(1.0)), ValueError, "scalar", "reshape")


@pytest.mark.usefixtures("_unchecked")
def test_a_field_that_returns_the_wrong_thing_is_named():
    check(lambda: ask(lambda t, y: -y[None]), ValueError, "expected (2,)", "got (1, 2)")
    check(lambda: ask(lambda t, y: None), TypeError, "returned None")
    check(lambda: ask(lambda t, y: 1.0), TypeError, "float")
    check(lambda: ask(lambda t, y: y.double(), y0=torch.ones(2)), TypeError, "float64", "float32")
    check(lambda: ask(field=3), TypeError, "callable")


def test_a_field_that_becomes_nan_is_found_within_a_step():
    def field(t, y):
        return torch.where(t[..., None] > 0.5, torch.nan, -y)

    check(lambda: ask(field), NonFiniteError, "t=0.5", "vector field", "max |y|")
    check(lambda: ask(field, ts=torch.linspace(0, 1, 11), solver=RK4(), controller=StepTo()), NonFiniteError, "t=0.5")


def test_a_blow_up_is_a_step_size_error_near_its_time():
    check(lambda: ask(lambda t, y: y**2, ts=2 * TS), StepSizeError, "t=1", "step size", "max |y|")
    check(lambda: ask(lambda t, y: y**2, ts=2 * TS, y0=torch.ones(2)), SolveError, "t=1")


def test_max_steps_is_finite_and_its_message_gives_progress_and_remedy():
    stiff = lambda t, y: -1e4 * (y - torch.cos(t)[..., None])  # noqa: E731
    check(lambda: ask(stiff, max_steps=10), MaxStepsError, "max_steps=10", "t=", "%", "rtol")
    check(lambda: ask(controller=ConstantStep(1e-3), max_steps=10), MaxStepsError, "max_steps=10", "t=0.01")
    check(lambda: ask(controller=ConstantStep(1e-9), max_steps=10), MaxStepsError, "max_steps=10", "t=")
    check(lambda: ask(max_steps=0), ValueError, "max_steps")
    check(lambda: ask(stiff, ts=1e3 * TS), MaxStepsError, "max_steps=10000")


def test_an_unstable_fixed_step_warns_or_fails():
    fast = lambda t, y: -1e6 * y  # noqa: E731
    with pytest.warns(UserWarning, match="step_size"):
        ask(fast, ts=torch.arange(5), solver=Euler(), controller=StepTo())
    with pytest.warns(UserWarning, match="step_size"):
        ask(fast, ts=torch.tensor([0.0, 10.0]), solver=RK4(), controller=ConstantStep(1.0))
    check(lambda: ask(fast, ts=torch.arange(200), solver=Euler(), controller=StepTo()), NonFiniteError, "step_size")


def test_ordinary_fixed_steps_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for field in (decay, lambda t, y: 3 * y, lambda t, y: torch.sin(9 * t)[..., None] + 0 * y, lambda t, y: 0 * y):
            for y0 in ((1.0, 1.0), (0.0, 0.0), (1e-12, 1e6)):
                ask(field, y0=y0, ts=torch.linspace(0, 3, 20), solver=Euler(), controller=StepTo())
                ask(field, y0=y0, ts=torch.linspace(0, 3, 20), solver=RK4(), controller=ConstantStep(0.5))


@pytest.mark.parametrize("solver", [Euler(), Midpoint(), RK4()], ids=repr)
def test_a_method_without_error_estimate_asks_for_a_step(solver):
    check(lambda: ask(solver=solver, ts=10 * TS), ValueError, "step_size", "ConstantStep", "StepTo")
    check(lambda: ask(solver=solver, controller=PIDController()), ValueError, "error estimate")


@pytest.mark.usefixtures("_unchecked")
def test_wrong_parts_are_refused():
    check(lambda: ask(solver="dopri5"), TypeError, "Tsit5()", "'dopri5'")
    check(lambda: ask(solver=Tsit5), TypeError, "write Tsit5()")
    check(lambda: ask(controller=0.1), TypeError, "ConstantStep")
    check(lambda: ask(adjoint="direct"), TypeError, "Direct()")
    check(lambda: ask(inputs=torch.ones(2)), TypeError, "LinearPath")
    check(lambda: ask(ODETerm(decay), inputs=LinearPath(TS, TS[:, None])), ValueError, "inputs=")
    check(lambda: ask(max_num_step=3), TypeError, "max_num_step")
    check(lambda: solve(decay, [1.0], TS), TypeError, "as_tensor")
    check(lambda: solve(decay, torch.ones(1), [0.0, 1.0]), TypeError, "as_tensor")
    check(lambda: solve(decay, torch.ones(1), torch.tensor(1.0)), ValueError, "reshape")


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: StepTo(2.5), "num_steps"),
        (lambda: Checkpoint(segments=2.5), "segments"),
        (lambda: Checkpoint(levels=1.5), "levels"),
        (lambda: Reversible(steps_at_once=1.5), "steps_at_once"),
        (lambda: Backsolve(max_steps=1.5), "max_steps"),
        (lambda: evolve(decay, torch.ones(1, 1), torch.zeros(1), torch.ones(1), solver=RK4(), num_steps=2.5), "num_st"),
    ],
)
def test_a_number_of_steps_is_a_whole_one(call, name):
    check(call, TypeError, name, "whole number")


@pytest.mark.usefixtures("_unchecked")
def test_what_is_no_method_no_path_and_no_share_is_named():
    start, end = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    check(lambda: evolve(decay, end[:, None], start, end, solver=RK4), TypeError, "solver", "the class RK4: call it")
    check(lambda: solve(OrnsteinUhlenbeck(), end, TS, inputs=end), TypeError, "inputs", "Path")
    for safety in (0.0, 1.5, math.nan):
        check(lambda safety=safety: PIDController(safety=safety), ValueError, "safety")


def test_failures_are_per_series():
    field = lambda t, y: y**2  # noqa: E731
    y0 = torch.tensor([[0.1], [1.0], [-1.0]], dtype=F64)
    ts = torch.linspace(0, 2, 5, dtype=F64)
    check(lambda: solve(field, y0, ts), StepSizeError, "series 1", "1 of 3")
    solution = solve(field, y0, ts, throw=False)
    assert solution.status.tolist() == [Status.SUCCESS, Status.STEP_SIZE, Status.SUCCESS]
    assert torch.isnan(solution.ys[1, 3:]).all()
    torch.testing.assert_close(solution.ys[1, 1], torch.tensor([2.0], dtype=F64), rtol=1e-3, atol=0)
    for row in (0, 2):
        torch.testing.assert_close(solution.ys[row], solve(field, y0[row], ts).ys, rtol=1e-14, atol=0)


def test_a_failed_series_spoils_no_gradient():
    y0 = torch.tensor([[0.1], [1.0]], dtype=F64, requires_grad=True)
    ys = solve(lambda t, y: y**2, y0, 2 * TS, throw=False).ys
    ys[0].sum().backward()
    alone = torch.tensor([0.1], dtype=F64, requires_grad=True)
    solve(lambda t, y: y**2, alone, 2 * TS).ys.sum().backward()
    assert y0.grad is not None
    torch.testing.assert_close(y0.grad[0], alone.grad, rtol=1e-12, atol=0)
    assert torch.isfinite(y0.grad).all()


def test_fixed_steps_fail_per_series_too():
    field = lambda t, y: torch.where((t[..., None] > 0.5) & (y > 0), torch.nan, -y)  # noqa: E731
    y0 = torch.tensor([[1.0], [-1.0]], dtype=F64)
    solution = solve(field, y0, torch.linspace(0, 1, 5), solver=RK4(), controller=StepTo(), throw=False)
    assert solution.status.tolist() == [Status.NON_FINITE, Status.SUCCESS]
    assert torch.isfinite(solution.ys[0, :3]).all()
    assert torch.isnan(solution.ys[0, 3:]).all()


@pytest.mark.parametrize("options", [{}, {"solver": RK4(), "controller": StepTo()}], ids=["adaptive", "fixed"])
def test_an_empty_batch_gives_an_empty_solution(options):
    solution = solve(decay, torch.ones(0, 3), torch.rand(0, 5), **options)
    assert solution.ys.shape == (0, 5, 3)
    assert solve(decay, torch.ones(0, 3), torch.arange(5), **options).ys.shape == (0, 5, 3)


def test_an_empty_batch_has_integrals_events_and_a_path_too():
    options = {"aux": lambda t, y: y, "event": Event(lambda t, y: y[..., 0] - 0.5)}
    solution = solve(decay, torch.ones(0, 3), torch.arange(5), **options)
    assert solution.ys.shape == solution.aux.shape == (0, 5, 3)
    assert solution.events.times.shape == (0, 0)
    assert solution.evaluate(torch.zeros(0)).shape == (0, 3)


def test_an_empty_state_is_solved():
    assert solve(decay, torch.ones(4, 0), torch.arange(3)).ys.shape == (4, 3, 0)


def test_one_output_and_a_start_elsewhere():
    ys = ask(ts=torch.tensor([2.0], dtype=F64), t0=0.0, controller=PIDController(1e-8, 1e-10)).ys
    torch.testing.assert_close(ys, torch.full((1, 2), 2.0, dtype=F64).neg().exp(), rtol=1e-6, atol=0)
    t0 = torch.tensor([0.0, 1.5], dtype=F64)
    ys = ask(y0=torch.ones(2, 1, dtype=F64), ts=torch.tensor([2.0], dtype=F64), t0=t0).ys
    torch.testing.assert_close(ys[:, 0, 0], torch.exp(t0 - 2.0), rtol=1e-3, atol=0)


def test_the_plan_says_what_was_done():
    plan = ask(solver=RK4(), controller=StepTo(2)).plan
    for fragment in ("RK4()", "StepTo(num_steps=2)", "2 steps", "Direct(compile=False)"):
        assert fragment in plan


class Exact(Engine):
    """The engine of a field that decays."""

    def run(self, term, y0, ts, t0):
        ys = y0[..., None, :] * torch.exp(t0[..., None] - ts)[..., None].to(y0.dtype)
        return ys, {"evaluations": torch.zeros_like(t0, dtype=torch.int64)}


def test_an_engine_is_reached_through_solve_and_refuses_what_it_brings_itself():
    ts = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.5, 0.5]], dtype=F64)
    y0 = torch.ones(2, 1, dtype=F64)
    solution = solve(decay, y0, ts, solver=Exact())
    torch.testing.assert_close(solution.ys, torch.exp(-ts)[..., None])
    middle = torch.tensor([[1.5], [0.25]], dtype=F64)
    torch.testing.assert_close(solution(middle), torch.exp(-middle)[..., None], rtol=0.3, atol=0)
    check(lambda: solve(decay, y0, ts, solver=Exact(), controller=PIDController()), ValueError, "controller=", "Exact")
    check(lambda: solve(decay, y0, ts, solver=Exact(), adjoint=Direct()), ValueError, "adjoint=", "Exact")
    check(lambda: solve(decay, y0, ts.flip(-1).roll(1, -1), solver=Exact()), ValueError, "index")
    assert solve(decay, y0[:0], ts[:0], solver=Exact()).ys.shape == (0, 3, 1)


class Broken(Engine):
    """An engine that returns NaN for the second series."""

    def run(self, term, y0, ts, t0):
        ys = y0[..., None, :].expand(*ts.shape, y0.shape[-1]).clone()
        ys[1, 1:] = torch.nan
        return ys, {}


def test_an_engine_that_fails_says_which_series():
    ts, y0 = torch.tensor([0.0, 1.0, 2.0], dtype=F64), torch.ones(3, 1, dtype=F64)
    check(lambda: solve(decay, y0, ts, solver=Broken()), NonFiniteError, "series 1", "t=0")
    assert solve(decay, y0, ts, solver=Broken(), throw=False).status.tolist() == [0, Status.NON_FINITE, 0]


def test_the_path_of_an_engine_goes_both_ways_from_the_start_to_the_last_state_that_was_reached():
    ts = torch.linspace(0.0, 1.0, 21, dtype=F64)
    clocks = torch.stack([ts, 1 - ts, ts.clamp(max=0.5)])[:, 1:]
    t0, y0 = torch.tensor([0.0, 1.0, 0.0], dtype=F64), torch.tensor([[1.0], [math.exp(-1)], [1.0]], dtype=F64)
    solution = solve(decay, y0, clocks, t0=t0, solver=TorchDiffEq("dopri5", rtol=1e-6, atol=1e-8))
    for t in (torch.tensor([0.01, 0.99, 0.49], dtype=F64), torch.tensor([0.33, 0.42, 0.07], dtype=F64)):
        torch.testing.assert_close(solution.evaluate(t)[:, 0], torch.exp(-t), atol=2e-3, rtol=0)
        torch.testing.assert_close(solution.derivative(t)[:, 0], -torch.exp(-t), atol=0.05, rtol=0)
    broken = solve(decay, torch.ones(2, 1, dtype=F64), ts, solver=Broken(), throw=False)
    assert broken.evaluate(torch.ones(2, dtype=F64)).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("batch", [(2,), (2, 1)])
@pytest.mark.parametrize("kind", [LinearPath, HermitePath, ConstantPath])
def test_inputs_of_another_batch_are_refused(kind, batch):
    ts = torch.linspace(0.0, 1.0, 3, dtype=F64).expand(*batch, 3)
    xs = torch.rand(*batch, 3, 1, dtype=F64)
    path = ConstantPath(xs[..., 0, :]) if kind is ConstantPath else kind(ts, xs)
    y0 = torch.zeros(2, 4, 1, dtype=F64)
    given = [(lambda t, y, u: u, path), (ODETerm(lambda t, y, u: u, path), None)]
    for equation, inputs in given:
        with pytest.raises(ValueError, match=r"inputs.* \(2, 4\)"):
            solve(equation, y0, ts[(0,) * len(batch)], inputs=inputs)


@pytest.mark.parametrize("solver", [Euler(), Midpoint(), Heun(), RK4(), Dopri5(), Tsit5()], ids=repr)
def test_evolve_carries_each_state_over_its_own_interval(solver):
    t0 = torch.tensor([0.0, 1.0, 2.0, 0.3], dtype=F64)
    t1 = torch.tensor([0.5, 1.0, 1.2, 0.9], dtype=F64)
    y0 = torch.randn(4, 2, dtype=F64)
    y1 = evolve(decay, y0, t0, t1, solver=solver, num_steps=8)
    assert torch.equal(y1[1], y0[1])
    torch.testing.assert_close(y1, y0 * torch.exp(t0 - t1)[:, None], rtol=0.06 if solver == Euler() else 2e-3, atol=0)
    ts = torch.stack([t0, t1], -1)
    whole = solve(decay, y0, ts, solver=solver, controller=StepTo(8)).ys[:, -1]
    torch.testing.assert_close(y1, whole, rtol=1e-13, atol=0)


def test_evolve_is_differentiable_and_checks_its_steps():
    y0 = torch.randn(3, 2, dtype=F64, requires_grad=True)
    t1 = torch.rand(3, dtype=F64, requires_grad=True)
    layer = nn.Linear(2, 2).double()
    field = lambda t, y: torch.tanh(layer(y))  # noqa: E731
    assert torch.autograd.gradcheck(
        lambda y, t: evolve(field, y, torch.zeros(3, dtype=F64), t, solver=Midpoint(), num_steps=2), (y0, t1)
    )
    check(lambda: evolve(decay, y0, t1, t1, solver=RK4(), num_steps=0), ValueError, "num_steps")


def test_steps_as_short_as_rounding_raise_no_alarm():
    y0 = torch.tensor([1.0], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ts = torch.tensor([0.0, 0.1, 0.1 + 1e-13, 0.1 + 1e-10, 0.1 + 1e-7, 1.0], dtype=torch.float64)
        solve(lambda t, y: -y, y0, ts, solver=RK4(), controller=StepTo())
