"""How long a neural controlled equation takes, forward and backward, beside torchcde as users call it.

Problem (e): 32 series of 200 observations of 8 channels (a random walk) one unit of time apart; hidden state 32; field
32-64-(32 x 8) with ReLU and a tanh end; Hermite control; output at the end; loss: mean square of the last state. The
error is the largest one of the last state, against RK4 with 20 steps per gap in float64. Also the fit of the control
to 32 series of 400 observations of 8 channels, with half of the values missing.

Expected (milliseconds of CPU, one thread): RK4 with one step per gap 51, where torchcde's takes 257 (5.1 times as long)
and the bare evaluations of the field, one after another, 161. torchcde as called by default takes 31.5 s, 335 times as
long as ctdyn at an error no larger than its own (RK4, two steps per gap, 94); with adjoint=False and a jump at every
knot 7.5 times as long as ours at its error. Adaptive steps are not compiled: with the same method and tolerances the
two need the same time (.96). Fitting with missing values takes torchcde 180 to 230 times longer. A linear equation (16
series of 128 observations of 4 channels, 64 states, float64) followed exactly: error 5e-15 in 485 ms (forward and
backward 2.1 s), where torchcde's dopri5 at 1e-5 with a jump at every knot has 3e-3 in 8.1 s (13 s).
The default of torchcde takes minutes.

    python recipes/bench/cde.py --quick --seed 0

--quick takes 40 observations. A peer that is not installed gives a row that says absent. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctdyn.fields import LinearCDEField, MLPCDEField
from ctdyn.integrate import PIDController, StepTo, TorchCDE, solve
from ctdyn.paths import HermitePath, LinearPath, NaturalCubicPath, fill_linear
from ctdyn.solvers import RK4, Dopri5, Dopri8, Tsit5


BATCH, CHANNELS, HIDDEN, WIDTH = 32, 8, 32, 64


@dataclass
class Row:
    """One line of the table."""

    method: str
    evaluations: int | None = None
    forward_ms: float | None = None
    both_ms: float | None = None
    max_error: float | None = None
    note: str = ""


def perceptron() -> MLPCDEField:
    """The field of the problem."""
    return MLPCDEField(HIDDEN, CHANNELS, hidden=(WIDTH,), activation=nn.ReLU)


class Bench:
    """The data, the reference, and the stopwatch."""

    def __init__(self, seed: int, length: int) -> None:
        torch.manual_seed(seed)
        self.field = perceptron()
        self.length = length
        self.xs = 0.2 * torch.randn(BATCH, length, CHANNELS).cumsum(1)
        self.xs[..., 0] = torch.arange(length) / 10
        self.ts = torch.arange(length, dtype=torch.float32)
        self.y0 = torch.randn(BATCH, HIDDEN)
        double = perceptron().double()
        double.load_state_dict(self.field.state_dict())
        path = HermitePath(self.ts.expand(BATCH, -1).double(), self.xs.double())
        tight: dict[str, Any] = {"solver": RK4(), "controller": StepTo(20), "max_steps": 10**6}
        with torch.no_grad():
            self.truth = solve(double, self.y0.double(), self.ts[[0, -1]].double(), inputs=path, **tight).ys[:, -1]

    def row(self, method: str, run: Callable[[], Tensor], repeats: int) -> Row:
        """Measure one method: `run()` fits the control and gives the last states."""
        calls: list[None] = []
        # A field that is watched is stepped as any other: as often, and slower.
        watch = self.field.register_forward_hook(lambda *_: calls.append(None))
        with torch.no_grad():
            run()
            watch.remove()
            last = run()
        error = None if method.startswith("bare") else float((last - self.truth).abs().max())
        forward = _median(lambda: self._forward(run), repeats)
        return Row(method, len(calls), forward, _median(lambda: self.both(run), repeats), error)

    def both(self, run: Callable[[], Tensor]) -> None:
        """Forward and backward."""
        self.field.zero_grad()
        run().square().mean().backward()

    def _forward(self, run: Callable[[], Tensor]) -> None:
        with torch.no_grad():
            run()


def _once(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e3


def _median(call: Callable[[], object], repeats: int) -> float:
    if repeats > 1:
        call()
    times = sorted(_once(call) for _ in range(repeats))
    return times[len(times) // 2]


def ours(bench: Bench, **options: Any) -> Callable[[], Tensor]:
    """`solve` with a field and its control."""

    def run() -> Tensor:
        path = HermitePath(bench.ts.expand(BATCH, -1), bench.xs)
        return solve(bench.field, bench.y0, bench.ts[[0, -1]], inputs=path, max_steps=10**6, **options).ys[:, -1]

    return run


def theirs(bench: Bench, **options: Any) -> Callable[[], Tensor]:
    """Torchcde's `cdeint`."""
    import torchcde

    def run() -> Tensor:
        fit = torchcde.hermite_cubic_coefficients_with_backward_differences(bench.xs, bench.ts)
        control = torchcde.CubicSpline(fit, bench.ts)
        return torch.as_tensor(torchcde.cdeint(control, bench.field, bench.y0, bench.ts[[0, -1]], **options))[:, -1]

    return run


