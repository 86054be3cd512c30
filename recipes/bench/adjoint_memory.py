"""What a gradient costs over many steps: memory, time and error of every adjoint, beside those of the peers.

Problem (o): 16 series, state 8, a field 8-32-8 with tanh, 100 to 10,000 steps of RK4 on [0, 1], 10 outputs; loss: mean
square. Problem (s): the same drift with diagonal noise (a sigmoid of a linear layer), reversible Heun steps. Problem
(c): 32 series, each with 20 times of its own, adaptive steps at 1e-5 / 1e-6. All in float32.

Memory is what autograd saves for the backward pass, at its peak, forward and backward, every storage counted once and
cycles of objects collected; the weights are not part of it. Error: the largest difference from the gradient of `Direct`
for the same steps (for a peer: from its own back-propagation), relative to the largest entry.

Expected: Checkpoint holds 20 times less than Direct at 1,000 steps and 40 times less at 10,000, for 1 to 1.6 times its
time; Reversible holds as much at any number of steps (50 times less than Direct at 1,000), for 1.2 to 1.9 times that
of Direct with the same method, and its gradient is the very same to the last bit or nearly. On own clocks Backsolve
takes 30 times less time than torchdiffeq's adjoint on the union of 160 times, and more with more times.

    python recipes/bench/adjoint_memory.py --quick --seed 0

--quick goes to 1,000 steps. A peer that is not installed gives a row that says absent. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from ctdyn.integrate import Adjoint, Backsolve, Checkpoint, ConstantStep, Direct, PIDController, Reversible, solve
from ctdyn.paths import StoredBrownian
from ctdyn.solvers import RK4, Dopri5, ReversibleHeun, ReversibleMethod, Solver
from ctdyn.structure import Calculus, Noise, SDEField, VectorField
from ctdyn.terms import SDETerm


BATCH, STATE, WIDTH, OUTPUTS = 16, 8, 32, 10
SERIES, TIMES = 32, 20


class Field(VectorField):
    """The drift of all problems."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(STATE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, STATE))

    def forward(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """The velocity."""
        return 3.0 * self.net(y)


class Noisy(SDEField):
    """Drift and diffusion of problem (s), under the names of both libraries."""

    noise, calculus = Noise.DIAGONAL, Calculus.STRATONOVICH
    noise_type, sde_type = "diagonal", "stratonovich"

    def __init__(self) -> None:
        super().__init__()
        self.net, self.gate = Field(), nn.Linear(STATE, STATE)

    def drift(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """The drift."""
        return self.net(t, y)

    def diffusion(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """The diffusion."""
        return 0.3 * torch.sigmoid(self.gate(y))

    f, g = drift, diffusion


class Saved:
    """What autograd holds: now, and at most, in bytes of distinct storages."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.own = {w.untyped_storage().data_ptr() for w in weights}
        self.held: dict[int, list[int]] = {}
        self.now = self.peak = self.count = 0
        gc.collect()
        gc.freeze()

    def pack(self, x: Tensor) -> Box:
        """Count a tensor that is saved."""
        box, place = Box(x), x.untyped_storage().data_ptr()
        self.count += 1
        if self.count % 500 == 0:
            gc.collect()
        if place not in self.own:
            entry = self.held.setdefault(place, [0, x.untyped_storage().nbytes()])
            entry[0] += 1
            self.now += entry[1] if entry[0] == 1 else 0
            self.peak = max(self.peak, self.now)
            weakref.finalize(box, self.drop, place)
        return box

    def drop(self, place: int) -> None:
        """Count a tensor that is let go."""
        entry = self.held[place]
        entry[0] -= 1
        if entry[0] == 0:
            self.now -= self.held.pop(place)[1]


class Box:
    """A saved tensor."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


@dataclass
class Row:
    """One line of the table."""

    problem: str
    method: str
    steps: int | None = None
    saved_mb: float | None = None
    memory_ratio: float | None = None
    cpu_s: float | None = None
    time_ratio: float | None = None
    gradient_error: float | None = None
    note: str = ""


@dataclass
class Method:
    """One way to differentiate a problem, and what it is compared with."""

    row: Row
    run: Callable[[], Tensor]
    weights: Sequence[Tensor]
    against: str | None = None
    seconds: list[float] = field(default_factory=list)
    gradient: Tensor = field(default_factory=lambda: torch.zeros(0))

    def once(self) -> None:
        """One gradient, timed."""
        start = time.process_time()
        found = torch.autograd.grad(self.run().square().mean(), self.weights)
        self.seconds.append(time.process_time() - start)
        self.gradient = torch.cat([g.flatten() for g in found])

    def measure(self) -> None:
        """One gradient, its memory counted."""
        saved = Saved(self.weights)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda box: box.x):
            torch.autograd.grad(self.run().square().mean(), self.weights)
        self.row.saved_mb = saved.peak / 1e6


def compare(methods: list[Method], repeats: int) -> list[Row]:
    """Measure the methods in turn, so that a busy machine is busy for all."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for method in methods:
            before = len(caught)
            method.measure()
            method.row.note = "; ".join(sorted({w.category.__name__ for w in caught[before:]}))
        for _ in range(repeats):
            for method in methods:
                method.once()
    named = {method.row.method: method for method in methods}
    for method in methods:
        method.row.cpu_s = statistics.median(method.seconds)
        base = named.get(method.against or "")
        if base is None or not base.row.saved_mb or not method.row.saved_mb:
            continue
        pairs = zip(method.seconds, base.seconds, strict=True)
        method.row.time_ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        method.row.memory_ratio = base.row.saved_mb / method.row.saved_mb
        wrong = (method.gradient - base.gradient).abs().max() / base.gradient.abs().max()
        method.row.gradient_error = float(wrong)
    return [method.row for method in methods]


def ordinary(steps: int) -> list[Method]:
    """Problem (o)."""
    rate, y0 = Field(), torch.randn(BATCH, STATE)
    ts = torch.linspace(0.1, 1.0, OUTPUTS)
    weights = list(rate.parameters())

    def ours(adjoint: Adjoint, solver: Solver, against: str | None = None) -> Method:
        def run() -> Tensor:
            control = ConstantStep(1.0 / steps)
            return solve(rate, y0, ts, t0=0.0, solver=solver, controller=control, adjoint=adjoint, max_steps=10**6).ys

        name = f"{type(adjoint).__name__}, {type(solver).__name__}"
        name += " levels=2" if adjoint == Checkpoint(levels=2) else ""
        return Method(Row("o", name, steps), run, weights, against)

    twice = ReversibleMethod(RK4())
    methods = [
        ours(Direct(), RK4()),
        ours(Checkpoint(), RK4(), "Direct, RK4"),
        ours(Checkpoint(levels=2), RK4(), "Direct, RK4"),
        ours(Backsolve(), RK4(), "Direct, RK4"),
        ours(Direct(), twice),
        ours(Reversible(), twice, "Direct, ReversibleMethod"),
    ]
    if importlib.util.find_spec("torchdiffeq") is None:
        return methods
    import torchdiffeq

    grid = torch.cat([torch.zeros(1), ts])

    def peer(name: str, against: str | None = None) -> Method:
        def run() -> Tensor:
            options = {"step_size": 1.0 / steps}
            return torch.as_tensor(getattr(torchdiffeq, name)(rate, y0, grid, method="rk4", options=options))[1:]

        return Method(Row("o", f"torchdiffeq {name}", steps), run, weights, against)

    return [*methods, peer("odeint"), peer("odeint_adjoint", "torchdiffeq odeint")]


def stochastic(steps: int) -> list[Method]:
    """Problem (s); steps that are no power of two."""
    rate, y0 = Noisy(), torch.randn(BATCH, STATE)
    ts = torch.linspace(0.0, 1.0, OUTPUTS + 1, dtype=torch.float64)
    grid = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)[:, None].expand(-1, BATCH)
    term = SDETerm(rate, StoredBrownian.draw(grid, STATE, generator=torch.Generator().manual_seed(1)))
    weights = list(rate.parameters())

    def ours(adjoint: Adjoint, against: str | None = None) -> Method:
        def run() -> Tensor:
            control = ConstantStep(1.0 / steps)
            answer = solve(term, y0, ts, solver=ReversibleHeun(), controller=control, adjoint=adjoint, max_steps=10**6)
            return answer.ys

        return Method(Row("s", type(adjoint).__name__, steps), run, weights, against)

    methods = [ours(Direct()), ours(Checkpoint(), "Direct"), ours(Reversible(), "Direct")]
    if importlib.util.find_spec("torchsde") is None:
        return methods
    import torchsde

    def peer(name: str, against: str | None = None, **options: str) -> Method:
        def run() -> Tensor:
            noise = torchsde.BrownianInterval(0.0, 1.0, size=(BATCH, STATE), entropy=1, dt=1.0 / steps)
            times = ts.float()
            return getattr(torchsde, name)(
                rate, y0, times, bm=noise, dt=1.0 / steps, method="reversible_heun", **options
            )

        return Method(Row("s", f"torchsde {name}", steps), run, weights, against)

    adjoint = peer("sdeint_adjoint", "torchsde sdeint", adjoint_method="adjoint_reversible_heun")
    return [*methods, peer("sdeint"), adjoint]


def own_clocks(times: int) -> list[Method]:
    """Problem (c)."""
    rate, y0 = Field(), torch.randn(SERIES, STATE)
    ts = torch.rand(SERIES, times).clamp(min=1e-3).sort(-1).values
    weights = list(rate.parameters())
    control = PIDController(1e-5, 1e-6)

    def ours(adjoint: Adjoint) -> Method:
        def run() -> Tensor:
            return solve(rate, y0, ts, t0=0.0, solver=Dopri5(), controller=control, adjoint=adjoint).ys

        against = None if adjoint == Direct() else "Direct"
        return Method(Row("c", type(adjoint).__name__), run, weights, against)

    methods = [ours(way) for way in (Direct(), Checkpoint(), Backsolve())]
    if importlib.util.find_spec("torchdiffeq") is None:
        return methods
    import torchdiffeq

    union, place = torch.cat([torch.zeros(1), ts.flatten()]).unique(return_inverse=True)

    def run() -> Tensor:
        ys = torchdiffeq.odeint_adjoint(rate, y0, union, method="dopri5", rtol=1e-5, atol=1e-6)
        return torch.as_tensor(ys)[place[1:].reshape(ts.shape), torch.arange(SERIES)[:, None]]

    return [*methods, Method(Row("c", "torchdiffeq odeint_adjoint, union"), run, weights, "Direct")]


def show(rows: list[Row]) -> None:
    """The table."""
    names = list(asdict(rows[0]))
    cells = [[_text(value) for value in asdict(row).values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for line in [names, *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))


def _text(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def main() -> None:
    """Run every problem and print the table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for steps in (100, 1_000) if given.quick else (100, 1_000, 10_000):
        for build in (ordinary, stochastic):
            torch.manual_seed(given.seed)
            rows += compare(build(steps), 3 if steps == 100 else 1)
    torch.manual_seed(given.seed)
    rows += compare(own_clocks(5 if given.quick else TIMES), 3)
    absent = [name for name in ("torchdiffeq", "torchsde") if importlib.util.find_spec(name) is None]
    rows += [Row("", name, note="absent") for name in absent]
    show(rows)
    last = max(row.steps or 0 for row in rows)
    figures = {
        f"{row.problem}: {row.method}": {
            "memory_ratio": row.memory_ratio,
            "time_ratio": row.time_ratio,
            "gradient_error": row.gradient_error,
        }
        for row in rows
        if row.time_ratio is not None and row.steps in (last, None)
    }
    growth = {}
    for row in rows:
        first = next((r for r in rows if (r.problem, r.method, r.steps) == (row.problem, row.method, 100)), None)
        if row.steps == last and first and first.saved_mb and row.saved_mb:
            growth[f"{row.problem}: {row.method}"] = row.saved_mb / first.saved_mb
    print(json.dumps({"steps": last, "seed": given.seed, "figures": figures, "memory_growth_from_100_steps": growth}))


if __name__ == "__main__":
    main()
