r"""Gaussian processes that inform each other, on a falling hopper: 10 % of the frames seen, the others filled.

    python datasets/hopper.py --root RAW --out hopper.parquet
    python recipes/gaussian_sites_hopper.py hopper.parquet --seed 0

Of each test trajectory 10 of 100 frames are kept at random; every point of the other 90 is scored. For seeds 0, 1, 2
(mean squared error times 100, coverage and score of the 90 % interval, CRPS times 100; in the units of the file):

| model                | MSE            | coverage       | interval score | CRPS           |
|----------------------|----------------|----------------|----------------|----------------|
| Gaussian sites       | .117/.085/.097 | .938/.940/.955 | .120/.103/.098 | 1.07/ .92/ .88 |
| Matern GP            | .123/.159/.168 | .918/.923/.934 | .125/.127/.133 | 1.03/1.04/1.17 |
| linear interpolation | .148/.192/.187 | .898/.905/.919 | .149/.155/.146 | 1.07/1.12/1.08 |
| hold last            | .532/.852/.558 | .888/.900/.919 | .280/.321/.264 | 2.45/2.66/2.37 |
| own mean             | 1.76/1.50/1.23 | .864/.910/.922 | .573/.507/.485 | 6.10/5.38/5.07 |

The fit is maximum likelihood on thinned training trajectories, 140 to 260 seconds on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from ctdyn import Forecaster, compare
from ctdyn.data import Interpolate, SeriesSet, Standardize, WindowMaker, read
from ctdyn.data.series import Series
from ctdyn.models import LinearGaussianSSM, MaximumLikelihood


#: Frames per unit of the model's clock.
UNIT = 100.0
TASK = Interpolate(keep=0.1)


class Thinned(WindowMaker):
    """Training windows: some frames of a trajectory, as far apart as those of a test context and some nearer."""

    def __init__(self, keep: int) -> None:
        self.keep = keep

    @property
    def bounds(self) -> str:
        """See `WindowMaker`."""
        return "log p(series)"

    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series]:
        """See `WindowMaker`."""
        rows = np.zeros(len(series), dtype=bool)
        rows[rng.permutation(len(series))[: self.keep]] = True
        return series.take(rows), series.take(rows)


def main() -> None:
    """Fit, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="the file that datasets/hopper.py wrote")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the kept frames and the fit")
    parser.add_argument("--steps", type=int, default=250, help="iterations of L-BFGS")
    parser.add_argument("--latent", type=int, default=10, help="Matern processes")
    parser.add_argument("--keep", type=int, default=30, help="frames of each training trajectory that are fitted to")
    parser.add_argument("--validate", action="store_true", help="score the validation trajectories instead")
    options = parser.parse_args()

    series: SeriesSet = read(options.data)
    train, validation, test = series.split(0.7, 0.1, seed=options.seed)
    torch.manual_seed(options.seed)
    model = Forecaster(
        LinearGaussianSSM(series.channels, options.latent, fitting=MaximumLikelihood(max_steps=options.steps)),
        scaler=Standardize(time_scale=UNIT),
        windows=Thinned(options.keep),
        seed=options.seed,
    )
    began = time.perf_counter()
    model.fit(train, batch_size=len(train))
    seconds = time.perf_counter() - began
    asked = validation if options.validate else test
    # The literature scores in the units of the file.
    units = {channel.name: 1.0 for channel in series.channels}
    table = compare({"Gaussian sites": model}, train, asked, task=TASK, scale=units, seed=options.seed)
    print(table.to_string(float_format=lambda number: f"{number:.4g}"))
    rows = {str(name): {str(k): round(float(v), 6) for k, v in row.items()} for name, row in table.iterrows()}
    print(json.dumps({"seed": options.seed, "seconds": round(seconds, 1), "rows": rows}))


if __name__ == "__main__":
    main()
