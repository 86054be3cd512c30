r"""Series made from nothing, of cash machines and of a share: are their values distributed like those of real ones?

    python datasets/nn5.py --root RAW --out nn5.parquet
    python datasets/stocks.py --root RAW --out stocks.parquet
    python recipes/ls4_generation.py nn5.parquet --length 112 --seed 0
    python recipes/ls4_generation.py stocks.parquet --length 24 --log --steps 1500 --lr 1e-2 --seed 0

Of the 111 cash machines one half, drawn at random, is learned from (a fifth of it decides which weights are kept); all
are cut into pieces of 112 days. The share is cut into 153 pieces of 24 days that do not overlap, and these are halved;
its prices and volumes are modelled as logarithms, and compared as they are.
As many pieces are made as the other half has, five times. "values" is the marginal distance: half the L1 distance
between histograms of 50 bins, of what was made and of the other half, pooled over time, mean over the channels; over
the same distance between the two real halves, so that 1 is what a second real half has. "changes" is the same for the
differences from one day to the next. The marginal distance alone proves little: draws from the training values, without
any order, have 1 as well ("iid resampled"), and for the share, whose halves differ much, a Gaussian is not far.

"LS4, small" is `--models LS4 --width 16 --depth 1 --hidden 16`, the one of `recipes/bench/latent.py`.

For NN5 and seeds 0, 1, 2, where the halves are .049, .067 and .078 apart:

| model         | values         | changes        | CPU seconds |
|---------------|----------------|----------------|-------------|
| LS4           | 1.11/ .61/1.42 | 1.05/ .94/1.41 | 64/64/59    |
| LS4, small    | 1.79/ .87/1.48 | 1.81/1.16/2.00 | 32/33/27    |
| LatentODE     | 1.96/ .89/1.24 | 5.15/3.51/6.02 | 34/34/34    |
| iid Gaussian  | 3.55/1.88/2.28 | 8.13/5.84/9.27 |             |
| iid resampled | 1.04/ .98/1.00 | 6.82/4.54/7.52 |             |

For the share, where the halves are .249, .278 and .276 apart:

| model         | values         | changes        | CPU seconds |
|---------------|----------------|----------------|-------------|
| LS4           | 1.39/1.18/1.16 | 1.89/2.00/1.80 | 43/45/35    |
| LS4, small    | 1.42/1.33/1.22 | 2.63/2.04/2.76 | 25/25/22    |
| LatentODE     | 1.28/1.44/1.25 | 8.14/6.48/8.28 | 21/22/16    |
| iid Gaussian  | 1.22/ .99/ .97 | 11.8/12.0/15.3 |             |
| iid resampled | 1.03/1.03/1.02 | 11.7/11.7/15.0 |             |

A mean of 1.05 for the cash machines, 1.24 for the share; 1.38 and 1.32 for the small model. LS4 is the only row whose
changes are near those of the real series. `--models KoopmanVAE` fits that one as well, for which no figures are given.
Each run takes less than ten minutes of CPU time on one thread. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ctdyn import Forecaster
from ctdyn.data import Reconstruct, SeriesSet, read
from ctdyn.likelihoods import Gaussian, HeteroscedasticScale, Likelihood
from ctdyn.models import LS4, KoopmanVAE, LatentODE, Model


BINS, DRAWS = 50, 5


def usual_gap(series: SeriesSet) -> float:
    """The usual step of the clock, in its unit."""
    return float(np.median(np.concatenate([np.diff(one.times) for one in series])))


def cut(series: SeriesSet, length: int) -> SeriesSet:
    """Every series in pieces of `length` steps, one behind the other; what is left over is dropped."""
    gap, pieces = usual_gap(series), []
    for one in series:
        for k in range(round(one.span / gap + 1) // length):
            start = float(one.times[0]) + (k * length - 0.5) * gap
            piece = one.between(start, start + length * gap)
            if len(piece) > length // 2:
                pieces.append(replace(piece, id=f"{one.id}/{k}"))
    return replace(series, series=tuple(pieces))


def logarithms(series: SeriesSet) -> SeriesSet:
    """The same with logarithms for values."""
    return replace(series, series=tuple(replace(one, values=np.log(one.values)) for one in series))


def prepare(series: SeriesSet, length: int | None, seed: int) -> tuple[tuple[SeriesSet, SeriesSet, SeriesSet], int]:
    """What is learned from, what decides which weights are kept, the other half; and how many steps series have."""
    alone = len(series) == 1 and length is not None
    series = cut(series, length) if alone else series
    half, other = series.split(0.5, 0.5, seed=seed)
    parts = (*half.split(0.8, 0.2, seed=seed), other)
    if length is not None and not alone:
        parts = tuple(cut(part, length) for part in parts)
    count = round(max(one.span for one in parts[0]) / usual_gap(parts[0])) + 1
    return parts, count if length is None else length


def together(a: SeriesSet, b: SeriesSet) -> SeriesSet:
    """Both."""
    return replace(a, series=a.series + b.series)


def on_grid(series: SeriesSet, count: int, gap: float) -> np.ndarray:
    """Values by step, `(series, count, channel)`; NaN where nothing was observed."""
    out = np.full((len(series), count, len(series.channels)), np.nan)
    for row, one in zip(out, series, strict=True):
        place = np.rint((one.times - one.times[0]) / gap).astype(int)
        row[place[place < count]] = one.values[place < count]
    return out


class Histograms:
    """Distances of samples to real values, in bins over the range of all that is real.

    Args:
        seen: the half that is learned from, `(series, time, channel)`.
        other: the half that is not.
    """

    def __init__(self, seen: np.ndarray, other: np.ndarray) -> None:
        every = np.concatenate([seen, other])
        low, high = np.nanmin(every, (0, 1)), np.nanmax(every, (0, 1))
        self.edges = [np.linspace(a, b, BINS + 1) for a, b in zip(low, high, strict=True)]
        self.other = self.shares(other)
        self.floor = self.distance(seen)

    def shares(self, x: np.ndarray) -> np.ndarray:
        """The share of each bin, `(channel, bin)`; what lies outside of the range goes to its ends."""
        found = []
        for k, edges in enumerate(self.edges):
            values = x[..., k][np.isfinite(x[..., k])].clip(edges[0], edges[-1])
            found.append(np.histogram(values, edges)[0] / len(values))
        return np.stack(found)

    def distance(self, x: np.ndarray) -> float:
        """Half the L1 distance to the other half, mean over the channels."""
        return float(0.5 * np.abs(self.shares(x) - self.other).sum(-1).mean())


def makers(series: SeriesSet, count: int, options: argparse.Namespace) -> dict[str, Callable[[], Model]]:
    """The models, all with one family of observations."""
    channels, latent, width = series.channels, options.latent, options.width

    def spread(size: int, hidden: int = 64) -> Likelihood:
        return Gaussian(size, len(channels), (hidden,), HeteroscedasticScale((hidden,), floor=1e-3))

    def ls4() -> Model:
        dt, decoder = 1.0 / (count - 1), spread(latent + width, options.hidden)
        return LS4(channels, latent, width, options.depth, dt=dt, likelihood=decoder)

    return {
        "LS4": ls4,
        "LatentODE": lambda: LatentODE(channels, 8, likelihood=spread(8)),
        "KoopmanVAE": lambda: KoopmanVAE(channels, 8, likelihood=spread(16)),
    }


def made_by(model: Model, train: SeriesSet, validation: SeriesSet, options: argparse.Namespace) -> Callable:
    """Fit, and return what makes series."""
    forecaster = Forecaster(model, windows=Reconstruct(), seed=options.seed)
    forecaster.fit(
        train,
        validation,
        max_steps=options.steps,
        batch_size=options.batch_size,
        lr=options.lr,
        patience=None,
        enable_progress_bar=False,
    )

    def make(shape: tuple[int, int], gap: float) -> np.ndarray:
        times = forecaster.axis_.to_user(np.arange(shape[1]) * gap)
        drawn = forecaster.sample(times, num_samples=shape[0])
        return drawn["value"].to_numpy().reshape(*shape, -1)

    return make


def main() -> None:
    """Fit, make, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="the file that datasets/nn5.py or datasets/stocks.py wrote")
    parser.add_argument("--length", type=int, help="steps of the pieces that series are cut into; left out: whole")
    parser.add_argument("--seed", type=int, default=0, help="of the halves, the fit and the samples")
    parser.add_argument("--steps", type=int, default=1200, help="optimiser steps")
    parser.add_argument("--batch-size", type=int, default=32, help="windows per step")
    parser.add_argument("--lr", type=float, default=5e-3, help="largest learning rate")
    parser.add_argument("--log", action="store_true", help="model the logarithms of values, all of which are positive")
    parser.add_argument("--latent", type=int, default=5, help="size of the latent state of LS4")
    parser.add_argument("--width", type=int, default=32, help="width of the layers of LS4")
    parser.add_argument("--depth", type=int, default=2, help="layers per stack of LS4")
    parser.add_argument("--hidden", type=int, default=64, help="width of the hidden layers of the decoder of LS4")
    parser.add_argument("--models", default="LS4,LatentODE", help="which are fitted, of LS4, LatentODE, KoopmanVAE")
    parser.add_argument("--validate", action="store_true", help="compare with the validation part instead")
    options = parser.parse_args()

    series = read(options.data)
    series = logarithms(series) if options.log else series
    unlog = np.exp if options.log else np.asarray
    parts, count = prepare(series, options.length, options.seed)
    train, validation, other = parts
    half = train if options.validate else together(train, validation)
    other = validation if options.validate else other
    gap = usual_gap(train)
    known, real = on_grid(half, count, gap), unlog(on_grid(other, count, gap))
    seen = unlog(known)
    values, changes = Histograms(seen, real), Histograms(np.diff(seen, axis=1), np.diff(real, axis=1))
    print(f"{len(half)} and {len(other)} series of {count}; halves differ by {values.floor:.4f}, {changes.floor:.4f}")
    rows: dict[str, dict[str, float]] = {}

    def score(name: str, drawn: np.ndarray, seconds: float = 0.0) -> None:
        sets = np.split(drawn, DRAWS)
        rows[name] = {
            "values": round(float(np.mean([values.distance(x) for x in sets])) / values.floor, 3),
            "changes": round(float(np.mean([changes.distance(np.diff(x, axis=1)) for x in sets])) / changes.floor, 3),
            "seconds": round(seconds, 1),
        }
        print(f"{name:16s}", *(f"{key} {value:8.3f}" for key, value in rows[name].items()), flush=True)

    rng = np.random.default_rng(options.seed)
    shape = (DRAWS * len(real), count)
    pools = [known[..., k][np.isfinite(known[..., k])] for k in range(known.shape[-1])]
    score("iid Gaussian", unlog(np.stack([rng.normal(pool.mean(), pool.std(), shape) for pool in pools], -1)))
    score("iid resampled", unlog(np.stack([rng.choice(pool, shape) for pool in pools], -1)))
    built = makers(series, count, options)
    for name in options.models.split(","):
        torch.manual_seed(options.seed)
        began = time.process_time()
        make = made_by(built[name](), train, validation, options)
        seconds = time.process_time() - began
        score(name, unlog(make(shape, gap)), seconds)
    print(json.dumps({"seed": options.seed, "data": options.data.stem, "floor": values.floor, "rows": rows}))


if __name__ == "__main__":
    main()
