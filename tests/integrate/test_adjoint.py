import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from ctdyn.integrate import (
    Backsolve,
    Checkpoint,
    ConstantStep,
    Direct,
    PIDController,
    Reversible,
    StepTo,
    solve,
)
from ctdyn.paths import LinearPath
from ctdyn.solvers import RK4, Bosh3, Dopri5, Heun, ReversibleMethod, Rodas5P, Tsit5


F64 = torch.float64
TS = torch.tensor([[0.0, 0.4, 0.9], [0.1, 0.2, 1.3]], dtype=F64)
SETTINGS = [
    (Heun(), ConstantStep(0.17)),
    (RK4(), StepTo(2)),
    (Tsit5(), ConstantStep(0.4)),
    (Tsit5(), PIDController(1e-9, 1e-11)),
]


def names(value):
    return repr(value) if not isinstance(value, tuple) else type(value[0]).__name__ + "-" + type(value[1]).__name__


def field_with(w):
    return lambda t, y: torch.tanh(y @ w) * torch.cos(t)[..., None] - 0.3 * y


def start():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 2, dtype=F64, generator=generator).requires_grad_(),
        torch.randn(2, 2, dtype=F64, generator=generator).requires_grad_(),
        TS.clone().requires_grad_(),
    )


@pytest.mark.parametrize("adjoint", [Direct(), Checkpoint(segments=3)], ids=names)
@pytest.mark.parametrize("setting", SETTINGS, ids=names)
def test_gradients_equal_finite_differences(setting, adjoint):
    solver, controller = setting

    def run(y0, w, ts):
        return solve(field_with(w), y0, ts, solver=solver, controller=controller, adjoint=adjoint).ys

    y0, w, ts = start()
    assert gradcheck(run, (y0, w, ts), atol=2e-5)


@pytest.mark.parametrize("setting", SETTINGS, ids=names)
def test_gradients_reach_t0_and_backward_times(setting):
    solver, controller = setting
    y0, w, _ = start()
    t0 = torch.tensor([1.5, 1.4], dtype=F64, requires_grad=True)

    def run(t0):
        return solve(field_with(w), y0, TS.flip(-1), t0=t0, solver=solver, controller=controller).ys

    assert gradcheck(run, (t0,), atol=1e-4)


@pytest.mark.parametrize("adjoint", [Direct(), Checkpoint(segments=2)], ids=names)
@pytest.mark.parametrize("setting", SETTINGS, ids=names)
def test_gradients_reach_the_inputs_with_nothing_declared(setting, adjoint):
    solver, controller = setting
    knots = torch.tensor([[0.0, 0.35, 1.0], [0.0, 0.6, 1.4]], dtype=F64)

    def run(values):
        return solve(
            lambda t, y, u: torch.tanh(u) - y,
            torch.zeros(2, 1, dtype=F64),
            TS,
            inputs=LinearPath(knots, values),
            solver=solver,
            controller=controller,
            adjoint=adjoint,
        ).ys

    values = torch.randn(2, 3, 1, dtype=F64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert gradcheck(run, (values,), atol=1e-5)


FIXED = {"solver": RK4(), "controller": ConstantStep(0.25)}
JUMPS = [
    *({"adjoint": adjoint} for adjoint in (Direct(), Checkpoint(), Backsolve())),
    *({"adjoint": adjoint, **FIXED} for adjoint in (Direct(), Checkpoint(), Backsolve())),
    {"solver": RK4(), "controller": StepTo(2)},
    {"solver": Rodas5P()},
    {"solver": ReversibleMethod(Tsit5()), "adjoint": Reversible()},
]


@pytest.mark.parametrize("options", JUMPS, ids=str)
@pytest.mark.parametrize("backward", [False, True])
def test_gradients_reach_the_times_at_which_the_inputs_jump(options, backward):
    """Of two levels, one after the other, the integral is linear in the time between them."""
    when = torch.tensor([0.5, 1.25], dtype=F64, requires_grad=True)
    zero = torch.zeros_like(when)
    levels = torch.tensor([[3.0, 3.0, 1.0, 1.0], [-1.0, -1.0, 4.0, 4.0]], dtype=F64).unsqueeze(-1)
    inputs = LinearPath(torch.stack([zero, when, when, zero + 2], -1), levels)
    ts = torch.tensor([0.0, 1.9], dtype=F64)
    ts = ts.flip(0) if backward else ts
    ys = solve(lambda t, y, u: u + 0 * y, torch.zeros(2, 1, dtype=F64), ts, inputs=inputs, **options).ys
    (gradient,) = torch.autograd.grad(ys[:, -1].sum(), when)
    torch.testing.assert_close(gradient, torch.tensor([2.0, -5.0], dtype=F64) * (-1.0 if backward else 1.0))


@pytest.mark.parametrize("options", [{}, FIXED, {"solver": RK4(), "controller": StepTo(2)}], ids=str)
def test_a_first_time_on_a_knot_has_all_of_its_gradient(options):
    ts = torch.tensor([0.0, 1.0, 2.0], dtype=F64, requires_grad=True)
    inputs = LinearPath(ts.detach(), torch.tensor([[3.0], [4.0], [7.0]], dtype=F64))
    ys = solve(lambda t, y, u: u + 0 * y, torch.zeros(1, dtype=F64), ts, inputs=inputs, **options).ys
    (gradient,) = torch.autograd.grad(ys[-1].sum(), ts)
    torch.testing.assert_close(gradient, torch.tensor([-3.0, 0.0, 7.0], dtype=F64))


@pytest.mark.parametrize("solver", [RK4(), Tsit5()], ids=repr)
@pytest.mark.parametrize("controller", [StepTo(1), ConstantStep(0.5), PIDController(1e-8, 1e-10)], ids=repr)
def test_second_derivatives(solver, controller):
    if isinstance(controller, PIDController) and not solver.adaptive:
        pytest.skip("no error estimate")
    y0, w, _ = start()

    def run(y0, w):
        return solve(field_with(w), y0, TS, solver=solver, controller=controller).ys[:, -1]

    assert gradgradcheck(run, (y0, w), atol=1e-4)


@pytest.mark.parametrize("segments", [None, 1, 2, 7, 1000])
@pytest.mark.parametrize("setting", [*SETTINGS, (Bosh3(), PIDController(1e-4, 1e-6))], ids=names)
def test_checkpoint_equals_direct(setting, segments):
    solver, controller = setting
    results = []
    for adjoint in (Direct(), Checkpoint(segments)):
        y0, w, ts = start()
        ys = solve(field_with(w), y0, ts, solver=solver, controller=controller, adjoint=adjoint).ys
        weights = torch.linspace(1, 2, ys.numel(), dtype=F64).reshape(ys.shape)
        (ys.square() * weights).sum().backward()
        results.append((ys, y0.grad, w.grad, ts.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_checkpoint_saves_memory():
    class Saved:
        def __init__(self):
            self.numbers = 0

        def pack(self, x):
            self.numbers += x.numel()
            return x

    layer = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 4)).double()
    y0, ts = torch.randn(8, 4, dtype=F64), torch.linspace(0, 1, 201, dtype=F64)
    kept = {}
    for adjoint in (Direct(), Checkpoint()):
        saved = Saved()
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda x: x):
            solve(lambda t, y: layer(y), y0, ts, solver=RK4(), controller=StepTo(1), adjoint=adjoint)
        kept[type(adjoint)] = saved.numbers
    assert kept[Checkpoint] < kept[Direct] / 8


