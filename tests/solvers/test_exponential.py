import math

import pytest
import torch

from ctdyn.integrate import ConstantStep, PIDController, StepTo, solve
from ctdyn.paths import ConstantPath, LinearPath
from ctdyn.solvers import ETDRK2, ETDRK4, ExponentialEuler, ExponentialMidpoint
from ctdyn.structure import DecayField


F64 = torch.float64
METHODS = [ExponentialEuler(), ExponentialMidpoint(), ETDRK2(), ETDRK4()]


class Leak(DecayField):
    """Constant rates, from slow to hopelessly stiff, towards what the inputs say."""

    def __init__(self, rates):
        super().__init__()
        self.rates = torch.tensor(rates, dtype=F64)

    def decay(self, t, y, u=None):
        return self.rates.expand_as(y), self.rates * (torch.ones_like(y) if u is None else u)


class Gate(DecayField):
    """A liquid time-constant cell: rates and drive move with the state and the clock."""

    def decay(self, t, y, u=None):
        gate = torch.sigmoid(y.flip(-1) + torch.sin(3 * t)[..., None])
        return 1.0 + 5 * gate, 5 * gate * torch.tensor([1.0, -2.0], dtype=y.dtype)


@pytest.mark.parametrize("solver", METHODS, ids=repr)
@pytest.mark.parametrize("rates", [(1e-9, 0.0), (0.3, 2.0), (1e4, 1e9)])
def test_constant_rates_and_drive_are_solved_exactly_whatever_the_step(solver, rates):
    ts = torch.tensor([[0.0, 0.1, 0.25, 3.0], [1.0, 2.0, 2.5, 2.5]], dtype=F64)
    y0 = torch.tensor([[2.0, -1.0], [0.5, 7.0]], dtype=F64)
    exact = 1 + (y0[:, None] - 1) * torch.exp(-torch.tensor(rates, dtype=F64) * (ts - ts[:, :1])[..., None])
    for controller in (StepTo(), ConstantStep(1.3), *([PIDController(1e-3, 1e-3)] if solver.adaptive else [])):
        ys = solve(Leak(rates), y0, ts, solver=solver, controller=controller).ys
        torch.testing.assert_close(ys, exact, rtol=0, atol=1e-13)


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_a_step_of_constant_inputs_is_exact_and_of_linear_ones_where_the_order_allows(solver):
    ts = torch.tensor([0.0, 1.0], dtype=F64)
    y0, field = torch.tensor([3.0], dtype=F64), Leak((50.0,))
    held = solve(field, y0, ts, inputs=ConstantPath(torch.tensor([2.0], dtype=F64)), solver=solver, controller=StepTo())
    torch.testing.assert_close(held.ys[-1, 0], torch.tensor(2 + math.exp(-50), dtype=F64), rtol=0, atol=1e-14)
    ramp = LinearPath(ts, torch.tensor([[0.0], [1.0]], dtype=F64))
    found = solve(field, y0, ts, inputs=ramp, solver=solver, controller=StepTo()).ys[-1, 0]
    error = float((found - (1 - 1 / 50 + (3 + 1 / 50) * math.exp(-50))).abs())
    # The midpoint method sees the input in the middle alone.
    exact = isinstance(solver, ETDRK2 | ETDRK4)
    assert error < 1e-14 if exact else error > 1e-3


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_outputs_inside_long_steps_are_as_exact_as_the_steps(solver):
    ts = torch.linspace(0.0, 2.0, 41, dtype=F64)
    ys = solve(Leak((300.0,)), torch.tensor([3.0], dtype=F64), ts, solver=solver, controller=ConstantStep(0.5)).ys
    torch.testing.assert_close(ys[:, 0], 1 + 2 * torch.exp(-300 * ts), rtol=0, atol=1e-13)


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_the_order_holds_where_rates_move_with_the_state(solver):
    ts = torch.tensor([0.0, 2.0], dtype=F64)
    y0 = torch.tensor([[0.3, -0.4], [1.5, 0.2]], dtype=F64)
    truth = solve(Gate(), y0, ts, controller=PIDController(1e-12, 1e-12)).ys[:, -1]
    errors = [
        float((solve(Gate(), y0, ts, solver=solver, controller=StepTo(n)).ys[:, -1] - truth).abs().max())
        for n in (32, 64, 128)
    ]
    assert abs(2 * math.log2(errors[1] / errors[2]) - math.log2(errors[0] / errors[1]) - solver.order) < 0.1


def test_adaptive_steps_follow_the_tolerance_and_not_the_rate():
    ts = torch.linspace(0.0, 2.0, 9, dtype=F64)
    y0 = torch.tensor([[0.3, -0.4], [1.5, 0.2]], dtype=F64)
    truth = solve(Gate(), y0, ts, controller=PIDController(1e-11, 1e-11)).ys
    for tolerance in (1e-3, 1e-5):
        found = solve(Gate(), y0, ts, solver=ETDRK2(), controller=PIDController(tolerance, tolerance), max_steps=10**5)
        assert (found.ys - truth).abs().max() < 20 * tolerance
    stiff = solve(
        Leak((1e8,)), torch.tensor([3.0], dtype=F64), ts, solver=ETDRK2(), controller=PIDController(1e-6, 1e-6)
    )
    assert int(stiff.stats["steps"]) < 20


def test_gradients_are_exact_in_float64_and_finite_where_rates_vanish():
    rates = torch.tensor([0.0, 1e-8, 2.0], dtype=F64, requires_grad=True)
    y0 = torch.tensor([1.0, 2.0, 3.0], dtype=F64, requires_grad=True)
    ts = torch.tensor([0.0, 0.7], dtype=F64)

    class Own(DecayField):
        def decay(self, t, y, u=None):
            return rates.expand_as(y), torch.sin(y)

    assert torch.autograd.gradcheck(
        lambda rates, y0: solve(Own(), y0, ts, solver=ETDRK4(), controller=StepTo(3)).ys, (rates, y0)
    )


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_other_fields_are_refused_with_the_cure(solver):
    ts = torch.tensor([0.0, 1.0])
    with pytest.raises(TypeError, match="DecayField"):
        solve(lambda t, y: -y, torch.ones(1), ts, solver=solver, controller=StepTo())


def test_float32_states_and_any_batch_axes_are_kept():
    ts = torch.tensor([0.0, 1.0])
    y0 = torch.rand(4, 3, 2)
    ys = solve(Gate(), y0, ts, solver=ETDRK4(), controller=StepTo(2)).ys
    assert ys.dtype == torch.float32
    assert ys.shape == (4, 3, 2, 2)
    alone = solve(Gate(), y0[1, 2], ts, solver=ETDRK4(), controller=StepTo(2)).ys
    torch.testing.assert_close(ys[1, 2], alone)
