"""Traces of a simulated half-cheetah, as the liquid time-constant networks were tested on, as parquet.

    python datasets/cheetah.py --root RAW --out cheetah.parquet

Url: https://github.com/raminmh/liquid_time_constant_networks/tree/4a8a4fa/experiments_with_ltcs/data/cheetah, 31 files
of 1000 frames with 17 joint angles and velocities each; here stacked in the order of their names.
File: RAW/cheetah/halfcheetah_31x1000x17.npz or RAW/halfcheetah_31x1000x17.npz; one array (31, 1000, 17), key `x`.
sha256: 1e51cb89d0a579094f589d3764e672a5611e0f1431283fe66186ddcb3a2abd48
Licence: Apache-2.0.
Citation: R. Hasani, M. Lechner, A. Amini, D. Rus, R. Grosu, Liquid Time-constant Networks, 2021,
https://arxiv.org/abs/2006.04439. Task: at frames that are kept at random, predict the next kept frame; mean squared
error over frames and channels, in units of the training traces' spread.
Out: wide, one row per frame. Ids are validation-00 .. -04, test-00 .. -09, train-00 .. -09 and spare-00 .. -05, in the
order of the files, as in the code of the paper: the split is the id. Time is the number of the frame, 0 to 999.
Channels are joint00 .. joint16.
Traps: the frames are regular, so what is irregular is what you drop; the validation traces hold values far outside of
the range of the training traces, which unbounded models answer with large errors.
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


SHA256 = "1e51cb89d0a579094f589d3764e672a5611e0f1431283fe66186ddcb3a2abd48"
NAME = "halfcheetah_31x1000x17.npz"
PARTS = (("validation", 5), ("test", 10), ("train", 10), ("spare", 6))


def convert(root: Path, out: Path) -> dict[str, int]:
    """Write the traces found under `root` to `out`; how many each part has."""
    path = next((p for p in (root / "cheetah" / NAME, root / NAME) if p.is_file()), None)
    if path is None:
        raise SystemExit(f"{root}: no cheetah/{NAME} and no {NAME} there; see the url in this file.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        print(f"{path}: not the file whose sha256 this script states; going on.", file=sys.stderr)
    with np.load(path, allow_pickle=False) as archive:
        traces = archive[archive.files[0]]
    names = [f"{part}-{number:02d}" for part, count in PARTS for number in range(count)]
    if traces.ndim != 3 or len(traces) != len(names):
        raise SystemExit(f"{path}: expected an array of {len(names)} traces x frames x channels; got {traces.shape}.")
    channels = [f"joint{i:02d}" for i in range(traces.shape[2])]
    frames = []
    for name, trace in zip(names, traces, strict=True):
        frame = pd.DataFrame(trace, columns=pd.Index(channels))
        frame.insert(0, "time", np.arange(len(trace), dtype=np.float64))
        frame.insert(0, "id", name)
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    write_parquet(table, out, id="id", time="time", values=channels, time_unit="frame")
    return {"rows": len(table), **dict(PARTS)}


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
