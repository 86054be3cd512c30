"""Integrals along a solution: right, differentiable, and unseen by the step control."""

import math
from functools import partial

import pytest
import torch

from ctdyn import solve
from ctdyn.fields import LinearField, MLPField
from ctdyn.integrate import (
    Checkpoint,
    ConstantStep,
    Direct,
    Divergence,
    Event,
    KineticEnergy,
    PathKL,
    PIDController,
    TorchDiffEq,
)
from ctdyn.paths import LinearPath
from ctdyn.solvers import RK4, EulerMaruyama
from ctdyn.structure import Calculus, Noise, SDEField


F64 = torch.float64
FINE = PIDController(1e-8, 1e-8)


def decay(t, y):
    return -y


def test_an_integral_is_that_of_the_solution_on_each_clock():
    ts = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.5, 3.0]], dtype=F64)
    y0 = torch.tensor([[2.0], [1.0]], dtype=F64)
    solution = solve(
        decay, y0, ts, aux=[lambda t, y: y.square().sum(-1), lambda t, y: y * t[..., None]], controller=FINE
    )
    assert solution.ys.shape == (2, 3, 1)
    assert solution.aux.shape == (2, 3, 2)
    energy = y0.square() * (1 - torch.exp(-2 * ts)) / 2
    moment = y0 * (1 - torch.exp(-ts) * (1 + ts))
    torch.testing.assert_close(solution.aux, torch.stack([energy, moment], -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(solution(ts), solution.ys)


def test_the_step_control_does_not_see_the_integrals():
    ts = torch.tensor([0.0, 5.0], dtype=F64)
    y0 = torch.ones(1, dtype=F64)
    plain = solve(decay, y0, ts)
    wild = solve(decay, y0, ts, aux=lambda t, y: 1e6 * torch.sin(300.0 * t))
    assert torch.equal(plain.stats["steps"], wild.stats["steps"])
    torch.testing.assert_close(plain.ys, wild.ys, atol=0, rtol=0)


@pytest.mark.parametrize("adjoint", [Direct(), Checkpoint()], ids=repr)
@pytest.mark.parametrize("controller", [FINE, ConstantStep(0.01)], ids=repr)
def test_gradients_flow_through_an_integral(adjoint, controller):
    rate = torch.tensor(0.7, dtype=F64, requires_grad=True)
    scale = torch.tensor(3.0, dtype=F64, requires_grad=True)
    solver = None if controller is FINE else RK4()
    solution = solve(
        lambda t, y: -rate * y,
        torch.ones(1, dtype=F64),
        torch.tensor([0.0, 2.0], dtype=F64),
        solver=solver,
        controller=controller,
        adjoint=adjoint,
        aux=lambda t, y: scale * y[..., 0],
    )
    truth = scale * (1 - torch.exp(-2 * rate)) / rate
    torch.testing.assert_close(solution.aux[-1, 0], truth, atol=1e-7, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(solution.aux[-1, 0], (rate, scale)),
        torch.autograd.grad(truth, (rate, scale)),
        atol=1e-6,
        rtol=0,
    )


def test_integrands_of_a_driven_equation_see_the_inputs():
    path = LinearPath(torch.tensor([0.0, 1.0, 2.0], dtype=F64), torch.tensor([[0.0], [1.0], [0.0]], dtype=F64))
    ts = torch.tensor([0.0, 2.0], dtype=F64)
    solution = solve(
        lambda t, y, u: u, torch.zeros(1, dtype=F64), ts, inputs=path, aux=lambda t, y, u: u[..., 0] + y[..., 0]
    )
    # The inputs sum to 1; their integral is t^2 / 2, then 1 - (2 - t)^2 / 2, which sums to 1 again.
    torch.testing.assert_close(solution.aux[-1, 0], torch.tensor(2.0, dtype=F64), atol=1e-5, rtol=0)


def test_the_divergence_gives_the_change_of_volume():
    torch.manual_seed(0)
    field = MLPField(3, hidden=(8,)).double()
    y0 = torch.randn(3, dtype=F64)
    ts = torch.tensor([0.0, 1.0], dtype=F64)
    volume = torch.autograd.functional.jacobian(lambda y: solve(field, y, ts, controller=FINE).ys[-1], y0)
    exact = solve(field, y0, ts, controller=FINE, aux=Divergence(field)).aux[-1, 0]
    torch.testing.assert_close(exact, torch.linalg.slogdet(volume).logabsdet, atol=1e-6, rtol=0)
    gradient = torch.autograd.grad(exact, field.parameters())
    assert all(float(g.abs().sum()) > 0 for g in gradient[:2])
    probes = torch.tensor([[1.0, 1, 1], [1, -1, 1], [1, 1, -1], [-1, 1, 1]], dtype=F64)
    estimate = solve(field, y0, ts, controller=FINE, aux=Divergence(field, probes)).aux[-1, 0]
    # Signs whose products cancel over the probes make the estimate exact.
    torch.testing.assert_close(estimate, exact, atol=1e-6, rtol=0)


class StoredProbe(MLPField):
    """As published: the field draws its probe when it is first asked after `before_odeint`, and keeps it."""

    _e = None

    def before_odeint(self, probe):
        self._e = probe

    def forward(self, t, y, u=None):
        state = y[..., :3]
        with torch.enable_grad():
            state = state if state.requires_grad else state.requires_grad_()
            velocity = super().forward(t, state)
            (row,) = torch.autograd.grad(velocity, state, self._e, create_graph=True)
        return torch.cat([velocity, (row * self._e).sum(-1, keepdim=True)], -1)


def test_two_solves_before_one_backward_pass_keep_their_own_probes():
    from torchdiffeq import odeint_adjoint

    torch.manual_seed(0)
    field = MLPField(3, hidden=(8,)).double()
    y0, ts = torch.randn(3, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    pair = torch.tensor([[[1.0, 1, 1]], [[1, -1, 1]]], dtype=F64)

    def ours(probe, adjoint):
        aux = Divergence(field, probe)
        return solve(field, y0, ts, solver=RK4(), controller=ConstantStep(0.05), aux=aux, adjoint=adjoint).aux[-1, 0]

    def gradients(field, run):
        """Of the two estimates one by one, and both at once after both solves."""
        wanted = list(field.parameters())[:3]
        singly = [torch.autograd.grad(run(probe), wanted) for probe in pair]
        both = torch.autograd.grad(run(pair[0]) + run(pair[1]), wanted)
        return [x + y for x, y in zip(*singly, strict=True)], list(both)

    for adjoint in (Direct(), Checkpoint()):
        apart, together = gradients(field, partial(ours, adjoint=adjoint))
        torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-9)

    stored = StoredProbe(3, hidden=(8,)).double()
    stored.load_state_dict(field.state_dict())

    def upstream(probe):
        stored.before_odeint(probe[0])
        ys = odeint_adjoint(stored, torch.cat([y0, y0.new_zeros(1)]), ts, method="rk4", options={"step_size": 0.05})
        return ys[-1, 3]

    for probe in pair:
        torch.testing.assert_close(upstream(probe), ours(probe, Direct()), rtol=1e-6, atol=1e-6)
    apart, together = gradients(stored, upstream)
    assert max(float((x - y).abs().max()) for x, y in zip(apart, together, strict=True)) > 1e-2


def test_random_signs_estimate_the_divergence_without_bias():
    torch.manual_seed(0)
    field = MLPField(3, hidden=(8,)).double()
    y0, ts = torch.randn(3, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    exact = solve(field, y0, ts, controller=FINE, aux=Divergence(field)).aux[-1, 0]
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 3)
    singly = [solve(field, y0, ts, controller=FINE, aux=Divergence(field, one[None])).aux[-1, 0] for one in signs]
    # All signs there are: the mean is the expectation.
    torch.testing.assert_close(torch.stack(singly).mean(), exact, rtol=0, atol=1e-6)
    assert float(torch.stack(singly).std().detach()) > 1e-2


def test_the_kinetic_energy_of_a_rotation():
    field = LinearField(2, matrix=[[0.0, 1.0], [-1.0, 0.0]]).double()
    solution = solve(
        field, torch.tensor([3.0, 4.0], dtype=F64), torch.tensor([0.0, 2.0], dtype=F64), aux=KineticEnergy(field)
    )
    assert math.isclose(float(solution.aux[-1, 0]), 25.0, rel_tol=1e-3)


def test_integrals_go_on_over_events():
    saw = Event(lambda t, y: y[..., 0] - 1.0, jump=lambda t, y: torch.zeros_like(y))
    ts = torch.tensor([0.0, 0.5, 2.5], dtype=F64)
    solution = solve(
        lambda t, y: torch.ones_like(y), torch.zeros(1, dtype=F64), ts, event=saw, aux=lambda t, y: y[..., 0]
    )
    assert solution.ys.shape == (3, 1)
    torch.testing.assert_close(solution.aux[:, 0], torch.tensor([0.0, 0.125, 1.125], dtype=F64))


class Walk(SDEField):
    calculus = Calculus.ITO

    def __init__(self, noise, drift, diffusion):
        super().__init__()
        self.noise, self.f, self.g = noise, torch.tensor(drift, dtype=F64), torch.tensor(diffusion, dtype=F64)

    def drift(self, t, y, u=None):
        return self.f.expand_as(y)

    def diffusion(self, t, y, u=None):
        return self.g.expand(*y.shape, *self.g.shape[1:])


def test_the_path_divergence_of_two_drifts():
    diagonal = Walk(Noise.DIAGONAL, [1.0, 0.0], [0.5, 2.0])
    rest = Walk(Noise.DIAGONAL, [0.0, 1.0], [0.5, 2.0])
    t, y = torch.zeros(3, dtype=F64), torch.zeros(3, 2, dtype=F64)
    torch.testing.assert_close(PathKL(diagonal, rest)(t, y), torch.full((3,), 0.5 * (4 + 0.25), dtype=F64))
    matrix = [[1.0, 1.0], [0.0, 2.0]]
    general = Walk(Noise.GENERAL, [1.0, 0.0], matrix), Walk(Noise.GENERAL, [0.0, 1.0], matrix)
    cost = torch.linalg.solve(torch.tensor(matrix, dtype=F64), torch.tensor([1.0, -1.0], dtype=F64))
    torch.testing.assert_close(PathKL(*general)(t, y), (0.5 * cost @ cost).expand(3))
    with pytest.raises(ValueError, match="SCALAR"):
        PathKL(Walk(Noise.SCALAR, [1.0, 0.0], [1.0, 1.0]), rest)(t, y)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("noise", [Noise.SCALAR, Noise.DIAGONAL, Noise.ADDITIVE])
def test_integrals_along_a_stochastic_solution_have_no_noise(noise, size):
    field = Walk(noise, [1.0] * size, [0.5] * size)
    options = {"solver": EulerMaruyama(), "controller": ConstantStep(0.25)}
    y0, ts = torch.zeros(3, size, dtype=F64), torch.tensor([0.0, 1.0])
    alone, solution = (
        solve(field, y0, ts, aux=aux, generator=torch.Generator().manual_seed(0), **options)
        for aux in ((), lambda t, y: t >= 0.5)
    )
    torch.testing.assert_close(solution.aux[:, -1, 0], torch.full((3,), 0.5, dtype=F64))
    torch.testing.assert_close(solution.ys, alone.ys)


@pytest.mark.usefixtures("_unchecked")
def test_bad_integrands_are_named():
    y0, ts = torch.ones(2, 1, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    with pytest.raises(ValueError, match=r"aux\[0\]"):
        solve(decay, y0, ts, aux=lambda t, y: y.sum())
    with pytest.raises(TypeError, match="aux"):
        solve(decay, y0, ts, aux=[1.0])
    with pytest.raises(ValueError, match="aux"):
        solve(decay, y0, ts, solver=TorchDiffEq("dopri5"), aux=lambda t, y: y[..., 0])
