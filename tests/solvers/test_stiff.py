"""Implicit methods on stiff equations."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from ctdyn._checks import SolveError
from ctdyn.integrate import ConstantStep, PIDController, StepTo, evolve, solve
from ctdyn.paths import LinearPath
from ctdyn.solvers import Dopri5, ImplicitEuler, Kvaerno3, Kvaerno5, Rodas5P, Tsit5
from ctdyn.terms import ODETerm
from ctdyn.testing import check_solver


F64 = torch.float64
ALL = [ImplicitEuler(), Kvaerno3(), Kvaerno5(), Rodas5P()]
FIFTH = [Kvaerno5(), Rodas5P()]


def by_name(solver):
    return type(solver).__name__


def van_der_pol(mu):
    def field(t, y):
        x, v = y.unbind(-1)
        return torch.stack([v, mu * (1 - x**2) * v - x], -1)

    return field


@pytest.mark.parametrize("solver", [pytest.param(ALL[0], marks=pytest.mark.slow), *ALL[1:]], ids=by_name)
def test_the_contract_holds(solver):
    check_solver(solver)


@pytest.mark.parametrize(
    ("solver", "mu", "tolerance"), [(Kvaerno5(), 30.0, 1e-5), (Rodas5P(), 1e3, 1e-5), (Rodas5P(), 1e6, 1e-4)], ids=repr
)
def test_van_der_pol_agrees_with_radau(solver, mu, tolerance):
    # In the slow time t / mu, in which one period takes about 1.6; it starts on the slow manifold.
    ts = torch.tensor([0.5, 0.75, 1.0, 1.8], dtype=F64)
    y0 = [2.0, -0.66]

    def velocity(t, y):
        return [y[1], mu**2 * ((1 - y[0] ** 2) * y[1] - y[0])]

    def field(t, y):
        x, v = y.unbind(-1)
        return torch.stack([v, mu**2 * ((1 - x**2) * v - x)], -1)

    exact = solve_ivp(velocity, (0, 1.8), y0, method="Radau", t_eval=ts.numpy(), rtol=1e-9, atol=1e-9).y.T
    control = PIDController(tolerance, tolerance)
    solution = solve(field, torch.tensor(y0, dtype=F64), ts, t0=0.0, solver=solver, controller=control)
    np.testing.assert_allclose(solution.ys.numpy(), exact, rtol=30 * tolerance, atol=30 * tolerance)
    assert int(solution.stats["steps"]) < 700


@pytest.mark.parametrize("solver", [Kvaerno3(), *FIFTH], ids=by_name)
@pytest.mark.parametrize("rate", [1e3, 1e6])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_outputs_between_long_steps_are_as_accurate_as_their_ends(solver, rate, tolerance):
    # Once the fast part is gone the ends of steps are right however long they are: nothing but the inside can tell.
    ts = torch.linspace(0, 10, 201, dtype=F64)
    control = PIDController(tolerance, tolerance)
    solution = solve(chase(rate), torch.zeros(1, dtype=F64), ts, solver=solver, controller=control)
    assert float((solution.ys[:, 0] - torch.sin(ts)).abs().max()) < 10 * tolerance
    assert int(solution.stats["steps"]) < 150


@pytest.mark.parametrize("solver", FIFTH, ids=by_name)
def test_a_series_is_solved_as_if_alone_whatever_the_stiffness_of_its_company(solver):
    mu = torch.tensor([0.5, 5.0, 50.0, 500.0], dtype=F64)
    y0 = torch.tensor([2.0, 0.0], dtype=F64).expand(4, -1)
    ts = torch.linspace(0, 1, 4, dtype=F64) * torch.tensor([3.0, 5.0, 7.0, 20.0], dtype=F64)[:, None]
    controller = PIDController(1e-5, 1e-7)
    together = solve(van_der_pol(mu), y0, ts, solver=solver, controller=controller)
    for k in range(4):
        alone = solve(van_der_pol(mu[k : k + 1]), y0[:1], ts[k : k + 1], solver=solver, controller=controller)
        torch.testing.assert_close(together.ys[k], alone.ys[0], rtol=1e-12, atol=1e-12)
        assert together.stats["steps"][k] == alone.stats["steps"][0]


@pytest.mark.parametrize("solver", FIFTH, ids=by_name)
def test_tolerances_may_differ_between_series(solver):
    y0 = torch.tensor([2.0, 0.0], dtype=F64).expand(2, -1)
    ts = torch.tensor([0.0, 3.0], dtype=F64)
    rtol = torch.tensor([1e-3, 1e-7], dtype=F64)
    both = solve(van_der_pol(20.0), y0, ts, solver=solver, controller=PIDController(rtol, 1e-2 * rtol)).ys
    for k in range(2):
        control = PIDController(float(rtol[k]), 1e-2 * float(rtol[k]))
        alone = solve(van_der_pol(20.0), y0[k], ts, solver=solver, controller=control).ys
        torch.testing.assert_close(both[k], alone, rtol=1e-12, atol=1e-12)


def chase(rate):
    """Prothero and Robinson's equation: the sine is a solution, and all others run into it at this rate."""
    return lambda t, y: -rate * (y - torch.sin(t)[..., None]) + torch.cos(t)[..., None]


