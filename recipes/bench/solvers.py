"""How long a solve takes when every series has a clock of its own, beside the peers that users know.

Problem (a): 64 series, each with 100 random times of its own in (0, 1]; state 16; an autonomous field 16-64-64-16 with
tanh, hidden weights x1.5, output layer x20; y0 ~ N(0, 1); Dopri5 at rtol 1e-3, atol 1e-4; loss: mean square of all
outputs. Problem (b): the same with one RK4 step per gap. Problem (c): the Van der Pol oscillator with 64 values of mu
from 0.1 to 20, y0 = (2, 0), 100 shared times in [0, 10]; Dopri5 at rtol 1e-5, atol 1e-6; loss: mean square at the end.
Errors: (a) and (b) against RK4 with 20 steps per gap in float64, (c) against Dopri5 at rtol 1e-10 in float64.

Every method is timed in turns with the others, so that a busy machine strikes all alike: the table gives medians, the
JSON object medians of paired ratios, how many times longer than "ctdyn" each took, and how many times longer than our
engine of its steps (on the same times) torchdiffeq took on the union of times. "bare" is the field alone: as many
evaluations as ctdyn made, one after another, without a solver. "cold" is the first call: what compiling takes.

Expected (2 CPU threads): (a) torchdiffeq on the union of all times takes over 1000 times longer than ctdyn and over 500
times longer than its own steps through our engine; torchode 1.7 times; diffrax takes 0.74 times as long, as does ctdyn
compiled; own clocks cost what one shared grid costs. (b) on a par with a loop by hand (0.98), 1.2 times the bare
evaluations; compiled, 1.6 times faster than the loop. (c) torchode takes 2.4 times as long; compiled, ctdyn is 5 times
faster than uncompiled, and diffrax 1.7 times faster than that.
Compiling takes 20 to 40 seconds. The largest error of (c) is that of one series at which rounding y0 in its last place
moves the answer from 2e-4 to 3e-3 in float32: methods that differ in it do not differ in quality.

    python recipes/bench/solvers.py --quick --seed 0

--quick takes fewer repetitions, gives torchdiffeq 10 times per series instead of 100 (its time is quadratic in it), and
compiles problem (c) alone. A peer that is not installed gives a row that says absent. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from ctdyn.fields import VectorField
from ctdyn.integrate import Direct, PIDController, StepController, StepTo, TorchDiffEq, solve
from ctdyn.solvers import RK4, Dopri5, Solver


BATCH, TIMES, STATE, WIDTH = 64, 100, 16, 64


class Field(VectorField):
    """The field of problems (a) and (b)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(STATE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, STATE)
        )
        with torch.no_grad():
            for layer, factor in ((self.net[0], 1.5), (self.net[2], 1.5), (self.net[4], 20.0)):
                for parameter in layer.parameters():
                    parameter.mul_(factor)

    def forward(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """The velocity."""
        return self.net(y)


class VanDerPol(VectorField):
    """The field of problem (c)."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.logspace(-1, torch.tensor(20.0).log10().item(), BATCH))

    def forward(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """The velocity."""
        x, v = y.unbind(-1)
        return torch.stack([v, self.mu * (1 - x**2) * v - x], -1)


@dataclass
class Row:
    """One line of the table."""

    problem: str
    method: str
    times: int | None = None
    evaluations: int | None = None
    forward_ms: float | None = None
    both_ms: float | None = None
    cold_s: float | None = None
    saved_mb: float | None = None
    max_error: float | None = None
    note: str = ""


@dataclass
class Method:
    """One way to solve a problem: its line, what to time, and whether one time is enough."""

    row: Row
    forward: Callable[[], object]
    both: Callable[[], object]
    once: bool = False
    forward_ms: list[float] = field(default_factory=list)
    both_ms: list[float] = field(default_factory=list)


@dataclass
class Problem:
    """A field, its data, and what a method must give."""

    name: str
    field: VectorField
    y0: Tensor
    ts: Tensor
    truth: Tensor
    solver: Solver
    controller: StepController
    rtol: float = 0.0
    atol: float = 0.0
    last: bool = False

    def method(
        self, name: str, run: Callable[[Tensor], Tensor], ts: Tensor | None = None, once: bool = False
    ) -> Method:
        """A method that gives the states at the times, `(series, time, state)`."""
        ts = self.ts if ts is None else ts
        row = Row(self.name, name, ts.shape[-1])
        start = time.perf_counter()
        self.both(run, ts)
        row.cold_s = time.perf_counter() - start
        if "compiled" not in name:
            # Hooks would be compiled in.
            row.evaluations, row.saved_mb = self.evaluations(run, ts), self.saved(run, ts)
        if ts.dim() == 2 and not name.startswith("bare"):
            with torch.no_grad():
                ys = run(ts)
            place = torch.searchsorted(self.ts, ts.contiguous())
            row.max_error = float((ys - torch.take_along_dim(self.truth, place[..., None], 1)).abs().max())
        return Method(row, torch.no_grad()(lambda: run(ts)), lambda: self.both(run, ts), once)

    def evaluations(self, run: Callable[[Tensor], Tensor], ts: Tensor) -> int:
        """How often the field is evaluated, for the whole batch at once."""
        calls = []
        hook = self.field.register_forward_pre_hook(lambda *_: calls.append(1))
        with torch.no_grad():
            run(ts)
        hook.remove()
        return len(calls)

    def ours(self, adjoint: Direct) -> Callable[[Tensor], Tensor]:
        """This library."""
        options = {"solver": self.solver, "controller": self.controller, "adjoint": adjoint}
        return lambda ts: solve(self.field, self.y0, ts, t0=0.0, **options).ys

    def both(self, run: Callable[[Tensor], Tensor], ts: Tensor) -> None:
        """Forward and backward."""
        self.field.zero_grad()
        ys = run(ts)
        (ys[:, -1] if self.last else ys).square().mean().backward()

    def saved(self, run: Callable[[Tensor], Tensor], ts: Tensor) -> float:
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


def problems(seed: int) -> list[Problem]:
    """The three problems and their reference solutions."""
    torch.manual_seed(seed)
    field, y0 = Field(), torch.randn(BATCH, STATE)
    own = torch.rand(BATCH, TIMES).clamp(min=1e-4).sort(-1).values
    with torch.no_grad():
        truth = solve(field.double(), y0.double(), own.double(), t0=0.0, solver=RK4(), controller=StepTo(20)).ys
        field.float()
        wheel, start = VanDerPol(), torch.tensor([2.0, 0.0]).repeat(BATCH, 1)
        shared = torch.linspace(0.1, 10.0, TIMES).repeat(BATCH, 1)
        tight = PIDController(1e-10, 1e-12)
        cycles = solve(
            wheel.double(), start.double(), shared.double(), t0=0.0, solver=Dopri5(), controller=tight, max_steps=10**5
        ).ys
        wheel.float()
    return [
        Problem("a", field, y0, own, truth, Dopri5(), PIDController(1e-3, 1e-4), 1e-3, 1e-4),
        Problem("b", field, y0, own, truth, RK4(), StepTo()),
        Problem("c", wheel, start, shared, cycles, Dopri5(), PIDController(1e-5, 1e-6), 1e-5, 1e-6, last=True),
    ]


def union_of_times(problem: Problem, method: str, **options: float) -> Callable[[Tensor], Tensor]:
    """What torchdiffeq's users do: one grid of all times of all series, and a gather."""
    import torchdiffeq

    tolerances = {"rtol": problem.rtol or 1e-7, "atol": problem.atol or 1e-9}

    def run(ts: Tensor) -> Tensor:
        union, place = torch.cat([torch.zeros(1), ts.flatten()]).unique(return_inverse=True)
        ys = torchdiffeq.odeint(problem.field, problem.y0, union, method=method, options=options, **tolerances)
        return torch.as_tensor(ys)[place[1:].reshape(ts.shape), torch.arange(len(ts))[:, None]]

    return run


def by_hand(problem: Problem) -> Callable[[Tensor], Tensor]:
    """RK4 on own gaps, written out as a user would."""

    def run(ts: Tensor) -> Tensor:
        y, ys, field = problem.y0, [], problem.field
        for dt in torch.cat([torch.zeros(len(ts), 1), ts], -1).diff(dim=-1).unsqueeze(-1).unbind(1):
            k1 = field(ts, y)
            k2 = field(ts, y + dt / 2 * k1)
            k3 = field(ts, y + dt / 2 * k2)
            k4 = field(ts, y + dt * k3)
            y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            ys.append(y)
        return torch.stack(ys, 1)

    return run


def bare(problem: Problem, evaluations: int) -> Callable[[Tensor], Tensor]:
    """The evaluations of the field alone, one after another: the floor."""

    def run(ts: Tensor) -> Tensor:
        y = problem.y0
        for _ in range(evaluations):
            # Small changes: neither states that saturate nor gradients that vanish into slow tiny numbers.
            y = torch.add(y, problem.field(ts, y), alpha=1e-3)
        return y.unsqueeze(1).expand(-1, ts.shape[1], -1)

    return run


def by_torchode(problem: Problem) -> Callable[[Tensor], Tensor]:
    """Torchode with times per series."""
    import torchode  # pyright: ignore[reportMissingImports]

    term = torchode.ODETerm(problem.field)
    controller = torchode.IntegralController(atol=problem.atol, rtol=problem.rtol, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), controller)

    def run(ts: Tensor) -> Tensor:
        times = torch.cat([torch.zeros(len(ts), 1), ts], -1)
        return solver.solve(torchode.InitialValueProblem(y0=problem.y0, t_eval=times)).ys[:, 1:]

    return run


