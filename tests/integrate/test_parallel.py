"""All steps at once: the answer and the gradients of the same steps taken in turn."""

import pytest
import torch

from ctdyn import solve
from ctdyn.fields import MLPField
from ctdyn.integrate import ConstantStep, Direct, ParallelInTime, PIDController, StepTo
from ctdyn.linear import NewtonScan
from ctdyn.paths import LinearPath
from ctdyn.solvers import RK4, Midpoint
from ctdyn.systems import Lorenz


F64 = torch.float64


@pytest.fixture
def problem():
    torch.manual_seed(0)
    field = MLPField(3, hidden=(16,), input_size=1).double()
    ts = torch.rand(4, 30, dtype=F64).sort(-1).values * 5.0
    path = LinearPath(torch.tensor([0.0, 2.0, 5.0], dtype=F64), torch.randn(3, 1, dtype=F64, requires_grad=True))
    y0 = torch.randn(4, 3, dtype=F64, requires_grad=True)
    return field, y0, ts.requires_grad_(), path


@pytest.mark.parametrize("controller", [StepTo(2), ConstantStep(0.05)], ids=repr)
@pytest.mark.parametrize("newton", [NewtonScan(), NewtonScan(diagonal=True)], ids=repr)
def test_the_answer_is_that_of_direct(problem, controller, newton):
    field, y0, ts, path = problem
    ours, theirs = (
        solve(field, y0, ts, t0=0.0, inputs=path, solver=RK4(), controller=controller, adjoint=adjoint)
        for adjoint in (ParallelInTime(newton), Direct())
    )
    torch.testing.assert_close(ours.ys, theirs.ys, atol=1e-9, rtol=0)
    leaves = (y0, ts, *path.tensors()[1:2], *field.parameters())
    gradients = [
        torch.autograd.grad(s.ys.square().sum(), leaves, retain_graph=True, materialize_grads=True)
        for s in (ours, theirs)
    ]
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-7)
    if not controller.lands:
        at = torch.full((4,), 0.33, dtype=F64)
        torch.testing.assert_close(ours.evaluate(at), theirs.evaluate(at), atol=1e-9, rtol=0)


def test_a_field_that_amplifies_is_solved_step_by_step_with_a_warning():
    ts = torch.linspace(0.0, 12.0, 2, dtype=F64)
    y0 = torch.tensor([[1.0, 1.0, 1.0]], dtype=F64)
    options = {"solver": RK4(), "controller": ConstantStep(0.01)}
    with torch.no_grad():
        truth = solve(Lorenz(), y0, ts, **options).ys
        with pytest.warns(UserWarning, match="step by step"):
            ours = solve(Lorenz(), y0, ts, **options, adjoint=ParallelInTime(NewtonScan(max_iterations=5))).ys
    torch.testing.assert_close(ours, truth, atol=1e-12, rtol=0)


def test_steps_must_be_known_beforehand(problem):
    field, y0, ts, path = problem
    with pytest.raises(ValueError, match="StepTo"):
        solve(field, y0, ts, t0=0.0, inputs=path, controller=PIDController(), adjoint=ParallelInTime())


def test_one_step_and_no_step_work_too():
    y0 = torch.ones(2, 1, dtype=F64)
    ts = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=F64)
    ys = solve(lambda t, y: -y, y0, ts, solver=Midpoint(), controller=StepTo(1), adjoint=ParallelInTime()).ys
    torch.testing.assert_close(ys[..., 0], torch.tensor([[1.0, 0.5], [1.0, 1.0]], dtype=F64))
