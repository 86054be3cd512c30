"""Integrals along a solution: right, differentiable, and unseen by the step control."""

import math

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
from ctdyn.solvers import RK4
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


@pytest.mark.usefixtures("_unchecked")
def test_bad_integrands_are_named():
    y0, ts = torch.ones(2, 1, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    with pytest.raises(ValueError, match=r"aux\[0\]"):
        solve(decay, y0, ts, aux=lambda t, y: y.sum())
    with pytest.raises(TypeError, match="aux"):
        solve(decay, y0, ts, aux=[1.0])
    with pytest.raises(ValueError, match="aux"):
        solve(decay, y0, ts, solver=TorchDiffEq("dopri5"), aux=lambda t, y: y[..., 0])
