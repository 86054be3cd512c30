"""Stochastic equations through `solve`: what is promised, and what is refused."""

import itertools
import resource
import shutil

import pytest
import torch
import torchsde
from torch import nn

from ctdyn._checks import MaxStepsError
from ctdyn.integrate import Checkpoint, ConstantStep, Direct, PIDController, StepTo, evolve, solve
from ctdyn.paths import LinearPath, StoredBrownian, VirtualBrownianTree
from ctdyn.solvers import (
    SRA1,
    SRI1,
    Dopri5,
    Euler,
    EulerHeun,
    EulerMaruyama,
    Heun,
    Midpoint,
    Milstein,
    ReversibleHeun,
    StratonovichMilstein,
)
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.systems import GeometricBrownianMotion, OrnsteinUhlenbeck
from ctdyn.terms import SDETerm


F64 = torch.float64
SPAN = torch.tensor([0.0, 1.0], dtype=F64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Learned(SDEField):
    noise, calculus = Noise.DIAGONAL, Calculus.ITO

    def __init__(self, size=3, driven=0, calculus=Calculus.ITO):
        super().__init__()
        self.calculus = calculus
        torch.manual_seed(0)
        self.f = nn.Sequential(nn.Linear(size + driven, 8), nn.Tanh(), nn.Linear(8, size)).double()
        self.g = nn.Parameter(torch.linspace(0.3, 0.7, size, dtype=F64))

    def drift(self, t, y, u=None):
        return self.f(y if u is None else torch.cat([y, u], -1))

    def diffusion(self, t, y, u=None):
        g = torch.sigmoid(self.g * y)
        return g if u is None else g * (1 + 0.1 * u[..., :1])


def problem():
    """Initial states and the own clocks of four series."""
    y0 = torch.randn(4, 3, dtype=F64, generator=seeded())
    ts = torch.rand(4, 6, dtype=F64, generator=seeded(1)).cumsum(-1)
    return y0, ts


@pytest.mark.parametrize("solver", [EulerMaruyama(), SRI1()], ids=repr)
def test_more_times_and_later_times_leave_the_old_answers_alone(solver):
    y0, ts = problem()
    t0 = torch.tensor([0.0, -1.0, 0.1, 0.0], dtype=F64)

    def run(times):
        step = ConstantStep(0.15)
        return solve(Learned(), y0, times, t0=t0, solver=solver, controller=step, generator=seeded(2)).ys

    found = run(ts)
    for extra in (torch.linspace(0.02, 0.9, 40), torch.tensor([0.5, 1.3]), torch.tensor([40.0, 90.0])):
        times, order = torch.cat([ts, ts[:, :1] + extra.to(F64)], -1).sort(-1)
        back = torch.take_along_dim(run(times), order.argsort(-1)[..., None], 1)[:, : ts.shape[1]]
        torch.testing.assert_close(back, found, rtol=0, atol=1e-12)


def test_a_generator_decides_everything_and_none_is_torchs_own():
    y0, ts = problem()

    def run(generator=None):
        return solve(Learned(), y0, ts, solver=EulerMaruyama(), controller=ConstantStep(0.2), generator=generator).ys

    assert torch.equal(run(seeded(1)), run(seeded(1)))
    assert not torch.equal(run(seeded(1)), run(seeded(2)))
    torch.manual_seed(5)
    one = run()
    torch.manual_seed(5)
    assert torch.equal(run(), one)


def test_samples_are_leading_axes_with_noise_of_their_own():
    y0, ts = problem()
    many = solve(
        Learned(), y0.expand(5, 4, 3), ts, solver=EulerMaruyama(), controller=ConstantStep(0.2), generator=seeded()
    ).ys
    assert many.shape == (5, 4, 6, 3)
    assert float(many.detach()[:, :, -1].std(0).min()) > 0.05


def test_with_steps_to_the_outputs_those_are_the_ends_of_steps():
    y0, ts = problem()
    found = solve(Learned(), y0, ts, t0=0.0, solver=EulerMaruyama(), controller=StepTo(2), generator=seeded())
    assert "outputs are ends of steps" in found.plan
    grid = torch.cat([torch.zeros(4, 1, dtype=F64), ts], -1)
    assert int(found.stats["steps"].max()) == 2 * (grid.shape[-1] - 1)


@pytest.mark.parametrize("adjoint", [Checkpoint(), Checkpoint(segments=3)], ids=repr)
@pytest.mark.parametrize("solver", [EulerMaruyama(), Milstein(), SRI1(), ReversibleHeun()], ids=repr)
def test_checkpoints_give_the_gradients_of_direct(solver, adjoint):
    y0, ts = problem()
    field = Learned(driven=2, calculus=solver.calculus)
    knots = torch.linspace(0, 5, 6, dtype=F64).expand(4, 6)
    values = torch.randn(4, 6, 2, dtype=F64, generator=seeded(3)).requires_grad_()
    y0.requires_grad_()
    results = []
    for chosen in (None, adjoint):
        ys = solve(
            field,
            y0,
            ts,
            t0=0.0,
            inputs=LinearPath(knots, values),
            solver=solver,
            controller=ConstantStep(0.25),
            adjoint=chosen,
            generator=seeded(4),
        ).ys
        gradients = torch.autograd.grad(ys.square().sum(), [y0, values, *field.parameters()])
        results.append([ys, *gradients])
    for direct, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, direct, rtol=1e-10, atol=1e-10)


