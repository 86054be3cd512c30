"""How fast linear recurrences are: against the bandwidth of the memory, against loops, and against the scans of peers.

Problem "recurrence": h_k = a_k h_{k-1} + b_k in complex64, rows x times x states as listed, with |a| in (0.37, 1);
forward alone, and forward with the gradients to a and b. The bound is what the memory allows: 3 passes over an array
forward (a, b, h) and 8 with gradients, at the speed of `copy_` round a circle of as many arrays of that size as the run
itself touches (3, and 6 with gradients: two of them alone may live in a cache where six do not), the best of four in
the same round; arrays that all fit into a cache have a bound that no scan can reach.
Problem "held": the fused scan of a diagonal system at irregular times, with the gradients to the eigenvalues, the
steps and the inputs; nanoseconds per state. Problem "long": a layer of 64 complex states around one series of 10^6
observations, in tiles of times, with all gradients; seconds, and how far the peak memory of the process rose.

All competitors of a problem run in turns, and every figure is the median over rounds of a ratio within a round. Times
are CPU times of the process (`--wall` for wall times); with `--threads 1`, the default, the two differ by what other
processes take. Loops keep each step in the graph: "unbind" cuts the arrays once, "indexing" is the loop as people write
it, whose backward pass is quadratic in the length. "log depth" is the odd-even recursion with autograd, the formula of
accelerated-scan's reference. JAX runs jitted, on as many threads; "cold" is its compilation.

Expected (1 thread, gradients included, 16 x 4096 x 64), Zen 4, copies at 18 to 25 GB/s, at rest: compiled 1.4 times the
bound, pure torch 4.1 to 4.3 times (3.1 to 3.6 on a crowded machine, whose copies suffer more). Pure torch passes over
twice as many arrays as the bound counts: each tile is copied to where the states of a step lie together, and back,
since calls for 16 rows that lie 2 MiB apart take four times as long as for rows that lie together. The unbind loop
takes 10 times longer than the compiled scan and 3.1 times longer than pure torch at 16 rows, 124 and 28 at one; the
indexing loop at 2048 times 800 to 1000 and 350 to 500 times. jax.lax.scan takes 5.1 and 1.6 times longer (1.8 and 0.45
at one row), jax.lax.associative_scan 16 and 4.8 times (7 and 1.9 at one row). A series of 10^6 observations: 2.0 to
2.3 s, 0.3 GiB.

Wall times on 2 threads (`--threads 2 --wall`): compiled 1.8 times the bound, the unbind loop 17 times longer than that,
jax.lax.scan 5.5 and jax.lax.associative_scan 13 times; pure torch 6.2 times the bound. Its threads wait for each other
in every large call, and one that is held up holds up both: crowded machines want `torch.set_num_threads(1)`.

    python recipes/bench/scan.py --quick --seed 0

A peer that is not installed gives a row that says absent. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ctdyn.linear import BlockedScan, CompiledScan, ScanBackend, linear_recurrence, over_tiles, zoh_scan


SIZES = [(16, 4096, 64), (1, 4096, 64), (16, 1024, 256), (16, 4096, 16)]
HELD = (16, 1024, 64)
Run = Callable[[], object]


@dataclass
class Row:
    """One line of the table: medians in milliseconds, and the median ratio to the bound."""

    problem: str
    method: str
    forward: float | None = None
    both: float | None = None
    over_bound: float | None = None
    note: str = ""


class Clock:
    """Takes the time of runs in turns."""

    def __init__(self, wall: bool, rounds: int) -> None:
        self.now = time.perf_counter if wall else time.process_time
        self.rounds = rounds

    def once(self, run: Run, times: int = 1) -> float:
        """Milliseconds per run."""
        start = self.now()
        for _ in range(times):
            run()
        return (self.now() - start) / times * 1e3

    def race(self, runs: dict[str, Run]) -> dict[str, list[float]]:
        """Milliseconds of each run in each round; short ones are repeated within a round.

        Each is run once before it is timed: the one before it has swept the caches, and not for all alike.
        """
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        repeats = {name: max(1, min(50, int(20.0 / max(self.once(run), 1e-3)))) for name, run in runs.items()}
        for _ in range(self.rounds):
            for name, run in runs.items():
                run()
                if name == "bound":
                    times[name].append(min(self.once(run, repeats[name]) for _ in range(4)))
                else:
                    times[name].append(self.once(run, repeats[name]))
        return times


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    """Median of the ratios within the rounds."""
    return median([a / b for a, b in zip(times[over], times[under], strict=True)])


def unbind_loop(a: Tensor, b: Tensor) -> Tensor:
    h, out = torch.zeros_like(b[:, 0]), []
    for factor, x in zip(a.unbind(1), b.unbind(1), strict=True):
        h = factor * h + x
        out.append(h)
    return torch.stack(out, 1)


def indexing_loop(a: Tensor, b: Tensor) -> Tensor:
    h, out = torch.zeros_like(b[:, 0]), []
    for k in range(b.shape[1]):
        h = a[:, k] * h + b[:, k]
        out.append(h)
    return torch.stack(out, 1)


def log_depth(a: Tensor, b: Tensor) -> Tensor:
    """Combine neighbours, scan half as many, and fill in between."""
    length = b.shape[1]
    if length == 1:
        return b
    even, odd = b[:, 0:-1:2], b[:, 1::2]
    inner = log_depth(a[:, 1::2] * a[:, 0:-1:2], a[:, 1::2] * even + odd)
    first, rest = b[:, :1], a[:, 2::2] * inner[:, : (length - 1) // 2] + b[:, 2::2]
    evens = torch.cat([first, rest], 1)
    full = torch.stack([evens[:, : inner.shape[1]], inner], 2).flatten(1, 2)
    return full if length % 2 == 0 else torch.cat([full, evens[:, -1:]], 1)


def generic_scan(a: Tensor, b: Tensor) -> Tensor:
    from torch._higher_order_ops.associative_scan import associative_scan

    def combine(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return x[0] * y[0], y[0] * x[1] + y[1]

    return associative_scan(combine, (a, b), 1, combine_mode="generic")[1]


class Recurrence:
    """The data of one size, and everybody's way to run it."""

    def __init__(self, rows: int, length: int, states: int) -> None:
        self.name = f"recurrence {rows} x {length} x {states}"
        decay = torch.exp(-torch.rand(rows, length, states))
        self.a = torch.polar(decay, torch.rand(rows, length, states)).requires_grad_()
        self.b = torch.randn(rows, length, states, dtype=torch.complex64, requires_grad=True)
        self.g = torch.randn(rows, length, states, dtype=torch.complex64)
        self.circle = [torch.empty_like(self.g).copy_(self.g) for _ in range(6)]
        self.cold: dict[str, float] = {}

    def copies(self, arrays: int) -> Run:
        """Copies round a circle of arrays: two passes over each of them."""
        circle = self.circle[:arrays]

        def run() -> None:
            for source, target in zip(circle, circle[1:] + circle[:1], strict=True):
                target.copy_(source)

        return run

    def runs(self, scan: Callable[[Tensor, Tensor], Tensor]) -> tuple[Run, Run]:
        """Forward alone, and with gradients."""

        def forward() -> Tensor:
            with torch.no_grad():
                return scan(self.a, self.b)

        def both() -> tuple[Tensor, ...]:
            return torch.autograd.grad(scan(self.a, self.b), (self.a, self.b), self.g)

        return forward, both

    def jax_runs(self, associative: bool) -> tuple[Run, Run]:
        """The scans of JAX along a leading time axis, as its users lay out their arrays."""
        import jax  # pyright: ignore[reportMissingImports]
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

        a, b, g = (jnp.asarray(x.detach().transpose(0, 1).contiguous().numpy()) for x in (self.a, self.b, self.g))

        def by_step(a, b):
            def step(h, x):
                h = x[0] * h + x[1]
                return h, h

            return jax.lax.scan(step, jnp.zeros_like(b[0]), (a, b))[1]

        def by_tree(a, b):
            return jax.lax.associative_scan(lambda x, y: (x[0] * y[0], y[0] * x[1] + y[1]), (a, b))[1]

        scan = by_tree if associative else by_step
        forward = jax.jit(scan)
        both = jax.jit(lambda a, b, g: jax.vjp(scan, a, b)[1](g))
        start = time.perf_counter()
        jax.block_until_ready((forward(a, b), both(a, b, g)))
        self.cold["associative" if associative else "step"] = time.perf_counter() - start
        return lambda: jax.block_until_ready(forward(a, b)), lambda: jax.block_until_ready(both(a, b, g))


