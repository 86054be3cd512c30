"""Compiled steps of perceptrons: the same answers and gradients as step after step."""

import pytest
import torch
from torch import nn

from ctdyn.fields import ConcatTime, MLPCDEField, MLPField
from ctdyn.integrate import Checkpoint, ConstantStep, PIDController, StepTo, loop, solve
from ctdyn.integrate._perceptron_loop import perceptron_steps
from ctdyn.linear._compiled import numba_is_installed
from ctdyn.paths import HermitePath, LinearPath
from ctdyn.solvers import RK4, Dopri5, Euler
from ctdyn.terms import ODETerm


F64 = torch.float64
pytestmark = pytest.mark.skipif(not numba_is_installed(), reason="needs numba")
CLOCK = torch.rand(3, 7, dtype=F64, generator=torch.Generator().manual_seed(1)).cumsum(-1)
# The second series ends early: its last steps have no length.
CLOCK[1, 4:] = CLOCK[1, 4]


@pytest.fixture
def taken(monkeypatch):
    """Whether each run of steps was compiled."""
    found = []

    def watched(*arguments, **options):
        steps = perceptron_steps(*arguments, **options)
        found.append(steps is not None)
        return steps

    monkeypatch.setattr(loop, "perceptron_steps", watched)
    return found


def problem(kind, hidden=(5,), activation=nn.SiLU):
    """A field, leaves, and a solve of them."""
    torch.manual_seed(0)
    y0 = torch.randn(3, 4, dtype=F64, requires_grad=True)
    xs = torch.randn(3, 7, 2, dtype=F64, requires_grad=True)
    if kind == "controlled":
        field = MLPCDEField(4, 2, hidden, activation).double()
    else:
        field = MLPField(4, hidden, activation, input_size=2 if kind == "driven" else 0).double()

    def run(y0, xs, **options):
        path = {"controlled": HermitePath, "driven": LinearPath}.get(kind)
        inputs = None if path is None else path(CLOCK, xs)
        given = {"solver": RK4(), "controller": StepTo(2), "inputs": inputs} | options
        return solve(field, y0, CLOCK, **given).ys

    return field, [y0, *([] if kind == "plain" else [xs])], lambda *leaves, **o: run(*(*leaves, xs)[:2], **o)


def one_by_one(monkeypatch, run):
    with monkeypatch.context() as context:
        context.setattr(loop, "perceptron_steps", lambda *_, **__: None)
        return run()


@pytest.mark.parametrize("solver", [Euler(), RK4(), Dopri5()])
@pytest.mark.parametrize("hidden", [(), (5,), (6, 5)])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.SiLU, nn.Softplus])
@pytest.mark.parametrize("kind", ["plain", "driven", "controlled"])
@pytest.mark.parametrize("controller", [StepTo(2), ConstantStep(0.2)], ids=["to the times", "dense"])
def test_steps_and_gradients_are_those_of_step_after_step(
    controller, kind, activation, hidden, solver, taken, monkeypatch
):
    field, leaves, run = problem(kind, hidden, activation)
    options = {"solver": solver, "controller": controller}
    found = run(*leaves, **options)
    assert taken
    assert all(taken)
    expected = one_by_one(monkeypatch, lambda: run(*leaves, **options))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights, wanted = torch.randn_like(found), [*leaves, *field.parameters()]
    pairs = (torch.autograd.grad((ys * weights).sum(), wanted) for ys in (found, expected))
    for ours, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-11)
    with torch.no_grad():
        assert torch.equal(run(*leaves, **options), found)


def test_a_softplus_is_straight_where_that_of_torch_is(taken, monkeypatch):
    field, leaves, run = problem("plain", activation=nn.Softplus)
    with torch.no_grad():
        next(layer for layer in field.modules() if isinstance(layer, nn.Linear)).bias += torch.linspace(18.0, 22.0, 5)
    found, expected = run(*leaves), one_by_one(monkeypatch, lambda: run(*leaves))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    wanted = [*leaves, *field.parameters()]
    pairs = (torch.autograd.grad(ys.sum(), wanted) for ys in (found, expected))
    for ours, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    assert taken == [True]


