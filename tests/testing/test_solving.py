"""Every exported part keeps its contract, and every contract is broken by something.

A new part joins by itself: what its constructor needs is looked up by the name of the argument.
"""

import inspect

import pytest
import torch
from torch import nn

import ctdyn.fields
import ctdyn.integrate
import ctdyn.paths
import ctdyn.solvers
import ctdyn.systems
from ctdyn.integrate import Adjoint, Direct, TorchDiffEq
from ctdyn.integrate.engines import Engine
from ctdyn.paths import HermitePath, LinearPath, Path
from ctdyn.solvers import RK4, Euler, Heun, Midpoint, ReversibleMethod, Solver, StochasticSolver, Tsit5
from ctdyn.structure import VectorField
from ctdyn.testing import check_adjoint, check_engine, check_field, check_path, check_solver


GENERATOR = torch.Generator().manual_seed(0)
TS = torch.rand(3, 5, generator=GENERATOR, dtype=torch.float64).cumsum(-1)
XS = torch.randn(3, 5, 2, generator=GENERATOR, dtype=torch.float64)
PADDED_TS = torch.cat([TS, TS[:, -1:].expand(-1, 2)], -1)
PADDED_XS = torch.cat([XS, XS[:, -1:].expand(-1, 2, -1)], -2)
ARGUMENTS = {"ts": PADDED_TS, "xs": PADDED_XS, "value": XS[:, 0], "windows": TS[:, [0, 2, 4, 4]]}
ARGUMENTS |= {"method": "heun", "dt": 0.002, "base": RK4()}
# An even state can be positions and velocities too.
ARGUMENTS |= {"state_size": 4, "field": ctdyn.fields.MLPField(4, (8,)), "span": 2.0, "units": 4}
ADJOINTS = {
    "Reversible": {"solver": ReversibleMethod(Tsit5())},
    "ParallelInTime": {"adaptive": False},
    "Backsolve": {"exact": False, "tolerance": 1e-6},
}


def exported(module, kind):
    """The final classes of one kind that a package exports."""
    found = [c for c in (getattr(module, n) for n in module.__all__) if isinstance(c, type) and issubclass(c, kind)]
    parents = {parent for c in found for parent in c.__mro__[1:]}
    return [c for c in found if c not in parents and not inspect.isabstract(c)]


