"""Gradients through implicit methods: those of the discrete solution, exactly."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from ctdyn.integrate import Checkpoint, ConstantStep, Direct, PIDController, StepTo, solve
from ctdyn.solvers import ImplicitEuler, Kvaerno3, Kvaerno5, Rodas5P


F64 = torch.float64
ALL = [ImplicitEuler(), Kvaerno3(), Kvaerno5(), Rodas5P()]


def by_name(solver):
    return type(solver).__name__


def pull(mu, t, y):
    x, v = y.unbind(-1)
    return torch.stack([v, mu * (1 - x**2) * v - x + torch.sin(3 * t)], -1)


@pytest.mark.parametrize("solver", ALL, ids=by_name)
@pytest.mark.parametrize("controller", [StepTo(1), ConstantStep(0.3)], ids=repr)
def test_derivatives_are_exact_and_second_ones_exact_or_refused(solver, controller):
    y0 = torch.tensor([[1.5, -0.3], [0.4, 0.9]], dtype=F64, requires_grad=True)
    mu = torch.tensor([1.0, 4.0], dtype=F64, requires_grad=True)
    ts = torch.tensor([0.1, 0.5], dtype=F64, requires_grad=True)

    def final(y0, mu, ts):
        return solve(lambda t, y: pull(mu, t, y), y0, ts, t0=0.0, solver=solver, controller=controller).ys

    assert torch.autograd.gradcheck(final, (y0, mu, ts), atol=1e-6, rtol=1e-4)
    if isinstance(solver, Rodas5P):
        assert not controller.lands or torch.autograd.gradgradcheck(final, (y0, mu, ts), atol=1e-4, rtol=1e-3)
        return
    (first,) = torch.autograd.grad(final(y0, mu, ts).square().sum(), mu, create_graph=True)
    with pytest.raises(NotImplementedError, match="Rodas5P"):
        first.sum().backward()


@pytest.mark.parametrize("solver", ALL, ids=by_name)
def test_complex_states_have_gradients(solver):
    y0 = torch.tensor([[0.3 - 0.2j]], dtype=torch.complex128, requires_grad=True)
    z = torch.tensor(-2.0 + 5.0j, dtype=torch.complex128, requires_grad=True)
    ts = torch.tensor([0.0, 0.7], dtype=F64)

    def final(y0, z):
        ys = solve(lambda t, y: z * y - y * y.abs() ** 2, y0, ts, solver=solver, controller=StepTo(2)).ys[:, -1]
        return torch.view_as_real(ys)

    assert torch.autograd.gradcheck(final, (y0, z), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("solver", [Kvaerno5(), Rodas5P()], ids=by_name)
def test_checkpoints_give_the_same_gradients(solver):
    torch.manual_seed(0)
    field = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).to(F64)
    ts = torch.tensor([[0.0, 0.4, 1.0], [0.0, 1.0, 2.5]], dtype=F64)

    def gradients(adjoint):
        y0 = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.2, 0.1]], dtype=F64, requires_grad=True)
        control = PIDController(1e-5, 1e-7)
        rush = solve(lambda t, y: -50.0 * (y - field(y)), y0, ts, solver=solver, controller=control, adjoint=adjoint).ys
        return torch.autograd.grad(rush.square().sum(), [y0, *field.parameters()])

    for one, other in zip(gradients(Direct()), gradients(Checkpoint()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_graph_does_not_grow_with_the_iterations():
    def size(newton):
        y0 = torch.tensor([[2.0, 0.0]], dtype=F64, requires_grad=True)
        ys = solve(
            lambda t, y: pull(10.0, t, y),
            y0,
            torch.tensor([0.0, 0.5], dtype=F64),
            solver=Kvaerno5(*newton),
            controller=StepTo(4),
        ).ys
        seen, stack = set(), [ys.grad_fn]
        while stack:
            node = stack.pop()
            if node is not None and node not in seen:
                seen.add(node)
                stack.extend(child for child, _ in node.next_functions)
        return len(seen)

    assert size((1e-1, 1e-1)) == size((1e-12, 1e-12))


@pytest.mark.parametrize(
    ("solver", "mu", "end", "tolerance"), [(Kvaerno5(), 20.0, 17.0, 1e-6), (Rodas5P(), 100.0, 83.0, 1e-7)], ids=repr
)
def test_gradients_of_a_stiff_oscillator_agree_with_its_variational_equations(solver, mu, end, tolerance):
    # The end lies a little behind the first jump.

    def varied(t, z):
        x, v = z[:2]
        J = np.array([[0.0, 1.0], [-2 * mu * x * v - 1, mu * (1 - x**2)]])
        return np.concatenate(
            [
                [v, mu * (1 - x**2) * v - x],
                (J @ z[2:].reshape(2, 3) + (np.array([[0, 0, 0], [0, 0, (1 - x**2) * v]]))).ravel(),
            ]
        )

    z0 = np.concatenate([[2.0, 0.0], np.array([[1.0, 0, 0], [0, 1.0, 0]]).ravel()])
    exact = solve_ivp(varied, (0, end), z0, method="Radau", rtol=1e-9, atol=1e-11).y[:, -1]
    x, slopes = exact[0], exact[2:].reshape(2, 3)
    y0 = torch.tensor([2.0, 0.0], dtype=F64, requires_grad=True)
    rate = torch.tensor(mu, dtype=F64, requires_grad=True)

    def field(t, y):
        x, v = y.unbind(-1)
        return torch.stack([v, rate * (1 - x**2) * v - x], -1)

    ts = torch.tensor([0.0, end], dtype=F64)
    ys = solve(field, y0, ts, solver=solver, controller=PIDController(tolerance, tolerance)).ys
    assert abs(float(ys[-1, 0].detach()) - x) < 1e-5
    found = torch.autograd.grad(ys[-1, 0], [y0, rate])
    expected = torch.tensor(slopes[0], dtype=F64)
    torch.testing.assert_close(found[0], expected[:2], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[1], expected[2], rtol=1e-3, atol=1e-6)