def test_second_derivatives_are_exact():
    field, motion = Learned(), VirtualBrownianTree(torch.tensor([3]), 3)
    y0 = torch.randn(1, 3, dtype=F64, generator=seeded()).requires_grad_()

    def end(y):
        return solve(SDETerm(field, motion), y, SPAN, solver=EulerMaruyama(), controller=ConstantStep(0.25)).ys[:, -1]

    assert torch.autograd.gradgradcheck(end, (y0,), atol=1e-6)


def test_integrals_along_the_path_follow_the_steps():
    y0, _ = problem()
    field = Learned()
    motion = VirtualBrownianTree(torch.arange(4), 3)
    ts = torch.linspace(0, 1, 11, dtype=F64)
    found = solve(
        SDETerm(field, motion),
        y0,
        ts,
        solver=EulerMaruyama(),
        controller=ConstantStep(0.1),
        aux=[lambda t, y: y.square().sum(-1), lambda t, y: y[..., :2]],
    )
    plain = solve(SDETerm(field, motion), y0, ts, solver=EulerMaruyama(), controller=ConstantStep(0.1))
    torch.testing.assert_close(found.ys, plain.ys, rtol=0, atol=1e-12)
    first = torch.cat([plain.ys.square().sum(-1, keepdim=True), plain.ys[..., :2]], -1)[:, :-1]
    torch.testing.assert_close(found.aux[:, 1:], 0.1 * first.cumsum(1), rtol=1e-10, atol=1e-10)


def test_one_interval_is_carried_over_with_the_motion_of_the_term():
    y0, _ = problem()
    start, end = torch.zeros(4, dtype=F64), torch.full((4,), 0.7, dtype=F64)
    term = SDETerm(Learned(calculus=Calculus.STRATONOVICH), VirtualBrownianTree(torch.arange(4), 3))
    whole = solve(term, y0, torch.tensor([0.0, 0.7], dtype=F64), solver=Heun(), controller=StepTo(5)).ys[:, -1]
    torch.testing.assert_close(evolve(term, y0, start, end, solver=Heun(), num_steps=5), whole, rtol=0, atol=1e-12)


def test_backward_in_time_a_stratonovich_equation_is_retraced():
    y0, _ = problem()
    term = SDETerm(Learned(calculus=Calculus.STRATONOVICH), VirtualBrownianTree(torch.arange(4), 3))
    ahead = solve(term, y0, SPAN, solver=Heun(), controller=ConstantStep(1 / 512)).ys[:, -1]
    back = solve(term, ahead, SPAN.flip(-1), solver=Heun(), controller=ConstantStep(1 / 512)).ys[:, -1]
    torch.testing.assert_close(back, y0, rtol=0, atol=2e-2)