def build(cls, **more):
    given = ARGUMENTS | more
    parameters = inspect.signature(cls).parameters
    needed = {n for n, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    missing = needed - set(given)
    assert not missing, f"{cls.__name__} needs {missing}: add an example of each to ARGUMENTS"
    return cls(**{name: value for name, value in given.items() if name in needed | (set(more) & set(parameters))})


@pytest.mark.parametrize("cls", exported(ctdyn.paths, Path))
def test_paths(cls):
    check_path(build(cls), TS[:, 0] - 0.3, TS[:, -1] + 0.3)


@pytest.mark.parametrize("cls", exported(ctdyn.fields, VectorField))
def test_fields(cls):
    check_field(build(cls), ARGUMENTS["state_size"])


@pytest.mark.parametrize("cls", exported(ctdyn.fields, VectorField))
def test_driven_fields(cls):
    if "input_size" not in inspect.signature(cls).parameters:
        pytest.skip("takes no inputs")
    check_field(build(cls, input_size=2), ARGUMENTS["state_size"], input_size=2)


@pytest.mark.parametrize("cls", exported(ctdyn.systems, VectorField))
def test_systems(cls):
    system = build(cls)
    check_field(system, system.state_size)


# Methods that step with increments of Brownian motion alone have a contract of their own.
@pytest.mark.parametrize("cls", [c for c in exported(ctdyn.solvers, Solver) if not issubclass(c, StochasticSolver)])
def test_solvers(cls):
    check_solver(build(cls))


@pytest.mark.parametrize("cls", exported(ctdyn.integrate, Engine))
def test_engines(cls):
    check_engine(build(cls, rtol=1e-6, atol=1e-8))


@pytest.mark.parametrize("cls", exported(ctdyn.integrate, Adjoint))
def test_adjoints(cls):
    check_adjoint(build(cls), **ADJOINTS.get(cls.__name__, {}))


def test_a_solution_is_a_path():
    t0 = torch.tensor([0.0, 1.0], dtype=torch.float64)
    ts = t0[:, None] + torch.tensor([[0.0, 0.4, 1.0], [0.0, 0.9, 2.0]], dtype=torch.float64)
    y0 = torch.ones(2, 2, dtype=torch.float64)
    solution = ctdyn.integrate.solve(ctdyn.systems.Spiral(), y0, ts)
    check_path(solution, ts[:, 0] + 1e-3, ts[:, -1] - 1e-3)


def test_every_kind_of_part_is_exported():
    assert exported(ctdyn.paths, Path)
    assert exported(ctdyn.fields, VectorField)
    assert exported(ctdyn.systems, VectorField)
    assert exported(ctdyn.solvers, Solver)
    assert exported(ctdyn.integrate, Engine)
    assert exported(ctdyn.integrate, Adjoint)


class WrongSlope(LinearPath):
    def derivative(self, t):
        return 2 * super().derivative(t)


class OuterSlope(LinearPath):
    """The textbook mistake: at the right end of a step it looks into the next piece."""

    def restrict(self, t0, t1):
        return self


class Restless(HermitePath):
    """Its derivative on an empty interval is that of the piece to the right."""

    def restrict(self, t0, t1):
        return super().restrict(t0, torch.where(t0 == t1, t1 + 1e-3, t1))


class Mixing(LinearPath):
    def __init__(self, ts, xs):
        super().__init__(ts, xs - xs.mean(0))
        self.own = xs

    def tensors(self):
        return (self.ts, self.own)


class Detached(LinearPath):
    def evaluate(self, t):
        return super().evaluate(t).detach() + 0 * self.ts.sum()


class Forgetful(LinearPath):
    def replace(self, tensors):
        return self


class FirstSample(LinearPath):
    def evaluate(self, t):
        return super().evaluate(t[:1].expand_as(t) if t.dim() > 1 else t)


@pytest.mark.parametrize(
    ("cls", "match"),
    [
        (WrongSlope, "finite difference"),
        (OuterSlope, "inner slope|moves though it is empty"),
        (Restless, "empty"),
        (Mixing, "depend on the other series"),
        (Detached, "no gradient"),
        (Forgetful, "no gradient"),
        (FirstSample, "at once"),
    ],
)
def test_broken_paths_are_found(cls, match):
    with pytest.raises(AssertionError, match=match):
        check_path(cls(TS, XS), TS[:, 0] + 0.01, TS[:, -1] - 0.01)


class Broken(VectorField):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)


class Unused(Broken):
    def forward(self, t, y, u=None):
        return self.layer(y)


class Normalised(Broken):
    def forward(self, t, y, u=None):
        y = self.layer(y) + self.unused(y)
        return y - y.mean(tuple(range(y.dim() - 1)))


class OneClock(Broken):
    def forward(self, t, y, u=None):
        return torch.tanh(self.layer(y) + self.unused(y) * t.reshape(-1)[0])


class NoSamples(Broken):
    def forward(self, t, y, u=None):
        return (self.layer(y) + self.unused(y)).reshape(-1, 3)


class Single(Broken):
    def forward(self, t, y, u=None):
        return (self.layer(y) + self.unused(y)).float()


class Hidden(Broken):
    """Finite where it is asked for; the branch that is not taken has a gradient all the same."""

    def forward(self, t, y, u=None):
        y = self.layer(y) + self.unused(y)
        return torch.where(y > 0, y.sqrt(), y)


class Deaf(Broken):
    """It takes inputs and does not listen to them."""

    def forward(self, t, y, u=None):
        return self.layer(y) + self.unused(y)


@pytest.mark.parametrize(
    ("cls", "input_size", "match"),
    [
        (Unused, 0, "unused"),
        (Normalised, 0, "series mix"),
        (OneClock, 0, "series mix"),
        (NoSamples, 0, "shape"),
        (Single, 0, "float32"),
        (Hidden, 0, "is not finite"),
        (Deaf, 2, "the inputs"),
    ],
)
def test_broken_fields_are_found(cls, input_size, match):
    with pytest.raises(AssertionError, match=match):
        check_field(cls(), 3, input_size=input_size)


class Boastful(Midpoint):
    order = 3