@pytest.mark.parametrize("solver", ALL, ids=by_name)
@pytest.mark.parametrize("rate", [1e2, 1e6])
def test_fixed_steps_far_beyond_the_fast_rate_stay_on_the_solution(solver, rate):
    ts = torch.linspace(0, 4, 9, dtype=F64)
    for controller in (ConstantStep(0.1), StepTo(5)):
        ys = solve(chase(rate), torch.zeros(1, dtype=F64), ts, solver=solver, controller=controller).ys[:, 0]
        worst = {1: 2e-3, 3: 1e-4, 5: 2e-6}[solver.order] if rate > 1e3 else {1: 2e-3, 3: 5e-4, 5: 5e-5}[solver.order]
        assert float((ys - torch.sin(ts)).abs().max()) < worst


@pytest.mark.parametrize("solver", ALL, ids=by_name)
def test_states_are_carried_over_stiff_intervals_of_their_own(solver):
    t0, t1 = torch.zeros(3, dtype=F64), torch.tensor([0.0, 1.0, -0.001], dtype=F64)
    y0 = torch.tensor([[0.3], [0.3], [0.0]], dtype=F64)
    y1 = evolve(chase(1e3), y0, t0, t1, solver=solver, num_steps=40)
    assert torch.equal(y1[0], y0[0])
    torch.testing.assert_close(y1[1:, 0], torch.sin(t1[1:]), rtol=0, atol=2e-3)