def by_diffrax(problem: Problem) -> Method:
    """Diffrax under vmap and jit."""
    import diffrax  # pyright: ignore[reportMissingImports]
    import jax  # pyright: ignore[reportMissingImports]
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

    def mlp(t, y, weights):
        for matrix, bias in weights[:-1]:
            y = jnp.tanh(matrix @ y + bias)
        return weights[-1][0] @ y + weights[-1][1]

    def oscillator(t, y, mu):
        return jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

    def array(x: Tensor):
        return jnp.array(x.detach().numpy())

    if isinstance(problem.field, Field):
        weights, axes, rate = (
            [(array(m.weight), array(m.bias)) for m in problem.field.net if isinstance(m, nn.Linear)],
            None,
            mlp,
        )
    else:
        weights, axes, rate = array(next(problem.field.parameters())), 0, oscillator
    y0, ts = array(problem.y0), array(problem.ts)

    def one(weights, y, ts):
        control = diffrax.PIDController(rtol=problem.rtol, atol=problem.atol)
        saveat = diffrax.SaveAt(ts=ts)
        args = (diffrax.ODETerm(rate), diffrax.Dopri5(), 0.0, ts[-1], None, y)
        return diffrax.diffeqsolve(*args, args=weights, saveat=saveat, stepsize_controller=control).ys

    forward = jax.jit(lambda w: jax.vmap(one, (axes, 0, 0))(w, y0, ts))
    both = jax.jit(jax.grad(lambda w: ((forward(w)[:, -1] if problem.last else forward(w)) ** 2).mean()))
    start = time.perf_counter()
    jax.block_until_ready(both(weights))
    cold = time.perf_counter() - start
    error = float(abs(torch.tensor(forward(weights).tolist()) - problem.truth).max())
    row = Row(problem.name, "diffrax, vmap + jit", TIMES, cold_s=cold, max_error=error)
    return Method(row, lambda: jax.block_until_ready(forward(weights)), lambda: jax.block_until_ready(both(weights)))


