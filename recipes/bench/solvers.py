"""How long a solve takes when every series has a clock of its own, beside the peers that users know.

Problem (a): 64 series, each with 100 random times of its own in (0, 1]; state 16; an autonomous field 16-64-64-16 with
tanh, hidden weights x1.5, output layer x20; y0 ~ N(0, 1); Dopri5 at rtol 1e-3, atol 1e-4; loss: mean square of all
outputs. Problem (b): the same with one RK4 step per gap. Error: against RK4 with 20 steps per gap in float64.

Expected (2 CPU threads): (a) own clocks within 1.5x of one shared grid of 100 times, forward and backward, at the same
memory; torchdiffeq on the union of all times takes some hundred times longer. (b) on a par with a loop by hand.

    python recipes/bench/solvers.py --quick --seed 0

--quick takes fewer repetitions and gives torchdiffeq 10 times per series instead of 100 (its time is quadratic in it).
A peer that is not installed gives a row that says absent. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ctdyn.fields import VectorField
from ctdyn.integrate import PIDController, StepTo, TorchDiffEq, solve
from ctdyn.solvers import RK4, Dopri5


BATCH, TIMES, STATE, WIDTH = 64, 100, 16, 64
RTOL, ATOL = 1e-3, 1e-4


class Field(VectorField):
    """The field of the problem; it counts its evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(STATE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, STATE)
        )
        with torch.no_grad():
            for layer, factor in ((self.net[0], 1.5), (self.net[2], 1.5), (self.net[4], 20.0)):
                for parameter in layer.parameters():
                    parameter.mul_(factor)
        self.calls = 0

    def forward(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """The velocity."""
        self.calls += 1
        return self.net(y)


@dataclass
class Row:
    """One line of the table."""

    problem: str
    method: str
    times: int | None = None
    evaluations: int | None = None
    forward_ms: float | None = None
    both_ms: float | None = None
    saved_mb: float | None = None
    max_error: float | None = None
    note: str = ""


class Bench:
    """The data, the reference, and the stopwatch."""

    def __init__(self, seed: int, quick: bool) -> None:
        torch.manual_seed(seed)
        self.quick = quick
        self.field = Field()
        self.y0 = torch.randn(BATCH, STATE)
        self.own = torch.rand(BATCH, TIMES).clamp(min=1e-4).sort(-1).values
        self.zero = torch.zeros(BATCH, 1)
        double = Field().double()
        double.load_state_dict(self.field.state_dict())
        with torch.no_grad():
            truth = solve(
                double,
                self.y0.double(),
                self.own.double(),
                t0=0.0,
                solver=RK4(),
                controller=StepTo(20),
                max_steps=10**4,
            )
        self.truth = truth.ys

    def row(self, problem: str, method: str, run: Callable[[Tensor], Tensor], ts: Tensor, repeats: int) -> Row:
        """Measure one method: `run(ts)` gives the states at `ts`."""
        self.field.calls = 0
        with torch.no_grad():
            ys = run(ts)
        calls = self.field.calls
        error = None
        if ts.dim() == 2 and not method.startswith("bare"):
            place = torch.searchsorted(self.own, ts.contiguous())
            error = float((ys - torch.take_along_dim(self.truth, place[..., None], 1)).abs().max())
        forward = _median(lambda: self._forward(run, ts), repeats)
        both = _median(lambda: self._both(run, ts), repeats)
        return Row(problem, method, ts.shape[-1], calls, forward, both, self._saved(run, ts), error)

    def ratio(self, run: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, repeats: int) -> float:
        """Median of the paired ratios of forward and backward, taken in turns so that a busy machine strikes both."""
        ratios = []
        for _ in range(repeats):
            first, second = _once(lambda: self._both(run, a)), _once(lambda: self._both(run, b))
            ratios.append(first / second)
        return sorted(ratios)[len(ratios) // 2]

    def _forward(self, run: Callable[[Tensor], Tensor], ts: Tensor) -> None:
        with torch.no_grad():
            run(ts)

    def _both(self, run: Callable[[Tensor], Tensor], ts: Tensor) -> None:
        self.field.zero_grad()
        run(ts).square().mean().backward()

    def _saved(self, run: Callable[[Tensor], Tensor], ts: Tensor) -> float:
        """Memory that the graph holds for the backward pass, in MB."""
        storages: dict[int, int] = {}
        kept = []

        def pack(x: Tensor) -> Tensor:
            kept.append(x)
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            run(ts)
        return sum(storages.values()) / 1e6


def _once(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _median(call: Callable[[], None], repeats: int) -> float:
    if repeats > 1:
        call()
    times = sorted(_once(call) for _ in range(repeats))
    return times[len(times) // 2]


def union_of_times(bench: Bench, method: str, **options: float) -> Callable[[Tensor], Tensor]:
    """What torchdiffeq's users do: one grid of all times of all series, and a gather."""
    import torchdiffeq

    def run(ts: Tensor) -> Tensor:
        union, place = torch.cat([torch.zeros(1), ts.flatten()]).unique(return_inverse=True)
        ys = torchdiffeq.odeint(bench.field, bench.y0, union, method=method, rtol=RTOL, atol=ATOL, options=options)
        place = place[1:].reshape(ts.shape)
        return ys[place, torch.arange(len(ts))[:, None]]

    return run


def by_hand(bench: Bench) -> Callable[[Tensor], Tensor]:
    """RK4 on own gaps, written out as a user would."""

    def run(ts: Tensor) -> Tensor:
        y, ys = bench.y0, []
        field = bench.field
        for dt in torch.cat([bench.zero, ts], -1).diff(dim=-1).unsqueeze(-1).unbind(1):
            k1 = field(ts, y)
            k2 = field(ts, y + dt / 2 * k1)
            k3 = field(ts, y + dt / 2 * k2)
            k4 = field(ts, y + dt * k3)
            y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            ys.append(y)
        return torch.stack(ys, 1)

    return run


def bare(bench: Bench, evaluations: int) -> Callable[[Tensor], Tensor]:
    """The evaluations of the field alone, one after another: the floor."""

    def run(ts: Tensor) -> Tensor:
        y = bench.y0
        for _ in range(evaluations):
            y = bench.field(ts, y)
        return y.unsqueeze(1).expand(-1, ts.shape[1], -1)

    return run


def by_torchode(bench: Bench) -> Callable[[Tensor], Tensor]:
    """Torchode with times per series."""
    import torchode  # pyright: ignore[reportMissingImports]

    term = torchode.ODETerm(bench.field)
    method = torchode.Dopri5(term=term)
    solver = torchode.AutoDiffAdjoint(method, torchode.IntegralController(atol=ATOL, rtol=RTOL, term=term))

    def run(ts: Tensor) -> Tensor:
        times = torch.cat([bench.zero, ts], -1)
        return solver.solve(torchode.InitialValueProblem(y0=bench.y0, t_eval=times)).ys[:, 1:]

    return run


def by_diffrax(bench: Bench, repeats: int) -> Row:
    """Diffrax under vmap and jit; its compilation is not in the times."""
    import diffrax  # pyright: ignore[reportMissingImports]
    import jax  # pyright: ignore[reportMissingImports]
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

    weights = [(jnp.array(m.weight.detach().numpy()), jnp.array(m.bias.detach().numpy())) for m in bench.field.net[::2]]
    y0, own = jnp.array(bench.y0.numpy()), jnp.array(bench.own.numpy())

    def field(t, y, args):
        for matrix, bias in args[:-1]:
            y = jnp.tanh(matrix @ y + bias)
        return args[-1][0] @ y + args[-1][1]

    def one(weights, y, ts):
        control = diffrax.PIDController(rtol=RTOL, atol=ATOL)
        saveat = diffrax.SaveAt(ts=ts)
        args = (diffrax.ODETerm(field), diffrax.Dopri5(), 0.0, ts[-1], None, y)
        return diffrax.diffeqsolve(*args, args=weights, saveat=saveat, stepsize_controller=control).ys

    forward = jax.jit(lambda w: jax.vmap(one, (None, 0, 0))(w, y0, own))
    both = jax.jit(jax.grad(lambda w: (forward(w) ** 2).mean()))
    error = float(abs(torch.tensor(forward(weights).tolist()) - bench.truth).max())
    jax.block_until_ready(both(weights))
    ahead = _median(lambda: jax.block_until_ready(forward(weights)), repeats)
    there_and_back = _median(lambda: jax.block_until_ready(both(weights)), repeats)
    return Row("a", "diffrax, vmap + jit", TIMES, None, ahead, there_and_back, None, error, "compilation not counted")


def problem_a(bench: Bench, repeats: int) -> tuple[list[Row], dict[str, float]]:
    """Adaptive steps on own clocks."""
    control = PIDController(RTOL, ATOL)

    def ours(ts: Tensor) -> Tensor:
        return solve(bench.field, bench.y0, ts, t0=0.0, solver=Dopri5(), controller=control).ys

    def engine(ts: Tensor) -> Tensor:
        return solve(bench.field, bench.y0, ts, t0=0.0, solver=TorchDiffEq("dopri5", rtol=RTOL, atol=ATOL)).ys

    shared = bench.own[0].clone()
    few = bench.own[:, 9::10] if bench.quick else bench.own
    rows = [
        bench.row("a", "ctdyn, own clocks", ours, bench.own, repeats),
        bench.row("a", "ctdyn, one shared grid", ours, shared, repeats),
        bench.row("a", "ctdyn, TorchDiffEq engine", engine, bench.own, max(repeats // 5, 1)),
        bench.row("a", "torchdiffeq, union of times", union_of_times(bench, "dopri5"), few, 1),
    ]
    rows.append(bench.row("a", "bare evaluations", bare(bench, rows[0].evaluations or 1), bench.own, repeats))
    if _installed("torchode"):
        rows.append(bench.row("a", "torchode, times per series", by_torchode(bench), bench.own, repeats))
    else:
        rows.append(Row("a", "torchode, times per series", note="absent"))
    rows.append(by_diffrax(bench, repeats) if _installed("diffrax") else Row("a", "diffrax, vmap + jit", note="absent"))
    figures = {
        "own_over_shared": bench.ratio(ours, bench.own, shared, repeats),
        "own_over_shared_memory": (rows[0].saved_mb or 0.0) / (rows[1].saved_mb or 1.0),
        "union_over_own_at_same_times": (rows[3].both_ms or 0.0) / _median(lambda: bench._both(ours, few), repeats),
    }
    return rows, figures


def problem_b(bench: Bench, repeats: int) -> tuple[list[Row], dict[str, float]]:
    """One RK4 step per gap."""

    def ours(ts: Tensor) -> Tensor:
        return solve(bench.field, bench.y0, ts, t0=0.0, solver=RK4(), controller=StepTo()).ys

    shared = bench.own[0].clone()
    few = bench.own[:, 9::10] if bench.quick else bench.own
    rows = [
        bench.row("b", "ctdyn, own clocks", ours, bench.own, repeats),
        bench.row("b", "ctdyn, one shared grid", ours, shared, repeats),
        bench.row("b", "a loop by hand", by_hand(bench), bench.own, repeats),
        bench.row("b", "bare evaluations", bare(bench, 4 * TIMES), bench.own, repeats),
        bench.row("b", "torchdiffeq rk4, union of times", union_of_times(bench, "rk4", step_size=0.01), few, 1),
    ]
    figures = {
        "own_over_shared": bench.ratio(ours, bench.own, shared, repeats),
        "own_over_shared_memory": (rows[0].saved_mb or 0.0) / (rows[1].saved_mb or 1.0),
        "own_over_hand": (rows[0].both_ms or 0.0) / (rows[2].both_ms or 1.0),
    }
    return rows, figures


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _show(rows: list[Row]) -> None:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    names = f"{'times':>6}{'evals':>7}{'fwd ms':>10}{'fwd+bwd ms':>12}{'saved MB':>10}{'max error':>11}"
    print(f"{'':2}{'method':34}{names}  note")
    for row in rows:
        print(
            f"{row.problem:2}{row.method:34}{number(row.times, 'd'):>6}{number(row.evaluations, 'd'):>7}"
            f"{number(row.forward_ms, '.2f'):>10}{number(row.both_ms, '.2f'):>12}{number(row.saved_mb, '.2f'):>10}"
            f"{number(row.max_error, '.1e'):>11}  {row.note}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, a smaller union for torchdiffeq")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench(options.seed, options.quick)
    repeats = 7 if options.quick else 41
    rows_a, figures_a = problem_a(bench, repeats)
    rows_b, figures_b = problem_b(bench, repeats)
    _show(rows_a + rows_b)
    print(json.dumps({"a": figures_a, "b": figures_b, "rows": [asdict(row) for row in rows_a + rows_b]}))


if __name__ == "__main__":
    main()