def backends() -> dict[str, ScanBackend | None]:
    """Ours, by name."""
    return {"ctdyn, pure torch": BlockedScan(), "ctdyn, compiled": CompiledScan() if installed("numba") else None}


def recurrence(size: tuple[int, int, int], clock: Clock, peers: bool) -> tuple[list[Row], dict[str, float]]:
    """Rows and ratios of one size."""
    problem = Recurrence(*size)
    entries: dict[str, tuple[Run, Run] | None] = {}
    for name, backend in backends().items():
        run = lambda a, b, backend=backend: linear_recurrence(a, b, backend=backend)  # noqa: E731
        entries[name] = None if backend is None else problem.runs(run)
    entries["loop, unbind"] = problem.runs(unbind_loop)
    if peers:
        entries["log depth"] = problem.runs(log_depth)
        entries["torch associative_scan"] = problem.runs(generic_scan)
        for name, associative in (("jax.lax.scan", False), ("jax.lax.associative_scan", True)):
            entries[name] = problem.jax_runs(associative) if installed("jax") else None
    present = {name: runs for name, runs in entries.items() if runs is not None}
    forward = clock.race({"bound": problem.copies(3)} | {name: runs[0] for name, runs in present.items()})
    both = clock.race({"bound": problem.copies(6)} | {name: runs[1] for name, runs in present.items()})
    rows, figures = [], {}
    passes = {"forward": median(forward["bound"]) / 6.0, "both": median(both["bound"]) / 12.0}
    speeds = ", ".join(f"{problem.g.nbytes / each / 1e6:.1f}" for each in passes.values())
    rows.append(Row(problem.name, "bound", 3 * passes["forward"], 8 * passes["both"], 1.0, f"{speeds} GB/s"))
    cold = {"jax.lax.scan": "step", "jax.lax.associative_scan": "associative"}
    for name in entries:
        if name not in present:
            rows.append(Row(problem.name, name, note="absent"))
            continue
        note = f"cold {problem.cold[cold[name]]:.0f} s" if name in cold else ""
        over = ratio(both, name, "bound") * 12.0 / 8.0
        rows.append(Row(problem.name, name, median(forward[name]), median(both[name]), over, note))
        figures[f"{name} / bound, forward"] = ratio(forward, name, "bound") * 6.0 / 3.0
        figures[f"{name} / bound"] = over
        for ours in backends():
            if name not in backends() and ours in present:
                figures[f"{name} / {ours}"] = ratio(both, name, ours)
    return rows, figures


