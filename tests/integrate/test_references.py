"""Against reference solutions of 25 digits, where a folder of them is given by CTDYN_REFERENCE."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from ctdyn.integrate import PIDController, solve
from ctdyn.solvers import Dopri5, Dopri8, Tsit5


F64 = torch.float64
ROOT = Path(os.environ.get("CTDYN_REFERENCE", "/nonexistent"))
STIFF = {"hires_rate_E5", "oregonator", "robertson", "stiff_oscillator", "vdp_mu5"}
needs_references = pytest.mark.skipif(not ROOT.is_dir(), reason="CTDYN_REFERENCE is not set")
FUNCTIONS = {
    name: getattr(torch, name)
    for name in ("sin", "cos", "tan", "exp", "log", "sqrt", "tanh", "atan", "abs", "sinh", "cosh")
}


def load(path):
    case = json.loads(path.read_text())
    codes = [compile(rhs, path.name, "eval") for rhs in case["rhs"]]
    params = {k: torch.tensor(float(v), dtype=F64, requires_grad="loss" in case) for k, v in case["params"].items()}

    def field(t, y):
        names = {f"y{i}": y[..., i] for i in range(y.shape[-1])}
        scope = {**FUNCTIONS, "pi": math.pi, **params, **names, "t": t, "__builtins__": {}}
        return torch.stack([eval(code, scope) + 0.0 * t for code in codes], -1)

    y0 = torch.tensor([float(v) for v in case["y0"]], dtype=F64)
    ts = torch.tensor([float(v) for v in case["times"]], dtype=F64)
    truth = torch.tensor([[float(v) for v in row] for row in case["solution"]], dtype=F64)
    return case, field, y0, ts, truth, params


def cases(folder, exclude=()):
    return [p for p in sorted((ROOT / folder).glob("*.json")) if p.stem not in exclude] if ROOT.is_dir() else []


def by_scipy(case, tolerance):
    """Evaluations of DOP853 with its dense output on."""
    scope = {name: getattr(np, name.replace("atan", "arctan")) for name in FUNCTIONS}
    scope |= {"pi": math.pi, "__builtins__": {}} | {k: float(v) for k, v in case["params"].items()}
    codes = [compile(rhs, "field", "eval") for rhs in case["rhs"]]

    def field(t, y):
        names = {f"y{i}": entry for i, entry in enumerate(y)}
        return [eval(code, scope | names | {"t": t}) for code in codes]

    span, y0 = (float(case["t0"]), float(case["times"][-1])), [float(v) for v in case["y0"]]
    return solve_ivp(field, span, y0, method="DOP853", rtol=tolerance, atol=tolerance, dense_output=True).nfev


def errors_over_tolerance(solver, tolerance):
    """The largest error of each problem that is not stiff, over the tolerance; and all evaluations."""
    errors, evaluations = {}, 0
    for path in cases("ode", STIFF):
        case, field, y0, ts, truth, _ = load(path)
        control = PIDController(tolerance, tolerance)
        with torch.no_grad():
            found = solve(field, y0, ts, t0=float(case["t0"]), solver=solver, controller=control, max_steps=10**6)
        errors[path.stem] = float(((found.ys - truth).abs() / (1 + truth.abs())).max() / tolerance)
        evaluations += int(found.stats["evaluations"])
    assert len(errors) > 10
    return errors, evaluations


@needs_references
@pytest.mark.parametrize("solver", [Tsit5(), Dopri5()], ids=repr)
def test_errors_follow_the_tolerance_on_the_reference_problems(solver):
    errors, _ = errors_over_tolerance(solver, 1e-6)
    assert np.median([*errors.values()]) < 10, errors
    assert np.percentile([*errors.values()], 90) < 300, errors


@needs_references
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8, 1e-10])
def test_order_8_keeps_the_tolerance_for_no_more_evaluations_than_scipy(tolerance):
    errors, evaluations = errors_over_tolerance(Dopri8(), tolerance)
    assert np.median([*errors.values()]) <= 1.5, errors
    assert np.percentile([*errors.values()], 90) <= 50, errors
    peer = sum(by_scipy(json.loads(path.read_text()), tolerance) for path in cases("ode", STIFF))
    assert evaluations <= 1.05 * peer


@needs_references
@pytest.mark.parametrize("tolerance", [1e-6, 1e-9])
def test_gradients_of_the_reference_problems_by_default(tolerance):
    for path in cases("gradients", {"grad_robertson_stiff"}):
        case, field, y0, ts, _, params = load(path)
        if not case["loss"].startswith("L = sum_i sum_j y_j(t_i)^2/(1+i+j)"):
            continue
        y0.requires_grad_()
        ts.requires_grad_()
        control = PIDController(tolerance, tolerance)
        ys = solve(field, y0, ts, t0=float(case["t0"]), controller=control, max_steps=10**5).ys
        weights = 1.0 / (1.0 + torch.arange(len(ts), dtype=F64)[:, None] + torch.arange(len(y0)))
        found = torch.autograd.grad((ys.square() * weights).sum(), [y0, *params.values(), ts])
        mine = torch.cat([gradient.reshape(-1) for gradient in found[:-1]])
        values = [*case["grad_y0"], *(case["grad_params"][name] for name in params)]
        expected = torch.tensor([float(v) for v in values], dtype=F64)
        assert (mine - expected).abs().max() < 100 * tolerance * expected.abs().max(), path.stem
        if case.get("dL_dtimes"):
            times = torch.tensor([float(v) for v in case["dL_dtimes"]], dtype=F64)
            assert (found[-1] - times).abs().max() < 100 * tolerance * times.abs().max(), path.stem
