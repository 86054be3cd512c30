"""Every bench still runs: its problems at sizes that say nothing about speed."""

import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ctdyn.solvers import Dopri5


BENCHES = Path(__file__).parents[2] / "recipes" / "bench"


def accuracy(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    problem = bench.problems(None)[:1]
    ways = (bench.by_ctdyn(Dopri5()), bench.by_scipy("RK45"), bench.by_torchdiffeq("dopri5"))
    return [bench._row(problem, run, 1e-3)["max"] for run in ways]


def adjoint_memory(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    set_sizes(BATCH=2, SERIES=2)
    rows = [row for build in (bench.ordinary, bench.stochastic) for row in bench.compare(build(10), 1)]
    rows += bench.compare(bench.own_clocks(2), 1)
    bench.show(rows)
    return [row.cpu_s for row in rows]


def cde(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    # Without the peer: it hands one time to the products of all series, which shapes as tests check them do not allow.
    nothing = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    set_sizes(BATCH=2, importlib=nothing)
    rows, _ = bench.solving(bench.Bench(0, 4), 1)
    found = [row.both_ms for row in rows if row.note != "absent"]
    return [*found, *bench.fitting(0, 4, 1).values(), *(row["max_error"] for row in bench.linear(0, 3, 1).values())]


def cells(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    set_sizes(SERIES=2, STEPS=3)
    return [bench.row(*case, 1)["ours ms"] for case in bench.CASES]


def discretize(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    set_sizes(STEPS=(1.0,))
    errors = bench.noise_errors(torch.float32) if importlib.util.find_spec("mpmath") else {}
    return [bench.transitions(2, 4, 1.0, torch.float32, 1)["error"], *(max(each) for each in errors.values())]


def kalman(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    rows = bench.measure(2, 1, 6, 2, 1)
    return [row["gradient_error"] for row in rows if "note" not in row] + [bench.long_series(250)["cpu_s"]]


def latent(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    set_sizes(WIDTH=2)
    problems = ((bench.sequences(8), bench.window(1, 8, 1)), (bench.stochastic(8), bench.window(2, 8, 2)))
    rows = [bench.compare(entries, asked, 1, time.process_time) for entries, asked in problems]
    return [figure for found in rows for row in found.values() for figure in row.values()]


def parallel(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    return [ms for row in bench.rows(4, 1).values() for ms in row.values()] + [bench.fallback(0.5, 4)]


def scan(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    clock = bench.Clock(False, 1)
    runs = (bench.recurrence((2, 9, 3), clock, True), bench.indexing(9, clock), bench.long(clock, 20))
    set_sizes(HELD=(2, 9, 3))
    rows = [row for found, _ in (*runs, bench.held(clock)) for row in found]
    bench.show(rows)
    return [row.both for row in rows if row.note != "absent"]


def sde(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    set_sizes(BATCH=2)
    return [row.both_ms for row in bench._measure(bench.Bench(0, 2), 1, False)[0] if row.note != "absent"]


def solvers(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    set_sizes(BATCH=2, TIMES=10)
    figures: list[float] = []
    for problem in bench.problems(0):
        found, absent = bench.methods(problem, True, False)
        figures += bench.race(found, 1).values()
        bench._show([method.row for method in found] + absent)
    return figures


def ssm_layer(bench: ModuleType, set_sizes: Callable[..., None]) -> list[float]:
    set_sizes(SERIES=2, TIMES=9, CHANNELS=3, STATES=2)
    clock = bench.Clock(False, 1)
    rows = [row for run in (bench.s5, bench.selective, bench.s4d) for row in run(clock)[0]]
    rows += bench.long(clock, 20)[0]
    bench.show(rows)
    return [row.both for row in rows if row.note != "absent"]


RUNS = {
    run.__name__: run
    for run in (
        accuracy, adjoint_memory, cde, cells, discretize, kalman, latent, parallel, scan, sde, solvers, ssm_layer
    )
}  # fmt: skip


@contextmanager
def imported(name: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCHES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = bench
    spec.loader.exec_module(bench)
    yield bench
    del sys.modules[spec.name]


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHES.glob("*.py")))
def test_a_bench_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with imported(name) as bench:

        def set_sizes(**sizes: object) -> None:
            for key, size in sizes.items():
                monkeypatch.setattr(bench, key, size)

        figures = RUNS[name](bench, set_sizes)
    assert figures
    assert all(math.isfinite(figure) and figure >= 0.0 for figure in figures)
