"""Dopri8: the conditions up to order 8 of the pair, up to 7 of its interpolant, and what its extra stages cost."""

import itertools
import math
from functools import cache

import pytest
import torch

from ctdyn.integrate import PIDController, StepTo, solve
from ctdyn.paths import LinearPath
from ctdyn.solvers import Dopri8, Tsit5
from ctdyn.structure import VectorField
from ctdyn.testing import check_solver


F64 = torch.float64
TABLEAU = Dopri8().tableau


@cache
def trees(order):
    """The rooted trees of an order, each the sorted tuple of the trees on its root."""

    def partitions(total, largest):
        if total == 0:
            yield ()
        for part in range(min(total, largest), 0, -1):
            for rest in partitions(total - part, part):
                yield (part, *rest)

    found = set()
    for parts in partitions(order - 1, order - 1):
        found |= {tuple(sorted(branches)) for branches in itertools.product(*map(trees, parts))}
    return sorted(found)


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    return size(tree) * math.prod(map(density, tree))


def all_stages():
    """Every stage, those of the dense output too: weights `(stage, stage)` and nodes `(stage,)`."""
    rows = [(), *TABLEAU.a, TABLEAU.b, *(row for _, row in TABLEAU.extra)]
    A = torch.zeros(len(rows), len(rows), dtype=F64)
    for number, row in enumerate(rows):
        A[number, : len(row)] = torch.tensor(row, dtype=F64)
    return A, torch.tensor([*TABLEAU.c, 1.0, *(node for node, _ in TABLEAU.extra)], dtype=F64)


def residual(weights, order, theta=1.0):
    """The largest of what is left of the conditions of one order, at a point inside the step."""
    A, _ = all_stages()
    weights = torch.nn.functional.pad(weights, (0, len(A) - len(weights)))

    @cache
    def elementary(tree):
        return math.prod((A @ elementary(branch) for branch in tree), start=torch.ones(len(A), dtype=F64))

    return max(abs(float(weights @ elementary(t)) - theta**order / density(t)) for t in trees(order))


def inside(theta):
    P = torch.tensor(TABLEAU.polynomial, dtype=F64)
    return P @ torch.tensor([theta**k for k in range(1, P.shape[1] + 1)], dtype=F64)


def test_the_number_of_trees_is_the_known_one():
    assert [len(trees(order)) for order in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]


def test_the_pair_meets_all_conditions_of_its_orders_and_no_more():
    A, c = all_stages()
    torch.testing.assert_close(A.sum(1), c, rtol=0, atol=1e-14)
    b = torch.tensor(TABLEAU.b, dtype=F64)
    assert max(residual(b, order) for order in range(1, 9)) < 1e-14
    assert residual(b, 9) > 1e-7
    embedded = b - torch.tensor(TABLEAU.error[:-1], dtype=F64)
    assert max(residual(embedded, order) for order in range(1, 8)) < 1e-14
    assert residual(embedded, 8) > 1e-6


@pytest.mark.parametrize("theta", [0.1, 0.35, 0.5, 0.77, 1.0])
def test_the_interpolant_meets_all_conditions_of_order_7_inside_the_step(theta):
    weights = inside(theta)
    assert max(residual(weights, order, theta) for order in range(1, 8)) < 1e-13
    assert residual(weights, 8, theta) < (1e-13 if theta == 1.0 else 1e-4)


def test_the_interpolant_has_the_states_and_the_velocities_of_both_ends():
    P = torch.tensor(TABLEAU.polynomial, dtype=F64)
    stages = torch.eye(len(P), dtype=F64)
    b = torch.nn.functional.pad(torch.tensor(TABLEAU.b, dtype=F64), (0, len(P) - len(TABLEAU.b)))
    torch.testing.assert_close(P.sum(1), b, rtol=0, atol=1e-12)
    torch.testing.assert_close(P[:, 0], stages[0], rtol=0, atol=0)
    powers = torch.arange(1, P.shape[1] + 1, dtype=F64)
    torch.testing.assert_close(P @ powers, stages[len(TABLEAU.b)], rtol=0, atol=1e-11)


def test_the_contract():
    check_solver(Dopri8())


def forced(t, y, u=None):
    return -(y - torch.sin(3 * t)[..., None]) + 3 * torch.cos(3 * t)[..., None]


def wave(t, y, u=None):
    return y * torch.cos(t)[..., None]


def riccati(t, y, u=None):
    return 1.0 + y * y


CLOSED = {
    "forced": (forced, [0.0], lambda t: torch.sin(3 * t)[..., None], 4.0, (16, 24, 32)),
    "wave": (wave, [1.0], lambda t: torch.exp(torch.sin(t))[..., None], 9.0, (24, 32, 48)),
    "riccati": (riccati, [0.0], lambda t: torch.tan(t)[..., None], 1.4, (24, 32, 48)),
}


