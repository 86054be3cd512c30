import math

import pytest
import torch

from ctdyn.fields import MLPCDEField
from ctdyn.integrate import StepTo, TorchSDE, solve
from ctdyn.paths import LinearPath, VirtualBrownianTree
from ctdyn.solvers import EulerHeun, EulerMaruyama, Heun, Milstein, StratonovichMilstein
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.systems import GeometricBrownianMotion, OrnsteinUhlenbeck
from ctdyn.terms import SDETerm
from ctdyn.testing import check_engine


F64 = torch.float64
ITO = ["euler", "milstein", "srk"]
STRATONOVICH = ["midpoint", "heun", "euler_heun", "reversible_heun", "log_ode", "milstein"]


class Swirl(SDEField):
    """Timed, driven, and nonlinear, with the noise that its children declare."""

    noise, calculus = Noise.DIAGONAL, Calculus.ITO

    def drift(self, t, y, u=None):
        push = 0.0 if u is None else u
        return torch.sin(y.flip(-1)) - y + torch.cos(t)[..., None] + push

    def diffusion(self, t, y, u=None):
        return 0.3 + 0.2 * torch.sigmoid(y) * (1 + torch.sin(t)[..., None])


class StratonovichSwirl(Swirl):
    calculus = Calculus.STRATONOVICH


class ScalarSwirl(Swirl):
    noise = Noise.SCALAR


class GeneralSwirl(Swirl):
    noise, calculus = Noise.GENERAL, Calculus.STRATONOVICH

    def diffusion(self, t, y, u=None):
        return torch.stack([0.3 * torch.cos(y), 0.2 * torch.sin(y.flip(-1)), 0.1 + 0 * y], -1)


class MixedAdditive(Swirl):
    noise = Noise.ADDITIVE

    def diffusion(self, t, y, u=None):
        mix = torch.tensor([[0.3, 0.1, 0.0], [0.0, 0.2, 0.4]], dtype=y.dtype)
        return mix * (1 + torch.sin(t)[..., None, None])


def problem(field, size=2, dtype=F64):
    """Own clocks whose longest interval decides on four steps in each: the grid of `StepTo(4)`."""
    t0 = torch.tensor([0.0, 0.5, -1.0], dtype=F64)
    gaps = torch.tensor([[0.3, 0.4, 0.25, 0.4], [0.4, 0.2, 0.4, 0.1], [0.1, 0.3, 0.4, 0.0]], dtype=F64)
    y0 = torch.tensor([[0.5, 1.0], [-0.5, 0.2], [1.5, -1.0]], dtype=dtype)
    return SDETerm(field, VirtualBrownianTree(torch.arange(3), size, t0=t0)), y0, t0[:, None] + gaps.cumsum(-1), t0


@pytest.mark.parametrize(
    ("field", "size", "method", "ours"),
    [
        (Swirl(), 2, "euler", EulerMaruyama()),
        (Swirl(), 2, "milstein", Milstein()),
        (ScalarSwirl(), 1, "euler", EulerMaruyama()),
        (ScalarSwirl(), 1, "milstein", Milstein()),
        (MixedAdditive(), 3, "euler", EulerMaruyama()),
        (StratonovichSwirl(), 2, "milstein", StratonovichMilstein()),
        (StratonovichSwirl(), 2, "heun", Heun()),
        (StratonovichSwirl(), 2, "euler_heun", EulerHeun()),
        (GeneralSwirl(), 3, "heun", Heun()),
        (GeneralSwirl(), 3, "euler_heun", EulerHeun()),
    ],
    ids=lambda value: str(value)[:24],
)
def test_the_same_method_along_the_same_motion_gives_the_same_path(field, size, method, ours):
    term, y0, ts, t0 = problem(field, size)
    found = solve(term, y0, ts, t0=t0, solver=TorchSDE(method, dt=0.1)).ys
    want = solve(term, y0, ts, t0=t0, solver=ours, controller=StepTo(4)).ys
    torch.testing.assert_close(found, want, rtol=0, atol=1e-11)


def test_inputs_with_knots_are_landed_on():
    term, y0, ts, t0 = problem(Swirl())
    knots = t0[:, None] + torch.tensor([0.0, 0.17, 0.6, 1.5], dtype=F64)
    inputs = LinearPath(knots, torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=F64))
    driven = SDETerm(Swirl(), term.brownian, inputs)
    found = solve(driven, y0, ts, t0=t0, solver=TorchSDE("euler", dt=1e-3)).ys
    want = solve(driven, y0, ts, t0=t0, solver=EulerMaruyama(), controller=StepTo(400), max_steps=10**4).ys
    assert (found - want).abs().max() < 0.03
    assert found.shape == want.shape


@pytest.mark.parametrize("method", ITO)
def test_ito_methods_converge_to_the_solution_path_by_path(method):
    system = GeometricBrownianMotion(mu=0.3, sigma=0.6)
    t0, y0 = torch.zeros(192, dtype=F64), torch.ones(192, 1, dtype=F64)
    ts = torch.tensor([0.5, 1.0], dtype=F64) * (1 + torch.arange(192, dtype=F64)[:, None] % 3) / 3
    motion = VirtualBrownianTree(torch.arange(192), 1)
    path = torch.stack([motion.evaluate(t) for t in ts.unbind(-1)], -2)
    exact = system.exact(ts, y0, path)
    errors = []
    for dt in (0.1, 0.025):
        ys = solve(SDETerm(system, motion), y0, ts, t0=t0, solver=TorchSDE(method, dt=dt)).ys
        errors.append(float((ys.detach() - exact).square().mean()) ** 0.5)
    order = {"euler": 0.5, "milstein": 1.0, "srk": 1.5}[method]
    assert math.log(errors[0] / errors[1], 4) > order - 0.3


