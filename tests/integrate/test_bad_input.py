"""Every case of bad input to a solver has a clear answer; the numbers are those of the reference catalogue."""

import pytest
import torch
from torch.autograd import gradgradcheck

from ctdyn._checks import MaxStepsError, NonFiniteError, StepSizeError
from ctdyn.integrate import (
    AdjointInstabilityWarning,
    Backsolve,
    Checkpoint,
    ConstantStep,
    Event,
    PIDController,
    Status,
    StepTo,
    TorchDiffEq,
    solve,
)
from ctdyn.solvers import RK4, Dopri5, Euler, Kvaerno5, Rodas5P


F64 = torch.float64
UNIT = torch.tensor([0.0, 1.0], dtype=F64)
ONES = torch.ones(2, dtype=F64)


def decay(t, y):
    return -y


def ask(field=decay, y0=ONES, ts=UNIT, **options):
    return solve(field, y0, torch.as_tensor(ts, dtype=F64), **options)


CASES = {
    "solver-01": (lambda: ask(ts=[0.0, 1.0, 1.0, 2.0]), ValueError, ["t", "index 2", "duplicate"]),
    "solver-03": (lambda: ask(ts=[0.0, float("nan"), 1.0]), ValueError, ["NaN", "index 1"]),
    "solver-05": (lambda: ask(ts=[]), ValueError, ["t", "empty"]),
    "solver-11": (lambda: ask(y0=torch.tensor([float("inf"), 1.0])), NonFiniteError, ["y0"]),
    "solver-13": (lambda: ask(y0=ONES.half()), TypeError, ["float16"]),
    "solver-15": (lambda: ask(lambda t, y: -y[None]), ValueError, ["expected (2,)", "got (1, 2)"]),
    "solver-17": (lambda: ask(lambda t, y: None), TypeError, ["returned None"]),
    "solver-19": (lambda: ask(lambda t, y: -y.double(), y0=ONES.float()), TypeError, ["float64", "float32"]),
    "solver-21": (
        lambda: ask(lambda t, y: torch.where(t > 0.5, torch.nan, 1.0) * -y),
        NonFiniteError,
        ["t=0.5", "vector field", "steps"],
    ),
    "solver-23": (lambda: ask(lambda t, y: y**2, ts=[0.0, 2.0]), StepSizeError, ["t=1", "step size", "max |y|"]),
    "solver-27": (lambda: ask(ts=[0.0, 10.0], solver=RK4()), ValueError, ["step_size"]),
    "solver-29": (lambda: PIDController(rtol=0.0, atol=0.0), ValueError, ["rtol", "atol"]),
    "solver-31": (lambda: PIDController(rtol=float("nan")), ValueError, ["rtol"]),
    "solver-33": (lambda: ask(max_num_step=10), TypeError, ["max_num_steps", "max_steps="]),
    "solver-33, of a method": (
        lambda: Kvaerno5(newton_rtl=1e-3),
        TypeError,
        ["newton_rtl", "did you mean newton_rtol?"],
    ),
    "solver-33, of a controller given to a method": (lambda: Dopri5(rtol=1e-3), TypeError, ["PIDController(rtol=..."]),
    "solver-33, of the controller": (lambda: PIDController(rtoll=1e-3), TypeError, ["rtoll", "did you mean rtol?"]),
    "solver-33, of another library": (lambda: ask(method="dopri5"), TypeError, ["method", "solver=Dopri5()"]),
    "solver-33, of an engine": (lambda: TorchDiffEq("dopri5", max_num_step=9), TypeError, ["mean max_num_steps?"]),
    "solver-33, of fixed steps": (
        lambda: ConstantStep(step_size=0.1),
        TypeError,
        ["step_size", "(dt=...)"],
    ),
    "solver-33, of an adjoint": (lambda: Checkpoint(segment=4), TypeError, ["segment", "mean segments?"]),
    "solver-33, of an event": (lambda: Event(decay, directoin=1), TypeError, ["directoin", "mean direction?"]),
    "solver-39": (
        lambda: ask(event=Event(lambda t, y: torch.nan * y[..., 0])),
        NonFiniteError,
        ["event", "t=0"],
    ),
    "NaN with fixed steps": (
        lambda: ask(lambda t, y: torch.where(t > 0.5, torch.nan, 1.0) * -y, solver=RK4(), controller=ConstantStep(0.1)),
        NonFiniteError,
        ["t=0.5", "after 5 steps"],
    ),
    "a field that changes its state": (lambda: ask(lambda t, y: y.neg_(), y0=ONES.clone()), ValueError, ["in place"]),
    "a random field": (
        lambda: ask(lambda t, y: -y * torch.rand(()), max_steps=50),
        MaxStepsError,
        ["random", "field.eval()"],
    ),
    "a boolean condition": (lambda: ask(event=Event(lambda t, y: y[..., 0] < 0.5)), TypeError, ["real", "torch.bool"]),
    "steps that are no count": (lambda: ask(max_steps=1e4), TypeError, ["max_steps", "10000.0"]),
    "a start that is no time": (lambda: ask(t0="0"), TypeError, ["t0", "str"]),
    "an infinite tolerance": (lambda: PIDController(rtol=float("inf")), ValueError, ["rtol", "finite"]),
    "solver-35": (
        lambda: ask(lambda t, y: -1e4 * (y - torch.cos(t)), max_steps=10),
        MaxStepsError,
        ["max_steps", "t=", "%", "Raise max_steps"],
    ),
}


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_with_its_place_and_its_cure(case):
    call, error, fragments = CASES[case]
    with pytest.raises(error) as caught:
        call()
    for fragment in fragments:
        assert fragment in str(caught.value), f"{fragment!r} is missing from: {caught.value}"


