"""Stiff equations against reference solutions of 25 digits, where a folder of them is given by CTDYN_REFERENCE."""

import json
import warnings

import pytest
import torch

from ctdyn._checks import SolveError
from ctdyn.integrate import Checkpoint, Direct, PIDController, solve
from ctdyn.solvers import Kvaerno3, Kvaerno5, Rodas5P, Tsit5


F64 = torch.float64
STIFF = ["hires_rate_E5", "oregonator", "robertson", "stiff_oscillator", "vdp_mu5"]
FUNCTIONS = {name: getattr(torch, name) for name in ("sin", "cos", "exp")}
CASES = [
    *[(Rodas5P(), tolerance) for tolerance in (1e-4, 1e-6, 1e-8)],
    *[(Kvaerno5(), tolerance) for tolerance in (1e-4, 1e-6)],
]
RUNS = [(solver, tolerance, name) for solver, tolerance in CASES for name in (*STIFF, "prothero_nonstiff")]


def load(path):
    case = json.loads(path.read_text())
    codes = [compile(rhs, path.name, "eval") for rhs in case["rhs"]]
    params = {k: torch.tensor(float(v), dtype=F64, requires_grad="loss" in case) for k, v in case["params"].items()}

    def field(t, y):
        names = {f"y{i}": y[..., i] for i in range(y.shape[-1])}
        scope = {**FUNCTIONS, **params, **names, "t": t, "__builtins__": {}}
        return torch.stack([eval(code, scope) + 0.0 * t for code in codes], -1)

    y0 = torch.tensor([float(v) for v in case["y0"]], dtype=F64)
    ts = torch.tensor([float(v) for v in case["times"]], dtype=F64)
    truth = torch.tensor([[float(v) for v in row] for row in case["solution"]], dtype=F64)
    return case, field, y0, ts, truth, params


@pytest.mark.parametrize(("solver", "tolerance", "name"), RUNS, ids=lambda x: x if isinstance(x, str) else repr(x))
def test_stiff_problems_are_solved_to_the_tolerance_over_their_full_horizon(reference_root, solver, tolerance, name):
    case, field, y0, ts, truth, _ = load(reference_root / "ode" / f"{name}.json")
    # The traces of this one are 1e-10 and less of the rest, and unstable where they turn negative.
    atol = 1e-24 if name == "hires_rate_E5" else tolerance
    control = PIDController(tolerance, atol)
    solution = solve(field, y0, ts, t0=float(case["t0"]), solver=solver, controller=control)
    # Traces count in proportion to what they are at most.
    scale = truth.abs().amax(0) if name == "hires_rate_E5" else 1 + truth.abs()
    error = (solution.ys - truth).abs() / scale
    assert float(error.max()) <= 10 * tolerance, (error.max() / tolerance, solution.stats)


@pytest.mark.parametrize(
    ("solver", "tolerance", "name"),
    [
        *[(Rodas5P(), tolerance, "hires_rate_E5") for tolerance in (1e-4, 1e-6, 1e-8)],
        *[(Kvaerno5(), tolerance, "hires_rate_E5") for tolerance in (1e-4, 1e-6)],
        *[(Kvaerno3(), tolerance, "robertson") for tolerance in (1e-3, 1e-4, 1e-5)],
    ],
    ids=lambda x: x if isinstance(x, str) else repr(x),
)
def test_traces_below_the_absolute_tolerance_carry_no_solution_away(reference_root, solver, tolerance, name):
    case, field, y0, ts, truth, _ = load(reference_root / "ode" / f"{name}.json")
    control = PIDController(tolerance, tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ys = solve(field, y0, ts, t0=float(case["t0"]), solver=solver, controller=control).ys
    assert float(((ys - truth).abs() / (1 + truth.abs())).max()) < tolerance


@pytest.mark.parametrize(
    ("solver", "adjoint"), [(Rodas5P(), Direct()), (Rodas5P(), Checkpoint()), (Kvaerno5(), Direct())], ids=repr
)
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("grad_robertson_stiff", 1e-3),
        ("grad_vdp_mu1", 1e-4),
        ("grad_linear_3d", 1e-4),
        ("grad_lotka_volterra", 1e-4),
        ("grad_forced_discont_free", 1e-4),
    ],
)
def test_gradients_of_the_reference_problems(reference_root, name, allowed, solver, adjoint):
    case, field, y0, ts, _, params = load(reference_root / "gradients" / f"{name}.json")
    y0 = y0.expand(1, -1).clone().requires_grad_()
    ts.requires_grad_()
    control = PIDController(1e-6, 1e-6)
    ys = solve(field, y0, ts, t0=float(case["t0"]), solver=solver, controller=control, adjoint=adjoint).ys[0]
    weights = 1.0 / (1.0 + torch.arange(len(ts))[:, None] + torch.arange(y0.shape[-1]))
    (ys.square() * weights).sum().backward()
    expected = torch.tensor([float(v) for v in case["grad_y0"]], dtype=F64)
    assert y0.grad is not None
    assert float((y0.grad[0] - expected).abs().max() / expected.abs().max()) < allowed
    for parameter, value in case["grad_params"].items():
        gradient = params[parameter].grad
        assert gradient is not None
        assert abs(float(gradient) - float(value)) < allowed * abs(float(value)), parameter
    times = torch.tensor([float(v) for v in case["dL_dtimes"]], dtype=F64)
    assert float((ts.grad - times).abs().max() / times.abs().max()) < allowed


@pytest.mark.parametrize("name", STIFF)
def test_an_explicit_method_answers_or_names_the_cure(reference_root, name):
    case, field, y0, ts, truth, _ = load(reference_root / "ode" / f"{name}.json")
    control = PIDController(1e-4, 1e-4)
    solution = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            solution = solve(field, y0, ts, t0=float(case["t0"]), solver=Tsit5(), controller=control, max_steps=600)
        except SolveError as error:
            message = str(error)
        else:
            message = "; ".join(str(warning.message) for warning in said)
    # Below this absolute tolerance its traces are noise, and once they are negative the solution really blows up.
    if name != "hires_rate_E5":
        assert ("Rodas5P" in message) == (name != "vdp_mu5")
    if solution is not None:
        assert float(((solution.ys - truth).abs() / (1 + truth.abs())).max()) < 1e-2
