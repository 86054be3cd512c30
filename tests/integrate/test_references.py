"""Against reference solutions of 25 digits, where a folder of them is given by CTDYN_REFERENCE."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from ctdyn.integrate import PIDController, solve
from ctdyn.solvers import Dopri5, Tsit5


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


@needs_references
@pytest.mark.parametrize("solver", [Tsit5(), Dopri5()], ids=repr)
def test_errors_follow_the_tolerance_on_the_reference_problems(solver):
    worst = {}
    for path in cases("ode", STIFF):
        case, field, y0, ts, truth, _ = load(path)
        ys = solve(
            field, y0, ts, t0=float(case["t0"]), solver=solver, controller=PIDController(1e-6, 1e-6), max_steps=10**5
        ).ys
        worst[path.stem] = float(((ys - truth).abs() / (1 + truth.abs())).max() / 1e-6)
    ratios = sorted(worst.values())
    assert len(ratios) > 10
    assert ratios[len(ratios) // 2] < 15, worst
    assert ratios[int(0.8 * len(ratios))] < 1000, worst


@needs_references
def test_gradients_of_the_reference_problems():
    for path in cases("gradients", {"grad_robertson_stiff"}):
        case, field, y0, ts, _, params = load(path)
        if not case["loss"].startswith("L = sum_i sum_j y_j(t_i)^2/(1+i+j)"):
            continue
        y0.requires_grad_()
        ts.requires_grad_()
        control = PIDController(1e-9, 1e-9)
        ys = solve(field, y0, ts, t0=float(case["t0"]), controller=control, max_steps=10**5).ys
        weights = 1.0 / (1.0 + torch.arange(len(ts))[:, None] + torch.arange(len(y0)))
        (ys.square() * weights).sum().backward()
        expected = torch.tensor([float(v) for v in case["grad_y0"]], dtype=F64)
        size = float(expected.abs().max())
        torch.testing.assert_close(y0.grad, expected, rtol=0, atol=1e-6 * max(size, 1.0), msg=path.stem)
        for name, value in case["grad_params"].items():
            got = params[name].grad
            assert got is not None
            assert abs(float(got) - float(value)) < 1e-6 * max(abs(float(value)), size, 1.0), (path.stem, name)
        if case.get("dL_dtimes"):
            times = torch.tensor([float(v) for v in case["dL_dtimes"]], dtype=F64)
            torch.testing.assert_close(ts.grad, times, rtol=1e-4, atol=1e-5, msg=path.stem)
