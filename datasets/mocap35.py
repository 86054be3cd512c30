"""CMU motion capture, subject 35 walking, with the split that the literature uses, as parquet.

    python datasets/mocap35.py --root RAW --out mocap35.parquet

Url: https://github.com/uncbiag/neuro_shooting/blob/ebf80a9/data/mocap/mocap35.mat, prepared for ODE2VAE
(https://github.com/cagatayyildiz/ODE2VAE) from http://mocap.cs.cmu.edu, subject 35.
File: RAW/mocap/mocap35.mat or RAW/mocap35.mat; keys Xtr (16, 300, 50), Xval (3, 300, 50), Xtest (4, 300, 50).
sha256: 105484f138487f10209cce883d26e2e030d10a6df6f10159f4e6e253f9b03b8d
Licence: the CMU database may be used, modified and redistributed for all purposes.
Citation: C. Yildiz, M. Heinonen and H. Lahdesmaki, ODE2VAE: Deep generative second order ODEs with Bayesian neural
networks, 2019, https://arxiv.org/abs/1905.10994; the data were obtained from mocap.cs.cmu.edu (funding: NSF
EIA-0196217). Task: see the first 3 frames of a walk, predict the other 297; mean squared error over frames and the 50
channels. Published test errors: DTSBN-S 34.86, npODE 22.96, neural ODE 22.49, ODE2VAE 10.06, ODE2VAE-KL 8.09, latent
ODE 5.98, latent SDE 4.03. The mean training frame has 33.7, holding the last frame 61.3.
Out: wide, one row per frame. Ids are train-00 .. train-15, validation-00 .. -02 and test-00 .. -03: the split is the
id. Time is the number of the frame, 0 to 299. Channels are joint00 .. joint49, in the units of the file.
Traps: the 16/3/4 split is fixed, so do not split again; errors are in the units of the file, so undo any scaling before
they are compared; 23 walks are few, and one seed says little.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io

from ctdyn.data import write_parquet


SHA256 = "105484f138487f10209cce883d26e2e030d10a6df6f10159f4e6e253f9b03b8d"
PARTS = {"Xtr": "train", "Xval": "validation", "Xtest": "test"}


def convert(root: Path, out: Path) -> dict[str, int]:
    """Write the walks found under `root` to `out`; how many each part has."""
    path = next((p for p in (root / "mocap" / "mocap35.mat", root / "mocap35.mat") if p.is_file()), None)
    if path is None:
        raise SystemExit(f"{root}: no mocap/mocap35.mat and no mocap35.mat there; see the url in this file.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        print(f"{path}: not the file whose sha256 this script states; going on.", file=sys.stderr)
    parts = scipy.io.loadmat(path, variable_names=list(PARTS))
    channels = [f"joint{i:02d}" for i in range(parts["Xtr"].shape[2])]
    walks = []
    for key, part in PARTS.items():
        for number, walk in enumerate(parts[key]):
            frame = pd.DataFrame(walk, columns=pd.Index(channels))
            frame.insert(0, "time", np.arange(len(walk), dtype=np.float64))
            frame.insert(0, "id", f"{part}-{number:02d}")
            walks.append(frame)
    table = pd.concat(walks, ignore_index=True)
    write_parquet(table, out, id="id", time="time", values=channels, time_unit="frame")
    return {"rows": len(table), **{part: len(parts[key]) for key, part in PARTS.items()}}


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