def indexing(length: int, clock: Clock) -> tuple[list[Row], dict[str, float]]:
    """The loop as people write it; few rounds, because it is slow."""
    problem = Recurrence(16, length, 64)
    present = {name: backend for name, backend in backends().items() if backend is not None}
    runs = {"indexing": problem.runs(indexing_loop)[1]}
    for name, backend in present.items():
        runs[name] = problem.runs(lambda a, b, backend=backend: linear_recurrence(a, b, backend=backend))[1]
        runs[name]()
    times = {name: [clock.once(run) for _ in range(1 if name == "indexing" else 5)] for name, run in runs.items()}
    rows = [Row(problem.name, "loop, indexing", both=median(times["indexing"]))]
    return rows, {f"loop, indexing / {name}": times["indexing"][0] / median(times[name]) for name in present}


def held(clock: Clock) -> tuple[list[Row], dict[str, float]]:
    """The fused scan at irregular times."""
    (rows, length, states), problem = HELD, "held {} x {} x {}".format(*HELD)
    lam = torch.complex(-torch.rand(states), 3.0 * torch.rand(states)).requires_grad_()
    dt, v = torch.rand(rows, length).requires_grad_(), torch.randn(rows, length, states, dtype=torch.complex64)
    v.requires_grad_()
    g = torch.randn_like(v)
    table, figures, count = [], {}, v.numel()
    for name, backend in backends().items():
        if backend is None:
            table.append(Row(problem, name, note="absent"))
            continue

        def forward(backend: ScanBackend = backend) -> Tensor:
            with torch.no_grad():
                return zoh_scan(lam, dt, v, backend=backend)

        def both(backend: ScanBackend = backend) -> tuple[Tensor, ...]:
            return torch.autograd.grad(zoh_scan(lam, dt, v, backend=backend), (lam, dt, v), g)

        times = clock.race({"forward": forward, "both": both})
        table.append(Row(problem, name, median(times["forward"]), median(times["both"])))
        figures[f"{name}, ns per state, forward"] = median(times["forward"]) * 1e6 / count
        figures[f"{name}, ns per state"] = median(times["both"]) * 1e6 / count
    return table, figures