@pytest.mark.parametrize("solver", [Heun(), SRI1(), SRA1()], ids=repr)
def test_adaptive_steps_meet_a_fine_solve_on_the_same_path(solver):
    field = OrnsteinUhlenbeck() if isinstance(solver, SRA1) else Learned(1, calculus=solver.calculus)
    term = SDETerm(field, VirtualBrownianTree(torch.arange(16), 1))
    y0 = torch.linspace(-1, 1, 16, dtype=F64)[:, None]
    with torch.no_grad():
        fine = solve(term, y0, SPAN, solver=solver, controller=ConstantStep(1 / 256)).ys[:, -1]
        found = solve(term, y0, SPAN, solver=solver, controller=PIDController(rtol=3e-3, atol=3e-3, dt0=0.1))
    assert float((found.ys[:, -1] - fine).abs().max()) < 0.1
    assert len(found.stats["steps"].unique()) > 1


def test_adaptive_steps_are_drawn_on_a_tree_and_differentiated():
    y0, ts = problem()
    y0.requires_grad_()
    control = PIDController(rtol=1e-2, atol=1e-2, dt0=0.1)
    ys = solve(Learned(), y0, ts, solver=SRI1(), controller=control, generator=seeded()).ys
    (gradient,) = torch.autograd.grad(ys.square().sum(), y0)
    assert bool(torch.isfinite(gradient).all())
    assert torch.equal(solve(Learned(), y0, ts, solver=SRI1(), controller=control, generator=seeded()).ys, ys)


def torchsde_pair(method, calculus, solver, noise):
    class Peer(nn.Module):
        noise_type = noise.value
        sde_type = calculus.value.lower()

        def f(self, t, y):
            return torch.sin(y) - 0.3 * y * t

        def g(self, t, y):
            if noise is Noise.DIAGONAL:
                return 0.4 + 0.2 * torch.cos(y)
            return torch.stack([0.4 + 0.2 * torch.cos(y.flip(-1)), 0.1 * y], -1)

    class Ours(SDEField):
        def __init__(self):
            super().__init__()
            self.noise, self.calculus, self.peer = noise, calculus, Peer()

        def drift(self, t, y, u=None):
            return self.peer.f(t[..., None], y)

        def diffusion(self, t, y, u=None):
            return self.peer.g(t, y)

    return Peer(), Ours(), method, solver


@pytest.mark.parametrize(
    ("method", "calculus", "solver", "noise"),
    [
        ("euler", Calculus.ITO, EulerMaruyama(), Noise.DIAGONAL),
        ("euler", Calculus.ITO, EulerMaruyama(), Noise.GENERAL),
        ("milstein", Calculus.ITO, Milstein(), Noise.DIAGONAL),
        ("milstein", Calculus.STRATONOVICH, StratonovichMilstein(), Noise.DIAGONAL),
        ("heun", Calculus.STRATONOVICH, Heun(), Noise.GENERAL),
        ("midpoint", Calculus.STRATONOVICH, Midpoint(), Noise.GENERAL),
        ("euler_heun", Calculus.STRATONOVICH, EulerHeun(), Noise.GENERAL),
        ("reversible_heun", Calculus.STRATONOVICH, ReversibleHeun(), Noise.GENERAL),
    ],
)
def test_steps_are_those_of_torchsde_with_the_same_noise(method, calculus, solver, noise):
    peer, ours, method, solver = torchsde_pair(method, calculus, solver, noise)
    y0 = torch.randn(5, 2, dtype=F64, generator=seeded())
    ts = torch.linspace(0, 1, 17, dtype=F64)
    noise_of_peer = torchsde.BrownianInterval(0.0, 1.0, size=(5, 2), dtype=F64, entropy=1, dt=1 / 16)
    expected = torchsde.sdeint(peer, y0, ts, bm=noise_of_peer, method=method, dt=1 / 16)
    steps = torch.stack([noise_of_peer(a, b) for a, b in itertools.pairwise(ts)])
    motion = StoredBrownian(ts[:, None].expand(-1, 5), steps, torch.zeros(5, 2, dtype=torch.int64))
    found = solve(SDETerm(ours, motion), y0, ts, solver=solver, controller=ConstantStep(1 / 16)).ys
    torch.testing.assert_close(found, expected.movedim(0, 1), rtol=1e-10, atol=1e-10)


