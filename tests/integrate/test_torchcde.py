import pytest
import torch

from ctdyn._checks import MaxStepsError, SolveError
from ctdyn.fields import MLPCDEField
from ctdyn.integrate import PIDController, TorchCDE, TorchDiffEq, solve
from ctdyn.paths import HermitePath, LinearPath
from ctdyn.structure import VectorField
from ctdyn.testing import check_engine


F64 = torch.float64
ADAPTIVE = ["dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun"]
FIXED = {"euler": 0.3, "midpoint": 0.02, "heun2": 0.02, "heun3": 2e-3, "rk4": 1e-4}


def problem(dtype=F64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        field = MLPCDEField(3, 2, hidden=(8,)).to(dtype)
    knots = (0.05 + 0.3 * torch.rand(4, 9, generator=generator, dtype=F64)).cumsum(-1)
    knots[2, -3:] = knots[2, -3:-2].clone()
    xs = torch.randn(4, 9, 2, generator=generator, dtype=F64).to(dtype)
    shares = torch.rand(4, 5, generator=generator, dtype=F64).cumsum(-1) / 5
    ts = knots[:, :1] + shares * (knots[:, -1:] - knots[:, :1])
    return field, torch.randn(4, 3, generator=generator, dtype=F64).to(dtype), ts, knots[:, 0], knots, xs


@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
def test_contract_of_adaptive_methods(method):
    check_engine(TorchCDE(method, rtol=1e-6, atol=1e-8))


@pytest.mark.parametrize("method", ["heun3", "rk4"])
def test_contract_of_fixed_steps(method):
    check_engine(TorchCDE(method, step_size=0.02))


@pytest.mark.parametrize("kind", [LinearPath, HermitePath])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_every_adaptive_method_agrees_with_our_own_solver_on_own_clocks(method, kind):
    field, y0, ts, t0, knots, xs = problem()
    given = {"t0": t0, "inputs": kind(knots, xs)}
    truth = solve(field, y0, ts, controller=PIDController(1e-10, 1e-12), **given).ys
    rtol = 1e-4 if method in ("fehlberg2", "adaptive_heun") else 1e-6
    found = solve(field, y0, ts, solver=TorchCDE(method, rtol=rtol, atol=rtol / 100), **given)
    # The error estimate of fehlberg2 in torchdiffeq is a loose one.
    assert (found.ys - truth).abs().max() < (1000 if method == "fehlberg2" else 100) * rtol
    assert (found.stats["evaluations"] > 0).all()


@pytest.mark.parametrize("method", FIXED)
def test_every_fixed_method_agrees_with_our_own_solver_on_own_clocks(method):
    field, y0, ts, t0, knots, xs = problem()
    given = {"t0": t0, "inputs": LinearPath(knots, xs)}
    truth = solve(field, y0, ts, controller=PIDController(1e-10, 1e-12), **given).ys
    found = solve(field, y0, ts, solver=TorchCDE(method, step_size=0.05), **given).ys
    assert (found - truth).abs().max() < FIXED[method]


def test_gradients_agree_with_our_own_solver():
    field, y0, ts, t0, knots, xs = problem()
    gradients = []
    for options in ({"solver": TorchCDE(rtol=1e-9, atol=1e-11)}, {"controller": PIDController(1e-10, 1e-12)}):
        x, start = xs.clone().requires_grad_(), y0.clone().requires_grad_()
        ys = solve(field, start, ts, t0=t0, inputs=HermitePath(knots, x), **options).ys
        gradients.append(torch.autograd.grad(ys.square().sum(), [x, start, *field.parameters()]))
    for found, want in zip(*gradients, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6)


def test_it_is_what_torchdiffeq_makes_of_the_same_equation():
    field, y0, ts, t0, knots, xs = problem()
    given = {"t0": t0, "inputs": LinearPath(knots, xs)}
    tight = {"rtol": 1e-8, "atol": 1e-10}
    one, other = (solve(field, y0, ts, solver=engine(**tight), **given).ys for engine in (TorchCDE, TorchDiffEq))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_float32_states_keep_to_the_side_of_a_knot_that_they_come_from():
    field, y0, ts, t0, knots, xs = problem(torch.float32)
    ts, t0, knots = ts + 1000.0, t0 + 1000.0, knots + 1000.0
    given = {"t0": t0, "inputs": LinearPath(knots, xs)}
    truth = solve(field.double(), y0.double(), ts, controller=PIDController(1e-9, 1e-11), **given).ys
    found = solve(field.float(), y0, ts, solver=TorchCDE(rtol=1e-5, atol=1e-6), **given).ys
    assert found.dtype == torch.float32
    assert (found - truth).abs().max() < 1e-3


def test_one_time_is_the_initial_state():
    field, y0, _, t0, knots, xs = problem()
    solution = solve(field, y0, t0[:, None], inputs=LinearPath(knots, xs), solver=TorchCDE())
    assert torch.equal(solution.ys[:, 0], y0)


def test_misuse_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"choose from .*dopri5"):
        TorchCDE("dopri6")
    with pytest.raises(ValueError, match="choose from"):
        TorchCDE("implicit_adams")
    with pytest.raises(ValueError, match="jump_t"):
        TorchCDE("dopri5", jump_t=torch.zeros(1))
    with pytest.raises(ValueError, match="step_size"):
        TorchCDE("dopri5", step_size=0.1)
    field, y0, ts, *_ = problem()
    with pytest.raises(ValueError, match="inputs="):
        solve(field, y0, ts, solver=TorchCDE())
    assert repr(TorchCDE("rk4", step_size=0.1)) == "TorchCDE('rk4', rtol=0.0001, atol=1e-06, step_size=0.1)"


def test_failures_say_what_to_do():
    class Blow(VectorField):
        def forward(self, t, y, u=None):
            return y**2

    ts = torch.linspace(0.0, 3.0, 4, dtype=F64)
    with pytest.raises(SolveError, match="Loosen"):
        solve(Blow(), torch.ones(1, 1, dtype=F64), ts, solver=TorchCDE())
    with pytest.raises(MaxStepsError, match="max_num_steps"):
        solve(Blow(), torch.ones(1, 1, dtype=F64), ts / 10, solver=TorchCDE(rtol=1e-10, atol=1e-12, max_num_steps=1))