class Timeless(Heun):
    """It evaluates both stages at the start of the step: the order falls to one where the field is timed."""

    def step(self, term, t0, t1, y0, state, *, dense=True, estimate=False):
        dt = (t1 - t0)[..., None]
        first = term.derivative(t0, y0)
        second = term.derivative(t0, y0 + dt * first)
        whole = super().step(term, t0, t1, y0, state, dense=dense, estimate=estimate)
        return whole._replace(y1=y0 + dt * (first + second) / 2)


class Averaging(Euler):
    """It lets the series of a batch share one step."""

    def step(self, term, t0, t1, y0, state, *, dense=True, estimate=False):
        whole = super().step(term, t0, t1, y0, state, dense=dense, estimate=estimate)
        return whole._replace(y1=whole.y1 + 1e-6 * (t1 - t0)[..., None] * whole.y1.mean(0))


class Drifting(Euler):
    def step(self, term, t0, t1, y0, state, *, dense=True, estimate=False):
        whole = super().step(term, t0, t1, y0, state, dense=dense, estimate=estimate)
        return whole._replace(y1=whole.y1 + 1e-9)


class Silent(Heun):
    """It promises an error estimate and gives none."""

    def step(self, term, t0, t1, y0, state, *, dense=True, estimate=False):
        return super().step(term, t0, t1, y0, state, dense=dense, estimate=estimate)._replace(error=None)


@pytest.mark.parametrize(
    ("cls", "match"),
    [
        (Boastful, "observed order"),
        (Timeless, "observed order"),
        (Averaging, "alone"),
        (Drifting, "length zero"),
        (Silent, "adaptive"),
    ],
)
def test_broken_solvers_are_found(cls, match):
    with pytest.raises(AssertionError, match=match):
        check_solver(cls())


class Lazy(Engine):
    """A correct engine, spoiled in one way by each of its children."""

    def run(self, term, y0, ts, t0):
        ys, stats = TorchDiffEq("dopri5", rtol=1e-7, atol=1e-9).run(term, y0, ts, t0)
        return self.spoil(ys, stats, ts)


class Wrong(Lazy):
    def spoil(self, ys, stats, ts):
        return ys + 1e-2, stats


class Cut(Lazy):
    def spoil(self, ys, stats, ts):
        return ys.detach(), stats


class HalfGradient(Lazy):
    def spoil(self, ys, stats, ts):
        return (ys + ys.detach()) / 2, stats


class Uncounted(Lazy):
    def spoil(self, ys, stats, ts):
        return ys, {}


class OneClockEngine(Lazy):
    def spoil(self, ys, stats, ts):
        return ys[:1].expand_as(ys) if bool((ts != ts[:1]).any()) else ys, stats


@pytest.mark.parametrize(
    ("cls", "match"),
    [
        (Wrong, "states are wrong"),
        (Cut, "no gradient"),
        (HalfGradient, "gradient of the initial state is wrong"),
        (Uncounted, "evaluations"),
        (OneClockEngine, "own clocks"),
    ],
)
def test_broken_engines_are_found(cls, match):
    with pytest.raises(AssertionError, match=match):
        check_engine(cls())


def test_an_engine_that_should_refuse_own_clocks_but_does_not_is_found():
    with pytest.raises(AssertionError, match="refuse"):
        check_engine(TorchDiffEq("dopri5", rtol=1e-7, atol=1e-9), own_clocks=False)


class Scaled(Adjoint):
    def run(self, replay, y0):
        ys, *rest = Direct().run(replay, y0)
        return (2 * ys - ys.detach(), *rest)


class Shifted(Adjoint):
    def run(self, replay, y0):
        ys, *rest = Direct().run(replay, y0)
        return (ys + 1e-3, *rest)


class Forgotten(Adjoint):
    """It forgets the gradient of everything but the initial state, as an adjoint does that was not told of inputs."""

    def run(self, replay, y0):
        _, *rest = Direct().run(replay, y0)
        with torch.no_grad():
            ys = Direct().run(replay, y0)[0]
        return (ys + 0 * y0.sum(), *rest)


@pytest.mark.parametrize(("cls", "match"), [(Scaled, "gradient"), (Shifted, "states"), (Forgotten, "gradient")])
def test_broken_adjoints_are_found(cls, match):
    with pytest.raises(AssertionError, match=match):
        check_adjoint(cls())
