"""Fields that decay: their equations, the bounds that their papers prove, and the step that solves them."""

import pytest
import torch
from torch.nn.functional import softplus

from ctdyn import solve
from ctdyn._config import from_config, to_config
from ctdyn.fields import CTRNNField, DecayField, GRUODEField, LTCField
from ctdyn.integrate import Backsolve, Event, PIDController, StepTo
from ctdyn.paths import ConstantPath
from ctdyn.solvers import ETDRK2, RK4, Euler, ExponentialEuler, ExponentialMidpoint, FusedEuler, Tsit5
from ctdyn.testing import check_field


F64 = torch.float64
KINDS = [CTRNNField, GRUODEField, LTCField]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("input_size", [0, 2])
def test_contract(kind, input_size):
    torch.manual_seed(0)
    check_field(kind(3, input_size=input_size), 3, input_size=input_size)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_that_do_not_fit_are_refused(kind):
    driven = kind(3, input_size=2)
    with pytest.raises(ValueError, match="none were given"):
        driven(torch.zeros(4), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="state_size=3"):
        driven(torch.zeros(4), torch.zeros(4, 5), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="state_size"):
        kind(0)
    again = from_config(to_config(driven), {kind.__name__: kind})
    again.load_state_dict(driven.state_dict())
    t, y, u = torch.zeros(4), torch.randn(4, 3), torch.randn(4, 2)
    assert torch.equal(again(t, y, u), driven(t, y, u))


def test_rates_are_not_negative_whatever_drives_them():
    torch.manual_seed(0)
    for kind in KINDS:
        field = kind(4, input_size=2)
        rate, _ = field.decay(torch.zeros(500), 10 * torch.randn(500, 4), 100 * torch.randn(500, 2))
        assert bool((rate >= 0).all())


def test_ct_rnn_is_its_equation():
    field = CTRNNField(3, input_size=2, time_constant=0.5).double()
    y, u = torch.randn(4, 3, dtype=F64), torch.randn(4, 2, dtype=F64)
    level = torch.tanh(y) @ field.recurrent.weight.mT + field.recurrent.bias + u @ field.driven.weight.mT
    torch.testing.assert_close(field(torch.zeros(4, dtype=F64), y, u), (level - y) / 0.5, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="time_constant must be positive"):
        CTRNNField(3, time_constant=0.0)


def test_gru_ode_is_its_equation():
    field = GRUODEField(3, input_size=2).double()
    y, u = torch.randn(4, 3, dtype=F64), torch.randn(4, 2, dtype=F64)
    z, r = torch.sigmoid(torch.cat([y, u], -1) @ field.gates.weight.mT + field.gates.bias).chunk(2, -1)
    g = torch.tanh(torch.cat([r * y, u], -1) @ field.candidate.weight.mT + field.candidate.bias)
    torch.testing.assert_close(field(torch.zeros(4, dtype=F64), y, u), (1 - z) * (g - y))


