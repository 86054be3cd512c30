"""What the coefficients of the implicit methods promise, checked without solving anything."""

import math

import pytest
import torch

from ctdyn.solvers import ImplicitEuler, Kvaerno3, Kvaerno5, Rodas5P


F64, C128 = torch.float64, torch.complex128
DIAGONAL = [ImplicitEuler(), Kvaerno3(), Kvaerno5()]
ALL = [*DIAGONAL, Rodas5P()]


def by_name(solver):
    return type(solver).__name__


def matrices(solver):
    tableau = solver.tableau
    A = torch.zeros(len(tableau.c) + 1, len(tableau.c) + 1, dtype=F64)
    for row, weights in enumerate(tableau.a, 1):
        A[row, : len(weights)] = torch.tensor(weights, dtype=F64)
        A[row, row] = tableau.gamma
    return A, torch.tensor([0.0, *tableau.c], dtype=F64)


def residuals(weights, A, c, theta=1.0):
    """What is left of the order conditions, by order: Butcher's trees to order 5, at a point inside the step."""
    ones = torch.ones_like(c)
    trees = {
        1: [(ones, 1)],
        2: [(c, 2)],
        3: [(c**2, 3), (A @ c, 6)],
        4: [(c**3, 4), (c * (A @ c), 8), (A @ c**2, 12), (A @ A @ c, 24)],
        5: [
            (c**4, 5),
            (c**2 * (A @ c), 10),
            ((A @ c) ** 2, 20),
            (c * (A @ c**2), 15),
            (c * (A @ A @ c), 30),
            (A @ c**3, 20),
            (A @ (c * (A @ c)), 40),
            (A @ A @ c**2, 60),
            (A @ A @ A @ c, 120),
        ],
    }
    return {order: max(abs(float(weights @ v) - theta**order / d) for v, d in list_) for order, list_ in trees.items()}


@pytest.mark.parametrize("solver", DIAGONAL, ids=by_name)
def test_the_order_conditions_hold_to_the_order_and_no_further(solver):
    A, c = matrices(solver)
    assert float((A.sum(1) - c).abs().max()) < 1e-14
    left = residuals(torch.tensor(solver.tableau.b, dtype=F64), A, c)
    assert all(left[order] < 1e-14 for order in range(1, solver.order + 1))
    assert solver.order == 5 or left[solver.order + 1] > 1e-3
    error = torch.tensor(solver.tableau.error, dtype=F64)
    caution = 6.0 if solver.order == 5 else 1.0
    embedded = residuals(torch.tensor(solver.tableau.b, dtype=F64) - error / caution, A, c)
    last = 2 if solver.order == 1 else solver.order - 1
    assert all(embedded[order] < 1e-14 for order in range(1, last + 1))
    assert embedded[last + 1] > 1e-3


@pytest.mark.parametrize("solver", [Kvaerno3(), Kvaerno5()], ids=by_name)
def test_every_stage_is_of_order_two(solver):
    A, c = matrices(solver)
    torch.testing.assert_close(A @ c, c**2 / 2, rtol=0, atol=1e-15)


@pytest.mark.parametrize("solver", DIAGONAL, ids=by_name)
@pytest.mark.parametrize("theta", [0.2, 0.55, 0.9, 1.0])
def test_the_dense_output_has_its_order_and_joins_smoothly(solver, theta):
    A, c = matrices(solver)
    P = torch.tensor(solver.tableau.polynomial, dtype=F64)
    powers = torch.arange(1, P.shape[1] + 1, dtype=F64)
    left = residuals(P @ theta**powers, A, c, theta)
    assert all(left[order] < 1e-14 for order in range(1, min(solver.order, 4) + 1))
    slopes = P @ powers, P[:, 0]
    for slope, stage in zip(slopes, (-1, 0), strict=True):
        expected = torch.zeros(len(c), dtype=F64)
        expected[stage] = 1.0
        torch.testing.assert_close(slope, expected, rtol=0, atol=1e-14)


def grown(solver, z):
    """The factor of one step with y' = z y."""
    tableau = solver.tableau
    if isinstance(solver, Rodas5P):
        stages = []
        pairs = zip(((), *tableau.a), ((), *tableau.e), strict=True)
        for a, e in pairs:
            inner = 1 + sum(w * u for w, u in zip(a, stages, strict=True))
            right = tableau.gamma * (z * inner + sum(w * u for w, u in zip(e, stages, strict=True)))
            stages.append(right / (1 - tableau.gamma * z))
        return 1 + sum(w * u for w, u in zip(tableau.m, stages, strict=True))
    A, _ = matrices(solver)
    ones = torch.ones(len(A), dtype=C128)
    stages = torch.linalg.solve(torch.eye(len(A), dtype=C128) - z * A, ones)
    return complex(stages[-1])


@pytest.mark.parametrize("solver", ALL, ids=by_name)
def test_the_method_is_stable_on_the_left_and_damps_what_is_fast(solver):
    for y in torch.logspace(-2, 6, 60, dtype=F64).tolist():
        assert abs(grown(solver, complex(0.0, y))) <= 1 + 1e-9
        assert abs(grown(solver, complex(-y, y))) <= 1 + 1e-9
    assert abs(grown(solver, complex(-1e8))) < 1e-5
    z = 0.02
    series = sum(z**k / math.factorial(k) for k in range(solver.order + 1))
    assert abs(grown(solver, complex(z)) - series) < 2 * z ** (solver.order + 1)


def test_rodas5p_sums_its_rows_to_its_nodes():
    # Written with A = alpha Gamma^-1 and Gamma = (1/gamma - C)^-1, the rows of alpha sum to c, those of Gamma to d.
    tableau = Rodas5P().tableau
    size = len(tableau.c)
    a, e = torch.zeros(size, size, dtype=F64), torch.zeros(size, size, dtype=F64)
    for row, (first, second) in enumerate(zip(tableau.a, tableau.e, strict=True), 1):
        a[row, : len(first)], e[row, : len(second)] = torch.tensor(first, dtype=F64), torch.tensor(second, dtype=F64)
    gamma = torch.linalg.inv(torch.eye(size, dtype=F64) / tableau.gamma - e)
    torch.testing.assert_close((a @ gamma).sum(1), torch.tensor(tableau.c, dtype=F64), rtol=0, atol=1e-13)
    torch.testing.assert_close(gamma.sum(1), torch.tensor(tableau.d, dtype=F64), rtol=0, atol=1e-13)
    weights = torch.tensor(tableau.m, dtype=F64) @ gamma
    alpha, beta = a @ gamma, a @ gamma + gamma
    c = alpha.sum(1)
    conditions = {
        1: [(torch.ones_like(c), 1)],
        2: [(beta.sum(1), 2)],
        3: [(c**2, 3), (beta @ beta.sum(1), 6)],
        4: [(c**3, 4), (c * (alpha @ beta.sum(1)), 8), (beta @ c**2, 12), (beta @ beta @ beta.sum(1), 24)],
    }
    for order, trees in conditions.items():
        for vector, density in trees:
            assert abs(float(weights @ vector) - 1 / density) < 1e-13, order
    assert abs(float(weights @ c**4) - 1 / 5) < 1e-13


def test_rodas5p_reads_its_ends():
    tableau = Rodas5P().tableau
    dense = torch.tensor(tableau.dense, dtype=F64)
    torch.testing.assert_close(dense.sum(1), torch.tensor(tableau.m, dtype=F64), rtol=0, atol=1e-13)
