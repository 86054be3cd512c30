"""How long a training step of a latent-variable model takes, loss and all gradients.

**LS4 and the latent ODE.** Series of 4,096 irregular times with one channel, in batches of 1 and of 16; the whole
series is context and target. "LS4" is the named model at its defaults, "LS4, small" has half its width and a single
layer per stack (what such a model makes of real series says `recipes/ls4_generation.py`); "LatentODE" is ours with one
Runge-Kutta step of order 4 per gap between observations, which is what the paper compares with; "own field" is the same
with the perceptron written as a field of one's own; "LatentODE, 20 steps" is ours at its defaults, whose steps do not
follow the observations (its encoder does). All at float32.

    python recipes/bench/latent.py --seed 0

**The latent SDE, with a solver and without.** 32 series of 300 times with 50 channels. "matching" has no steps
(`MatchedSDEProcess`, convolutions with a knot for five rows); the others are trained by Euler-Maruyama (`SDEProcess`, a
recurrent encoder), with a step per gap between observations, which is what the method asks for, and with one for four.

All take their turns, of which the first step is not timed, and a ratio is the median over rounds of a ratio within a
round. Times are CPU times of the process (`--wall` for wall times), on one thread.

On a two-core machine (Zen 4) at rest, one thread, CPU time: for one series a step of LS4 takes 40 ms and one of the
small model 16 ms. LatentODE with a step per gap takes 8.6 and 21.6 times as long, at its defaults 7.8 and 19.4 times,
and with a field of one's own, whose steps are not compiled, 62 and 155 times. For 16 series it is 584 and 168 ms, and
1.2 and 4.3, 0.9 and 3.3, 5.2 and 19.4 times: a step of the latent ODE is the same work for 16 series as for one but for
its arithmetic, and LS4 is bound by its own, which grows with the batch. A third of it goes into products of matrices,
which run at 50 to 60 GFlop/s and could hardly run faster on one core, an eighth into the scans, and the rest into
pointwise parts and gathers, none of which takes more than a twentieth. For one series LS4 spends 12 ms on what does not
depend on the length. A step of matching takes 31 ms; by the solver it is 6.2 times as long with a step per gap, 2.8
times with one for four.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.encoders import ConvolutionEncoder, Encoder, ReverseGRUEncoder
from ctdyn.fields import MLPSDEField
from ctdyn.integrate import StepTo
from ctdyn.likelihoods import Gaussian
from ctdyn.models import LS4, LatentODE, LatentVAE, Model
from ctdyn.nn import MLP
from ctdyn.processes import LatentProcess, MatchedSDEProcess, SDEProcess
from ctdyn.structure import VectorField


LENGTH = 4096
#: Channels of the series of the latent SDE.
WIDTH = 50


class OwnField(VectorField):
    """The perceptron of `LatentODE`, as somebody would write it who brings a field: its steps are not compiled."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.net = MLP(size, size, (64, 64))

    def forward(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """See `VectorField`."""
        return self.net(y)


def window(series: int, length: int, width: int) -> Window:
    """Noise at irregular times, over one unit of time."""
    times = (0.1 + torch.rand(series, length)).cumsum(-1)
    values = torch.randn(series, length, width)
    batch = IrregularBatch(times / times[:, -1:], values, torch.ones_like(values, dtype=torch.bool))
    return Window(batch, batch)


def sequences(length: int) -> dict[str, Model]:
    """The first two are what the others are compared with."""
    channels = [Channel("x")]
    return {
        "LS4": LS4(channels, dt=2.0 / length),
        "LS4, small": LS4(channels, 5, width=16, depth=1, dt=2.0 / length, decoder_hidden=(16,)),
        "LatentODE": LatentODE(channels, controller=StepTo(1)),
        "LatentODE, own field": LatentODE(channels, field=OwnField(16), controller=StepTo(1)),
        "LatentODE, 20 steps": LatentODE(channels),
    }


def stochastic(length: int) -> dict[str, Model]:
    """The first is what the others are compared with."""
    channels = [Channel(f"x{i}") for i in range(WIDTH)]

    def model(encoder: Encoder, process: LatentProcess) -> Model:
        return LatentVAE(channels, encoder, process, Gaussian(8, WIDTH))

    def solved(dt: float) -> Model:
        return model(ReverseGRUEncoder(WIDTH, 8, 16, 40), SDEProcess(MLPSDEField(8), 8, 16, dt=dt))

    return {
        "matching": model(ConvolutionEncoder(WIDTH, 8, 16, 40, stride=5), MatchedSDEProcess(MLPSDEField(8), 8, 16)),
        "a step per gap": solved(1.0 / length),
        "a step per four gaps": solved(4.0 / length),
    }


def compare(
    entries: dict[str, Model], asked: Window, rounds: int, now: Callable[[], float], *, against: int = 1
) -> dict[str, dict[str, float]]:
    """Milliseconds per step of each model, and its ratios to the first ones, as many as `against`."""
    series, length, _ = asked.context.values.shape

    def step(model: Model) -> float:
        began = now()
        model.zero_grad()
        model.loss(asked, step=0).total.backward()
        return 1e3 * (now() - began)

    times: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(rounds):
        for name, model in entries.items():
            # In training a step follows one of the same model.
            step(model)
            times[name].append(step(model))
    taken = {name: torch.tensor(each) for name, each in times.items()}
    rows = {}
    for name, each in taken.items():
        rows[name] = {"ms": round(float(each.median()), 1)}
        for other in list(entries)[:against]:
            rows[name][f"to {other}"] = round(float((each / taken[other]).median()), 2)
        told = "  ".join(f"{key} {value:8.2f}" for key, value in rows[name].items())
        print(f"{series:3d} x {length}  {name:20s} {told}", flush=True)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one batch of 256 times, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true", help="wall times instead of CPU times")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    now = time.perf_counter if options.wall else time.process_time
    rounds = 1 if options.quick else options.rounds
    rows = {}
    for series, length in [(1, 256)] if options.quick else [(1, LENGTH), (16, LENGTH)]:
        rows[f"{series} x {length}"] = compare(sequences(length), window(series, length, 1), rounds, now, against=2)
    series, length = (4, 64) if options.quick else (32, 300)
    rows[f"{series} x {length} x {WIDTH}"] = compare(stochastic(length), window(series, length, WIDTH), rounds, now)
    print(json.dumps({"seed": options.seed, "clock": "wall" if options.wall else "cpu", "rows": rows}))


if __name__ == "__main__":
    main()