@pytest.mark.parametrize("method", STRATONOVICH)
def test_stratonovich_methods_solve_a_stratonovich_equation(method):
    class Growth(GeometricBrownianMotion):
        calculus = Calculus.STRATONOVICH

    system = Growth(mu=0.3, sigma=0.5)
    ts = torch.tensor([[0.4, 1.0]], dtype=F64).expand(2000, -1)
    motion = VirtualBrownianTree(torch.arange(2000), 1)
    ys = solve(SDETerm(system, motion), torch.ones(2000, 1, dtype=F64), ts, t0=0.0, solver=TorchSDE(method, dt=0.1)).ys
    mean = math.exp(0.3 + 0.125)
    assert abs(float(ys[:, -1].mean()) - mean) < 5 * mean * math.sqrt(math.exp(0.25) - 1) / 2000**0.5
    if method != "log_ode":
        exact = torch.exp(0.3 + 0.5 * motion.evaluate(ts[:, -1]))
        assert (ys[:, -1] - exact).abs().mean() < 0.05


@pytest.mark.parametrize("method", [*ITO, *STRATONOVICH])
def test_every_method_takes_additive_noise_and_gives_the_right_law(method):
    system = OrnsteinUhlenbeck(theta=1.0, mean=1.0, sigma=0.5)
    ts = torch.tensor([0.5, 1.0]).expand(1500, -1)
    y0, rng = torch.zeros(1500, 2), torch.Generator().manual_seed(1)
    ys = solve(system, y0, ts, t0=0.0, solver=TorchSDE(method, dt=0.06), generator=rng).ys[:, -1].double()
    mean, variance = (law[:, -1] for law in system.law(ts.double(), y0.double()))
    assert (ys.mean(0) - mean[0]).abs().max() < 5 * float(variance[0, 0] / 1500) ** 0.5 + 0.02
    assert (ys.var(0) / variance[0] - 1).abs().max() < 0.25


def test_gradients_are_those_of_the_steps():
    term, y0, ts, t0 = problem(Swirl())
    gradients = []
    for options in ({"solver": TorchSDE("euler", dt=0.1)}, {"solver": EulerMaruyama(), "controller": StepTo(4)}):
        start, clock = y0.clone().requires_grad_(), ts.clone()
        ys = solve(term, start, clock, t0=t0, **options).ys
        gradients.append(torch.autograd.grad(ys.square().sum(), start)[0])
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["heun", "midpoint"])
def test_contract_with_an_ordinary_equation(method):
    check_engine(TorchSDE(method, dt=5e-3), tolerance=1e-2)


def test_equal_gaps_are_one_run_and_a_hundred_steps_are_no_cliff():
    rng = torch.Generator().manual_seed(0)
    ts = torch.linspace(0.0, 1.0, 101)
    solution = solve(OrnsteinUhlenbeck(), torch.zeros(4, 2), ts, solver=TorchSDE("euler", dt=0.01), generator=rng)
    assert int(solution.stats["evaluations"].max()) < 110


def test_padding_and_a_first_time_equal_to_t0_are_harmless():
    term, y0, ts, t0 = problem(Swirl())
    engine = TorchSDE("milstein", dt=0.1)
    plain = solve(term, y0, ts, t0=t0, solver=engine).ys
    longer = torch.cat([t0[:, None], ts, ts[:, -1:].expand(-1, 3)], -1)
    padded = solve(term, y0, longer, t0=t0, solver=engine).ys
    assert torch.equal(padded[:, 0], y0)
    torch.testing.assert_close(padded[:, 1:5], plain, rtol=0, atol=1e-12)
    assert torch.equal(padded[:, -1], padded[:, 4])


def test_misuse_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"choose from .*srk"):
        TorchSDE("sirk", dt=0.1)
    with pytest.raises(ValueError, match="positive"):
        TorchSDE("euler", dt=0.0)
    with pytest.raises(ValueError, match="adaptive"):
        TorchSDE("euler", dt=0.1, adaptive=True)
    with pytest.raises(TypeError, match="no option 'gradfree'; did you mean grad_free"):
        TorchSDE("milstein", dt=0.1, gradfree=True)
    term, y0, ts, t0 = problem(Swirl())
    with pytest.raises(ValueError, match=r"choose from .*euler"):
        solve(term, y0, ts, t0=t0, solver=TorchSDE("heun", dt=0.1))
    with pytest.raises(ValueError, match=r"general noise; choose from .*heun"):
        solve(problem(GeneralSwirl(), 3)[0], y0, ts, t0=t0, solver=TorchSDE("milstein", dt=0.1))
    with pytest.raises(ValueError, match="forward"):
        solve(term, y0, -ts, t0=-t0, solver=TorchSDE("euler", dt=0.1))
    control = LinearPath(ts, ts[..., None])
    with pytest.raises(ValueError, match="TorchCDE"):
        solve(MLPCDEField(2, 1).double(), y0, ts, inputs=control, solver=TorchSDE("euler", dt=0.1))
    assert repr(TorchSDE("milstein", dt=0.1, grad_free=True)) == "TorchSDE('milstein', dt=0.1, grad_free=True)"
