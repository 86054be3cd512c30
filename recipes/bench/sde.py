"""How long a latent stochastic equation takes, forward and backward, beside the peers that users know.

The problem: 64 series of 8 dimensions, drift 8-64-64-8 with tanh, diagonal diffusion sigmoid(Linear), Ito, T = 1 in 200
or 100 equal steps, outputs at all of them, float32; loss: mean square of all outputs. (The linear map under the
diffusion is diagonal, as every diagonal method needs.) Peers: torchsde as its documentation calls it, and with
`BrownianInterval(dt=dt)`; diffrax (jit, virtual tree, recursive checkpoints); a loop by hand with pre-drawn noise; and
the bare arithmetic of the field without a solver.

Expected (2 CPU threads): Euler-Maruyama as fast as the loop by hand (1.0 and 1.25 times its time); torchsde takes 2.6
times as long at 200 steps and 43 times at 100, where its tree is built with the residual of a float32 clock; the bare
arithmetic .8 to .9 of our time, so that no solver can be more than 3.3 times faster than torchsde at 200 steps.

    python recipes/bench/sde.py --quick --seed 0

--quick takes fewer repetitions; --compile adds the compiled replay (half a minute to compile). A peer that is not
installed gives a row that says absent. The last line is one JSON object.
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

from ctdyn.integrate import Checkpoint, ConstantStep, Direct, solve
from ctdyn.paths import VirtualBrownianTree
from ctdyn.solvers import SRI1, EulerMaruyama, Heun, Midpoint, Milstein, ReversibleHeun, Solver
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.terms import SDETerm


BATCH, STATE, WIDTH = 64, 8, 64


class Field(SDEField):
    """The field of the problem, for ctdyn and for torchsde."""

    noise, calculus = Noise.DIAGONAL, Calculus.ITO
    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(STATE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, STATE)
        )
        self.slope, self.shift = nn.Parameter(torch.randn(STATE)), nn.Parameter(torch.randn(STATE))

    def drift(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """The drift."""
        return self.net(y)

    def diffusion(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """The diffusion, entry by entry."""
        return torch.sigmoid(torch.addcmul(self.shift, self.slope, y))

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift, as torchsde calls it."""
        return self.net(y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """The diffusion, as torchsde calls it."""
        return self.diffusion(t, y)


@dataclass
class Row:
    """One line of the table: medians, in milliseconds."""

    steps: int
    method: str
    forward_ms: float | None = None
    both_ms: float | None = None
    cpu_ms: float | None = None
    note: str = ""


Run = Callable[[], Tensor]


class Bench:
    """The data and the stopwatch."""

    def __init__(self, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        self.seed, self.steps = seed, steps
        self.field = Field()
        self.y0 = torch.randn(BATCH, STATE)
        self.ts = torch.linspace(0, 1, steps + 1)

    def both(self, run: Run) -> tuple[float, float, float]:
        """Wall time forward, forward and backward, and the processor's time of both, in milliseconds."""
        self.field.zero_grad()
        wall, cpu = time.perf_counter(), time.process_time()
        ys = run()
        forward = time.perf_counter() - wall
        ys.square().mean().backward()
        return 1e3 * forward, 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)

    def ours(self, solver: Solver, calculus: Calculus = Calculus.ITO, **options: Any) -> Run:
        """A method of ctdyn."""

        def run() -> Tensor:
            self.field.calculus = calculus
            generator = torch.Generator().manual_seed(self.seed)
            step = ConstantStep(1 / self.steps)
            return solve(
                self.field, self.y0, self.ts, solver=solver, controller=step, generator=generator, **options
            ).ys

        return run

    def on_a_tree(self) -> Tensor:
        """Euler-Maruyama of ctdyn with a motion keyed by series."""
        term = SDETerm(self.field, VirtualBrownianTree(torch.arange(BATCH), STATE))
        step = ConstantStep(1 / self.steps)
        return solve(term, self.y0, self.ts, solver=EulerMaruyama(), controller=step).ys

    def by_hand(self) -> Tensor:
        """A loop with pre-drawn noise."""
        noise = torch.randn(self.steps, BATCH, STATE).mul_(self.steps**-0.5)
        y, path = self.y0, [self.y0]
        for dW in noise.unbind(0):
            y = y + self.field.net(y) / self.steps + self.field.diffusion(y, y) * dW
            path.append(y)
        return torch.stack(path, 1)

    def bare(self) -> Tensor:
        """Drift and diffusion, evaluated as often as a solve needs them and never added up."""
        total = self.y0.new_zeros(())
        for _ in range(self.steps):
            total = total + self.field.net(self.y0).sum() + self.field.diffusion(self.y0, self.y0).sum()
        return total

    def torchsde(self, method: str, default: bool, calculus: Calculus) -> Run | None:
        """What torchsde does as its documentation calls it, or with a tree that knows the step."""
        if importlib.util.find_spec("torchsde") is None:
            return None
        import torchsde

        def run() -> Tensor:
            self.field.sde_type = calculus.value.lower()
            bm = None
            if not default:
                size, dt = (BATCH, STATE), 1 / self.steps
                bm = torchsde.BrownianInterval(0.0, 1.0, size=size, entropy=self.seed, dt=dt, tol=1e-5)
            return torchsde.sdeint(self.field, self.y0, self.ts, bm=bm, method=method, dt=1 / self.steps)

        return run

    def diffrax(self) -> Callable[[], tuple[float, float, float]] | None:
        """What diffrax does, compiled: Euler on a virtual tree, gradients by recursive checkpoints."""
        if importlib.util.find_spec("diffrax") is None:
            return None
        import diffrax
        import jax
        import jax.numpy as jnp

        def array(x: Tensor) -> Any:
            return jnp.asarray(x.detach().numpy())

        params = [array(p) for p in self.field.parameters()]
        y0, ts = array(self.y0), array(self.ts)
        keys = jax.random.split(jax.random.PRNGKey(self.seed), BATCH)

        def one(params: Any, y: Any, key: Any) -> Any:
            slope, shift, w1, b1, w2, b2, w3, b3 = params

            def drift(t: Any, y: Any, _: Any) -> Any:
                return w3 @ jnp.tanh(w2 @ jnp.tanh(w1 @ y + b1) + b2) + b3

            def diffusion(t: Any, y: Any, _: Any) -> Any:
                return jnp.diag(jax.nn.sigmoid(slope * y + shift))

            motion = diffrax.VirtualBrownianTree(0.0, 1.0, tol=0.5 / self.steps, shape=(STATE,), key=key)
            terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, motion))
            saved = diffrax.SaveAt(ts=ts)
            return diffrax.diffeqsolve(terms, diffrax.Euler(), 0.0, 1.0, 1 / self.steps, y, saveat=saved).ys

        def loss(params: Any) -> Any:
            return jnp.mean(jax.vmap(one, (None, 0, 0))(params, y0, keys) ** 2)

        forward, both = jax.jit(loss), jax.jit(jax.value_and_grad(loss))

        def run() -> tuple[float, float, float]:
            start = time.perf_counter()
            forward(params).block_until_ready()
            middle, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(both(params))
            return 1e3 * (middle - start), 1e3 * (time.perf_counter() - middle), 1e3 * (time.process_time() - cpu)

        run()
        return run


