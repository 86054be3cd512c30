"""Gradients of stiff solves that are off say so, and those that are right say nothing."""

import warnings

import pytest
import torch

from ctdyn.integrate import AdjointInstabilityWarning, Checkpoint, Direct, PIDController, solve
from ctdyn.integrate.drift import Conservation
from ctdyn.solvers import Kvaerno5, Rodas5P
from ctdyn.structure import VectorField
from ctdyn.terms import ODETerm


F64 = torch.float64


def oscillator(t, y):
    return torch.stack([y[..., 1], 100.0 * (1 - y[..., 0] ** 2) * y[..., 1] - y[..., 0]], -1)


class Relaxing(VectorField):
    def __init__(self, driven):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
        self.driven = driven

    def forward(self, t, y, u=None):
        target = self.driven * torch.cos(t)[..., None]
        return self.net(y) - y.new_tensor([1.0, 30.0, 1000.0]) * (y - target)


def gradient(tolerance, **options):
    y0 = torch.tensor([2.0, 0.0], dtype=F64, requires_grad=True)
    ts = torch.linspace(100.0 / 6, 100.0, 6, dtype=F64)
    ys = solve(oscillator, y0, ts, t0=0.0, controller=PIDController(tolerance, tolerance), **options).ys
    weights = 1.0 / (1.0 + torch.arange(6)[:, None] + torch.arange(2))
    (ys.square() * weights).sum().backward()
    return y0.grad


@pytest.mark.parametrize("adjoint", [Direct(), Checkpoint()], ids=repr)
def test_a_gradient_through_the_jump_of_a_stiff_oscillator_is_announced_where_it_is_off(adjoint):
    # By Rodas5P at 1e-11; the same with Kvaerno5 to 1e-6.
    truth = torch.tensor([11.093166105860414, 0.03697763122609107], dtype=F64)
    with pytest.warns(AdjointInstabilityWarning, match="Tighten rtol"):
        wrong = gradient(1e-4, solver=Rodas5P(), adjoint=adjoint)
    assert float((wrong - truth).abs().max() / truth.abs().max()) > 1e-2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = gradient(1e-7, solver=Rodas5P(), adjoint=adjoint)
    assert float((right - truth).abs().max() / truth.abs().max()) < 1e-3


@pytest.mark.parametrize("solver", [Rodas5P(), Kvaerno5()], ids=repr)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_nothing_is_said_of_gradients_that_are_right(solver, tolerance):
    torch.manual_seed(0)
    ts = torch.tensor([[0.0, 0.5, 4.0], [0.0, 1.0, 1.0]], dtype=F64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for driven in (0.0, 1.0):
            for learns in (True, False):
                field = Relaxing(driven).double()
                y0 = torch.randn(2, 3, dtype=F64, requires_grad=learns)
                ys = solve(field, y0, ts, solver=solver, controller=PIDController(tolerance, tolerance)).ys
                ys.square().sum().backward()


def test_other_ways_of_a_gradient_are_left_alone():
    y0 = torch.tensor([2.0, 0.0], dtype=F64, requires_grad=True)
    ts = torch.tensor([0.0, 50.0, 100.0], dtype=F64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = solve(oscillator, y0, ts, solver=Rodas5P(), controller=PIDController(1e-3, 1e-3))
        (solution.ys.sum() + solution.evaluate(ts[1] + 1.0).sum()).backward()
        ys = solve(oscillator, y0, ts[:2], solver=Rodas5P(), controller=PIDController(1e-5, 1e-5)).ys
        (first,) = torch.autograd.grad(ys.sum(), y0, create_graph=True)
        torch.autograd.grad(first.square().sum(), y0, retain_graph=True)
        torch.autograd.grad(ys[-1], y0, torch.eye(2, dtype=F64), is_grads_batched=True)


def test_the_law_is_checked_for_fields_that_do_not_see_the_time():
    t0 = torch.zeros(2, dtype=F64)
    ts = torch.tensor([[1.0, 2.0], [1.0, 5.0]], dtype=F64)
    y = torch.ones(2, 1, dtype=F64)
    assert Conservation(ODETerm(lambda t, y: -y), t0, ts).holds(y)
    assert not Conservation(ODETerm(lambda t, y: -y * torch.sin(t)[..., None]), t0, ts).holds(y)
