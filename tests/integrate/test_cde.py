"""Controlled equations: against exact solutions, and the invariances that they owe to their control."""

import itertools
import json
import os
from pathlib import Path

import pytest
import torch

from ctdyn.fields import LinearCDEField, MLPCDEField
from ctdyn.integrate import Backsolve, Checkpoint, PIDController, StepTo, solve
from ctdyn.paths import (
    HermitePath,
    LinearPath,
    LogSignaturePath,
    NaturalCubicPath,
    RectilinearPath,
    fill_forward,
    log_signature,
)
from ctdyn.solvers import RK4, Bosh3, Dopri5, Dopri8, Euler, Heun, Midpoint, Tsit5
from ctdyn.structure import CDEField
from ctdyn.terms import CDETerm, ODETerm, as_term


F64 = torch.float64
ROOT = Path(os.environ.get("CTDYN_REFERENCE", "/nonexistent"))
needs_references = pytest.mark.skipif(not ROOT.is_dir(), reason="CTDYN_REFERENCE is not set")


class Matrices(CDEField):
    """One matrix per channel, built in full."""

    def __init__(self, A):
        super().__init__()
        self.A = torch.nn.Parameter(A.clone())

    def forward(self, t, y):
        return torch.einsum("cij,...j->...ic", self.A, y)


class Lean(Matrices):
    """The same without building it."""

    def prod(self, t, y, dx):
        return torch.einsum("...c,cij,...j->...i", dx, self.A, y)


@pytest.fixture(scope="module")
def linear():
    """A reference of 25 digits: times, control, matrices, start, solution, gradient."""
    case = json.loads((ROOT / "cde" / "linear_cde_piecewise_linear.json").read_text())

    def table(name):
        def walk(x):
            return [walk(item) for item in x] if isinstance(x, list) else float(x)

        return torch.tensor(walk(case[name]), dtype=F64)

    names = ("times", "X", "A", "z0", "solution_at_times", "grad_sum_zT_sq_wrt_A")
    return [table(name) for name in names]


@needs_references
@pytest.mark.parametrize("kind", [Matrices, Lean])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize(("solver", "times"), [(Tsit5(), 2), (Dopri5(), 3), (Bosh3(), 20)], ids=str)
def test_the_error_is_a_small_multiple_of_the_tolerance(linear, solver, times, tolerance, kind):
    ts, xs, A, z0, truth, _ = linear
    control = PIDController(tolerance, tolerance)
    ys = solve(kind(A), z0, ts, inputs=LinearPath(ts, xs), solver=solver, controller=control).ys
    assert ((ys - truth).abs() / (1 + truth.abs())).max() < times * tolerance


@needs_references
def test_the_error_is_at_most_twice_the_default_tolerance(linear):
    ts, xs, A, z0, truth, _ = linear
    ys = solve(Matrices(A), z0, ts, inputs=LinearPath(ts, xs)).ys
    assert ((ys - truth).abs() / (1e-6 + 1e-4 * truth.abs())).max() < 2


@needs_references
@pytest.mark.parametrize("adjoint", [None, Checkpoint()], ids=repr)
def test_the_gradient_is_as_exact_as_the_tolerance(linear, adjoint):
    ts, xs, A, z0, _, gradient = linear
    for tolerance in (1e-4, 1e-7):
        field, control = Matrices(A), PIDController(tolerance, tolerance)
        ys = solve(field, z0, ts, inputs=LinearPath(ts, xs), controller=control, adjoint=adjoint).ys
        (found,) = torch.autograd.grad(ys[-1].square().sum(), field.A)
        assert (found - gradient).abs().max() < 20 * tolerance * gradient.abs().max()


@needs_references
@pytest.mark.parametrize("solver", [Euler(), Midpoint(), Heun(), Bosh3(), RK4(), Tsit5()], ids=repr)
def test_fixed_steps_that_land_on_the_knots_keep_their_order(linear, solver):
    ts, xs, A, z0, truth, _ = linear
    term, errors = CDETerm(Matrices(A), LinearPath(ts, xs)), []
    for n in (8, 16, 32) if solver.order > 2 else (32, 64, 128):
        ys = solve(term, z0, ts, solver=solver, controller=StepTo(n)).ys
        errors.append(float((ys[-1] - truth[-1]).detach().norm()))
    first, second = (torch.tensor(a / b).log2() for a, b in itertools.pairwise(errors))
    assert float(2 * second - first) > solver.order - 0.25