def test_many_rows_samples_and_pieces_give_the_same(taken, monkeypatch):
    field, (y0, xs), run = problem("controlled")
    many = torch.randn(300, *y0.shape, dtype=F64)
    torch.testing.assert_close(run(many, xs)[7], run(many[7], xs), rtol=0, atol=1e-12)
    gradients = [
        torch.autograd.grad(run(many, xs, **options).square().sum(), [xs, *field.parameters()])
        for options in ({}, {"adjoint": Checkpoint()})
    ]
    gradients.append(
        one_by_one(monkeypatch, lambda: torch.autograd.grad(run(many, xs).square().sum(), [xs, *field.parameters()]))
    )
    for ours, other, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(other, plain, rtol=1e-11, atol=1e-11)
    assert all(taken)


@pytest.mark.parametrize("kind", ["plain", "driven", "controlled"])
@pytest.mark.parametrize("controller", [StepTo(2), ConstantStep(0.4)], ids=["to the times", "dense"])
def test_derivatives_of_derivatives_and_along_a_direction(controller, kind):
    _, leaves, walk = problem(kind, hidden=(3,))

    def run(*leaves):
        return walk(*leaves, controller=controller)

    assert torch.autograd.gradgradcheck(lambda *x: run(*x)[:, -1], leaves)
    plain = [x.detach() for x in leaves]
    direction = [torch.randn_like(x) for x in plain]
    _, along = torch.func.jvp(run, tuple(plain), tuple(direction))
    step = 1e-6
    ahead, behind = (run(*(x + s * v for x, v in zip(plain, direction, strict=True))) for s in (step, -step))
    torch.testing.assert_close(along, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)


class Louder(MLPField):
    """A field that is no longer what its layers are."""

    def forward(self, t, y, u=None):
        """Twice as fast."""
        return 2.0 * super().forward(t, y, u)


def test_a_field_that_is_more_than_its_layers_is_stepped_as_it_is(taken):
    y0 = torch.randn(3, 4, dtype=F64)
    torch.manual_seed(0)
    louder, plain = Louder(4).double(), MLPField(4).double()
    plain.load_state_dict(louder.state_dict())
    options = {"solver": RK4(), "controller": StepTo(4)}
    fast, slow = solve(louder, y0, CLOCK, **options).ys, solve(plain, y0, 2.0 * CLOCK, **options).ys
    assert taken == [False, True]
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-3)
    plain.register_forward_hook(lambda module, arguments, output: -output)
    back = solve(plain, y0, CLOCK, **options).ys
    assert taken[-1] is False
    assert not torch.allclose(back, slow)
    for field in (MLPField(4, layer=ConcatTime).double(), MLPField(4, activation=nn.GELU).double()):
        solve(field, y0, CLOCK, **options)
        assert taken[-1] is False


def test_large_products_are_left_to_the_threads_of_torch(taken):
    field = MLPField(4, (64,))
    for rows, small in ((8, True), (40_000, False)):
        solve(field, torch.zeros(rows, 4), torch.tensor([0.0, 1.0]), solver=Euler(), controller=StepTo(1))
        assert taken[-1] is small


def test_what_is_not_a_number_stays_so_and_what_does_not_fit_is_refused():
    for kind in ("plain", "controlled"):
        for activation in (nn.Tanh, nn.ReLU, nn.SiLU, nn.Softplus):
            field, leaves, run = problem(kind, activation=activation)
            with torch.no_grad():
                next(field.parameters())[0, 0] = torch.nan
            with pytest.raises(RuntimeError, match="finite"):
                run(*leaves)
    _, (y0, xs), run = problem("controlled")
    with pytest.raises(ValueError, match="shape"):
        run(y0, torch.cat([xs, xs], -1))
    with pytest.raises(ValueError, match="state_size=4"):
        run(torch.cat([y0, y0], -1), xs)
    grid = torch.zeros(2, 3, dtype=F64)
    assert perceptron_steps(ODETerm(lambda t, y: -y), RK4(), grid, y0, dense=True) is None
    assert perceptron_steps(ODETerm(MLPField(4).double()), RK4(), grid.requires_grad_(), y0, dense=True) is None


def test_adaptive_steps_are_taken_as_before(taken):
    _, leaves, run = problem("plain")
    fixed, free = (
        run(*leaves, controller=StepTo(64)),
        run(*leaves, controller=PIDController(1e-9, 1e-11), solver=Dopri5()),
    )
    torch.testing.assert_close(fixed, free, rtol=1e-7, atol=1e-7)
