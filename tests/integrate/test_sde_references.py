"""Against exact laws and exact discretisation errors, where a folder of them is given by CTDYN_REFERENCE."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from ctdyn.integrate import ConstantStep, solve
from ctdyn.paths import StoredBrownian
from ctdyn.solvers import SRA1, SRI1, EulerMaruyama, Heun, Milstein
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.systems import GeometricBrownianMotion, OrnsteinUhlenbeck
from ctdyn.terms import SDETerm


F64 = torch.float64
ROOT = Path(os.environ.get("CTDYN_REFERENCE", "/nonexistent")) / "sde"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="CTDYN_REFERENCE is not set")
SPAN = torch.tensor([0.0, 1.0], dtype=F64)


def load(name):
    return json.loads((ROOT / f"{name}.json").read_text())


def numbers(entries):
    return {name: float(value) for name, value in entries.items()}


class Stratonovich(SDEField):
    """Geometric Brownian motion in the other calculus."""

    noise, calculus = Noise.DIAGONAL, Calculus.STRATONOVICH

    def __init__(self, mu, sigma):
        super().__init__()
        self.rate, self.sigma = mu - sigma**2 / 2, sigma

    def drift(self, t, y, u=None):
        return self.rate * y

    def diffusion(self, t, y, u=None):
        return self.sigma * y


def paired(field, solver, count, paths, params, seed):
    """The ends of solves with so many steps, and of the exact solution, on the same paths."""
    grid = (torch.arange(count + 1, dtype=F64) / count)[:, None].expand(-1, paths)
    motion = StoredBrownian.draw(grid, 1, generator=torch.Generator().manual_seed(seed))
    y0 = torch.full((paths, 1), params["x0"], dtype=F64)
    ys = solve(SDETerm(field, motion), y0, SPAN, solver=solver, controller=ConstantStep(1 / count)).ys
    exact = GeometricBrownianMotion(params["mu"], params["sigma"])
    return ys[:, -1, 0], exact.exact(grid[-1:].mT, y0, motion.evaluate(grid[-1])[:, None])[:, -1, 0]


@pytest.mark.parametrize(
    ("solver", "strong", "weak"),
    [
        (EulerMaruyama(), "strong_rms_euler_maruyama", "weak_mean_error_euler_milstein"),
        (Milstein(), "strong_rms_milstein", "weak_mean_error_euler_milstein"),
        (Heun(), "strong_rms_heun_stratonovich", "weak_mean_error_heun"),
    ],
    ids=repr,
)
def test_strong_and_weak_errors_are_the_exact_ones(solver, strong, weak):
    table = load("gbm_exact_discretisation_errors")
    params = numbers(table["params"])
    kind = GeometricBrownianMotion if solver.calculus is Calculus.ITO else Stratonovich
    field = kind(params["mu"], params["sigma"])
    for row in table["table"][:8]:
        paths = 20_000 if row["n_steps"] < 128 else 5_000
        found, exact = paired(field, solver, row["n_steps"], paths, params, row["n_steps"])
        squares = (found - exact).square()
        z = float((squares.mean() - float(row[strong]) ** 2) / (squares.std() / paths**0.5))
        assert abs(z) < 4, (row["n_steps"], "strong", z)
        # Paired with the exact solution the mean error has a far smaller variance than the mean itself.
        z = float(((exact - found).mean().abs() - abs(float(row[weak]))) / ((exact - found).std() / paths**0.5))
        assert abs(z) < 4, (row["n_steps"], "weak", z)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [EulerMaruyama(), Milstein(), Heun()], ids=repr)
def test_weak_slopes(solver):
    table = load("gbm_exact_discretisation_errors")
    params = numbers(table["params"])
    kind = GeometricBrownianMotion if solver.calculus is Calculus.ITO else Stratonovich
    field, errors, counts = kind(params["mu"], params["sigma"]), [], (32, 64, 128)
    for count in counts:
        means = [
            (exact - found).mean()
            for found, exact in (paired(field, solver, count, 50_000, params, s) for s in range(8))
        ]
        errors.append(abs(float(sum(means) / len(means))))
    slope = math.log2(errors[0] / errors[-1]) / (len(counts) - 1)
    assert abs(slope - 1) < 0.15


def test_the_law_of_ornstein_uhlenbeck():
    table = load("ou_reference")
    params = numbers(table["params"])
    field = OrnsteinUhlenbeck(params["theta"], params["m"], params["sigma"])
    y0, paths = torch.tensor([params["x0"]], dtype=F64), 20_000
    for row in table["exact"]:
        mean, variance = field.law(torch.tensor([float(row["t"])], dtype=F64), y0)
        assert abs(float(mean) - float(row["mean"])) < 1e-12
        assert abs(float(variance) - float(row["var"])) < 1e-12
    for row in table["euler_maruyama_exact_law_T1"][:5]:
        ends = solve(
            field,
            y0.expand(paths, 1),
            SPAN,
            solver=EulerMaruyama(),
            controller=ConstantStep(1 / row["n_steps"]),
            generator=torch.Generator().manual_seed(row["n_steps"]),
        ).ys[:, -1, 0]
        mean, variance = float(row["mean_euler_T1"]), float(row["var_euler_T1"])
        assert abs(float(ends.mean()) - mean) < 4 * (variance / paths) ** 0.5
        assert abs(float(ends.var()) / variance - 1) < 4 * (2 / paths) ** 0.5
    times = torch.tensor([0.1, 1.0, 1.1, 2.0], dtype=F64)
    ys = solve(
        field,
        y0.expand(paths, 1),
        times,
        t0=0.0,
        solver=SRA1(),
        controller=ConstantStep(0.05),
        generator=torch.Generator().manual_seed(1),
    ).ys[..., 0]
    centred = ys - ys.mean(0)
    for row, now, later in ((table["exact"][1], 0, 2), (table["exact"][2], 1, 3)):
        assert abs(float(ys[:, now].mean()) - float(row["mean"])) < 4 * (float(row["var"]) / paths) ** 0.5 + 1e-3
        products = centred[:, now] * centred[:, later]
        z = (products.mean() - float(row["cov_with_t_plus_1"])) / (products.std() / paths**0.5)
        assert abs(float(z)) < 4


class SquareRoot(SDEField):
    """Cox, Ingersoll and Ross; what falls below 0 for a moment is pulled back, not rooted."""

    noise, calculus = Noise.DIAGONAL, Calculus.ITO

    def __init__(self, k, theta, sigma):
        super().__init__()
        self.k, self.theta, self.sigma = k, theta, sigma

    def drift(self, t, y, u=None):
        return self.k * (self.theta - y)

    def diffusion(self, t, y, u=None):
        return self.sigma * y.clamp(min=1e-12).sqrt()


@pytest.mark.parametrize("solver", [EulerMaruyama(), Milstein()], ids=repr)
def test_the_moments_of_a_square_root_process(solver):
    table = load("cir_and_kp_nonlinear")["cir"]
    params, paths = numbers(table["params"]), 20_000
    field = SquareRoot(params["k"], params["theta"], params["sigma"])
    times = torch.tensor([float(row["t"]) for row in table["moments"]], dtype=F64)
    ys = solve(
        field,
        torch.full((paths, 1), params["x0"], dtype=F64),
        times,
        t0=0.0,
        solver=solver,
        controller=ConstantStep(0.02),
        generator=torch.Generator().manual_seed(0),
    ).ys[..., 0]
    assert bool(torch.isfinite(ys).all())
    for column, row in enumerate(table["moments"]):
        mean, variance = float(row["mean"]), float(row["var"])
        assert abs(float(ys[:, column].mean()) - mean) < 4 * (variance / paths) ** 0.5 + 0.004
        assert abs(float(ys[:, column].var()) / variance - 1) < 4 * (2.5 / paths) ** 0.5 + 0.03


def test_a_nonlinear_equation_with_a_solution_path_by_path():
    table = load("cir_and_kp_nonlinear")["kloeden_platen_4_4_31"]
    params = numbers(table["params"])

    class Bounded(SDEField):
        noise, calculus = Noise.SCALAR, Calculus.ITO

        def drift(self, t, y, u=None):
            return -(params["a"] + params["b"] ** 2 * y) * (1 - y**2)

        def diffusion(self, t, y, u=None):
            return params["b"] * (1 - y**2)

    paths = 500
    grid = (torch.arange(513, dtype=F64) / 512)[:, None].expand(-1, paths)
    motion = StoredBrownian.draw(grid, 1, generator=torch.Generator().manual_seed(0))
    y0 = torch.full((paths, 1), params["x0"], dtype=F64)
    growth = (1 + y0) * torch.exp(-2 * params["a"] + 2 * params["b"] * motion.evaluate(grid[-1]))
    exact = (growth + y0 - 1) / (growth + 1 - y0)
    errors = []
    for count in (64, 128, 256):
        ys = solve(SDETerm(Bounded(), motion), y0, SPAN, solver=SRI1(), controller=ConstantStep(1 / count)).ys
        errors.append(float((ys[:, -1] - exact).square().mean().sqrt()))
    assert abs(math.log2(errors[0] / errors[2]) / 2 - 1.5) < 0.1
    assert errors[2] < 1e-3


def test_several_noises_that_commute():
    table = load("cir_and_kp_nonlinear")["diagonal_commutative_example"]["params"]
    mu = torch.tensor([float(v) for v in table["mu"]], dtype=F64)
    s = torch.tensor([[float(v) for v in row] for row in table["s"]], dtype=F64)
    x0 = torch.tensor([float(v) for v in table["x0"]], dtype=F64)

    class Pair(SDEField):
        noise, calculus = Noise.GENERAL, Calculus.STRATONOVICH

        def drift(self, t, y, u=None):
            return (mu - 0.5 * s.square().sum(-1)) * y

        def diffusion(self, t, y, u=None):
            return s * y.unsqueeze(-1)

    paths = 1000
    grid = (torch.arange(129, dtype=F64) / 128)[:, None].expand(-1, paths)
    motion = StoredBrownian.draw(grid, 2, generator=torch.Generator().manual_seed(0))
    exact = x0 * torch.exp(mu - 0.5 * s.square().sum(-1) + motion.evaluate(grid[-1]) @ s.mT)
    errors = []
    for count in (16, 32, 64, 128):
        ys = solve(
            SDETerm(Pair(), motion), x0.expand(paths, 2), SPAN, solver=Heun(), controller=ConstantStep(1 / count)
        ).ys
        errors.append(float((ys[:, -1] - exact).square().mean().sqrt()))
    assert abs(math.log2(errors[0] / errors[-1]) / 3 - 1) < 0.1


def test_the_divergence_of_two_processes_as_an_integral_along_the_path():
    table = load("ou_reference")["path_kl"]
    q, p = numbers(table["q"]), numbers(table["p"])
    sigma, paths = float(table["sigma"]), 4000
    posterior, prior = (OrnsteinUhlenbeck(side["theta"], side["m"], sigma) for side in (q, p))

    def rate(t, y):
        return 0.5 * ((posterior.drift(t, y) - prior.drift(t, y)) / sigma).square().sum(-1)

    found = solve(
        posterior,
        torch.full((paths, 1), float(table["x0"]), dtype=F64),
        torch.tensor([0.0, float(table["T"])], dtype=F64),
        solver=SRA1(),
        controller=ConstantStep(0.02),
        aux=rate,
        generator=torch.Generator().manual_seed(0),
    ).aux[:, -1, 0]
    assert abs(float(found.mean()) - float(table["kl"])) < 4 * float(found.std()) / paths**0.5 + 1e-3
