"""How far an answer is from the tolerance that was asked for, and how many evaluations that takes, beside the peers.

Problems that are not stiff: decay, growth, orbits, chains of reactions, oscillators, a chaotic one for a short while.
For every problem the largest of |y - truth| / (tolerance (1 + |truth|)) over outputs and entries, with rtol = atol =
tolerance; of these the median, the 90th percentile and the largest over problems, and the evaluations of all of them.
The truth is SciPy's DOP853 at 1e-13, or, with --root (default: the environment variable CTDYN_REFERENCE), also the
tables `ode/*.json` of a folder: {kind: "ode-nonstiff", rhs, params, t0, y0, times, solution}, the expressions of `rhs`
in t, y0, y1, ... and the params; they are evaluated, so give it a folder that you trust.

Expected: Dopri8 has a median below 1.5 and a 90th percentile below 50 at every tolerance, with fewer evaluations than
SciPy's DOP853; torchdiffeq's dopri8 loses its accuracy at tight tolerances, as it interpolates by a quartic.

    python recipes/bench/accuracy.py --quick

--quick takes two tolerances. The last line is one JSON object. A peer that is not installed gives a row that says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ctdyn.integrate import PIDController, solve
from ctdyn.solvers import Bosh3, Dopri5, Dopri8, Solver, Tsit5


Rule = Callable[[Any, Sequence[Any], Any], Sequence[Any]]
"""The velocity from the time, the entries of the state, and the module (numpy or torch) whose functions to use."""


def _kepler(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
    cube = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return y[2], y[3], -y[0] / cube, -y[1] / cube


def _chain(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
    return [-y[0], *(before - now for before, now in pairwise(y[:-1])), y[-2]]


def _diffusion(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
    left, right = [0 * y[0], *y[:-1]], [*y[1:], 0 * y[0]]
    return [a - 2 * b + c for a, b, c in zip(left, y, right, strict=True)]


RULES: dict[str, tuple[Rule, list[float], list[float]]] = {
    "decay": (lambda t, y, m: [-y[0]], [1.0], [5.0, 20.0]),
    "riccati": (lambda t, y, m: [-(y[0] ** 3) / 2], [1.0], [5.0, 20.0]),
    "modulated": (lambda t, y, m: [y[0] * m.cos(t)], [1.0], [5.0, 10.0, 20.0]),
    "logistic": (lambda t, y, m: [y[0] / 4 * (1 - y[0] / 20)], [1.0], [5.0, 20.0]),
    "spiral": (lambda t, y, m: [(y[0] - t) / (y[0] + t)], [4.0], [5.0, 20.0]),
    "predators": (
        lambda t, y, m: [2 * (y[0] - y[0] * y[1]), y[0] * y[1] - y[1]],
        [1.0, 3.0],
        [5.0, 10.0, 20.0],
    ),
    "reaction": (
        lambda t, y, m: [-y[0], y[0] - y[1] ** 2, y[1] ** 2],
        [1.0, 0.0, 0.0],
        [5.0, 20.0],
    ),
    "rigid body": (
        lambda t, y, m: [y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]],
        [0.0, 1.0, 1.0],
        [5.0, 20.0],
    ),
    "chain": (_chain, [1.0] + [0.0] * 9, [5.0, 20.0]),
    "diffusion": (_diffusion, [1.0] + [0.0] * 9, [5.0, 20.0]),
    "orbit 0.1": (_kepler, [0.9, 0.0, 0.0, math.sqrt(1.1 / 0.9)], [5.0, 10.0, 20.0]),
    "orbit 0.5": (_kepler, [0.5, 0.0, 0.0, math.sqrt(3.0)], [5.0, 10.0, 20.0]),
    "orbit 0.9": (_kepler, [0.1, 0.0, 0.0, math.sqrt(19.0)], [5.0, 10.0, 20.0]),
    "van der Pol": (lambda t, y, m: [y[1], (1 - y[0] ** 2) * y[1] - y[0]], [2.0, 0.0], [5.0, 10.0, 20.0]),
    "Duffing": (lambda t, y, m: [y[1], y[0] ** 3 / 6 - y[0] + 2 * m.sin(2.78535 * t)], [0.0, 0.0], [5.0, 20.0]),
    "falling body": (lambda t, y, m: [y[1], 0.032 - 0.4 * y[1] ** 2], [30.0, 0.0], [5.0, 20.0]),
    "pursuit": (lambda t, y, m: [y[1], m.sqrt(1 + y[1] ** 2) / (25 - t)], [0.0, 0.0], [5.0, 20.0]),
    "pendulum": (lambda t, y, m: [y[1], -m.sin(y[0])], [1.5, 0.0], [5.0, 20.0, 50.0]),
    "Lorenz": (
        lambda t, y, m: [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]],
        [1.0, 1.0, 1.0],
        [1.0, 3.0, 5.0],
    ),
    "nerve": (
        lambda t, y, m: [y[0] - y[0] ** 3 / 3 - y[1] + 0.5, 0.08 * (y[0] + 0.7 - 0.8 * y[1])],
        [-1.0, 1.0],
        [10.0, 50.0, 100.0],
    ),
}


@dataclass(frozen=True)
class Problem:
    """One initial value problem with its answers."""

    rule: Rule
    t0: float
    y0: list[float]
    times: list[float]
    truth: np.ndarray

    def numpy(self, t: float, y: np.ndarray) -> list[float]:
        """The field for SciPy."""
        return list(self.rule(t, y, np))

    def torch(self, t: Tensor, y: Tensor) -> Tensor:
        """The field for torch."""
        return torch.stack([entry + 0.0 * t for entry in self.rule(t, y.unbind(-1), torch)], -1)


def problems(root: str | None) -> list[Problem]:
    """The problems of this file, and those of a folder."""
    found = []
    for rule, y0, times in RULES.values():
        answer = solve_ivp(
            lambda t, y, rule=rule: list(rule(t, y, np)), (0.0, times[-1]), y0, "DOP853", times, rtol=1e-13, atol=1e-14
        )
        found.append(Problem(rule, 0.0, y0, times, answer.y.T))
    for path in sorted((Path(root) / "ode").glob("*.json")) if root else ():
        case = json.loads(path.read_text(encoding="utf-8"))
        if case["kind"] == "ode-nonstiff":
            numbers = ([float(v) for v in case[key]] for key in ("y0", "times"))
            truth = np.array([[float(v) for v in row] for row in case["solution"]])
            found.append(Problem(_written(case), float(case["t0"]), *numbers, truth))
    return found


def _written(case: dict[str, Any]) -> Rule:
    codes = [compile(text, "rhs", "eval") for text in case["rhs"]]
    fixed = {name: float(value) for name, value in case["params"].items()} | {"pi": math.pi, "__builtins__": {}}
    names = ("sin", "cos", "tan", "exp", "log", "sqrt", "tanh", "sinh", "cosh")

    def rule(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        scope = fixed | {f"y{i}": entry for i, entry in enumerate(y)} | {name: getattr(m, name) for name in names}
        return [eval(code, scope | {"t": t, "atan": m.arctan, "abs": m.abs}) for code in codes]

    return rule


def by_ctdyn(solver: Solver) -> Callable[[Problem, float], tuple[np.ndarray, int]]:
    """Solve with a method of this library."""

    def run(problem: Problem, tolerance: float) -> tuple[np.ndarray, int]:
        y0, ts = (torch.tensor(x, dtype=torch.float64) for x in (problem.y0, problem.times))
        control = PIDController(tolerance, tolerance)
        with torch.no_grad():
            found = solve(problem.torch, y0, ts, t0=problem.t0, solver=solver, controller=control, max_steps=10**6)
        return found.ys.numpy(), int(found.stats["evaluations"])

    return run


def by_scipy(method: str) -> Callable[[Problem, float], tuple[np.ndarray, int]]:
    """Solve with SciPy, its dense output on."""

    def run(problem: Problem, tolerance: float) -> tuple[np.ndarray, int]:
        span, options = (problem.t0, problem.times[-1]), {"rtol": tolerance, "atol": tolerance, "dense_output": True}
        found = solve_ivp(problem.numpy, span, problem.y0, method, problem.times, **options)
        return found.y.T, found.nfev

    return run


def by_torchdiffeq(method: str) -> Callable[[Problem, float], tuple[np.ndarray, int]] | None:
    """Solve with torchdiffeq, where it is installed."""
    if importlib.util.find_spec("torchdiffeq") is None:
        return None
    from torchdiffeq import odeint

    def run(problem: Problem, tolerance: float) -> tuple[np.ndarray, int]:
        calls = [0]

        def field(t: Tensor, y: Tensor) -> Tensor:
            calls[0] += 1
            return problem.torch(t, y)

        y0, ts = (torch.tensor(x, dtype=torch.float64) for x in (problem.y0, [problem.t0, *problem.times]))
        with torch.no_grad():
            ys = odeint(field, y0, ts, rtol=tolerance, atol=tolerance, method=method)
        return ys[1:].numpy(), calls[0]

    return run


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two tolerances")
    parser.add_argument("--seed", type=int, default=0, help="unused: nothing here is random")
    parser.add_argument("--root", default=os.environ.get("CTDYN_REFERENCE"), help="a folder of reference tables")
    options = parser.parse_args()
    # Loose tolerances on orbits look like stiffness; the figures say what came of it.
    warnings.simplefilter("ignore")
    given = problems(options.root)
    tolerances = (1e-4, 1e-8) if options.quick else (1e-4, 1e-6, 1e-8, 1e-10)
    methods = {f"ctdyn {type(s).__name__}": by_ctdyn(s) for s in (Dopri8(), Tsit5(), Dopri5(), Bosh3())}
    methods |= {f"SciPy {name}": by_scipy(name) for name in ("DOP853", "RK45")}
    methods |= {f"torchdiffeq {name}": by_torchdiffeq(name) for name in ("dopri8", "dopri5")}
    print(f"{len(given)} problems; error over tolerance")
    print(f"{'method':20} {'tolerance':>9} {'median':>9} {'p90':>9} {'max':>9} {'evaluations':>12}")
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, run in methods.items():
        if run is None:
            print(f"{name:20} absent")
            continue
        for tolerance in tolerances:
            if "Bosh3" in name and tolerance < 1e-6:
                continue
            row = _row(given, run, tolerance)
            table.setdefault(name, {})[f"{tolerance:.0e}"] = row
            print(
                f"{name:20} {tolerance:9.0e} " + " ".join(f"{row[key]:9.3g}" for key in ("median", "p90", "max")),
                end="",
            )
            print(f" {row['evaluations']:12.0f}", flush=True)
    ours, peer = table["ctdyn Dopri8"], table["SciPy DOP853"]
    ratios = {key: round(row["evaluations"] / peer[key]["evaluations"], 3) for key, row in ours.items()}
    print(json.dumps({"problems": len(given), "methods": table, "Dopri8 evaluations / DOP853": ratios}))


def _row(given: list[Problem], run: Callable[[Problem, float], tuple[np.ndarray, int]], tolerance: float) -> dict:
    errors, evaluations = [], 0
    for problem in given:
        ys, count = run(problem, tolerance)
        errors.append(float((np.abs(ys - problem.truth) / (1 + np.abs(problem.truth))).max() / tolerance))
        evaluations += count
    return {
        "median": float(np.median(errors)),
        "p90": float(np.percentile(errors, 90)),
        "max": max(errors),
        "evaluations": evaluations,
    }


if __name__ == "__main__":
    main()