def test_gradients_reach_parameters_hidden_in_a_closure():
    layer = nn.Linear(2, 2).double()
    ys = solve(lambda t, y: layer(y), torch.ones(2, 2, dtype=F64), TS).ys
    ys.sum().backward()
    assert layer.weight.grad is not None
    assert float(layer.weight.grad.abs().sum()) > 0


def test_gradients_reach_parameters_that_only_matter_later():
    layer = nn.Linear(2, 2).double()
    field = lambda t, y: layer(y) if bool((t > 0.3).any()) else -y  # noqa: E731
    ys = solve(field, torch.ones(1, 2, dtype=F64), torch.tensor([[0.0, 1.0]], dtype=F64)).ys
    assert ys.requires_grad


def test_an_error_of_exactly_zero_gives_no_nan():
    y0 = torch.ones(1, 2, dtype=F64, requires_grad=True)
    rate = torch.zeros(2, dtype=F64, requires_grad=True)
    for solver in (Heun(), Bosh3(), Dopri5(), Tsit5()):
        ys = solve(lambda t, y: rate * y, y0, TS[:1], solver=solver).ys
        gradients = torch.autograd.grad(ys.sum(), (y0, rate))
        assert all(torch.isfinite(g).all() for g in gradients)


def test_padding_and_company_leave_gradients_alone():
    padded = torch.cat([TS, TS[:, -1:].expand(-1, 4)], -1)
    long = torch.cat([padded, torch.linspace(0, 9, 7, dtype=F64)[None]])
    gradients = []
    for ts in (TS, padded, long):
        y0 = torch.ones(len(ts), 2, dtype=F64, requires_grad=True)
        ys = solve(field_with(torch.eye(2, dtype=F64)), y0, ts).ys
        ys[:2, :3].sum().backward()
        gradients.append(y0.grad[:2])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients[2], gradients[0], rtol=1e-12, atol=1e-12)


def test_no_grad_builds_no_graph():
    w = torch.eye(2, dtype=F64, requires_grad=True)
    with torch.no_grad():
        ys = solve(field_with(w), torch.ones(2, 2, dtype=F64), TS).ys
    assert not ys.requires_grad
    with torch.inference_mode():
        solve(field_with(w), torch.ones(2, 2, dtype=F64), TS)
    solve(field_with(w), torch.ones(2, 2, dtype=F64), TS).ys.sum().backward()


def test_fewer_than_one_segment_is_refused():
    with pytest.raises(ValueError, match="segments"):
        Checkpoint(0)