@pytest.mark.parametrize("solver", ALL, ids=by_name)
def test_complex_states_and_samples_are_solved(solver):
    ts = torch.tensor([0.0, 0.01, 2.0], dtype=F64)
    z = torch.tensor(-200.0 + 50.0j)
    y0 = torch.tensor([[[1.0 + 0j], [2j]]] * 2, dtype=torch.complex128)
    controller = PIDController(1e-4, 1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = solve(
            lambda t, y: z * y.real + 1j * z * y.imag, y0, ts.expand(2, 3), solver=solver, controller=controller
        )
    ys = solution.ys
    torch.testing.assert_close(ys, y0[..., None, :] * torch.exp(z * ts)[:, None], rtol=0, atol=2e-2)


@pytest.mark.parametrize("solver", FIFTH, ids=by_name)
def test_inputs_drive_a_stiff_field(solver):
    knots = torch.tensor([[0.0, 1.0, 1.5, 3.0]], dtype=F64)
    values = torch.tensor([[[0.0], [2.0], [-1.0], [0.5]]], dtype=F64)
    path = LinearPath(knots, values)
    ts = torch.tensor([[0.0, 0.9, 1.4, 2.9]], dtype=F64)
    ys = solve(
        lambda t, y, u: -1e5 * (y - u),
        torch.zeros(1, 1, dtype=F64),
        ts,
        inputs=path,
        solver=solver,
        controller=PIDController(1e-7, 1e-9),
    ).ys
    # Behind a straight line of slope s the solution lags by s / rate.
    slopes = torch.tensor([0.0, 2.0, -6.0, 1.0], dtype=F64)
    torch.testing.assert_close(ys[0, :, 0], path(ts)[0, :, 0] - slopes / 1e5, rtol=0, atol=1e-6)


class _Rows(torch.autograd.Function):
    """A cube that does not know how to differentiate many rows at once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


@pytest.mark.parametrize("solver", FIFTH, ids=by_name)
def test_any_callable_that_can_be_differentiated_will_do(solver):
    y0, ts = torch.tensor([[1.0, 2.0]], dtype=F64), torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    exact = y0[0] / torch.sqrt(1 + 2 * 100.0 * y0[0] ** 2 * ts[:, None])
    control = PIDController(1e-5, 1e-7)
    fields = [lambda t, y: -100.0 * y**3, lambda t, y: -100.0 * _Rows.apply(y)]
    # A field that mutates what it made, one that branches on values, and one that only takes one batch axis.
    fields.append(lambda t, y: torch.empty_like(y).copy_(y).pow_(3).mul_(-100.0))
    fields.append(lambda t, y: -100.0 * y**3 if bool((y > 0).all()) else 1e9 * y)
    fields.append(lambda t, y: torch.stack([-100.0 * y[:, 0] ** 3, -100.0 * y[:, 1] ** 3], 1))
    surroundings = torch.enable_grad, torch.no_grad, torch.inference_mode, torch.enable_grad, torch.inference_mode
    for field, around in zip(fields, surroundings, strict=True):
        with around():
            ys = solve(field, y0, ts, solver=solver, controller=control).ys[0]
        torch.testing.assert_close(ys, exact, rtol=0, atol=1e-4)
        assert not ys.requires_grad
    still = solve(lambda t, y: torch.ones_like(y), y0, ts, solver=solver).ys[0]
    torch.testing.assert_close(still, y0 + ts[:, None], rtol=0, atol=1e-9)
    pushed = solve(lambda t, y: torch.cos(t)[..., None].expand_as(y), y0, ts, solver=solver, controller=control).ys[0]
    torch.testing.assert_close(pushed, y0 + torch.sin(ts)[:, None], rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", ALL, ids=by_name)
def test_float32_states_are_solved_to_their_rounding(solver):
    ts = torch.tensor([0.0, 1.0, 3.0])
    found = solve(chase(1e4), torch.zeros(2, 1), ts, solver=solver, controller=PIDController(1e-4, 1e-4)).ys
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0, :, 0], torch.sin(ts), rtol=0, atol=1e-3)
    fixed = solve(chase(1e4), torch.zeros(2, 1), ts, solver=solver, controller=StepTo(20)).ys
    torch.testing.assert_close(fixed[0, :, 0], torch.sin(ts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", [Kvaerno3(), Kvaerno5()], ids=by_name)
def test_a_step_on_which_newton_fails_is_taken_back(solver):
    # A front so steep that from afar its slope says nothing of it.
    def field(t, y):
        return -1e3 * torch.tanh(1e4 * (y - torch.cos(t)[..., None]))

    ts = torch.linspace(0, 1, 5, dtype=F64)
    solution = solve(
        field, torch.tensor([0.0], dtype=F64), ts, solver=solver, controller=PIDController(1e-5, 1e-5, dt0=0.5)
    )
    assert int(solution.stats["rejected"]) > 3
    torch.testing.assert_close(solution.ys[1:, 0], torch.cos(ts[1:]), rtol=0, atol=1e-4)


def test_fixed_steps_on_which_newton_fails_say_so():
    # y' = 1 + y^2 has no solution behind pi / 2, and its implicit steps no real root.
    ts = torch.tensor([0.0, 5.0], dtype=F64)
    with pytest.raises(SolveError, match="smaller step_size"):
        solve(lambda t, y: 1 + y**2, torch.zeros(1, dtype=F64), ts, solver=ImplicitEuler(), controller=StepTo(5))


def test_a_blow_up_ends_in_a_message():
    ts = torch.tensor([0.0, 2.0], dtype=F64)
    with pytest.raises(SolveError, match=r"t=1\.57"):
        solve(lambda t, y: 1 + y**2, torch.zeros(1, dtype=F64), ts, solver=Rodas5P())


@pytest.mark.parametrize("values", [(1e-3, None), (-1e-3, 1e-3), (math.nan, 1e-3)])
def test_wrong_tolerances_of_newton_are_refused(values):
    with pytest.raises(ValueError, match="PIDController"):
        Kvaerno5(*values)


def test_a_looser_newton_is_cheaper_and_a_stricter_one_dearer():
    counts = []
    for newton in ((), (1e-2, 1e-2), (1e-10, 1e-10)):
        count = [0]

        def field(t, y, count=count):
            count[0] += 1
            return van_der_pol(30.0)(t, y)

        y0, ts = torch.tensor([2.0, 0.0], dtype=F64), torch.tensor([0.0, 10.0], dtype=F64)
        solve(field, y0, ts, solver=Kvaerno5(*newton), controller=PIDController(1e-5, 1e-5))
        counts.append(count[0])
    assert counts[1] < counts[0] < counts[2]


@pytest.mark.parametrize("solver", [Tsit5(), Dopri5()], ids=by_name)
def test_explicit_methods_recognise_stiffness(solver):
    ts = torch.tensor([0.0, 1.0], dtype=F64)
    y0 = torch.zeros(2, 1, dtype=F64)
    rates = torch.tensor([[1.0], [1e3]], dtype=F64)
    for learn in (False, True):
        rate = rates.clone().requires_grad_(learn)
        start = y0.clone().requires_grad_(learn)

        def field(t, y, rate=rate):
            return -rate * (y - torch.sin(t)[..., None])

        with pytest.raises(SolveError, match=r"series 1 .* stiff; .*Rodas5P.*Kvaerno5"):
            solve(field, start, ts, solver=solver, max_steps=200)
        with pytest.warns(UserWarning, match=r"series 1 took .* stiff.*Rodas5P.*Kvaerno5"):
            solve(field, start, ts, solver=solver)


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_where_many_steps_are_due_to_accuracy():
    ts = torch.tensor([0.0, 40.0], dtype=F64)
    y0 = torch.tensor([1.0, 0.0], dtype=F64)
    solution = solve(
        lambda t, y: torch.stack([y[..., 1], -y[..., 0]], -1), y0, ts, controller=PIDController(1e-6, 1e-6)
    )
    assert int(solution.stats["steps"]) > 110
    with pytest.raises(SolveError) as caught:
        solve(lambda t, y: torch.stack([y[..., 1], -y[..., 0]], -1), y0, 1e3 * ts, max_steps=150)
    assert "stiff" not in str(caught.value)
    solve(chase(1e4), y0[:1], ts, solver=Rodas5P())


def test_the_jacobian_of_each_series_is_its_own():
    from ctdyn.solvers._jacobian import linearise

    torch.manual_seed(0)
    weights = torch.randn(4, 3, 3, dtype=F64)
    y, t = torch.randn(2, 4, 3, dtype=F64), torch.rand(2, 4, dtype=F64)

    def field(t, y):
        return torch.sin(t)[..., None] * (weights @ y.tanh()[..., None])[..., 0]

    found = linearise(ODETerm(field), t, y, timed=True)
    slope = (1 - y.tanh() ** 2)[..., None, :]
    torch.testing.assert_close(found.by_state, torch.sin(t)[..., None, None] * weights * slope)
    torch.testing.assert_close(found.by_time, torch.cos(t)[..., None] * (weights @ y.tanh()[..., None])[..., 0])