def long(clock: Clock, length: int) -> tuple[list[Row], dict[str, float]]:
    """One long series through a layer, in tiles."""
    lam = torch.complex(-torch.rand(64), 3.0 * torch.rand(64)).requires_grad_()
    widen = torch.randn(4, 64, dtype=torch.complex64, requires_grad=True)
    narrow = torch.randn(64, 4, dtype=torch.complex64, requires_grad=True)
    dt, u = torch.rand(1, length, 1), torch.randn(1, length, 4, requires_grad=True)

    def body(h: Tensor, dt: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        states = zoh_scan(lam, dt[..., 0], u.to(widen.dtype) @ widen, h)
        return (states @ narrow).real, states[:, -1]

    def run() -> None:
        y, _ = over_tiles(body, torch.zeros(1, 64, dtype=torch.complex64), (dt, u), 8192)
        torch.autograd.grad(y.square().mean(), (lam, widen, narrow, u))

    over_tiles(body, torch.zeros(1, 64, dtype=torch.complex64), (dt[:, :9], u[:, :9]), 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = clock.once(run) / 1e3
    rise = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024.0
    rows = [Row(f"long, {length} observations", "ctdyn, layer in tiles", both=seconds * 1e3, note=f"{rise:.0f} MiB")]
    return rows, {"seconds": seconds, "MiB": rise}


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def show(rows: list[Row]) -> None:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    print(f"{'':34}{'method':26}{'fwd ms':>10}{'fwd+bwd ms':>12}{'/ bound':>9}  note")
    for row in rows:
        numbers = f"{number(row.forward):>10}{number(row.both):>12}{number(row.over_bound):>9}"
        print(f"{row.problem:34}{row.method:26}{numbers}  {row.note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, peers at the first size alone, short loops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true", help="wall times instead of CPU times")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    if options.threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    clock = Clock(options.wall, 5 if options.quick else 15)
    rows, figures = [], {}
    found, figures["long"] = long(clock, 100_000 if options.quick else 1_000_000)
    rows += found
    for size in SIZES:
        found, figures["x".join(map(str, size))] = recurrence(size, clock, size == SIZES[0] or not options.quick)
        rows += found
    found, figures["indexing"] = indexing(512 if options.quick else 2048, clock)
    rows += found
    found, figures["held"] = held(clock)
    show(rows + found)
    settings = {"threads": options.threads, "wall": options.wall, "torch": torch.__version__}
    print(json.dumps({"settings": settings, "ratios": figures, "rows": [asdict(row) for row in rows + found]}))


if __name__ == "__main__":
    main()
