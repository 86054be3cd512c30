"""How fast a state-space layer is at irregular times: against its own matrix products, and against peers.

Problem "S5": 16 series of 1024 irregular times, 64 channels in and out, 64 complex states, float32; the outputs, and
the gradients to the inputs and to every parameter. "two products" is what the layer cannot do without: the product that
drives the states and the one that reads them, with their gradients. "s5-pytorch" is that package with a step per
observation, at the same sizes; "its formula" is the same written out here: an input matrix for every step, and a scan
of logarithmic depth with autograd. "loop" factors the input matrix and steps through time.
Problem "selective": 4 series of 1024 irregular times, 64 channels, 16 states each. "reference formula" is what the
reference of the Mamba repository computes, with steps times the true gaps: coefficients for every step, and a loop over
the times by indexing, whose backward pass is quadratic in the length; "the same, unbind" cuts the arrays once.
Problem "S4D": 16 series of 256 times, 64 channels, 32 complex states each, by a convolution and by a scan.
Problem "long": one series of 10^6 observations through an S5 layer of 16 channels and 64 complex states, in tiles of
times, with all gradients; seconds, and how far the peak memory of the process rose.

All competitors of a problem run in turns, and every ratio is the median over rounds of a ratio within a round. Times
are CPU times of the process (`--wall` for wall times); with `--threads 1`, the default, the two differ by what other
processes take.

    python recipes/bench/ssm_layer.py --quick --seed 0

On one thread of a two-core machine at rest (Zen 4), CPU time, forward and backward: S5 takes 1.6 to 1.8 times its two
products with the compiled kernels and 3.1 times in pure torch, which is what an installation without numba gives;
s5-pytorch takes 46 times as long as the compiled layer and 25 times as pure torch (measured before the kernels did
several steps at once), its formula 49 and 26 times. The selective reference formula takes 74 times as long as the
layer, cut once 1.8 times. A convolution is 16 times faster than the scan at 256 regular times. 10^6 observations take
2.5 seconds and 0.5 GiB, without numba 7.9 seconds.

A peer that is not installed gives a row that says absent. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ctdyn.linear import BlockedScan, zoh_scan
from ctdyn.linear.layers import S4D, S5, Selective


SERIES, TIMES, CHANNELS, STATES = 16, 1024, 64, 64
Run = Callable[[], object]


@dataclass
class Row:
    """One line of the table: median milliseconds, and the median ratio to the first row of the problem."""

    problem: str
    method: str
    forward: float | None = None
    both: float | None = None
    ratio: float | None = None
    note: str = ""


class PureTorch(S5):
    """The same layer where nothing is compiled."""

    def march(self, dt: Tensor, us: Tensor, h0: Tensor, reset: Tensor | None) -> Tensor:
        """As in `S5`."""
        return zoh_scan(self.rates(), dt, self.drive(us), h0, reset=reset, backend=BlockedScan())


class Clock:
    """Takes the time of runs in turns."""

    def __init__(self, wall: bool, rounds: int) -> None:
        self.wall = wall
        self.now = time.perf_counter if wall else time.process_time
        self.rounds = rounds

    def once(self, run: Run) -> float:
        """Milliseconds."""
        start = self.now()
        run()
        return (self.now() - start) * 1e3

    def compare(self, problem: str, entries: dict[str, tuple[Run, Run] | None]) -> tuple[list[Row], dict[str, float]]:
        """A row for each competitor, and ratios to the first one, gradients included."""
        present = {name: runs for name, runs in entries.items() if runs is not None}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in present}
        for runs in present.values():
            runs[1]()
        for _ in range(self.rounds):
            for name, (forward, both) in present.items():
                times[name].append((self.once(forward), self.once(both)))
        first, rows, figures = next(iter(present)), [], {}
        for name in entries:
            if name not in present:
                rows.append(Row(problem, name, note="absent"))
                continue
            over = median([a[1] / b[1] for a, b in zip(times[name], times[first], strict=True)])
            forward, both = (median([pair[i] for pair in times[name]]) for i in (0, 1))
            rows.append(Row(problem, name, forward, both, over))
            if name != first:
                figures[f"{name} / {first}"] = over
        return rows, figures


class Problem:
    """One set of data, and everybody's way to run it."""

    def __init__(self, series: int, times: int, channels: int) -> None:
        self.ts = torch.rand(series, times, dtype=torch.float64).cumsum(-1)
        self.dt = torch.cat([torch.zeros(series, 1), self.ts.diff().float()], -1)
        self.us = torch.randn(series, times, channels, requires_grad=True)
        self.g = torch.randn(series, times, channels)

    def runs(self, layer: nn.Module, call: Callable[[], Tensor]) -> tuple[Run, Run]:
        """Forward alone, and with all gradients."""
        wanted = [self.us, *(p for p in layer.parameters() if p.requires_grad)]

        def forward() -> Tensor:
            with torch.no_grad():
                return call()

        return forward, lambda: torch.autograd.grad(call(), wanted, self.g, allow_unused=True)