class Stated(SDEField):
    """Declares what it is told to and returns what it is told to."""

    def __init__(self, noise, calculus, g):
        super().__init__()
        self.noise, self.calculus, self.g = noise, calculus, g

    def drift(self, t, y, u=None):
        return -y

    def diffusion(self, t, y, u=None):
        return self.g(y)


def attempt(field, solver=None, controller=None, ts=SPAN, state=2, **more):
    y0 = torch.ones(3, state, dtype=F64)
    return solve(
        field, y0, ts, solver=solver, controller=ConstantStep(0.1) if controller is None else controller, **more
    )


@pytest.mark.parametrize(
    ("noise", "g", "message"),
    [
        (Noise.DIAGONAL, lambda y: y[..., None], r"expected \(3, 2\).*got \(3, 2, 1\)"),
        (Noise.GENERAL, lambda y: y, r"\(\*batch, state, brownian\) for general noise"),
        (Noise.ADDITIVE, lambda y: y[..., :1], r"diffusion must be"),
        (Noise.SCALAR, lambda y: y[..., None], r"\(\*batch, state\) for scalar noise"),
        (Noise.DIAGONAL, lambda y: y.float(), r"float32 for a state of .*float64"),
    ],
)
def test_a_diffusion_that_does_not_fit_its_noise_is_explained(noise, g, message):
    with pytest.raises((ValueError, TypeError), match=message):
        attempt(Stated(noise, Calculus.ITO, g), EulerMaruyama())


def test_methods_and_equations_must_mean_the_same():
    ito, stratonovich = (Stated(Noise.DIAGONAL, c, torch.ones_like) for c in Calculus)
    with pytest.raises(ValueError, match=r"Heun solves Stratonovich equations and the field is declared Ito.*EulerMar"):
        attempt(ito, Heun())
    with pytest.raises(ValueError, match=r"EulerMaruyama solves Ito equations.*Heun\(\)"):
        attempt(stratonovich, EulerMaruyama())
    with pytest.raises(ValueError, match="Euler solves ordinary equations only"):
        attempt(ito, Euler())
    with pytest.raises(ValueError, match=r"SRA1 solves equations with additive noise.*declared diagonal"):
        attempt(ito, SRA1())
    with pytest.raises(TypeError, match="must say its noise"):
        attempt(Stated(None, Calculus.ITO, torch.ones_like), EulerMaruyama())
    with pytest.raises(TypeError, match="must say its calculus"):
        attempt(Stated(Noise.SCALAR, "ito", torch.ones_like), EulerMaruyama())
    # Additive noise is the same equation in both calculi.
    attempt(Stated(Noise.ADDITIVE, Calculus.ITO, torch.ones_like), Heun())
    attempt(Stated(Noise.ADDITIVE, Calculus.STRATONOVICH, torch.ones_like), SRA1())


def test_without_a_method_the_usual_one_is_taken():
    for noise, calculus, name in (
        (Noise.DIAGONAL, Calculus.ITO, "EulerMaruyama"),
        (Noise.DIAGONAL, Calculus.STRATONOVICH, "Heun"),
        (Noise.ADDITIVE, Calculus.ITO, "SRA1"),
    ):
        assert attempt(Stated(noise, calculus, torch.ones_like)).plan.startswith(name)