def methods(problem: Problem, quick: bool, compiled: bool) -> tuple[list[Method], list[Row]]:
    """What is compared on a problem, "ctdyn" first; and a row for everything that is absent."""
    ours = problem.ours(Direct())
    found, absent = [problem.method("ctdyn", ours)], []
    few = problem.ts[:, 9::10] if quick else problem.ts
    if compiled:
        found.append(problem.method("ctdyn, compiled", problem.ours(Direct(compile=True))))
    if problem.name != "c":
        found.append(problem.method("ctdyn, one shared grid", ours, problem.ts[0].clone()))
        kind, options = ("dopri5", {}) if problem.name == "a" else ("rk4", {"step_size": 0.01})
        if quick:
            found.append(problem.method("ctdyn, the times of the union", ours, few))
        found.append(
            problem.method("torchdiffeq, union of times", union_of_times(problem, kind, **options), few, once=True)
        )
    if problem.name == "a":
        engine = TorchDiffEq("dopri5", rtol=problem.rtol, atol=problem.atol)

        def by_engine(ts: Tensor) -> Tensor:
            return solve(problem.field, problem.y0, ts, t0=0.0, solver=engine).ys

        found.append(problem.method("ctdyn, TorchDiffEq engine", by_engine))
        if quick:
            found.append(problem.method("the engine, the times of the union", by_engine, few))
    if problem.name == "b":
        found.append(problem.method("a loop by hand", by_hand(problem)))
    found.append(problem.method("bare", bare(problem, found[0].row.evaluations or 1)))
    if problem.name != "b":
        for name, make in (("torchode", lambda: problem.method("torchode", by_torchode(problem))),):
            found.append(make()) if _installed(name) else absent.append(Row(problem.name, name, note="absent"))
        if _installed("diffrax"):
            found.append(by_diffrax(problem))
        else:
            absent.append(Row(problem.name, "diffrax, vmap + jit", note="absent"))
    return found, absent


