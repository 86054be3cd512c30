"""Daily prices of the Google share, 2004 to 2019, as TimeGAN and its successors were tested on, as parquet.

    python datasets/stocks.py --root RAW --out stocks.parquet

Url: https://github.com/jsyoon0823/TimeGAN/tree/8f6181c/data, file stock_data.csv.
File: RAW/stocks/stock_data.csv or RAW/stock_data.csv: Open, High, Low, Close, Adj_Close, Volume; a row per day.
sha256: 134b8a00eb4eefa3242dd7ae85144082da80dedf75a1a656d5d08f97cd95277a
Licence: none stated (Yahoo Finance); the repository has none either.
Citation: J. Yoon, D. Jarrett, M. van der Schaar, Time-series Generative Adversarial Networks, 2019,
https://papers.nips.cc/paper/8789-time-series-generative-adversarial-networks.
Task: generate windows of 24 days that cannot be told from real ones; with 30, 50 or 70 % of the rows dropped as well.
Out: wide, one row per trading day. The one id is GOOG; time is the number of the trading day, 0 to 3684: the file has
no dates. Channels are open, high, low, close, adj_close in dollars, and volume in shares.
Traps: windows that overlap share rows, so split by time before cutting windows; adj_close equals close throughout;
prices rise from 50 to 1200 dollars, so that a split by time is also a change of level, and volume falls by a factor
of 13; the papers scale each column by its range over the whole file.
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


SHA256 = "134b8a00eb4eefa3242dd7ae85144082da80dedf75a1a656d5d08f97cd95277a"
COLUMNS = ("Open", "High", "Low", "Close", "Adj_Close", "Volume")


def convert(root: Path, out: Path) -> dict[str, int]:
    """Write the prices found under `root` to `out`; how many days they have."""
    path = next((p for p in (root / "stocks" / "stock_data.csv", root / "stock_data.csv") if p.is_file()), None)
    if path is None:
        raise SystemExit(f"{root}: no stocks/stock_data.csv and no stock_data.csv there; see the url in this file.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        print(f"{path}: not the file whose sha256 this script states; going on.", file=sys.stderr)
    table = pd.read_csv(path)
    if tuple(table.columns) != COLUMNS:
        raise SystemExit(f"{path}: expected the columns {', '.join(COLUMNS)}; got {', '.join(table.columns)}.")
    channels = [name.lower() for name in COLUMNS]
    table = table.set_axis(channels, axis=1).astype(np.float64)
    table.insert(0, "time", np.arange(len(table), dtype=np.float64))
    table.insert(0, "id", "GOOG")
    units = dict.fromkeys(channels[:-1], "USD") | {"volume": "shares"}
    write_parquet(table, out, id="id", time="time", values=channels, units=units, time_unit="trading day")
    return {"days": len(table)}


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
