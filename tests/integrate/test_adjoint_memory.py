"""What the adjoints hold, counted tensor by tensor, and how exact they are over many steps."""

import weakref

import pytest
import torch
from torch import nn

from ctdyn.integrate import Backsolve, Checkpoint, ConstantStep, Direct, PIDController, Reversible, StepTo, solve
from ctdyn.paths import VirtualBrownianTree
from ctdyn.solvers import RK4, Euler, Heun, ReversibleHeun, ReversibleMethod, Tsit5
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.terms import SDETerm


F64 = torch.float64


class Held:
    """What autograd holds for a backward pass: now, and at most."""

    def __init__(self):
        self.now = self.peak = 0

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda saved: saved.x)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)

    def pack(self, x):
        size = x.numel() * x.element_size()
        saved = _Box(x)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(saved, self.drop, size)
        return saved

    def drop(self, size):
        self.now -= size


class _Box:
    def __init__(self, x):
        self.x = x


def network(dtype=torch.float32, width=64, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 16)).to(dtype)


def peak(adjoint, num_steps, solver):
    net, y0, ts = network(), torch.ones(8, 16), torch.linspace(0, 1, 5, dtype=F64)
    with Held() as held:
        steps = ConstantStep(1 / num_steps)
        ys = solve(lambda t, y: net(y), y0, ts, solver=solver, controller=steps, adjoint=adjoint).ys
        ys.square().sum().backward()
    return held.peak


def test_checkpoint_holds_a_fraction_of_what_direct_holds():
    direct, root, log = (peak(way, 225, Euler()) for way in (Direct(), Checkpoint(), Checkpoint(segments=2, levels=6)))
    assert root < direct / 5
    assert log < direct / 12


def test_checkpoint_grows_like_the_root_of_the_steps():
    few, many = (peak(Checkpoint(), count, Euler()) for count in (36, 324))
    assert many < 4.5 * few


@pytest.mark.parametrize(
    ("adjoint", "solver"),
    [(Reversible(), ReversibleMethod(Euler())), (Reversible(), ReversibleHeun()), (Backsolve(), RK4())],
    ids=["ReversibleMethod", "ReversibleHeun", "Backsolve"],
)
def test_memory_that_does_not_grow_with_the_steps(adjoint, solver):
    # The clock is one number per series and step; it is part of every figure.
    few, many = (peak(adjoint, count, solver) for count in (50, 200))
    assert many < 1.3 * few + 200 * 8 * 8


def gradients(run, adjoint, dtype=torch.float32):
    net = network(dtype)
    generator = torch.Generator().manual_seed(1)
    y0 = torch.randn(8, 16, generator=generator, dtype=dtype).requires_grad_()
    ys = run(net, y0, adjoint)
    return [ys.detach(), *torch.autograd.grad(ys.square().mean(), [y0, *net.parameters()])]


class Noisy(SDEField):
    noise, calculus = Noise.DIAGONAL, Calculus.STRATONOVICH

    def __init__(self, net):
        super().__init__()
        self.net = net

    def drift(self, t, y, u=None):
        return self.net(y)

    def diffusion(self, t, y, u=None):
        return 0.3 * torch.sigmoid(self.net(y))


def ordinary(solver, controller):
    ts = torch.tensor([0.0, 0.31, 0.5, 1.0], dtype=F64)
    return lambda net, y0, adjoint: (
        solve(lambda t, y: net(y), y0, ts, solver=solver, controller=controller, adjoint=adjoint, max_steps=10**5).ys
    )


def stochastic(dt):
    brownian = VirtualBrownianTree(torch.arange(8), size=16)
    ts = torch.tensor([0.0, 0.31, 0.5, 1.0], dtype=F64)

    def run(net, y0, adjoint):
        term = SDETerm(Noisy(net), brownian)
        return solve(term, y0, ts, solver=ReversibleHeun(), controller=ConstantStep(dt), adjoint=adjoint).ys

    return run


CASES = {
    "rk4": ordinary(ReversibleMethod(RK4()), ConstantStep(0.0173)),
    "weak coupling": ordinary(ReversibleMethod(Heun(), 0.5), ConstantStep(0.011)),
    "strong coupling": ordinary(ReversibleMethod(Euler(), 0.999), ConstantStep(1 / 530)),
    "tsit5": ordinary(ReversibleMethod(Tsit5()), PIDController()),
    "landing": ordinary(ReversibleMethod(Euler()), StepTo(40)),
    "reversible Heun": ordinary(ReversibleHeun(), ConstantStep(0.0073)),
    **{f"stochastic, dt {dt}": stochastic(dt) for dt in (1 / 64, 0.01, 0.0337)},
}


@pytest.mark.parametrize("name", CASES)
def test_reversible_is_direct_to_the_last_digits_of_float32(name):
    direct, found = (gradients(CASES[name], way) for way in (Direct(), Reversible()))
    for a, b in zip(direct, found, strict=True):
        assert float((a - b).abs().max()) <= 1e-6 * float(a.abs().max())


@pytest.mark.parametrize("way", [Checkpoint(), Checkpoint(segments=3, levels=3)], ids=repr)
@pytest.mark.parametrize("name", ["rk4", "tsit5", "stochastic, dt 0.0337"])
def test_checkpoint_is_direct(name, way):
    direct, found = (gradients(CASES[name], adjoint, F64) for adjoint in (Direct(), way))
    for a, b in zip(direct, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