def products(problem: Problem) -> tuple[Run, Run]:
    """The two matrix products of the layer, and theirs."""
    widen, narrow = torch.randn(CHANNELS, 2 * STATES), torch.randn(2 * STATES, CHANNELS)
    states, g = torch.randn(SERIES, TIMES, 2 * STATES), torch.randn(SERIES, TIMES, 2 * STATES)
    for x in (widen, narrow, states):
        x.requires_grad_()

    def forward() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return problem.us @ widen, states @ narrow

    def both() -> tuple[Tensor, ...]:
        outputs = (problem.us @ widen, states @ narrow)
        return torch.autograd.grad(outputs, (problem.us, widen, states, narrow), (g, problem.g))

    return forward, both


def combine_in_log_depth(a: Tensor, b: Tensor) -> Tensor:
    """Combine neighbours, scan half as many, and fill in between."""
    if b.shape[1] == 1:
        return b
    inner = combine_in_log_depth(a[:, 1::2] * a[:, :-1:2], a[:, 1::2] * b[:, :-1:2] + b[:, 1::2])
    rest = a[:, 2::2] * inner[:, : (b.shape[1] - 1) // 2] + b[:, 2::2]
    evens = torch.cat([b[:, :1], rest], 1)
    full = torch.stack([evens[:, : inner.shape[1]], inner], 2).flatten(1, 2)
    return full if b.shape[1] % 2 == 0 else torch.cat([full, evens[:, -1:]], 1)


def materialized(layer: S5, problem: Problem) -> Tensor:
    """The formula that makes an input matrix for every step."""
    lam = layer.decay.eigenvalues(layer.raw_decay, layer.frequency)
    B, C = torch.view_as_complex(layer.B), torch.view_as_complex(layer.C)
    step = problem.dt[..., None] * layer.log_step.exp()
    a = torch.exp(lam * step)
    B_bar = ((a - 1.0) / lam)[..., None] * B
    driven = (B_bar @ problem.us[..., None].to(B.dtype)).squeeze(-1)
    hs = combine_in_log_depth(a, driven)
    return 2.0 * (hs @ C.mT).real + layer.D * problem.us


def stepped(layer: S5, problem: Problem) -> Tensor:
    """The input matrix factored out, and a loop over the times."""
    lam, driven = layer.rates(), layer.drive(problem.us)
    a = torch.exp(lam * problem.dt[..., None])
    h, hs = torch.zeros_like(driven[:, 0]), []
    for factor, x in zip(a.unbind(1), ((a - 1.0) / lam * driven).unbind(1), strict=True):
        h = factor * h + x
        hs.append(h)
    return layer.readout(torch.stack(hs, 1), problem.us)


def peer(problem: Problem) -> tuple[Run, Run] | None:
    """The package s5-pytorch with a step per observation."""
    if not installed("s5"):
        return None
    import s5 as package  # pyright: ignore[reportMissingImports]

    # It keeps every state that it is asked for.
    model = package.S5(CHANNELS, STATES)
    return problem.runs(model, lambda: model(problem.us, step_scale=problem.dt))


def s5(clock: Clock) -> tuple[list[Row], dict[str, float]]:
    """The layer against what it cannot do without, and against peers."""
    problem = Problem(SERIES, TIMES, CHANNELS)
    layer, pure = S5(CHANNELS, 2 * STATES), PureTorch(CHANNELS, 2 * STATES)
    compiled = problem.runs(layer, lambda: layer(problem.ts, problem.us)[0]) if installed("numba") else None
    in_torch = problem.runs(pure, lambda: pure(problem.ts, problem.us)[0])
    entries = {
        "two products": products(problem),
        "ctdyn S5, compiled": compiled,
        "ctdyn S5, pure torch": in_torch,
        "loop": problem.runs(pure, lambda: stepped(pure, problem)),
    }
    table, figures = clock.compare(f"S5 {SERIES} x {TIMES} x {CHANNELS} x {STATES}", entries)
    # Few rounds, because these are slow.
    rounds = Clock(clock.wall, 3)
    for name, ours in (("compiled", compiled), ("pure torch", in_torch)):
        if ours is None:
            continue
        entries = {f"ctdyn S5, {name}": ours, "s5-pytorch": peer(problem)}
        entries["its formula"] = problem.runs(pure, lambda: materialized(pure, problem))
        more, ratios = rounds.compare(f"S5 against peers, {name}", entries)
        table, figures = table + more, figures | ratios
    return table, figures


def mamba(layer: Selective, problem: Problem, unbind: bool) -> Tensor:
    """The reference formula of a selective scan."""
    us, width, states = problem.us, layer.speed.in_features, layer.state_size
    chosen = layer.select(us)
    delta = problem.dt[..., None] * softplus(layer.speed(chosen[..., :width]))
    B, C = chosen[..., width : width + states], chosen[..., width + states :]
    a = torch.exp(delta[..., None] * -layer.log_decay.exp())
    b = (delta * us)[..., None] * B[..., None, :]
    h, ys = torch.zeros_like(b[:, 0]), []
    steps = zip(a.unbind(1), b.unbind(1), C.unbind(1), strict=True) if unbind else None
    for k in range(us.shape[1]):
        factor, x, read = (a[:, k], b[:, k], C[:, k]) if steps is None else next(steps)
        h = factor * h + x
        ys.append((h * read[:, None]).sum(-1))
    return torch.stack(ys, 1) + layer.D * us


def selective(clock: Clock) -> tuple[list[Row], dict[str, float]]:
    """The selective layer against the reference formula."""
    problem, layer = Problem(4, TIMES, CHANNELS), Selective(CHANNELS, 16)
    entries = {
        "ctdyn Selective": problem.runs(layer, lambda: layer(problem.ts, problem.us)[0]),
        "reference formula": problem.runs(layer, lambda: mamba(layer, problem, unbind=False)),
        "the same, unbind": problem.runs(layer, lambda: mamba(layer, problem, unbind=True)),
    }
    return Clock(clock.wall, 3).compare(f"selective 4 x {TIMES} x {CHANNELS} x 16", entries)


def s4d(clock: Clock) -> tuple[list[Row], dict[str, float]]:
    """One layer, at regular times and at irregular ones."""
    problem, layer = Problem(16, 256, CHANNELS), S4D(CHANNELS, 64)
    entries = {
        "convolution": problem.runs(layer, lambda: layer(torch.arange(256.0), problem.us)[0]),
        "scan": problem.runs(layer, lambda: layer(problem.ts, problem.us)[0]),
    }
    return Clock(clock.wall, 3).compare(f"S4D 16 x 256 x {CHANNELS} x 32", entries)


def long(clock: Clock, length: int) -> tuple[list[Row], dict[str, float]]:
    """One long series through a layer, in tiles."""
    layer = S5(16, 2 * STATES, tile=4096)
    ts, us = torch.rand(length, dtype=torch.float64).cumsum(-1), torch.randn(length, 16, requires_grad=True)
    # Once before it is measured: kernels are compiled on their first use.
    layer(ts[:9000], us[:9000])[0].sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = clock.now()
    ys, _ = layer(ts, us)
    torch.autograd.grad(ys.square().mean(), [us, *layer.parameters()])
    seconds = clock.now() - start
    rise = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024.0
    rows = [Row(f"long, {length} observations", "ctdyn S5 in tiles", both=seconds * 1e3, note=f"{rise:.0f} MiB")]
    return rows, {"seconds": seconds, "MiB": rise}


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def show(rows: list[Row]) -> None:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    print(f"{'':34}{'method':26}{'fwd ms':>10}{'fwd+bwd ms':>12}{'ratio':>9}  note")
    for row in rows:
        numbers = f"{number(row.forward):>10}{number(row.both):>12}{number(row.ratio):>9}"
        print(f"{row.problem:34}{row.method:26}{numbers}  {row.note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a shorter long series")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true", help="wall times instead of CPU times")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    clock = Clock(options.wall, 5 if options.quick else 21)
    figures: dict[str, object] = {}
    rows, figures["long"] = long(clock, 100_000 if options.quick else 1_000_000)
    for name, run in (("S5", s5), ("selective", selective), ("S4D", s4d)):
        found, figures[name] = run(clock)
        rows += found
    show(rows)
    settings = {"threads": options.threads, "wall": options.wall, "torch": torch.__version__}
    print(json.dumps({"settings": settings, "ratios": figures, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
