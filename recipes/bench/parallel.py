"""A nonlinear recurrence and a fixed-step ODE, all steps at once against one after the other.

Problems: (r) a recurrence h_k = tanh(W h + U x_k) of 4 states that forgets (the norm of W is 0.6), 1 series; (o) RK4 on
a neural field 4-32-32-4 with decay, one series of equal steps. Forward, and forward and backward, in float32; Newton's
method to 1e-5 with full and with diagonal derivatives. The fallback rate is that of 64 random recurrences of growing
gain: which of them Newton gives up on within 20 iterations.

Expected (one CPU thread): the longer the series, the more parallel pays: 6 times (r) and 16 times (o) at 1024 steps, 11
and 34 times at 4096. Fallbacks: 0, 0, 5 and 90 % at gains 0.5, 1, 2 and 4.

    python recipes/bench/parallel.py --quick --seed 0

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from ctdyn import solve
from ctdyn.integrate import Direct, ParallelInTime, StepTo
from ctdyn.linear import NewtonScan, nonlinear_recurrence
from ctdyn.solvers import RK4


STATE, INPUT = 4, 2


class Decaying(nn.Module):
    """A neural field that forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(STATE, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, STATE))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The velocity."""
        return self.net(y) - y


def weights(gain: float) -> tuple[Tensor, Tensor]:
    """Of a recurrence whose matrix has this norm."""
    W = torch.randn(STATE, STATE)
    W = gain * W / torch.linalg.matrix_norm(W, 2)
    return W.requires_grad_(), torch.randn(STATE, INPUT, requires_grad=True)


def recurrence(W: Tensor, U: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The step."""
    return lambda h, x: torch.tanh(h @ W.mT + x @ U.mT)


def one_by_one(step: Callable[[Tensor, Tensor], Tensor], h: Tensor, xs: Tensor) -> Tensor:
    """The loop as a careful user writes it."""
    hs = []
    for x in xs.unbind(-2):
        h = step(h, x)
        hs.append(h)
    return torch.stack(hs, -2)


def in_turns(runs: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """Median milliseconds of forward and backward, in turns so that a busy machine strikes all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run().square().mean().backward()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def rows(length: int, repeats: int) -> dict[str, dict[str, float]]:
    """Both problems at one length."""
    step, h0, xs = recurrence(*weights(0.6)), torch.zeros(1, STATE), torch.randn(1, length, INPUT)
    field, y0, ts = Decaying(), torch.randn(1, STATE), torch.linspace(0.0, length / 50, length + 1)[None]

    def ode(adjoint: Direct | ParallelInTime) -> Callable[[], Tensor]:
        return lambda: solve(field, y0, ts, solver=RK4(), controller=StepTo(), adjoint=adjoint, max_steps=10**6).ys

    return {
        "recurrence": in_turns(
            {
                "loop": lambda: one_by_one(step, h0, xs),
                "newton": lambda: nonlinear_recurrence(step, h0, xs).hs,
                "diagonal": lambda: nonlinear_recurrence(step, h0, xs, method=NewtonScan(diagonal=True)).hs,
            },
            repeats,
        ),
        "ode": in_turns(
            {
                "loop": ode(Direct()),
                "newton": ode(ParallelInTime()),
                "diagonal": ode(ParallelInTime(NewtonScan(diagonal=True))),
            },
            repeats,
        ),
    }


@torch.no_grad()
def fallback(gain: float, length: int) -> float:
    """The share of random recurrences that Newton gives up on."""
    given_up = 0
    for _ in range(16):
        step, xs = recurrence(*weights(gain)), torch.randn(4, length, INPUT)
        method = NewtonScan(max_iterations=20)
        given_up += int(nonlinear_recurrence(step, torch.zeros(4, STATE), xs, method=method).sequential.sum())
    return given_up / 64


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="shorter series, fewer repetitions")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    repeats = 3 if options.quick else 7
    figures: dict[str, float] = {}
    print(f"{'problem':12}{'steps':>8}{'loop ms':>10}{'newton ms':>11}{'diagonal ms':>13}{'loop / newton':>15}")
    for length in (256, 1024) if options.quick else (256, 1024, 4096, 16384):
        for problem, row in rows(length, repeats).items():
            ratio = row["loop"] / row["newton"]
            figures[f"{problem} {length} loop/newton"] = round(ratio, 2)
            figures[f"{problem} {length} loop/diagonal"] = round(row["loop"] / row["diagonal"], 2)
            print(f"{problem:12}{length:8}{row['loop']:10.1f}{row['newton']:11.1f}{row['diagonal']:13.1f}{ratio:15.2f}")
    for gain in (0.5, 1.0, 2.0, 4.0):
        rate = fallback(gain, 256 if options.quick else 1024)
        figures[f"fallback at gain {gain}"] = round(rate, 3)
        print(f"fallback rate at gain {gain}: {rate:.0%}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
