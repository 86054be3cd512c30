"""Implicit methods where the tolerance lets errors grow: answered with tighter tolerances, refused, or announced."""

import warnings

import pytest
import torch

from ctdyn._checks import StepSizeError
from ctdyn.integrate import Event, PIDController, solve
from ctdyn.solvers import Kvaerno3, Kvaerno5, Rodas5P
from ctdyn.solvers._jacobian import Systems


F64 = torch.float64


def robertson(t, y):
    a, b, c = y.unbind(-1)
    first, second = -0.04 * a + 1e4 * b * c, 3e7 * b * b
    return torch.stack([first, -first - second, second], -1)


def logistic(t, y):
    return y * (1.0 - y)


@pytest.mark.parametrize("eigenvalues", [(-5.0, -1.0, 0.5), (-5.0, -1.0, 2.0), (3.0, -1e6, 0.0), (3.0, 4.0, -1.0)])
def test_what_grows_beyond_the_pole_shows_in_the_factors(eigenvalues):
    basis = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    matrix = basis @ torch.diag(torch.tensor(eigenvalues, dtype=F64)) @ torch.linalg.inv(basis)
    odd = sum(value > 1.0 for value in eigenvalues) % 2 == 1
    assert bool(Systems(matrix[None], torch.ones(1, 1, dtype=F64)).outgrown()) == odd


@pytest.mark.parametrize(("solver", "tolerance"), [(Kvaerno3(), 1e-3), (Kvaerno5(), 1e-2)], ids=repr)
def test_a_trace_that_turns_negative_does_not_carry_the_solution_away(solver, tolerance):
    y0, ts = torch.tensor([1.0, 0.0, 0.0], dtype=F64), torch.tensor([0.0, 40.0, 1e11], dtype=F64)
    truth = torch.tensor([[0.7158270688, 9.185534765e-6, 0.2841637457], [2.0833e-8, 8.3333e-14, 0.9999999792]])
    control = PIDController(tolerance, tolerance)
    with pytest.warns(UserWarning, match="of both instead"):
        ys = solve(robertson, y0, ts, solver=solver, controller=control).ys
    assert float((ys[1:] - truth).abs().max()) < tolerance


@pytest.mark.parametrize("learns", [False, True])
def test_a_series_that_is_solved_again_leaves_the_others_as_they_were(learns):
    y0 = torch.tensor([[1e-5], [0.3], [2.0]], dtype=F64, requires_grad=learns)
    ts = torch.tensor([0.0, 3.0, 60.0], dtype=F64)
    control = PIDController(1e-3, 1e-3)
    with pytest.warns(UserWarning, match="series 0 away"):
        together = solve(logistic, y0, ts, solver=Rodas5P(), controller=control)
    exact = 1.0 / (1.0 + (1.0 / y0.detach() - 1.0) * torch.exp(-ts))
    assert float((together.ys.detach()[..., 0] - exact).abs().max()) < 1e-2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = solve(logistic, y0[1:], ts, solver=Rodas5P(), controller=control)
    assert float((together.ys[1:] - alone.ys).detach().abs().max()) < 1e-14
    assert torch.equal(together.stats["steps"][1:], alone.stats["steps"])


def test_a_blow_up_of_the_equation_itself_is_refused_whatever_the_tolerance():
    y0, ts = torch.tensor([[1.0], [-0.1]], dtype=F64), torch.tensor([0.0, 100.0], dtype=F64)
    with pytest.raises(StepSizeError, match="series 0 stopped at t=1"):
        solve(lambda t, y: y * y, y0, ts, solver=Rodas5P())
    solution = solve(lambda t, y: y * y, y0, ts, solver=Rodas5P(), throw=False)
    assert solution.status.tolist() == [2, 0]
    assert abs(float(solution.ys[1, -1, 0]) + 1.0 / 110.0) < 1e-4


def test_a_solution_that_rests_where_it_cannot_stay_is_announced():
    y0, ts = torch.tensor([[0.0], [0.5]], dtype=F64), torch.tensor([0.0, 100.0], dtype=F64)
    with pytest.warns(UserWarning, match="near the solution of series 0"):
        ys = solve(logistic, y0, ts, solver=Rodas5P()).ys
    assert float(ys[0].abs().max()) == 0.0


def test_an_event_is_found_in_a_solve_that_is_repeated():
    y0, ts = torch.tensor([1e-7], dtype=F64), torch.tensor([0.0, 60.0], dtype=F64)
    event = Event(lambda t, y: y[..., 0] - 0.5)
    with pytest.warns(UserWarning, match="of both instead"):
        found = solve(logistic, y0, ts, solver=Rodas5P(), controller=PIDController(1e-4, 1e-4), event=event)
    assert abs(float(found.events.times[0]) - float(torch.log(torch.tensor(1e7, dtype=F64)))) < 5e-2