def test_steps_that_would_bias_the_answer_are_refused():
    diagonal = Stated(Noise.DIAGONAL, Calculus.STRATONOVICH, torch.ones_like)
    with pytest.raises(ValueError, match="step_size"):
        solve(GeometricBrownianMotion(), torch.ones(1, 1), torch.tensor([0.0, 1.0]), solver=EulerMaruyama())
    with pytest.raises(ValueError, match="must be a positive number"):
        ConstantStep(0.0)
    with pytest.raises(ValueError, match=r"PIDController\(dt0="):
        attempt(diagonal, Heun(), PIDController())
    with pytest.raises(ValueError, match=r"error estimate of Dopri5\(\) is for smooth equations"):
        attempt(diagonal, Dopri5(), PIDController(dt0=0.1))
    general = Stated(Noise.GENERAL, Calculus.STRATONOVICH, lambda y: torch.diag_embed(y))
    with pytest.raises(ValueError, match="adaptive steps are wrong for general noise"):
        attempt(general, Heun(), PIDController(dt0=0.1))
    grid = torch.linspace(0, 1, 5, dtype=F64)[:, None].expand(-1, 3)
    with pytest.raises(ValueError, match="VirtualBrownianTree instead of a StoredBrownian"):
        attempt(SDETerm(diagonal, StoredBrownian.draw(grid, 2)), Heun(), PIDController(dt0=0.1))
    with pytest.raises(ValueError, match="runs backward, where an Ito integral is another integral"):
        attempt(Stated(Noise.DIAGONAL, Calculus.ITO, torch.ones_like), EulerMaruyama(), ts=SPAN.flip(-1))
    with pytest.raises(ValueError, match="needs a Brownian motion of size 2"):
        attempt(SDETerm(diagonal, VirtualBrownianTree(torch.arange(3), 4)), Heun())
    with pytest.raises(ValueError, match=r"batch \(2,\)"):
        attempt(SDETerm(diagonal, VirtualBrownianTree(torch.arange(2), 2)), Heun())
    with pytest.raises(ValueError, match="draws nothing"):
        attempt(lambda t, y: -y, Heun(), generator=seeded())
    with pytest.raises(TypeError, match=r"SDETerm\(field, brownian\)"):
        evolve(diagonal, torch.ones(1, 2), torch.zeros(1), torch.ones(1), solver=Heun())


@pytest.mark.parametrize("span", [1e-9, 1e-3, 1.0])
def test_adaptive_steps_see_noise_of_the_right_size_on_any_scale_of_time(span):
    walk, ts = OrnsteinUhlenbeck(theta=1e-6, mean=0.0, sigma=1.0), torch.tensor([0.0, span], dtype=F64)
    control = PIDController(1e-2, 1e-2 * span**0.5, dt0=span / 10)
    ends = solve(walk, torch.zeros(2000, 1, dtype=F64), ts, controller=control, generator=seeded()).ys[:, -1]
    assert abs(float(ends.var()) / span - 1) < 4 * (2 / 2000) ** 0.5


@pytest.mark.parametrize("controller", [ConstantStep(1e-8), PIDController(dt0=1e-8)])
def test_steps_below_the_pieces_of_a_motion_are_refused(controller):
    term = SDETerm(OrnsteinUhlenbeck(), VirtualBrownianTree(torch.tensor(1), size=1))
    with pytest.raises(ValueError, match=r"too short.*tol=") as said:
        solve(term, torch.zeros(1, dtype=F64), 1e-6 * SPAN, solver=SRA1(), controller=controller)
    tol = float(str(said.value).split("tol=")[1].split(")")[0])
    finer = SDETerm(OrnsteinUhlenbeck(), VirtualBrownianTree(torch.tensor(1), size=1, tol=tol))
    solve(finer, torch.zeros(1, dtype=F64), 1e-6 * SPAN, solver=SRA1(), controller=controller)