@needs_references
@pytest.mark.parametrize("kind", ["linear", "hermite", "cubic", "rectilinear"])
def test_one_channel_depends_on_the_end_points_alone(linear, kind):
    ts, xs, *_ = linear
    one = xs[:, 1:2]
    path = {
        "linear": lambda: LinearPath(ts, one),
        "hermite": lambda: HermitePath(ts, one),
        "cubic": lambda: NaturalCubicPath(ts, one),
        "rectilinear": lambda: RectilinearPath(ts, one),
    }[kind]()
    gain = torch.tensor([[[0.9]]], dtype=F64)
    field = Matrices(torch.cat([0 * gain, gain]) if kind == "rectilinear" else gain)
    at = path.after(ts) if isinstance(path, RectilinearPath) else ts
    ys = solve(field, torch.ones(1, dtype=F64), at, inputs=path, controller=PIDController(1e-9, 1e-9)).ys
    torch.testing.assert_close(ys, torch.exp(0.9 * (one - one[0])), rtol=1e-7, atol=1e-7)


def problem(batch=3, knots=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ts = (0.05 + torch.rand(batch, knots, generator=generator, dtype=F64)).cumsum(-1)
    xs = torch.randn(batch, knots, 3, generator=generator, dtype=F64)
    A = 0.7 * torch.randn(3, 2, 2, generator=generator, dtype=F64)
    return Matrices(A), torch.randn(batch, 2, generator=generator, dtype=F64), ts, xs


TIGHT = PIDController(1e-9, 1e-10)


def end(field, y0, ts, xs, at=None):
    at = torch.stack([ts[:, 0], ts[:, -1]], -1) if at is None else at
    return solve(field, y0, at, inputs=LinearPath(ts, xs), controller=TIGHT).ys[:, -1]


def test_the_answer_owes_nothing_to_the_pace_the_origin_or_idle_points_of_the_control():
    field, y0, ts, xs = problem()
    plain = end(field, y0, ts, xs)
    close = {"rtol": 1e-7, "atol": 1e-7}
    torch.testing.assert_close(end(field, y0, ts.exp(), xs), plain, **close)
    torch.testing.assert_close(end(field, y0, ts, xs + 5.0), plain, **close)
    between = torch.cat([ts, (ts[:, :-1] + 3 * ts[:, 1:]) / 4], -1).sort(-1).values
    torch.testing.assert_close(end(field, y0, between, LinearPath(ts, xs)(between)), plain, **close)
    twice = torch.cat([ts[:, :3], ts[:, 2:]], -1), torch.cat([xs[:, :3], xs[:, 2:]], 1)
    torch.testing.assert_close(end(field, y0, *twice), plain, **close)
    there = torch.stack([ts[:, -1], ts[:, 0]], -1)
    torch.testing.assert_close(end(field, plain, ts, xs, there), y0, rtol=1e-5, atol=1e-5)


def test_many_outputs_need_no_knots_and_series_do_not_mix():
    field, y0, ts, xs = problem()
    shares = torch.rand(3, 30, dtype=F64, generator=torch.Generator().manual_seed(2)).sort(-1).values
    at = ts[:, :1] + shares * (ts[:, -1:] - ts[:, :1])
    ys = solve(field, y0, at, t0=ts[:, 0], inputs=LinearPath(ts, xs), controller=TIGHT).ys
    alone = solve(field, y0[1], at[1], t0=ts[1, 0], inputs=LinearPath(ts[1], xs[1]), controller=TIGHT).ys
    torch.testing.assert_close(ys[1], alone, rtol=1e-12, atol=1e-12)
    landed = solve(field, y0, at, t0=ts[:, 0], inputs=LinearPath(ts, xs), solver=RK4(), controller=StepTo(20)).ys
    torch.testing.assert_close(ys, landed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [HermitePath, NaturalCubicPath])
def test_rounding_does_not_move_the_steps_of_a_series(kind):
    # Other numbers of rows are multiplied in another order; a step so smooth that its error is rounding would feel it.
    generator = torch.Generator().manual_seed(1)
    ts = torch.linspace(0.0, 8.0, 9, dtype=F64).expand(5, 9)
    xs = torch.randn(5, 9, 3, generator=generator, dtype=F64)
    y0 = torch.randn(5, 4, generator=generator, dtype=F64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = MLPCDEField(4, 3, (16,)).double()
    with torch.no_grad():
        together = solve(field, y0, ts, inputs=kind(ts, xs), solver=Dopri8()).ys
        for k in range(5):
            one = slice(k, k + 1)
            alone = solve(field, y0[one], ts[one], inputs=kind(ts[one], xs[one]), solver=Dopri8()).ys
            torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-12)


def test_beyond_the_range_of_the_control_the_state_stands_still():
    field, y0, ts, xs = problem()
    at = torch.stack([ts[:, 0] - 3, ts[:, 0], ts[:, -1], ts[:, -1] + 9], -1)
    ys = solve(CDETerm(field, LinearPath(ts, xs), holds=True), y0, at).ys
    torch.testing.assert_close(ys[:, 1], y0, rtol=0, atol=1e-12)
    torch.testing.assert_close(ys[:, 3], ys[:, 2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("linear", [True, False])
def test_times_beyond_the_control_are_refused_unless_that_is_meant(linear):
    field, y0, ts, xs = problem()
    field = LinearCDEField(2, 3).double() if linear else field
    late, early = ts.clone(), ts[:, 1:].clone()
    late[1, -1] += 0.1
    path = LinearPath(ts, xs)
    with pytest.raises(ValueError, match=r"control of series 1 runs from t=.* asked about t="):
        solve(field, y0, late, inputs=path)
    start = ts[:, 0].clone()
    start[2] -= 1
    with pytest.raises(ValueError, match=r"control of series 2 runs from"):
        solve(field, y0, early, t0=start, inputs=path)
    rounded = LinearPath(ts.float(), xs.float())
    assert solve(field, y0, ts, inputs=rounded).ys.shape == (3, 8, 2)


@pytest.mark.parametrize("kind", [LinearPath, HermitePath, NaturalCubicPath])
def test_gradients_reach_the_tensors_of_the_control(kind):
    field, y0, ts, xs = problem(batch=1, knots=5)
    at = torch.stack([ts[:, 0], ts[:, -1] - 0.1], -1)

    def run(xs, A):
        term = CDETerm(lambda t, y: torch.einsum("cij,...j->...ic", A, y), kind(ts, xs))
        return solve(term, y0, at, solver=RK4(), controller=StepTo(3)).ys

    leaves = tuple(x.detach().clone().requires_grad_() for x in (xs, field.A))
    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("adjoint", [None, Checkpoint(), Backsolve()], ids=repr)
def test_the_times_of_corners_in_the_control_have_the_gradients_of_the_exact_solution(adjoint):
    torch.manual_seed(0)
    field = LinearCDEField(3, 2, scale=0.5).double()
    ts = torch.rand(2, 5, dtype=F64).cumsum(-1).requires_grad_()
    at = torch.stack([ts[:, 0] + 0.01, ts[:, 2:4].mean(-1), ts[:, -1] - 0.01], -1).detach()
    xs, gradients = torch.randn(2, 5, 2, dtype=F64), []
    for options in ({}, {"solver": Tsit5(), "controller": PIDController(1e-8, 1e-10), "adjoint": adjoint}):
        ys = solve(field, torch.ones(2, 3, dtype=F64), at, inputs=LinearPath(ts, xs), **options).ys
        gradients.append(torch.autograd.grad(ys[:, 1:].square().sum(), ts)[0][:, 1:-1])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_gradients_of_the_control_do_not_depend_on_the_adjoint():
    field, y0, ts, xs = problem()
    gradients = []
    for adjoint in (None, Checkpoint()):
        leaves = [ts.clone().requires_grad_(), xs.clone().requires_grad_()]
        ys = solve(field, y0, ts[:, [0, -1]], inputs=HermitePath(*leaves), adjoint=adjoint).ys
        gradients.append(torch.autograd.grad(ys.square().sum(), [*leaves, field.A]))
    for found, want in zip(*gradients, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-9)


def test_any_batch_axes_and_samples_are_accepted():
    field, y0, ts, xs = problem()
    path = LinearPath(ts, xs)
    samples = torch.stack([y0, 2 * y0, -y0])
    ys = solve(field, samples, ts, inputs=path).ys
    assert ys.shape == (3, 3, 8, 2)
    torch.testing.assert_close(ys[1], solve(field, 2 * y0, ts, inputs=path).ys, rtol=1e-12, atol=1e-12)
    one = solve(field, y0[0], ts[0], inputs=LinearPath(ts[0], xs[0])).ys
    torch.testing.assert_close(one, ys[0, 0], rtol=1e-12, atol=1e-12)


def test_float32_is_kept():
    field, y0, ts, xs = problem()
    ys = solve(field.float(), y0.float(), ts, inputs=HermitePath(ts.float(), xs.float())).ys
    assert ys.dtype == torch.float32


def test_a_causal_control_gives_causal_states():
    torch.manual_seed(0)
    field = MLPCDEField(4, 3).double()
    _, _, ts, xs = problem()
    missing = torch.where(torch.rand(xs.shape, generator=torch.Generator().manual_seed(0)) < 0.4, torch.nan, xs)[
        ..., :2
    ]
    later = torch.cat([missing[:, :5], missing[:, 5:] + 3], 1)
    states = []
    for values in (missing, later):
        path = RectilinearPath(ts, fill_forward(values))
        states.append(solve(field, torch.zeros(3, 4, dtype=F64), path.after(ts), inputs=path).ys)
    assert torch.equal(states[0][:, :5], states[1][:, :5])
    assert not torch.allclose(states[0][:, 5:], states[1][:, 5:])


def test_the_log_ode_method_converges_with_the_length_of_its_windows():
    """The brackets of linear fields are commutators: an equation in the log-signature, one step per window."""
    generator = torch.Generator().manual_seed(0)
    ts = torch.linspace(0.0, 1.0, 129, dtype=F64)
    xs = torch.stack([torch.sin(5 * ts), torch.cos(3 * ts)], -1)
    A = torch.randn(2, 2, 2, generator=generator, dtype=F64)
    y0 = torch.tensor([1.0, -0.5], dtype=F64)
    truth = solve(Matrices(A), y0, ts[[0, -1]], inputs=LinearPath(ts, xs), controller=PIDController(1e-9, 1e-10)).ys[-1]
    area = A[1] @ A[0] - A[0] @ A[1]
    for depth, fields, order in ((1, A, 2), (2, torch.cat([A, area[None]]), 2)):
        errors = []
        for n in (4, 8, 16):
            windows = torch.linspace(0.0, 1.0, n + 1, dtype=F64)
            control = LogSignaturePath(ts, xs, windows, depth)
            ys = solve(Matrices(fields), y0, windows[[0, -1]], inputs=control, controller=PIDController(1e-9, 1e-10)).ys
            errors.append(float((ys[-1] - truth).detach().abs().max()))
        assert errors[1] / errors[2] > 2 ** (order - 0.2), (depth, errors)
        if depth == 1:
            coarse = errors
    assert errors[-1] < 0.1 * coarse[-1]
    total = LogSignaturePath(ts, xs, ts[[0, -1]])(ts[-1:])[0]
    torch.testing.assert_close(total, log_signature(xs, 2), rtol=0, atol=1e-13)


def test_prod_and_the_matrix_give_the_same_path():
    torch.manual_seed(0)
    _, _, ts, xs = problem()
    field = LinearCDEField(2, 3).double()
    y0 = torch.randn(3, 2, dtype=F64)
    term = CDETerm(field.forward, LinearPath(ts, xs))
    torch.testing.assert_close(
        solve(term, y0, ts).ys,
        solve(field, y0, ts, inputs=LinearPath(ts, xs), solver=Tsit5()).ys,
        rtol=1e-12,
        atol=1e-12,
    )


def test_a_field_and_its_inputs_make_the_term_that_they_mean():
    _, _, ts, xs = problem()
    path = LinearPath(ts, xs)
    assert isinstance(as_term(MLPCDEField(2, 3), path), CDETerm)
    assert isinstance(as_term(lambda t, y, u: -y, path), ODETerm)
    term = CDETerm(MLPCDEField(2, 3), path)
    assert as_term(term) is term
    assert list(term.parameters())
    assert not list(CDETerm(lambda t, y: y[..., None], path).parameters())
    t0, t1 = ts[:, 1], ts[:, 3]
    torch.testing.assert_close(term.increment(t0, t1), xs[:, 3] - xs[:, 1])


@pytest.mark.parametrize(
    ("field", "error", "match"),
    [
        (lambda t, y: y, ValueError, "shape"),
        (lambda t, y: y[..., None].expand(*y.shape, 2), ValueError, r"\(\*batch, state, control\)"),
        (lambda t, y: None, TypeError, "None"),
        (lambda t, y: y[..., None].expand(*y.shape, 3).float(), TypeError, "float32"),
    ],
)
def test_fields_of_the_wrong_kind_are_found(field, error, match):
    _, y0, ts, xs = problem()
    with pytest.raises(error, match=match):
        solve(CDETerm(field, LinearPath(ts, xs)), y0, ts)


@pytest.mark.usefixtures("_unchecked")
def test_misuse_is_refused_with_the_cure():
    field, y0, ts, xs = problem()
    with pytest.raises(ValueError, match="inputs="):
        solve(field, y0, ts)
    with pytest.raises(TypeError, match="an instance of Path"):
        solve(field, y0, ts, inputs=xs)
    with pytest.raises(TypeError, match="callable"):
        CDETerm(3, LinearPath(ts, xs))
    with pytest.raises(ValueError, match="already says what drives it"):
        solve(CDETerm(field, LinearPath(ts, xs)), y0, ts, inputs=LinearPath(ts, xs))
    with pytest.raises(ValueError, match="state_size=2"):
        solve(LinearCDEField(2, 3).double(), torch.ones(3, 5, dtype=F64), ts, inputs=LinearPath(ts, xs))
    for sizes in ((0, 1), (1, 0)):
        for kind in (LinearCDEField, MLPCDEField):
            with pytest.raises(ValueError, match="at least 1"):
                kind(*sizes)
