"""RR Lyrae stars of SDSS Stripe 82: 483 light curves in five bands, with errors and periods, as long parquet.

    python datasets/rrlyrae.py --root RAW --out rrlyrae.parquet

Url: https://github.com/light-curve/test-data/tree/3c8d987/RRLyrae, from VizieR J/ApJ/708/717.
File: RAW/rrlyrae/stripe82_rrlyrae.parquet (id, time as MJD in days, mag, magerr, band) and RAW/rrlyrae/periods.csv
(Num, Type, Per in days); RAW itself may be the folder.
sha256: stripe82_rrlyrae.parquet a1f9c729762bcf9015b17b78a522135f7a28d9eda2998100faa08c817a04fb89
periods.csv 7d64594f846bb6df579f3c0be83e3b9563cb66c15027a643e61cf4ee1e14ec3d
Licence: VizieR catalogue, free with citation.
Citation: B. Sesar et al., Light curve templates and galactic distribution of RR Lyrae stars from Sloan Digital Sky
Survey Stripe 82, The Astrophysical Journal 708, 2010, https://arxiv.org/abs/0910.4611
Task: fill and forecast light curves; each observation has its own standard error.
Out: one row per observation: id, time, variable (u, g, r, i, z), value (magnitude) and its standard error. **Time is
counted in periods of the star**, which the catalogue states: every star has period 1 on this clock. Static covariate:
period (days); label: ab (1 for type ab, 0 for type c).
Traps: 176 rows carry sentinels (a magnitude above 30 or an error above 1) and are dropped, and so is the second of 8
pairs of observations with one time; the bands of an epoch are taken one after the other, a minute apart, in which a
star may change by 0.02 magnitudes: they share no row; there are some 56 epochs in 8 years, so a clock in days shows no
cycle at all; float32 holds a date to five minutes.
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


SHA256 = {
    "stripe82_rrlyrae.parquet": "a1f9c729762bcf9015b17b78a522135f7a28d9eda2998100faa08c817a04fb89",
    "periods.csv": "7d64594f846bb6df579f3c0be83e3b9563cb66c15027a643e61cf4ee1e14ec3d",
}
BANDS = ["u", "g", "r", "i", "z"]


def convert(root: Path, out: Path) -> dict[str, int]:
    """Write the light curves found under `root` to `out`; how many there are, and what was dropped."""
    folder = root / "rrlyrae" if (root / "rrlyrae").is_dir() else root
    for name, digest in SHA256.items():
        path = folder / name
        if not path.is_file():
            raise SystemExit(f"{path}: not there; see the url in this file.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            print(f"{path}: not the file whose sha256 this script states; going on.", file=sys.stderr)
    rows = pd.read_parquet(folder / "stripe82_rrlyrae.parquet")
    stars = pd.read_csv(folder / "periods.csv").set_index("Num")
    sentinel = (rows["mag"] > 30) | (rows["magerr"] > 1)
    rows = rows[~sentinel].astype({"mag": np.float64, "magerr": np.float64, "band": str})
    table = pd.DataFrame(
        {
            "id": rows["id"],
            "time": (rows["time"] - rows["time"].min()) / rows["id"].map(stars["Per"]),
            "variable": rows["band"],
            "value": rows["mag"],
            "error": rows["magerr"],
            "period": rows["id"].map(stars["Per"]),
            "ab": (rows["id"].map(stars["Type"]) == "ab").astype(np.float64),
        }
    ).sort_values(["id", "time"], ignore_index=True, kind="stable")
    table = table.drop_duplicates(["id", "time", "variable"], ignore_index=True)
    write_parquet(
        table,
        out,
        id="id",
        time="time",
        variable="variable",
        value="value",
        values=BANDS,
        noise=["error"],
        static=["period"],
        labels=["ab"],
        units=dict.fromkeys(BANDS, "mag"),
        time_unit="period",
    )
    return {
        "stars": int(table["id"].nunique()),
        "observations": len(table),
        "sentinels_dropped": int(sentinel.sum()),
        "duplicates_dropped": len(rows) - len(table),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=os.environ.get("CTDYN_DATA"), help="where the raw files are")
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    options = parser.parse_args(arguments)
    if options.root is None:
        parser.error("give --root, or set CTDYN_DATA")
    print(json.dumps(convert(Path(options.root), options.out)))


if __name__ == "__main__":
    main()