def race(found: list[Method], repeats: int) -> dict[str, float]:
    """Time all methods in turns; how many times longer than the first each takes, forward and backward."""
    for turn in range(repeats):
        for method in found:
            if not (method.once and turn):
                method.forward_ms.append(_time(method.forward))
                method.both_ms.append(_time(method.both))
    for method in found:
        method.row.forward_ms, method.row.both_ms = _median(method.forward_ms), _median(method.both_ms)
    first = next((m for m in found if m.row.method == "ctdyn, the times of the union"), found[0])
    ratios = {}
    for method in found[1:]:
        base = first if method.row.method.startswith("torchdiffeq") else found[0]
        ratios[method.row.method] = _ratio(method, base)
    named = {method.row.method: method for method in found}
    engine = named.get("the engine, the times of the union", named.get("ctdyn, TorchDiffEq engine"))
    if engine is not None:
        ratios["torchdiffeq, union of times, over the engine"] = _ratio(named["torchdiffeq, union of times"], engine)
    return ratios


def _ratio(method: Method, base: Method) -> float:
    """How many times longer one takes than the other, forward and backward."""
    return _median([one / other for one, other in zip(method.both_ms, base.both_ms, strict=False)])


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _show(rows: list[Row]) -> None:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    names = f"{'times':>6}{'evals':>7}{'fwd ms':>10}{'fwd+bwd ms':>12}{'cold s':>8}{'saved MB':>10}{'max error':>11}"
    print(f"{'':2}{'method':32}{names}  note")
    for row in rows:
        print(
            f"{row.problem:2}{row.method:32}{number(row.times, 'd'):>6}{number(row.evaluations, 'd'):>7}"
            f"{number(row.forward_ms, '.2f'):>10}{number(row.both_ms, '.2f'):>12}{number(row.cold_s, '.2f'):>8}"
            f"{number(row.saved_mb, '.2f'):>10}{number(row.max_error, '.1e'):>11}  {row.note}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, a smaller union, less compiled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # Problem (c) is stiff at one end, and solved by an explicit method on purpose.
    warnings.filterwarnings("ignore", message=".*the equation is stiff.*")
    repeats = 7 if options.quick else 41
    rows, ratios = [], {}
    for problem in problems(options.seed):
        compiled = not options.eager and (problem.name == "c" or not options.quick)
        found, absent = methods(problem, options.quick, compiled)
        ratios[problem.name] = race(found, repeats)
        rows += [method.row for method in found] + absent
    _show(rows)
    print(json.dumps({"times_longer": ratios, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