def _methods(bench: Bench, compiled: bool) -> dict[str, Callable[[], tuple[float, float, float]] | None]:
    ito, stratonovich = Calculus.ITO, Calculus.STRATONOVICH
    runs: dict[str, Run | None] = {
        "ctdyn EulerMaruyama": bench.ours(EulerMaruyama()),
        "by hand, noise drawn before": bench.by_hand,
        "bare arithmetic": bench.bare,
        "torchsde euler, default": bench.torchsde("euler", True, ito),
        "torchsde euler, BrownianInterval(dt)": bench.torchsde("euler", False, ito),
        "ctdyn EulerMaruyama, Checkpoint": bench.ours(EulerMaruyama(), adjoint=Checkpoint()),
        "ctdyn EulerMaruyama, virtual tree": bench.on_a_tree,
        "ctdyn Milstein(gradient_free=True)": bench.ours(Milstein(gradient_free=True)),
        "ctdyn SRI1": bench.ours(SRI1()),
        "torchsde srk, default": bench.torchsde("srk", True, ito),
        "ctdyn Heun": bench.ours(Heun(), stratonovich),
        "torchsde heun, default": bench.torchsde("heun", True, stratonovich),
        "ctdyn Midpoint": bench.ours(Midpoint(), stratonovich),
        "torchsde midpoint, default": bench.torchsde("midpoint", True, stratonovich),
        "ctdyn ReversibleHeun": bench.ours(ReversibleHeun(), stratonovich),
        "torchsde reversible_heun, default": bench.torchsde("reversible_heun", True, stratonovich),
    }
    if compiled:
        runs["ctdyn EulerMaruyama, compiled"] = bench.ours(EulerMaruyama(), adjoint=Direct(compile=True))
    timed = {name: None if run is None else _timed(bench, run) for name, run in runs.items()}
    return {**timed, "diffrax Euler, virtual tree": bench.diffrax()}


def _timed(bench: Bench, run: Run) -> Callable[[], tuple[float, float, float]]:
    return lambda: bench.both(run)


def _measure(bench: Bench, repeats: int, compiled: bool) -> tuple[list[Row], dict[str, float]]:
    """All methods in turns, so that a busy machine strikes all of them, and the ratios turn by turn."""
    methods = _methods(bench, compiled)
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    for turn in range(repeats + 1):
        for name, run in methods.items():
            if run is not None and not (turn > 2 and times[name] and times[name][-1][1] > 3000):
                times[name].append(run())
    rows, ratios, ours = [], {}, times["ctdyn EulerMaruyama"][1:]
    for name, taken in times.items():
        if not taken:
            rows.append(Row(bench.steps, name, note="absent"))
            continue
        forward, both, cpu = (_median(column) for column in zip(*taken[1:], strict=True))
        rows.append(Row(bench.steps, name, forward, both, cpu))
        pairs = zip(taken[1:], ours, strict=False)
        ratios[f"{bench.steps} {name}"] = round(_median([a[1] / b[1] for a, b in pairs]), 3)
    return rows, ratios


def _median(values: Any) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    rows, ratios = [], {}
    for steps in (200, 100):
        found, more = _measure(Bench(options.seed, steps), 3 if options.quick else 9, options.compile)
        rows += found
        ratios |= more
    print(f"{'steps':>5}  {'method':38}{'forward':>10}{'+backward':>11}{'processor':>11}   of ctdyn EulerMaruyama")
    for row in rows:
        if row.both_ms is None:
            print(f"{row.steps:5}  {row.method:38}{row.note:>10}")
            continue
        share = ratios[f"{row.steps} {row.method}"]
        print(
            f"{row.steps:5}  {row.method:38}{row.forward_ms:10.1f}{row.both_ms:11.1f}{row.cpu_ms:11.1f}   {share:.2f}x"
        )
    print(json.dumps({"rows": [asdict(row) for row in rows], "times_ctdyn_euler_maruyama": ratios}))


if __name__ == "__main__":
    main()
