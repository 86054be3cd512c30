"""No gradient is lost or wrong without a word: what adjoints refuse, notice and follow."""

import warnings

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from ctdyn.integrate import (
    AdjointInstabilityWarning,
    Backsolve,
    Checkpoint,
    ConstantStep,
    Direct,
    Event,
    PIDController,
    Reversible,
    solve,
)
from ctdyn.paths import VirtualBrownianTree
from ctdyn.solvers import RK4, EulerMaruyama, Heun, ReversibleHeun, ReversibleMethod, Rodas5P, Tsit5
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.terms import SDETerm


F64 = torch.float64
TS = torch.tensor([0.0, 0.4, 1.0], dtype=F64)
WAYS = [
    (Checkpoint(), Tsit5()),
    (Checkpoint(segments=2, levels=3), RK4()),
    (Reversible(), ReversibleMethod(RK4())),
    (Reversible(), ReversibleHeun()),
    (Backsolve(), Tsit5()),
]
ways = pytest.mark.parametrize(("adjoint", "solver"), WAYS, ids=lambda x: repr(x).split("(controller")[0])


def run(field, y0, adjoint, solver, ts=TS, **more):
    return solve(field, y0, ts, solver=solver, controller=ConstantStep(0.05), adjoint=adjoint, **more).ys


def start():
    return torch.tensor([[0.5, -0.2], [0.1, 0.9]], dtype=F64, requires_grad=True)


def test_upstream_loses_the_gradient_of_a_context_without_a_word():
    from torchdiffeq import odeint_adjoint

    class Driven(nn.Module):
        def __init__(self, context):
            super().__init__()
            self.rate, self.context = nn.Parameter(torch.ones(2, dtype=F64)), context

        def forward(self, t, y):
            return -self.rate * y + self.context

    context = torch.ones(2, 2, dtype=F64, requires_grad=True)
    field, y0 = Driven(context), start()
    loss = odeint_adjoint(field, y0, TS, method="rk4").square().sum()
    assert torch.autograd.grad(loss, [context, field.rate], allow_unused=True)[0] is None
    for adjoint, solver in WAYS:
        wanted = [context, field.rate]
        found = torch.autograd.grad(run(field, y0, adjoint, solver).square().sum(), wanted)
        expected = torch.autograd.grad(run(field, y0, Direct(), solver).square().sum(), wanted)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@ways
def test_everything_a_plain_function_holds_has_a_gradient(adjoint, solver):
    torch.manual_seed(0)
    layer, scale = nn.Linear(2, 2).double(), torch.tensor(0.7, dtype=F64, requires_grad=True)
    encoder = nn.Linear(3, 2).double()
    context = torch.tanh(encoder(torch.ones(2, 3, dtype=F64)))  # computed before, by something else
    wanted = [scale, *layer.parameters(), *encoder.parameters()]

    def field(t, y):
        return torch.tanh(layer(y)) * scale + context

    found = [
        torch.autograd.grad(run(field, start(), way, solver).square().sum(), wanted, retain_graph=True)
        for way in (Direct(), adjoint)
    ]
    for a, b in zip(*found, strict=True):
        assert float(a.abs().max()) > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@ways
def test_a_tensor_that_matters_later_is_not_lost(adjoint, solver):
    late = torch.ones(2, dtype=F64, requires_grad=True)

    def field(t, y):
        return -y + (late if bool((t > 0.6).any()) else 0.0)

    # It is found late, and then either followed or refused.
    with pytest.raises(RuntimeError, match=r"shape \(2,\)"):
        run(field, start(), adjoint, solver).sum().backward()


def test_a_late_parameter_of_a_module_is_followed():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.late = nn.Parameter(torch.ones(2, dtype=F64))

        def forward(self, t, y, u=None):
            return -y + (self.late if bool((t > 0.6).any()) else 0.0)

    for adjoint, solver in WAYS[:4]:
        field = Late()
        ys = run(field, start(), adjoint, solver)
        (found,) = torch.autograd.grad(ys.sum(), field.late)
        (expected,) = torch.autograd.grad(run(field, start(), Direct(), solver).sum(), field.late)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@ways
def test_tensors_computed_from_one_another_are_refused(adjoint, solver):
    w = torch.eye(2, dtype=F64, requires_grad=True)
    square = w @ w
    with pytest.raises(ValueError, match="computed from the other"):
        run(lambda t, y: y @ w - y @ square, start(), adjoint, solver)


@ways
def test_random_fields_are_refused(adjoint, solver):
    field = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).double()
    with pytest.raises(ValueError, match=r"random.*eval\(\)"):
        run(lambda t, y: field(y), start(), adjoint, solver)
    field.eval()
    run(lambda t, y: field(y), start(), adjoint, solver).sum().backward()


