"""Fields of positions and velocities: their equations, and the energies that they keep."""

import pytest
import torch

from ctdyn import solve
from ctdyn.fields import (
    AccelerationField,
    ForceField,
    HamiltonianField,
    LagrangianField,
    SecondOrderField,
    SeparableHamiltonianField,
)
from ctdyn.integrate import PIDController, StepTo
from ctdyn.solvers import RK4, Dopri8, Leapfrog
from ctdyn.testing import check_field


F64 = torch.float64
KINDS = [AccelerationField, ForceField, HamiltonianField, LagrangianField, SeparableHamiltonianField]
FINE = PIDController(1e-8, 1e-8)
TS = torch.linspace(0.0, 3.0, 7, dtype=F64)


def built(kind, size=4, **options):
    torch.manual_seed(0)
    field = kind(size, hidden=(12,), **options).double()
    with torch.no_grad():
        # Networks as they are built are nearly flat.
        for parameter in field.parameters():
            parameter.mul_(2.0)
    return field


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("input_size", [0, 2])
def test_contract(kind, input_size):
    check_field(built(kind, input_size=input_size), 4, input_size=input_size)


@pytest.mark.parametrize("kind", [HamiltonianField, LagrangianField])
def test_damped_fields_keep_the_contract(kind):
    check_field(built(kind, damped=True), 4)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_that_do_not_fit_are_refused(kind):
    with pytest.raises(ValueError, match="even"):
        kind(3)
    with pytest.raises(ValueError, match="state_size=4"):
        kind(4)(torch.zeros(2), torch.zeros(2, 6))
    with pytest.raises(ValueError, match="none were given"):
        kind(4, input_size=1)(torch.zeros(2), torch.zeros(2, 4))


@pytest.mark.parametrize("kind", [HamiltonianField, LagrangianField, SeparableHamiltonianField])
def test_an_energy_without_hidden_layers_is_refused(kind):
    with pytest.raises(ValueError, match="hidden layer"):
        kind(4, hidden=())


@pytest.mark.parametrize("kind", KINDS)
def test_velocities_need_no_graph(kind):
    field, y = built(kind), torch.randn(5, 4, dtype=F64)
    with torch.no_grad():
        quiet = field(torch.zeros(5, dtype=F64), y)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, field(torch.zeros(5, dtype=F64), y))


@pytest.mark.parametrize("kind", [HamiltonianField, SeparableHamiltonianField])
def test_a_hamiltonian_field_is_hamiltons_equations(kind):
    field, y = built(kind), torch.randn(3, 4, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(field.energy(y).sum(), y)
    expected = torch.cat([slope[..., 2:], -slope[..., :2]], -1)
    torch.testing.assert_close(field(torch.zeros(3, dtype=F64), y), expected)


def test_a_lagrangian_field_is_the_equation_of_euler_and_lagrange():
    field = built(LagrangianField)

    def lagrangian(q, v):
        return 0.5 * v @ field.mass(q) @ v - field.potential(q)

    for y in torch.randn(4, 4, dtype=F64):
        q, v = y[:2], y[2:]
        mass = torch.func.hessian(lagrangian, 1)(q, v)
        mixed = torch.func.jacrev(torch.func.grad(lagrangian, 1), 0)(q, v)
        force = torch.func.grad(lagrangian, 0)(q, v)
        expected = torch.linalg.solve(mass, force - mixed @ v)
        found = field(torch.zeros((), dtype=F64), y)
        torch.testing.assert_close(found, torch.cat([v, expected]))
        assert torch.linalg.eigvalsh(field.mass(q)).min() > 0


@pytest.mark.parametrize("kind", [HamiltonianField, LagrangianField, SeparableHamiltonianField])
def test_energy_is_kept(kind):
    field, y0 = built(kind), torch.randn(5, 4, dtype=F64)
    ys = solve(field, y0, TS, solver=Dopri8(), controller=FINE).ys
    energy = field.energy(ys)
    moved = (ys[:, -1] - ys[:, 0]).abs().max()
    assert moved > 0.1
    assert (energy - energy[:, :1]).abs().max() < 1e-6


@pytest.mark.parametrize("kind", [HamiltonianField, LagrangianField])
def test_damping_takes_energy_away(kind):
    field, y0 = built(kind, damped=True), torch.randn(5, 4, dtype=F64)
    energy = field.energy(solve(field, y0, TS, solver=Dopri8(), controller=FINE).ys)
    assert (energy.diff(dim=-1) < 1e-9).all()
    assert (energy[:, -1] < energy[:, 0] - 1e-5).all()


@pytest.mark.parametrize("kind", [ForceField, SeparableHamiltonianField])
def test_leapfrog_applies_and_can_be_undone(kind):
    field, y0 = built(kind), torch.randn(5, 4, dtype=F64)
    assert isinstance(field, SecondOrderField)
    there = solve(field, y0, TS, solver=Leapfrog(), controller=StepTo(20)).ys[:, -1]
    truth = solve(field, y0, TS, solver=Dopri8(), controller=FINE).ys[:, -1]
    assert (there - truth).abs().max() < 1e-3
    back = solve(field, there, TS.flip(0), solver=Leapfrog(), controller=StepTo(20)).ys[:, -1]
    torch.testing.assert_close(back, y0, rtol=0, atol=1e-10)


def test_leapfrog_keeps_energies_over_long_times_where_runge_kutta_does_not():
    field, y0 = built(SeparableHamiltonianField), torch.randn(5, 4, dtype=F64)
    ts = torch.tensor([0.0, 200.0], dtype=F64)

    def drift(solver, steps):
        ys = solve(field, y0, ts, solver=solver, controller=StepTo(steps)).ys
        return float((field.energy(ys[:, -1]) - field.energy(ys[:, 0])).abs().max())

    # As many evaluations of the forces.
    assert drift(Leapfrog(), 400) < drift(RK4(), 100)