def ltc_by_hand(field: LTCField, y: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The sum over synapses, one by one."""
    change = softplus(field.raw_leak) * (field.leak_level - y)
    for synapses, x in ((field.synapses, y), (field.sensory, u)):
        for i in range(x.shape[-1]):
            gate = torch.sigmoid(synapses.slope[i] * (x[..., i, None] - synapses.threshold[i]))
            change = change + softplus(synapses.raw_weight[i]) * gate * (synapses.level[i] - y)
    return change / softplus(field.raw_capacity)


def test_ltc_is_its_equation_and_begins_in_the_ranges_of_its_paper():
    torch.manual_seed(0)
    field = LTCField(5, input_size=2).double()
    y, u = torch.randn(4, 5, dtype=F64), torch.randn(4, 2, dtype=F64)
    torch.testing.assert_close(field(torch.zeros(4, dtype=F64), y, u), ltc_by_hand(field, y, u))
    ranges = {
        "capacity": (softplus(field.raw_capacity), 0.4, 0.6),
        "leak": (softplus(field.raw_leak), 1e-3, 1.0),
        "weight": (softplus(field.synapses.raw_weight), 1e-3, 1.0),
        "slope": (field.synapses.slope, 3.0, 8.0),
        "threshold": (field.synapses.threshold, 0.3, 0.8),
    }
    for name, (values, low, high) in ranges.items():
        assert bool(((values >= low - 1e-6) & (values <= high + 1e-6)).all()), name
    assert set(field.synapses.level.unique().tolist()) <= {-1.0, 1.0}


@pytest.mark.parametrize("solver", [ExponentialMidpoint(), ExponentialEuler(), FusedEuler()], ids=repr)
def test_steps_of_any_length_keep_the_bounds_of_the_papers(solver):
    torch.manual_seed(0)
    ltc, gru = LTCField(6, input_size=2).double(), GRUODEField(6, input_size=2).double()
    inputs = ConstantPath(100.0 * torch.randn(20, 2, dtype=F64))
    ts = torch.cat([torch.zeros(1), 10.0 ** torch.linspace(-3, 4, 60)]).double()
    for field in (ltc, gru):
        y0 = 2 * torch.rand(20, 6, dtype=F64) - 1
        ys = solve(field, y0, ts, inputs=inputs, solver=solver, controller=StepTo()).ys
        # Leak levels of the one begin within 0.2, reversal levels are 1 and -1; the other pulls to a tanh.
        assert bool((ys.abs() <= 1.0 + 1e-12).all())


def test_the_exponential_midpoint_beats_the_fused_step_at_equal_evaluations():
    torch.manual_seed(0)
    field = LTCField(8, input_size=2).double()
    inputs, y0 = ConstantPath(torch.randn(10, 2, dtype=F64)), torch.randn(10, 8, dtype=F64) * 0.3
    ts = torch.tensor([0.0, 0.3], dtype=F64)
    truth = solve(field, y0, ts, inputs=inputs, solver=Tsit5(), controller=PIDController(1e-12, 1e-12)).ys[:, -1]

    def error(solver, steps):
        found = solve(field, y0, ts, inputs=inputs, solver=solver, controller=StepTo(steps)).ys[:, -1]
        return float((found - truth).detach().abs().max())

    for evaluations in (8, 24):
        fused = error(FusedEuler(), evaluations)
        assert error(ExponentialMidpoint(), evaluations // 2) < fused / 5
    # First and second order.
    assert 1.7 < error(FusedEuler(), 16) / error(FusedEuler(), 32) < 2.3
    assert 3.4 < error(ExponentialMidpoint(), 16) / error(ExponentialMidpoint(), 32) < 4.6


def test_the_fused_step_is_the_formula_of_the_paper():
    field = LTCField(3).double()
    y0, ts = torch.randn(4, 3, dtype=F64), torch.tensor([0.0, 0.7], dtype=F64)
    rate, drive = field.decay(ts[:1].expand(4), y0)
    expected = (y0 + 0.7 * drive) / (1 + 0.7 * rate)
    found = solve(field, y0, ts, solver=FusedEuler(), controller=StepTo()).ys[:, -1]
    torch.testing.assert_close(found, expected)


def test_a_zero_gap_changes_nothing():
    field, y0 = LTCField(3).double(), torch.randn(4, 3, dtype=F64)
    ts = torch.zeros(4, 2, dtype=F64)
    for solver in (ExponentialMidpoint(), FusedEuler()):
        ys = solve(field, y0, ts, solver=solver, controller=StepTo()).ys
        assert torch.equal(ys[:, -1], y0)


class Stiff(DecayField):
    """Fast decay to a level that moves slowly."""

    def decay(self, t, y, u=None):
        return torch.full_like(y, 1e6), 1e6 * torch.cos(t)[..., None].expand_as(y)


def test_a_solve_takes_the_exponential_step_by_itself_and_says_so():
    ts = torch.tensor([0.0, 1.0], dtype=F64)
    solution = solve(Stiff(), torch.zeros(1, dtype=F64), ts, controller=PIDController(1e-3, 1e-3))
    assert "ExponentialMidpoint()" in solution.plan
    assert abs(float(solution.ys[-1, 0]) - float(torch.cos(torch.tensor(1.0)))) < 1e-3
    # Its order falls to 1 where levels move in fast decay; explicit methods need a step for every 1e-6.
    assert int(solution.stats["steps"].max()) < 1000
    # Where that method cannot go, the usual one is taken.
    gentle = GRUODEField(2).double()
    y0 = torch.full((2,), 0.1, dtype=F64)
    for options in (
        {"adjoint": Backsolve()},
        {"aux": [lambda t, y: y.sum(-1)]},
        {"event": Event(lambda t, y: y[..., 0] - 5.0)},
        {"controller": PIDController(1e-8, 1e-8)},
    ):
        assert "Tsit5()" in solve(gentle, y0, ts, **options).plan


def test_explicit_methods_blow_up_where_exponential_ones_do_not():
    torch.manual_seed(0)
    field, y0 = LTCField(8).double(), torch.randn(5, 8, dtype=F64)
    ts = torch.tensor([0.0, 100.0], dtype=F64)
    for solver in (Euler(), RK4()):
        found = solve(field, y0, ts, solver=solver, controller=StepTo(4), throw=False).ys[:, -1]
        assert not bool((found.abs() < 10.0).all())
    for solver in (ExponentialMidpoint(), ETDRK2()):
        found = solve(field, y0, ts, solver=solver, controller=StepTo(4)).ys[:, -1]
        assert bool((found.abs() < 10.0).all())
