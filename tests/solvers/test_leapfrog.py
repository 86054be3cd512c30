import math

import pytest
import torch

from ctdyn.integrate import ConstantStep, StepTo, solve
from ctdyn.paths import LinearPath
from ctdyn.solvers import RK4, Heun, Leapfrog
from ctdyn.structure import SecondOrderField


F64 = torch.float64


class Pendulum(SecondOrderField):
    def force(self, t, q, u=None):
        return -torch.sin(q) if u is None else -torch.sin(q) + u


class Relativistic(SecondOrderField):
    def force(self, t, q, u=None):
        return -q

    def velocity(self, t, p):
        return p / torch.sqrt(1 + p**2)


def energy(y):
    q, p = y.unbind(-1)
    return p**2 / 2 - torch.cos(q)


def relativistic_energy(y):
    q, p = y.unbind(-1)
    return torch.sqrt(1 + p**2) + q**2 / 2


Y0 = torch.tensor([[1.0, 0.0], [0.0, 1.9], [2.5, 0.1]], dtype=F64)


def run(field, y0, ts, n, solver=None):
    return solve(field, y0, ts, solver=solver or Leapfrog(), controller=StepTo(n), max_steps=10**6).ys


@pytest.mark.parametrize(("field", "of"), [(Pendulum(), energy), (Relativistic(), relativistic_energy)])
def test_the_energy_stays_in_a_band_that_does_not_widen(field, of):
    ts = torch.linspace(0.0, 200.0, 401, dtype=F64)
    drift = (of(run(field, Y0, ts, 4)) - of(Y0)[:, None]).abs()
    assert drift.max() < 1e-2
    assert drift[:, 300:].max() < 1.5 * drift[:, 1:100].max()
    finer = (of(run(field, Y0, ts[:50], 8)) - of(Y0)[:, None]).abs()
    assert finer.max() < 0.3 * drift[:, :50].max()


def test_other_methods_of_its_order_drift():
    ts = torch.linspace(0.0, 200.0, 5, dtype=F64)
    symplectic, other = (run(Pendulum(), Y0, ts, 500, solver) for solver in (Leapfrog(), Heun()))
    worst = [(energy(ys) - energy(Y0)[:, None]).abs()[:, -1].max() for ys in (symplectic, other)]
    assert worst[1] > 3 * worst[0]


@pytest.mark.parametrize("field", [Pendulum(), Relativistic()])
def test_it_goes_back_to_where_it_came_from(field):
    ts = torch.tensor([0.0, 20.0], dtype=F64)
    there = run(field, Y0, ts, 100)[:, -1]
    back = run(field, there, ts.flip(0), 100)[:, -1]
    torch.testing.assert_close(back, Y0, rtol=0, atol=1e-12)
    worse = run(field, run(field, Y0, ts, 100, RK4())[:, -1], ts.flip(0), 100, RK4())[:, -1]
    assert (worse - Y0).abs().max() > 1e-6


@pytest.mark.parametrize("field", [Pendulum(), Relativistic()])
def test_one_step_keeps_volume_and_the_symplectic_form(field):
    ts = torch.tensor([0.0, 0.7], dtype=F64)
    jacobian = torch.autograd.functional.jacobian(lambda y: run(field, y, ts, 1)[-1], Y0[1])
    form = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)
    torch.testing.assert_close(jacobian.mT @ form @ jacobian, form, rtol=0, atol=1e-14)


def test_the_dense_output_reads_between_the_steps():
    ts = torch.linspace(0.0, 3.0, 31, dtype=F64)
    found = solve(Pendulum(), Y0, ts, solver=Leapfrog(), controller=ConstantStep(0.01)).ys
    truth = solve(Pendulum(), Y0, ts, solver=RK4(), controller=StepTo(5)).ys
    assert (found - truth).abs().max() < 2e-4


def test_inputs_push():
    ts = torch.linspace(0.0, 2.0, 5, dtype=F64)
    inputs = LinearPath(ts, torch.sin(3 * ts)[:, None])
    found = solve(Pendulum(), Y0[0], ts, inputs=inputs, solver=Leapfrog(), controller=StepTo(100)).ys
    truth = solve(Pendulum(), Y0[0], ts, inputs=inputs, solver=RK4(), controller=StepTo(10)).ys
    assert (found - truth).abs().max() < 1e-4


def test_one_evaluation_of_the_force_per_step():
    count = [0]

    class Counted(Pendulum):
        def force(self, t, q, u=None):
            count[0] += 1
            return super().force(t, q, u)

    ts = torch.tensor([0.0, 1.0], dtype=F64)
    with torch.no_grad():
        solve(Counted(), Y0, ts, solver=Leapfrog(), controller=ConstantStep(0.01))
    assert count[0] <= 102


def test_a_spring_is_exact_to_second_order():
    class Spring(SecondOrderField):
        def force(self, t, q, u=None):
            return -q

    ts = torch.tensor([0.0, 10.0], dtype=F64)
    errors = []
    for n in (100, 200):
        end = run(Spring(), torch.tensor([1.0, 0.0], dtype=F64), ts, n)[-1]
        errors.append(float((end - torch.tensor([math.cos(10), -math.sin(10)], dtype=F64)).norm()))
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.02


def test_misuse_is_refused_with_the_cure():
    ts = torch.tensor([0.0, 1.0])
    with pytest.raises(TypeError, match="SecondOrderField"):
        solve(lambda t, y: -y, torch.ones(2), ts, solver=Leapfrog(), controller=StepTo())
    with pytest.raises(ValueError, match="positions and momenta"):
        solve(Pendulum(), torch.ones(3), ts, solver=Leapfrog(), controller=StepTo())