def test_integer_times_become_float64():  # solver-07
    assert solve(decay, ONES, torch.arange(4)).ts.dtype == F64


def test_every_series_has_its_own_times():  # solver-09
    ts = torch.rand(3, 4, dtype=F64).sort(-1).values
    ys = ask(y0=torch.ones(3, 2, dtype=F64), ts=ts, controller=PIDController(1e-8, 1e-10)).ys
    torch.testing.assert_close(ys[..., 0], torch.exp(ts[:, :1] - ts), rtol=1e-6, atol=0)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("solver", [Euler(), RK4()], ids=repr)
def test_an_unstable_fixed_step_is_told(solver, count):  # solver-25
    with pytest.warns(UserWarning, match="step_size"):
        ask(lambda t, y: -1e6 * y, ts=torch.arange(count + 1), solver=solver, controller=StepTo())


def test_an_event_at_the_start_is_armed_once_it_has_left_zero():  # solver-37
    reach = Event(lambda t, y: y[..., 0])
    arc = ask(lambda t, y: (1.0 - 2.0 * t) + 0.0 * y, y0=torch.zeros(1, dtype=F64), ts=[0.0, 2.0], event=reach)
    torch.testing.assert_close(arc.events.times, torch.ones(1, dtype=F64), rtol=0, atol=1e-9)


def test_an_unstable_way_back_is_told():  # solver-41
    y0 = ONES.clone().requires_grad_()
    ys = ask(lambda t, y: -50 * y, y0=y0, adjoint=Backsolve()).ys
    with pytest.warns(AdjointInstabilityWarning, match="checkpoint"):
        ys.sum().backward()


def test_a_series_that_ran_out_of_steps_is_in_the_status():  # solver-35, throw=False
    solution = ask(lambda t, y: -1e4 * (y - torch.cos(t)), ts=[0.0, 1e-6, 1.0], max_steps=10, throw=False)
    assert int(solution.status) == Status.MAX_STEPS
    assert torch.isfinite(solution.ys[:2]).all()
    assert torch.isnan(solution.ys[2]).all()


def test_second_derivatives_are_right():  # solver-43
    def run(y0):
        return ask(lambda t, y: torch.sin(y), y0=y0, controller=PIDController(1e-8, 1e-10)).ys[-1]

    assert gradgradcheck(run, (ONES.clone().requires_grad_(),), atol=1e-4)


@pytest.mark.parametrize("controller", [None, ConstantStep(0.1)])
@pytest.mark.parametrize("solver", [None, Rodas5P(), Kvaerno5()], ids=repr)
@pytest.mark.parametrize("shape", [(0, 2), (3, 0)])
def test_an_empty_batch_or_state_has_an_empty_answer(solver, controller, shape):  # solver-45
    y0 = torch.ones(shape, dtype=F64)
    assert ask(y0=y0, controller=controller, solver=solver).ys.shape == (shape[0], 2, shape[1])
