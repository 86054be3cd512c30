import inspect
import math

import pytest
import torch

import ctdyn.systems
from ctdyn.integrate import PIDController, solve
from ctdyn.solvers import Tsit5
from ctdyn.systems import (
    DampedOscillator,
    ExactSystem,
    ExponentialDecay,
    HarmonicOscillator,
    Logistic,
    Lorenz,
    LotkaVolterra,
    OrnsteinUhlenbeck,
    Spiral,
    System,
    VanDerPol,
    simulate,
)


EXPORTED = [getattr(ctdyn.systems, name) for name in ctdyn.systems.__all__]
SYSTEMS = [c for c in EXPORTED if isinstance(c, type) and issubclass(c, System) and not inspect.isabstract(c)]
TS = torch.tensor([[0.0, 0.1, 0.5, 1.0, 1.7], [0.2, 0.3, 0.9, 2.0, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize("cls", SYSTEMS)
def test_solutions_satisfy_their_equation(cls):
    system, step = cls(), 1e-4
    y0 = system.y0 * torch.tensor([[1.0], [1.1]], dtype=torch.float64)
    middle = system.solution(TS + step, y0)
    slope = (system.solution(TS + 2 * step, y0) - system.solution(TS, y0)) / (2 * step)
    velocity = system(TS + step, middle)
    assert torch.allclose(slope, velocity, rtol=1e-4, atol=1e-4 * float(velocity.abs().max()))
    start = system.solution(torch.zeros(2, 1, dtype=torch.float64), y0)
    assert torch.allclose(start[:, 0], y0)


@pytest.mark.parametrize("cls", [c for c in SYSTEMS if issubclass(c, ExactSystem)])
def test_closed_forms_agree_with_the_reference(cls):
    system = cls()
    y0 = system.y0.expand(2, -1) * 1.2
    assert torch.allclose(system.exact(TS, y0), System.solution(system, TS, y0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cls", [c for c in SYSTEMS if not issubclass(c, ExactSystem)])
def test_references_agree_with_our_own_solver(cls):
    system = cls()
    controller = PIDController(rtol=1e-11, atol=1e-11)
    solved = solve(system, system.y0[None], TS[:1], controller=controller, solver=Tsit5())
    assert torch.allclose(system.solution(TS[:1]), solved.ys, rtol=1e-8, atol=1e-8)


def test_known_values():
    t = torch.tensor([math.pi / 2], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    assert ExponentialDecay(2.0).exact(t, one).item() == pytest.approx(math.exp(-math.pi))
    x, v = HarmonicOscillator(3.0).exact(t, torch.tensor([1.0, 0.0], dtype=torch.float64))[0].tolist()
    assert x == pytest.approx(0.0, abs=1e-12)
    assert v == pytest.approx(3.0)
    x, y = Spiral(0.5, 1.0).exact(t, torch.tensor([2.0, 0.0], dtype=torch.float64))[0].tolist()
    assert x == pytest.approx(0.0, abs=1e-12)
    assert y == pytest.approx(2 * math.exp(-math.pi / 4))
    omega, zeta, s = 2.0, 0.1, float(t)
    damped = omega * math.sqrt(1 - zeta**2)
    want = math.exp(-zeta * omega * s) * (math.cos(damped * s) + zeta * omega / damped * math.sin(damped * s))
    assert DampedOscillator(omega, zeta).exact(t, torch.tensor([1.0, 0.0], dtype=torch.float64))[0, 0] == pytest.approx(
        want
    )
    logistic = Logistic(1.0, 2.0).exact(torch.tensor([0.0, 50.0]), torch.tensor([0.5]))
    assert logistic[:, 0].tolist() == pytest.approx([0.5, 2.0])


def test_lotka_volterra_conserves_its_invariant():
    system = LotkaVolterra()
    states = system.solution(torch.linspace(0, 8, 40, dtype=torch.float64))
    x, y = states.unbind(-1)
    invariant = system.delta * x - system.gamma * x.log() + system.beta * y - system.alpha * y.log()
    assert torch.allclose(invariant, invariant[0].expand_as(invariant), atol=1e-9)


def test_the_law_of_a_slow_pull_is_that_of_a_random_walk():
    t, y0 = torch.tensor([0.25, 4.0]), torch.tensor([1.0, -2.0])
    mean, variance = OrnsteinUhlenbeck(theta=1e-9, sigma=3.0).law(t, y0)
    torch.testing.assert_close(mean, y0.expand(2, 2))
    torch.testing.assert_close(variance, (9.0 * t)[:, None].expand(2, 2))


@pytest.mark.parametrize("cls", SYSTEMS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,)])
def test_no_series_and_no_times_have_no_states(cls, shape):
    system = cls()
    assert system.solution(torch.zeros(shape)).shape == (*shape, system.state_size)


def test_van_der_pol_reaches_its_limit_cycle():
    states = VanDerPol(mu=1.0).solution(torch.linspace(24, 32, 120, dtype=torch.float64))
    assert states[:, 0].max().item() == pytest.approx(2.0086, abs=5e-3)


def test_lorenz_stays_on_its_attractor():
    states = Lorenz().solution(torch.linspace(0, 3, 30, dtype=torch.float64))
    assert states.abs().max() < 60
    assert states[:, 0].min() < 0 < states[:, 0].max()


def test_gradients_flow_through_closed_forms():
    t, y0 = TS.clone().requires_grad_(), torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Spiral().exact, (t, y0))


def test_simulate_is_seeded_irregular_and_ragged():
    first, again, other = (simulate(Spiral(), 6, mean_times=12.0, seed=seed) for seed in (1, 1, 2))
    assert [len(s) for s in first] == [len(s) for s in again]
    assert all((a.values == b.values).all() and (a.times == b.times).all() for a, b in zip(first, again, strict=True))
    assert any(len(a) != len(b) or (a.times != b.times).any() for a, b in zip(first, other, strict=True))
    assert len({len(s) for s in first}) > 1
    assert [c.name for c in first.channels] == ["x", "y"]
    assert all(s.times.min() >= 0 and s.times.max() <= 10.0 for s in first)


def test_simulate_has_the_noise_it_was_asked_for():
    system = HarmonicOscillator()
    errors = []
    for series in simulate(system, 30, noise=0.2, spread=0.0, seed=0):
        clean = system.solution(torch.from_numpy(series.times.copy()))
        errors.append(torch.from_numpy(series.values.copy()) - clean)
    errors = torch.cat(errors)
    assert errors.std().item() == pytest.approx(0.2, rel=0.1)
    assert abs(errors.mean()) < 0.02


def test_simulate_loses_the_share_that_it_was_told_to():
    series = simulate(Spiral(), 40, missing=0.3, seed=0)
    values = torch.cat([torch.from_numpy(s.values.copy()) for s in series])
    # A time at which both channels went missing is no observation, and is dropped.
    assert values.isnan().double().mean().item() == pytest.approx(0.3 / 1.3, abs=0.03)


@pytest.mark.parametrize(
    "bad", [{"num_series": 0}, {"duration": 0.0}, {"mean_times": 0.0}, {"noise": -1.0}, {"missing": 1.0}]
)
def test_simulate_refuses_what_makes_no_sense(bad):
    with pytest.raises(ValueError, match="simulate needs"):
        simulate(Spiral(), **({"num_series": 2} | bad))