@pytest.mark.parametrize(("adjoint", "solver"), WAYS[2:], ids=repr)
def test_second_derivatives_are_refused_where_they_are_taken(adjoint, solver):
    y0 = start()
    ys = run(lambda t, y: -(y**2), y0, adjoint, solver)
    (first,) = torch.autograd.grad(ys.sum(), y0, create_graph=True)
    assert float(first.detach().abs().max()) > 0
    with pytest.raises(NotImplementedError, match=type(adjoint).__name__):
        first.sum().backward()


@pytest.mark.parametrize("way", [Checkpoint(), Checkpoint(segments=2, levels=3)], ids=repr)
def test_checkpoint_has_second_derivatives(way):
    y0, w = start()[:1], torch.tensor([0.3, -0.5], dtype=F64, requires_grad=True)

    def last(y0, w):
        cubed = w**3
        field, steps = lambda t, y: torch.sin(y * cubed) - y, ConstantStep(0.3)
        return solve(field, y0, TS, solver=Heun(), controller=steps, adjoint=way).ys[:, -1]

    assert gradcheck(last, (y0, w), atol=1e-5)
    assert gradgradcheck(last, (y0, w), atol=1e-4)


def test_checkpoint_has_the_second_derivatives_of_direct_on_adaptive_steps():
    found = []
    for way in (Direct(), Checkpoint()):
        y0, w = start(), torch.tensor([0.3, -0.5], dtype=F64, requires_grad=True)
        ys = solve(lambda t, y, w=w: torch.sin(y * w**3) - y, y0, TS, adjoint=way).ys
        first = torch.autograd.grad(ys.square().sum(), (y0, w), create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), (y0, w)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_method_that_cannot_be_undone_is_refused_with_the_cure():
    with pytest.raises(TypeError, match=r"ReversibleMethod\(Tsit5\(\)\)"):
        solve(lambda t, y: -y, start(), TS, adjoint=Reversible())


def test_backsolve_refuses_stochastic_equations():
    class Walk(SDEField):
        noise, calculus = Noise.DIAGONAL, Calculus.ITO

        def drift(self, t, y, u=None):
            return -y

        def diffusion(self, t, y, u=None):
            return 0.1 * torch.ones_like(y)

    term = SDETerm(Walk(), VirtualBrownianTree(torch.arange(2), size=2))
    with pytest.raises(TypeError, match="ReversibleHeun"):
        run(term, start(), Backsolve(), EulerMaruyama())


def test_options_are_checked():
    for build in (lambda: Reversible(0), lambda: Backsolve(max_steps=0), lambda: Checkpoint(levels=0)):
        with pytest.raises(ValueError, match="at least 1"):
            build()
    with pytest.raises(TypeError, match="error estimate"):
        Backsolve(solver=RK4())
    with pytest.raises(TypeError, match="PIDController"):
        Backsolve(controller=ConstantStep(0.1))
    with pytest.raises(ValueError, match="coupling"):
        ReversibleMethod(RK4(), 0.0)
    with pytest.raises(TypeError, match="reversible already"):
        ReversibleMethod(ReversibleMethod(RK4()))
    with pytest.raises(TypeError, match="stochastic"):
        ReversibleMethod(EulerMaruyama())


@pytest.mark.parametrize(
    "field", [lambda t, y: -50.0 * y, lambda t, y: -50.0 * (y - t.cos()[..., None])], ids=["0", "cos"]
)
def test_backsolve_warns_where_the_way_back_is_unstable(field):
    y0, ts = start(), torch.tensor([0.0, 10.0], dtype=F64)
    ys = solve(field, y0, ts, controller=PIDController(1e-5, 1e-5), adjoint=Backsolve()).ys
    with pytest.warns(AdjointInstabilityWarning, match=r"series \d.*Checkpoint"):
        ys.sum().backward()


def test_backsolve_falls_back_where_the_way_back_fails():
    y0, ts = start(), torch.tensor([0.0, 3.0], dtype=F64)
    gradients = []
    for adjoint in (Backsolve(), Checkpoint()):
        ys = solve(lambda t, y: -20 * y**3, y0, ts, adjoint=adjoint).ys
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            gradients += torch.autograd.grad(ys.sum(), y0)
    assert not caught
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-4)


