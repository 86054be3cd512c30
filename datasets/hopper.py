"""A hopper that is thrown and falls (MuJoCo, dm_control), 100 trajectories, as parquet.

    python datasets/hopper.py --root RAW --out hopper.parquet

Url: https://github.com/yongkyung-oh/Stable-Neural-SDEs/blob/dbda657/benchmark_forecasting/datasets/mujoco.npy, a sample
of the data of the latent ODE paper, in its normalisation.
File: RAW/hopper/mujoco_100x100x14.npy, RAW/mujoco_100x100x14.npy or RAW/mujoco.npy; float32, (100, 100, 14).
sha256: 609d962361a431236d018ecc61af6fa718e764545f69f9c459130a908c62f00c
Licence: MIT, that of the repository; the data are made with MuJoCo (Apache-2.0).
Citation: Y. Rubanova, R. T. Q. Chen and D. Duvenaud, Latent ODEs for irregularly-sampled time series, 2019,
https://arxiv.org/abs/1907.03907; Y. Oh, D. Lim and S. Kim, Stable neural stochastic differential equations in analyzing
irregular time series data, 2024, https://arxiv.org/abs/2402.14989.
Task: keep a share of the frames of a trajectory at random, with all 14 channels, and fill the others; mean squared
error in the units of the file, times 100. With 10 % kept, linear interpolation has 0.181 on the frames that were not
kept, and 0.163 if the kept ones count with an error of 0. The latent ODE paper states 0.360 over all frames, for other
and more trajectories of the same kind.
Out: wide, one row per frame. Ids are 000 .. 099. Time is the number of the frame, 0 to 99. Channels are position0 ..
position6 and velocity0 .. velocity6; each velocity is the rate of change of its position, in another unit.
Traps: published errors count the frames that the model has seen; a figure without linear interpolation beside it says
nothing. There is no official split.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from ctdyn.data import write_parquet


SHA256 = "609d962361a431236d018ecc61af6fa718e764545f69f9c459130a908c62f00c"
NAMES = ("hopper/mujoco_100x100x14.npy", "mujoco_100x100x14.npy", "mujoco.npy")


def convert(root: Path, out: Path) -> dict[str, int]:
    """Write the trajectories found under `root` to `out`; how many rows and trajectories there are."""
    path = next((root / name for name in NAMES if (root / name).is_file()), None)
    if path is None:
        raise SystemExit(f"{root}: none of {', '.join(NAMES)} there; see the url in this file.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        print(f"{path}: not the file whose sha256 this script states; going on.", file=sys.stderr)
    values = np.load(path, allow_pickle=False).astype(np.float64)
    half = values.shape[2] // 2
    channels = [f"{kind}{i}" for kind in ("position", "velocity") for i in range(half)]
    trajectories = []
    for number, trajectory in enumerate(values):
        frame = pd.DataFrame(trajectory, columns=pd.Index(channels))
        frame.insert(0, "time", np.arange(len(trajectory), dtype=np.float64))
        frame.insert(0, "id", f"{number:03d}")
        trajectories.append(frame)
    table = pd.concat(trajectories, ignore_index=True)
    write_parquet(table, out, id="id", time="time", values=channels, time_unit="frame")
    return {"rows": len(table), "trajectories": len(values)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=os.environ.get("CTDYN_DATA"), help="where the raw file is")
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    options = parser.parse_args(arguments)
    if options.root is None:
        parser.error("give --root, or set CTDYN_DATA")
    print(json.dumps(convert(Path(options.root), options.out)))


if __name__ == "__main__":
    main()
