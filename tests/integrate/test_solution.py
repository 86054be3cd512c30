import pytest
import torch

from ctdyn.integrate import Checkpoint, ConstantStep, PIDController, Solution, StepTo, solve
from ctdyn.paths import Path
from ctdyn.solvers import RK4, Dopri5, Tsit5


F64 = torch.float64
SETTINGS = [
    {"solver": Tsit5(), "controller": PIDController(1e-8, 1e-10)},
    {"solver": Dopri5(), "controller": PIDController(1e-8, 1e-10), "adjoint": Checkpoint()},
    {"solver": RK4(), "controller": StepTo(60)},
    {"solver": RK4(), "controller": ConstantStep(0.02)},
]


def rotation(t, y):
    return torch.stack([-y[..., 1], y[..., 0]], -1)


def exact(ts, t0):
    s = ts - t0
    return torch.stack([s.cos(), s.sin()], -1)


def setup(backward):
    ts = torch.tensor([[0.0, 0.7, 2.0], [1.0, 1.1, 1.5], [-1.0, 0.0, 3.0]], dtype=F64)
    return torch.tensor([1.0, 0.0], dtype=F64).expand(3, 2), ts.flip(-1) if backward else ts


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("options", SETTINGS, ids=lambda o: repr(o["controller"]))
def test_a_solution_is_a_path(options, grad, backward):
    y0, ts = setup(backward)
    solution = solve(rotation, y0.clone().requires_grad_(grad), ts, **options)
    assert isinstance(solution, Path)
    assert isinstance(solution, Solution)
    assert solution.batch_shape == (3,)
    torch.testing.assert_close(solution(ts), solution.ys, rtol=0, atol=1e-9)
    share = torch.rand(3, 20, dtype=F64, generator=torch.Generator().manual_seed(0))
    asked = torch.lerp(ts[:, :1], ts[:, -1:], share)
    torch.testing.assert_close(solution(asked), exact(asked, ts[:, :1]), rtol=0, atol=1e-6)
    t = asked[:, 0]
    speed = solution.derivative(t)
    torch.testing.assert_close(speed, rotation(None, solution.evaluate(t)), rtol=0, atol=1e-4)
    nudge = (solution.evaluate(t + 1e-6) - solution.evaluate(t - 1e-6)) / 2e-6
    torch.testing.assert_close(speed, nudge, rtol=0, atol=1e-6)
    samples = torch.stack([t, t - 0.1])
    assert solution.evaluate(samples).shape == (2, 3, 2)


@pytest.mark.parametrize("options", SETTINGS, ids=lambda o: repr(o["controller"]))
def test_a_solution_can_be_restricted_and_made_of_other_tensors(options):
    y0, ts = setup(False)
    solution = solve(rotation, y0, ts, **options)
    knots = solution.knots()
    assert knots is not None
    t0, t1 = knots[:, 1], knots[:, 2]
    piece = solution.restrict(t0, t1)
    middle = torch.lerp(t0, t1, 0.3)
    torch.testing.assert_close(piece.evaluate(middle), solution.evaluate(middle), rtol=0, atol=1e-13)
    assert torch.equal(solution.restrict(t0, t0).derivative(t0), torch.zeros(3, 2, dtype=F64))
    again = solution.replace(solution.tensors())
    torch.testing.assert_close(again.evaluate(middle), solution.evaluate(middle), rtol=0, atol=0)


def test_outside_the_solve_the_ends_are_held():
    y0, ts = setup(False)
    solution = solve(rotation, y0, ts)
    torch.testing.assert_close(solution.evaluate(ts[:, 0] - 5), y0, rtol=0, atol=1e-12)
    torch.testing.assert_close(solution.evaluate(ts[:, -1] + 5), solution.ys[:, -1], rtol=0, atol=1e-12)


def test_a_solution_drives_another_solve_and_passes_its_gradient_on():
    ts = torch.tensor([[0.0, 1.0], [0.0, 2.0]], dtype=F64)
    y0 = torch.ones(2, 1, dtype=F64, requires_grad=True)
    control = PIDController(1e-9, 1e-11)
    driver = solve(lambda t, y: -y, y0, ts, controller=control)
    ys = solve(lambda t, y, u: u, torch.zeros(2, 1, dtype=F64), ts, inputs=driver, controller=control).ys
    torch.testing.assert_close(ys[:, 1, 0], 1 - torch.exp(-ts[:, 1]), rtol=1e-7, atol=0)
    ys[:, 1].sum().backward()
    assert y0.grad is not None
    torch.testing.assert_close(y0.grad[:, 0], 1 - torch.exp(-ts[:, 1]), rtol=1e-7, atol=0)


def test_the_dense_output_is_differentiable_with_respect_to_the_start():
    ts = torch.tensor([[0.0, 1.0]], dtype=F64)
    for controller in (StepTo(10), PIDController(1e-8, 1e-10)):
        y0 = torch.ones(1, 1, dtype=F64, requires_grad=True)
        y = solve(lambda t, y: -y, y0, ts, controller=controller).evaluate(torch.tensor([0.5], dtype=F64))
        (gradient,) = torch.autograd.grad(y.sum(), y0)
        assert abs(float(gradient) - 0.6065306597) < 1e-6