def observed(problem, inner):
    field, start, exact, end, counts = CLOSED[problem]
    y0, ts = torch.tensor(start, dtype=F64), torch.tensor([0.0, end], dtype=F64)
    errors = []
    for count in counts:
        solution = solve(field, y0, ts, solver=Dopri8(), controller=StepTo(count))
        places = (
            (torch.arange(count)[:, None] + torch.tensor([0.3, 0.61, 0.87] if inner else [1.0])).to(F64).reshape(-1)
        )
        read = places * end / count
        ys = solution(read) if inner else solution.ys[-1:]
        errors.append(float((ys - exact(read if inner else ts[-1:])).abs().max()))
    logs, sizes = torch.tensor(errors, dtype=F64).log(), -torch.tensor(counts, dtype=F64).log()
    logs, sizes = logs - logs.mean(), sizes - sizes.mean()
    return float((logs @ sizes) / (sizes @ sizes)), errors


@pytest.mark.parametrize("problem", CLOSED)
def test_the_observed_order_is_8(problem):
    order, errors = observed(problem, inner=False)
    assert abs(order - 8) <= 0.3, errors


@pytest.mark.parametrize("problem", CLOSED)
def test_the_observed_order_of_the_dense_output_is_at_least_7(problem):
    order, errors = observed(problem, inner=True)
    assert order > 6.7, errors


def van_der_pol(t, y, u=None):
    return torch.stack([y[..., 1], (1 - y[..., 0] ** 2) * y[..., 1] - y[..., 0]], -1)


@pytest.mark.parametrize("tolerance", [1e-6, 1e-9, 1e-12])
def test_an_output_between_steps_is_as_good_as_a_step_that_lands_on_it(tolerance):
    y0, ts = torch.tensor([2.0, 0.0], dtype=F64), torch.linspace(0, 20, 14, dtype=F64)
    truth = solve(van_der_pol, y0, ts, solver=Dopri8(), controller=StepTo(40)).ys
    control = PIDController(tolerance, tolerance)
    read = solve(van_der_pol, y0, ts, solver=Dopri8(), controller=control).ys
    # A step never straddles a knot: with a knot at every output all of them are ends of steps.
    knots = LinearPath(ts, torch.zeros(14, 1, dtype=F64))
    landed = solve(van_der_pol, y0, ts, solver=Dopri8(), controller=control, inputs=knots).ys
    assert (read - truth).abs().max() < 3 * (landed - truth).abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_extra_stages_are_evaluated_only_in_steps_that_hold_an_output(dtype):
    calls, rows = [], []

    class Decay(VectorField):
        def forward(self, t, y, u=None):
            calls.append(y.shape)
            rows.append(y[..., 0].numel())
            return -y

    field = Decay()
    y0, control = torch.ones(1, dtype=dtype), PIDController(1e-6, 1e-6)
    few = torch.tensor([0.0, 20.0])
    bare = solve(field, y0, few, solver=Dopri8(), controller=control)
    without = sum(rows)
    calls.clear(), rows.clear()
    many = torch.cat([torch.linspace(9.0, 9.01, 50), torch.tensor([20.0])])
    full = solve(field, y0, many, t0=0.0, solver=Dopri8(), controller=control)
    assert int(full.stats["steps"]) == int(bare.stats["steps"]) > 6
    # Fifty outputs in one step or two cost no more than one of them, and all steps are evaluated together.
    held = (sum(rows) - without) // 7
    assert held <= 2
    assert sum(len(shape) == 2 for shape in calls) == 7
    assert int(full.stats["evaluations"]) == sum(rows)
    torch.testing.assert_close(full.ys[:-1, 0], torch.exp(-many[:-1]).to(dtype), rtol=0, atol=2e-6)


def test_gradients_pass_through_the_extra_stages():
    rate = torch.tensor(0.7, dtype=F64, requires_grad=True)
    y0, ts = torch.ones(1, dtype=F64, requires_grad=True), torch.tensor([0.0, 0.9, 1.7, 4.0], dtype=F64)
    ts.requires_grad_()
    ys = solve(lambda t, y: -rate * y, y0, ts, solver=Dopri8(), controller=PIDController(1e-9, 1e-9)).ys
    found = torch.autograd.grad(ys.sum(), [rate, y0, ts])
    exact = torch.autograd.grad((y0 * torch.exp(-rate * (ts - ts[0]))).sum(), [rate, y0, ts])
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_a_plain_function_never_sees_another_axis():
    rates = torch.tensor([1.0, 2.0], dtype=torch.float64)
    ts = torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64)

    def field(t, y):
        return -rates[:, None] * t[:, None] * y

    for solver in (Dopri8(), Tsit5()):
        ys = solve(
            field, torch.ones(2, 2, dtype=torch.float64), ts, solver=solver, controller=PIDController(1e-9, 1e-9)
        ).ys
        exact = torch.exp(-rates[:, None] * ts**2 / 2)
        torch.testing.assert_close(ys, exact[..., None].expand(2, 3, 2), rtol=0, atol=1e-7)