def test_backsolve_is_silent_and_right_on_its_own_clocks():
    y0 = start()
    ts = torch.tensor([[0.1, 0.2, 3.0], [0.0, 2.0, 2.0]], dtype=F64).requires_grad_()
    gradients = []
    for adjoint in (Direct(), Backsolve()):
        ys = solve(lambda t, y: torch.stack([y[..., 1], -y[..., 0]], -1), y0, ts, adjoint=adjoint).ys
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gradients.append(torch.autograd.grad((ys.square() * torch.arange(1.0, 3.0)).sum(), (y0, ts)))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=3e-3)


@pytest.mark.filterwarnings("ignore:the two states")
def test_reversible_notices_what_it_cannot_undo():
    y0, ts = start(), torch.tensor([0.0, 3.0], dtype=F64)
    gradients = []
    for adjoint in (Direct(), Reversible()):
        method = ReversibleMethod(RK4(), 0.999)
        ys = solve(
            lambda t, y: torch.sin(3 * y), y0, ts, solver=method, controller=ConstantStep(0.2), adjoint=adjoint
        ).ys
        gradients += torch.autograd.grad(ys.sum(), y0)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    unstable = solve(
        lambda t, y: -50 * y, y0, ts, solver=method, controller=ConstantStep(0.02), adjoint=Reversible(), throw=False
    )
    with pytest.warns(AdjointInstabilityWarning):
        unstable.ys.sum().backward()


@pytest.mark.parametrize(("adjoint", "solver"), [WAYS[0], (Reversible(), ReversibleMethod(Tsit5()))], ids=repr)
def test_gradients_pass_through_events(adjoint, solver):
    found = []
    for way in (Direct(), adjoint):
        y0 = torch.tensor([[1.0, 0.0], [2.0, 0.5]], dtype=F64, requires_grad=True)
        ball = Event(lambda t, y: y[..., 0], jump=lambda t, y: torch.stack([y[..., 0], -0.8 * y[..., 1]], -1))
        ys = solve(
            lambda t, y: torch.stack([y[..., 1], torch.full_like(y[..., 1], -9.81)], -1),
            y0,
            torch.linspace(0.0, 1.0, 5, dtype=F64),
            solver=solver,
            adjoint=way,
            event=ball,
        ).ys
        found += torch.autograd.grad(ys.sum(), y0)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("adjoint", "solver"),
    [(Checkpoint(), Tsit5()), (Checkpoint(), Rodas5P()), (Reversible(), ReversibleMethod(Tsit5()))],
    ids=repr,
)
def test_starts_and_events_that_hang_on_what_the_field_holds_have_exact_gradients(adjoint, solver):
    gravity = torch.tensor(9.81, dtype=F64, requires_grad=True)
    weight = 1.01 * gravity  # computed before, by something else
    ball = Event(
        lambda t, y: y[..., 0] - 0.01 * weight,
        direction=-1,
        jump=lambda t, y: torch.stack([y[..., 0], -y[..., 1] * weight / 12.0], -1),
    )
    found = []
    for way in (Direct(), adjoint):
        solution = solve(
            lambda t, y: torch.stack([y[..., 1], -weight + 0.0 * y[..., 1]], -1),
            torch.tensor([[10.0, 0.0], [7.0, 1.0]], dtype=F64),
            torch.tensor([0.5, 1.5, 4.0], dtype=F64),
            t0=0.01 * weight,
            solver=solver,
            adjoint=way,
            event=ball,
        )
        loss = solution.ys.square().sum() + solution.events.times.nan_to_num().sum()
        found += torch.autograd.grad(loss, gravity, retain_graph=True)
    torch.testing.assert_close(*found, rtol=1e-9, atol=0)


def test_checkpoint_recomputes_implicit_steps_from_a_start_without_gradients():
    rate = torch.tensor(2.0, dtype=F64, requires_grad=True)
    found = []
    for way in (Direct(), Checkpoint(), Checkpoint(segments=2, levels=2)):
        ys = run(lambda t, y: -rate * t[..., None] * y.square(), start().detach(), way, Rodas5P())
        found += torch.autograd.grad(ys.sum(), rate)
    torch.testing.assert_close(found[1:], found[:1] * 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("adjoint", "solver"), [(Checkpoint(segments=2), RK4()), (Reversible(), ReversibleMethod(RK4()))]
)
def test_a_piece_of_a_tensor_that_the_first_step_does_not_use_is_refused(adjoint, solver):
    """All pieces come from one operation: that one of them is known says nothing of the others."""
    early, late = torch.randn(2, 2, 2, dtype=F64, requires_grad=True).mul(2.0).unbind(0)

    def field(t, y):
        return torch.where((t < 0.5).unsqueeze(-1), early, late) if bool((t > 0.4).any()) else early - y

    with pytest.raises(RuntimeError, match="in a later step the field uses tensors with gradients made by Unbind"):
        run(field, start(), adjoint, solver).sum().backward()
