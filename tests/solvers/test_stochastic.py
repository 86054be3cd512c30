import math

import pytest
import torch

from ctdyn.integrate import ConstantStep, solve
from ctdyn.paths import StoredBrownian
from ctdyn.solvers import (
    RK4,
    SRA1,
    SRI1,
    EulerHeun,
    EulerMaruyama,
    Heun,
    Midpoint,
    Milstein,
    ReversibleHeun,
    StratonovichMilstein,
)
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.terms import SDETerm
from ctdyn.testing import check_sde_solver, check_solver


F64 = torch.float64
METHODS = [
    EulerMaruyama(),
    Milstein(),
    Milstein(gradient_free=True),
    StratonovichMilstein(),
    EulerHeun(),
    Heun(),
    Midpoint(),
    ReversibleHeun(),
    SRI1(),
    SRA1(),
]


@pytest.mark.parametrize("solver", METHODS, ids=repr)
def test_every_method_keeps_the_contract(solver):
    check_sde_solver(solver, paths=300)


def test_the_reversible_method_also_solves_ordinary_equations():
    check_solver(ReversibleHeun())


class Rippled(SDEField):
    """Additive noise of three motions on two entries, one strength depending on time."""

    noise, calculus = Noise.ADDITIVE, Calculus.ITO

    def drift(self, t, y, u=None):
        return torch.sin(2 * y) + 0.5 * y.flip(-1)

    def diffusion(self, t, y, u=None):
        matrix = torch.tensor([[0.6, 0.3, 0.0], [0.0, -0.4, 0.5]], dtype=y.dtype)
        return (1 + 0.5 * torch.sin(3 * t))[..., None, None] * matrix.expand(*y.shape, 3)


class Turning(SDEField):
    """Noise that does not commute: the order of its motions matters."""

    noise = Noise.GENERAL

    def __init__(self, calculus):
        super().__init__()
        self.calculus = calculus

    def drift(self, t, y, u=None):
        return -0.5 * y

    def diffusion(self, t, y, u=None):
        x1, x2 = y.unbind(-1)
        return torch.stack([torch.stack([0.5 + 0 * x1, torch.cos(x2)], -1), torch.stack([torch.sin(x1), -x2], -1)], -2)


def observed(solver, field, counts, finer, size, paths=500):
    """The errors against the same path solved with steps so many times finer, and their slope."""
    grid = torch.linspace(0, 1, counts[-1] * finer + 1, dtype=F64)[:, None].expand(-1, paths)
    motion = StoredBrownian.draw(grid, size, generator=torch.Generator().manual_seed(1))
    term, y0 = SDETerm(field, motion), torch.tensor([0.5, -0.2], dtype=F64).expand(paths, 2)

    def end(count):
        return solve(term, y0, grid[[0, -1], 0], solver=solver, controller=ConstantStep(1 / count)).ys[:, -1]

    truth = end(counts[-1] * finer)
    errors = torch.stack([(end(count) - truth).square().mean().sqrt() for count in counts])
    x = torch.tensor(counts, dtype=F64).log2()
    x = x - x.mean()
    return -float((x * errors.log2()).sum() / x.square().sum())


@pytest.mark.parametrize(
    ("solver", "order"),
    [(EulerMaruyama(), 1.0), (SRA1(), 1.5), (Heun(), 1.0), (ReversibleHeun(), 1.0)],
    ids=repr,
)
def test_orders_for_additive_noise_of_a_nonlinear_equation(solver, order):
    assert abs(observed(solver, Rippled(), (32, 64, 128), 4 if order > 1 else 8, 3) - order) < 0.1


@pytest.mark.parametrize(
    "solver",
    [
        EulerMaruyama(),
        Heun(),
        ReversibleHeun(),
        pytest.param(EulerHeun(), marks=pytest.mark.slow),
        pytest.param(Midpoint(), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_orders_for_noise_that_does_not_commute(solver):
    field = Turning(Calculus.ITO if isinstance(solver, EulerMaruyama) else Calculus.STRATONOVICH)
    assert abs(observed(solver, field, (16, 32, 64), 16, 2) - 0.5) < 0.1


def test_the_calculi_differ_by_the_drift_they_should():
    # With the correction, worked out by hand, the Ito equation is the Stratonovich one.
    class Converted(Turning):
        def drift(self, t, y, u=None):
            x1, x2 = y.unbind(-1)
            return super().drift(t, y) + 0.5 * torch.stack([x2 * torch.sin(x2), 0.5 * torch.cos(x1) + x2], -1)

    paths = 100
    grid = torch.linspace(0, 1, 513, dtype=F64)[:, None].expand(-1, paths)
    motion = StoredBrownian.draw(grid, 2, generator=torch.Generator().manual_seed(1))
    y0, ts, steps = torch.tensor([0.5, -0.2], dtype=F64).expand(paths, 2), grid[[0, -1], 0], ConstantStep(1 / 512)
    ito = solve(SDETerm(Converted(Calculus.ITO), motion), y0, ts, solver=EulerMaruyama(), controller=steps).ys
    stratonovich = solve(SDETerm(Turning(Calculus.STRATONOVICH), motion), y0, ts, solver=Heun(), controller=steps).ys
    plain = solve(SDETerm(Turning(Calculus.ITO), motion), y0, ts, solver=EulerMaruyama(), controller=steps).ys
    assert float((ito - stratonovich)[:, -1].square().mean().sqrt()) < 0.04
    assert float((plain - stratonovich)[:, -1].square().mean().sqrt()) > 0.1


def test_a_smooth_equation_is_refused_by_a_stochastic_method():
    with pytest.raises(TypeError, match=r"EulerMaruyama steps stochastic equations.*Heun\(\)"):
        solve(
            lambda t, y: -y,
            torch.ones(1),
            torch.tensor([0.0, 1.0]),
            solver=EulerMaruyama(),
            controller=ConstantStep(0.1),
        )


def test_chords_are_shown_as_the_method_that_was_asked_for():
    grid = torch.linspace(0, 1, 5, dtype=F64)[:, None]
    term = SDETerm(Rippled(), StoredBrownian.draw(grid, 3, generator=torch.Generator().manual_seed(0)))
    plan = solve(
        term, torch.ones(1, 2, dtype=F64), torch.tensor([1.0]), t0=0.0, solver=RK4(), controller=ConstantStep(0.25)
    ).plan
    assert plan.startswith("RK4() with ConstantStep(dt=0.25)")
    assert math.isfinite(float(SRA1().strong_order(Noise.ADDITIVE)))
