"""Weekly atmospheric CO2 at Mauna Loa, 1958 to 2001, as parquet.

    python datasets/co2.py --root RAW --out co2.parquet

Url: https://github.com/statsmodels/statsmodels/tree/82c59e3 (statsmodels/datasets/co2), from
https://scrippsco2.ucsd.edu/data/atmospheric_co2/primary_mlo_co2_record.html
File: RAW/co2/co2.csv or RAW/co2.csv, two columns: date (YYYYMMDD), co2 (ppm, empty where missing).
sha256: 16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f
Licence: public domain.
Citation: C. D. Keeling and T. P. Whorf, Atmospheric CO2 records from sites in the SIO air sampling network, in Trends:
A Compendium of Data on Global Change, 2004.
Task: fill the gaps; forecast years ahead. One series, 2,284 weeks from 1958-03-29, one channel in ppm.
Traps: dates are integers that look like numbers; 59 weeks are missing, in gaps of up to 19 weeks; the record has a
trend, so a model that pulls towards the training mean fails (centre it on the context). The package ships this file as
`ctdyn.data.co2()`.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import pandas as pd

from ctdyn.data import write_parquet


SHA256 = "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f"


def convert(root: Path, out: Path) -> dict[str, int]:
    """Write the record found under `root` to `out`; how many weeks it has, and how many are missing."""
    path = next((p for p in (root / "co2" / "co2.csv", root / "co2.csv") if p.is_file()), None)
    if path is None:
        raise SystemExit(f"{root}: no co2/co2.csv and no co2.csv there; see the url in this file.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        print(f"{path}: not the file whose sha256 this script states; going on.", file=sys.stderr)
    frame = pd.read_csv(path)
    table = pd.DataFrame(
        {"id": "Mauna Loa", "time": pd.to_datetime(frame["date"].astype(str), format="%Y%m%d"), "co2": frame["co2"]}
    )
    write_parquet(table, out, id="id", time="time", values=["co2"], units={"co2": "ppm"}, time_unit="day")
    return {"weeks": len(table), "missing": int(table["co2"].isna().sum())}


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
