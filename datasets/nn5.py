"""Daily cash withdrawals at 111 British cash machines, 1996 to 1998, with their gaps, as parquet.

    python datasets/nn5.py --root RAW --out nn5.parquet

Url: https://github.com/robjhyndman/tscompdata/tree/668b345 (data/nn5.rda), from
http://www.neural-forecasting-competition.com/NN5; here written as csv.
File: RAW/nn5/nn5_daily_with_missing.csv.gz or RAW/nn5_daily_with_missing.csv.gz: date, NN5-001 .. NN5-111.
sha256: 1a9eb189cbc5eb7b41b556a36ec0f2d0048b907a38149a29ed8b16071961bc5c
Licence: competition data; the package is GPL-3, and the Monash archive has the same series under CC-BY 4.0.
Citation: S. Ben Taieb, G. Bontempi, A. F. Atiya, A. Sorjamaa, A review and comparison of strategies for multi-step
ahead time series forecasting based on the NN5 forecasting competition, 2012, https://arxiv.org/abs/1108.3259.
Task: forecast 56 days; generate series whose values are distributed like the real ones.
Out: wide, one row per id and day, 791 days from 1996-03-18. Ids are NN5-001 .. NN5-111; the one channel is withdrawals,
in percent of a level that the competition does not disclose. 1.9 % of the days are missing.
Traps: the Monash archive fills the gaps with medians per weekday, so that its figures are for other series; 419 zeros
are closed machines; levels differ between machines, and one split of the days is the same season for all of them.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import pandas as pd

from ctdyn.data import write_parquet


SHA256 = "1a9eb189cbc5eb7b41b556a36ec0f2d0048b907a38149a29ed8b16071961bc5c"
NAME = "nn5_daily_with_missing.csv.gz"


def convert(root: Path, out: Path) -> dict[str, int]:
    """Write the series found under `root` to `out`; how many there are, of how many days, and how many are missing."""
    path = next((p for p in (root / "nn5" / NAME, root / NAME) if p.is_file()), None)
    if path is None:
        raise SystemExit(f"{root}: no nn5/{NAME} and no {NAME} there; see the url in this file.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        print(f"{path}: not the file whose sha256 this script states; going on.", file=sys.stderr)
    table = pd.read_csv(path, parse_dates=["date"])
    if len(table.columns) < 2 or not all(str(name).startswith("NN5-") for name in table.columns[1:]):
        raise SystemExit(f"{path}: expected the columns date, NN5-001, NN5-002 ...; got {list(table.columns)[:4]}.")
    table = table.melt(id_vars="date", var_name="id", value_name="withdrawals").rename(columns={"date": "time"})
    units = {"withdrawals": "%"}
    write_parquet(table, out, id="id", time="time", values=["withdrawals"], units=units, time_unit="day")
    missing = int(table["withdrawals"].isna().to_numpy().sum())
    return {"series": len(set(table["id"])), "days": len(set(table["time"])), "missing": missing}


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