def test_a_clock_of_epoch_seconds_is_solved_or_refused_and_never_hangs():
    ts = torch.tensor([1.7e9, 1.7e9 + 1.0], dtype=F64)
    field = OrnsteinUhlenbeck()
    with pytest.raises(ValueError, match="too coarse"):
        solve(field, torch.ones(1, 1), ts, solver=EulerMaruyama(), controller=ConstantStep(0.1), generator=seeded())
    y0 = torch.ones(1, 1, dtype=F64)
    found = solve(field, y0, ts, solver=EulerMaruyama(), controller=ConstantStep(0.125), generator=seeded()).ys
    near = solve(field, y0, ts - ts[0], solver=EulerMaruyama(), controller=ConstantStep(0.125), generator=seeded()).ys
    torch.testing.assert_close(found, near, rtol=0, atol=1e-6)


@pytest.mark.parametrize("controller", [ConstantStep(1e-12), StepTo(10**9), ConstantStep(0.01), StepTo(99)], ids=repr)
def test_more_steps_than_allowed_are_an_error_at_once(controller):
    field, y0 = OrnsteinUhlenbeck(), torch.ones(2, 1)
    with pytest.raises(MaxStepsError, match="max_steps=20"):
        solve(field, y0, SPAN, solver=EulerMaruyama(), controller=controller, max_steps=20, generator=seeded())
    found = solve(
        field, y0, SPAN, solver=EulerMaruyama(), controller=controller, max_steps=20, generator=seeded(), throw=False
    )
    assert bool(torch.isnan(found.ys[:, -1]).all())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU with g++")
def test_compiled_steps_give_the_same_answer():
    y0, ts = problem()
    field = Learned()
    for solver in (EulerMaruyama(), SRI1()):
        plain, compiled = (
            solve(field, y0, ts, solver=solver, controller=ConstantStep(0.2), adjoint=way, generator=seeded()).ys
            for way in (Direct(), Direct(compile=True))
        )
        torch.testing.assert_close(compiled, plain, rtol=1e-9, atol=1e-9)
        one, other = (torch.autograd.grad(ys.square().sum(), list(field.parameters())) for ys in (plain, compiled))
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("count", [99, 100, 101, 200])
def test_steps_that_fill_the_span_leave_no_residual_one(count):
    ts = torch.linspace(0, 1, count + 1)
    found = solve(OrnsteinUhlenbeck(), torch.ones(2, 1), ts, controller=ConstantStep(1 / count), generator=seeded())
    assert found.stats["steps"].tolist() == [count, count]


def long_walk(steps, ts, **options):
    return solve(
        OrnsteinUhlenbeck(theta=0.8, sigma=0.6),
        torch.zeros(64, 1, dtype=F64),
        torch.tensor(ts, dtype=F64),
        solver=EulerMaruyama(),
        controller=ConstantStep(0.05),
        max_steps=steps,
        generator=seeded(),
        **options,
    )


def test_thousands_of_steps_without_recursion_and_without_holding_their_states():
    steps = 5_000
    ts = [0.0, 1.01, 100.0, steps * 0.05]
    with torch.no_grad():
        found = long_walk(steps, ts)
    assert torch.equal(found.ys, long_walk(steps, ts).ys)
    assert abs(float(found.ys[:, -1].var()) / (0.36 / (2 * 0.8 - 0.8**2 * 0.05)) - 1) < 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("_unchecked")
def test_a_million_steps_without_recursion_in_little_memory():
    steps = 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.no_grad():
        found = solve(
            OrnsteinUhlenbeck(theta=1.0, sigma=1.0),
            torch.zeros(1, 1, dtype=F64),
            torch.tensor([0.0, steps * 1e-3], dtype=F64),
            solver=EulerMaruyama(),
            controller=ConstantStep(1e-3),
            max_steps=steps,
            generator=seeded(),
        )
    assert found.stats["steps"].tolist() == [steps]
    assert float(found.ys[:, -1].abs().max()) < 5.0
    # In kilobytes; the states alone would be gigabytes of small tensors.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