def bare(bench: Bench, evaluations: int) -> Callable[[], Tensor]:
    """The evaluations of the field alone, one after another: the floor."""
    dx, t = bench.xs[:, 1] - bench.xs[:, 0], torch.zeros(BATCH)

    def run() -> Tensor:
        y = bench.y0
        for _ in range(evaluations):
            y = bench.field.prod(t, y, dx)
        return y

    return run


def solving(bench: Bench, repeats: int) -> tuple[list[Row], dict[str, float]]:
    """The equation itself."""
    loose, usual = PIDController(1e-3, 1e-4), PIDController(1e-4, 1e-6)
    rows = [
        bench.row("ctdyn, default (Tsit5, 1e-4/1e-6)", ours(bench, solver=Tsit5(), controller=usual), repeats),
        bench.row("ctdyn, Dopri5 1e-3/1e-4", ours(bench, solver=Dopri5(), controller=loose), repeats),
        bench.row("ctdyn, RK4, one step per gap", ours(bench, solver=RK4(), controller=StepTo()), repeats),
        bench.row("ctdyn, RK4, two steps per gap", ours(bench, solver=RK4(), controller=StepTo(2)), repeats),
        bench.row("ctdyn, TorchCDE engine 1e-3/1e-4", ours(bench, solver=TorchCDE(rtol=1e-3, atol=1e-4)), 1),
    ]
    rows.append(bench.row("bare evaluations", bare(bench, rows[2].evaluations or 1), repeats))
    peers: list[tuple[str, dict[str, Any]]] = [
        ("torchcde, default", {}),
        ("torchcde, rk4, step 1, adjoint=False", {"method": "rk4", "options": {"step_size": 1.0}, "adjoint": False}),
        (
            "torchcde, 1e-3/1e-4, jump_t, adjoint=False",
            {"rtol": 1e-3, "atol": 1e-4, "options": {"jump_t": bench.ts[1:-1]}, "adjoint": False},
        ),
    ]
    if importlib.util.find_spec("torchcde") is None:
        return rows + [Row(name, note="absent") for name, _ in peers], {}
    for name, options in peers:
        run = theirs(bench, method="dopri5", **options) if "method" not in options else theirs(bench, **options)
        rows.append(bench.row(name, run, 1 if name.endswith("default") else max(repeats // 3, 1)))
    times = [row.both_ms or 0.0 for row in rows]
    best = min(time for time, row in zip(times[:4], rows, strict=False) if (row.max_error or 1e9) <= _error(rows[6]))
    return rows, {
        "default_over_ours_at_its_error": times[6] / best,
        "jumps_over_ours_same_method": times[8] / times[1],
        "jumps_over_ours_at_its_error": times[8]
        / min(time for time, row in zip(times[:4], rows, strict=False) if (row.max_error or 1e9) <= _error(rows[8])),
        "rk4_over_ours": times[7] / times[2],
        "ours_over_bare": times[2] / times[5],
    }


def _error(row: Row) -> float:
    # Ties of methods with the same steps are no differences.
    return 1.1 * (row.max_error or 0.0)


def fitting(seed: int, length: int, repeats: int) -> dict[str, float]:
    """The control, with half of the values missing."""
    generator = torch.Generator().manual_seed(seed)
    xs = torch.randn(BATCH, length, CHANNELS, generator=generator)
    xs = torch.where(torch.rand(xs.shape, generator=generator) < 0.5, torch.nan, xs)
    clock = torch.arange(length, dtype=torch.float32)
    ts = clock.expand(BATCH, -1)
    figures = {
        "linear_ms": _median(lambda: LinearPath(ts, fill_linear(ts, xs)), repeats),
        "hermite_ms": _median(lambda: HermitePath(ts, fill_linear(ts, xs)), repeats),
        "natural_cubic_ms": _median(lambda: NaturalCubicPath(ts, xs, ~xs.isnan()), repeats),
    }
    if importlib.util.find_spec("torchcde") is not None:
        import torchcde

        peers = {
            "linear": torchcde.linear_interpolation_coeffs,
            "hermite": torchcde.hermite_cubic_coefficients_with_backward_differences,
            "natural_cubic": torchcde.natural_cubic_coeffs,
        }
        for name, fit in peers.items():
            figures[f"{name}_torchcde_over_ours"] = _once(lambda fit=fit: fit(xs, clock)) / figures[f"{name}_ms"]
    return figures


def linear(seed: int, length: int, repeats: int) -> dict[str, Any]:
    """A linear equation along straight lines: followed exactly, and by torchcde with a jump at every knot."""
    batch, channels, hidden = 16, 4, 64
    generator = torch.Generator().manual_seed(seed)
    ts = torch.arange(length, dtype=torch.float64)
    xs = 0.3 * torch.randn(batch, length, channels, generator=generator, dtype=torch.float64).cumsum(1)
    xs[..., 0] = ts / 10
    y0 = torch.randn(batch, hidden, generator=generator, dtype=torch.float64)
    torch.manual_seed(seed)
    field = LinearCDEField(hidden, channels).double()
    path = LinearPath(ts.expand(batch, -1), xs)
    ends = ts[[0, -1]]
    tight: dict[str, Any] = {"controller": PIDController(1e-12, 1e-13), "solver": Dopri8(), "max_steps": 10**6}
    with torch.no_grad():
        truth = solve(field, y0, ends, inputs=path, **tight).ys[:, -1]

    def measured(run: Callable[[], Tensor], repeats: int) -> dict[str, float]:
        with torch.no_grad():
            error = float((run() - truth).abs().max() / truth.abs().max())
            forward = _median(run, repeats)

        def both() -> None:
            field.zero_grad()
            run().square().mean().backward()

        return {"max_error": error, "forward_ms": forward, "both_ms": _median(both, repeats)}

    rows = {"ctdyn, exact, full matrices": measured(lambda: solve(field, y0, ends, inputs=path).ys[:, -1], repeats)}
    if importlib.util.find_spec("torchcde") is None:
        return rows
    import torchcde

    control = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(xs, ts), ts)
    options = {"method": "dopri5", "rtol": 1e-5, "atol": 1e-5, "adjoint": False, "options": {"jump_t": ts[1:-1]}}

    def theirs() -> Tensor:
        return torch.as_tensor(torchcde.cdeint(control, field, y0, ends, **options))[:, -1]

    rows["torchcde, dopri5 1e-5, jump_t"] = measured(theirs, 1)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter series")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench(options.seed, 40 if options.quick else 200)
    repeats = 5 if options.quick else 3
    rows, figures = solving(bench, repeats)
    fits = fitting(options.seed, 80 if options.quick else 400, repeats)
    exact = linear(options.seed, 32 if options.quick else 128, repeats)

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    print(f"{'method':44}{'evals':>7}{'fwd ms':>11}{'fwd+bwd ms':>12}{'max error':>11}  note")
    for row in rows:
        print(
            f"{row.method:44}{number(row.evaluations, 'd'):>7}{number(row.forward_ms, '.1f'):>11}"
            f"{number(row.both_ms, '.1f'):>12}{number(row.max_error, '.1e'):>11}  {row.note}"
        )
    print("fits with half missing: " + ", ".join(f"{name} {value:.3g}" for name, value in fits.items()))
    for name, row in exact.items():
        print(
            f"linear, 16 x 128 x 64: {name:30}{row['forward_ms']:11.1f}{row['both_ms']:12.1f}{row['max_error']:11.1e}"
        )
    print(json.dumps({"ratios": figures, "fits": fits, "linear": exact, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
