"""PhysioNet / Computing in Cardiology Challenge 2012: 12,000 intensive care stays of 48 hours, as long parquet.

    python datasets/physionet2012.py --root RAW --out physionet2012.parquet [--sets abc]

Url: https://physionet.org/content/challenge-2012/1.0.0/ (set-a.tar.gz, Outcomes-a.txt, and the same for b and c).
File: per set, RAW/physionet2012/set-a.parquet (RecordID, minutes, Parameter, Value), set-a.tar.gz or a folder set-a/ of
files 132539.txt (Time as HH:MM, Parameter, Value), and Outcomes-a.txt; RAW itself may be the folder.
sha256: set-a.tar.gz 777d28abed2dcc04476afb9b4fb026de3423b0a7165707c629b00ffb92068e87
Outcomes-a.txt 2613ea60ccda29f87571a7d6b09ad130858a8ccd66325bd073365925026883c2
Outcomes-b.txt 1305f29734da374a809483229a99f33a9230aa8d4fa74b1a2d6ad788136423d5
Outcomes-c.txt 0b32dcb7753c0f18f2f5fde498a28618b8879c5e527ce0dae8ad120dd7e205c9
Licence: Open Data Commons Attribution 1.0.
Citation: I. Silva, G. Moody, D. J. Scott, L. A. Celi and R. G. Mark, Predicting in-hospital mortality of ICU patients:
the PhysioNet/Computing in Cardiology Challenge 2012, Computing in Cardiology 39, 2012.
Task: from the first 24 hours forecast the next 24; fill gaps; in-hospital death as a label.
Out: one row per observation: id, time (hours since admission), variable, value; the static covariates Age, Gender,
Height, ICUType and AdmissionWeight (NaN where unknown) and the label Died are repeated in every row of a stay.
Traps: -1 means missing; 3,744 observations of set a stand twice at one minute with different values, and are averaged
here; 2,403 rows of set c name no parameter; 12 stays have nothing but the general descriptors, which are rows at
00:00 (the weight among them), and are left out; a pH outside of 6 to 8.5 (735 for 7.35) and a
temperature outside of 20 to 45 (-17.8 is 0 F, an entry of nothing) are dropped; MechVent is 1 or absent, so it is
constant. Published errors use three different averages and two scalings: see
ctdyn.metrics.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ctdyn.data import write_parquet


SHA256 = {
    "set-a.tar.gz": "777d28abed2dcc04476afb9b4fb026de3423b0a7165707c629b00ffb92068e87",
    "Outcomes-a.txt": "2613ea60ccda29f87571a7d6b09ad130858a8ccd66325bd073365925026883c2",
    "Outcomes-b.txt": "1305f29734da374a809483229a99f33a9230aa8d4fa74b1a2d6ad788136423d5",
    "Outcomes-c.txt": "0b32dcb7753c0f18f2f5fde498a28618b8879c5e527ce0dae8ad120dd7e205c9",
}
STATIC = ["Age", "Gender", "Height", "ICUType"]
MISSING = -1.0
#: What no living patient has: a lost decimal point (a pH of 735), a thermometer that was not there (-17.8 C is 0 F).
#: One pH of 735 outweighs everything else in a mean squared error.
POSSIBLE = {"pH": (6.0, 8.5), "Temp": (20.0, 45.0)}


def convert(root: Path, out: Path, sets: str = "abc") -> dict[str, int]:
    """Write the stays of some sets to `out`; what was dropped and averaged on the way."""
    folder = root / "physionet2012" if (root / "physionet2012").is_dir() else root
    rows = pd.concat([_rows(folder, name) for name in sets], ignore_index=True)
    unnamed = rows["variable"].isna() | (rows["variable"] == "")
    rows = rows[~unnamed & (rows["variable"] != "RecordID")]
    missing = rows["value"].isna() | (rows["value"] == MISSING)
    stays = rows["id"].unique()
    static = _static(rows[~missing], stays)
    impossible = _impossible(rows) & ~missing
    series = rows[~missing & ~impossible & ~rows["variable"].isin(STATIC)]
    at_admission = (series["variable"] == "Weight") & (series["minutes"] == 0)
    series = series[series["id"].isin(series["id"][~at_admission].unique())]
    table = series.groupby(["id", "minutes", "variable"], as_index=False, sort=True, observed=True)["value"].mean()
    table.insert(1, "time", table.pop("minutes") / 60.0)
    table["variable"] = table["variable"].astype("category")
    labels = _outcomes(folder, sets)
    table = table.join(static, on="id").join(labels, on="id")
    names = sorted(table["variable"].cat.categories)
    write_parquet(
        table,
        out,
        id="id",
        time="time",
        variable="variable",
        value="value",
        values=names,
        static=list(static.columns),
        labels=list(labels.columns),
        time_unit="hour",
    )
    kept = table["id"].nunique()
    return {
        "stays": int(kept),
        "empty_stays_dropped": len(stays) - int(kept),
        "observations": len(table),
        "duplicates_averaged": len(series) - len(table),
        "missing_dropped": int(missing.sum()),
        "impossible_dropped": int(impossible.sum()),
        "unnamed_dropped": int(unnamed.sum()),
        "channels": len(names),
    }


def _impossible(rows: pd.DataFrame) -> pd.Series:
    limits = pd.DataFrame.from_dict(POSSIBLE, orient="index", columns=["low", "high"])
    low, high = (rows["variable"].map(limits[side]) for side in ("low", "high"))
    return (rows["value"] < low) | (rows["value"] > high)


def _rows(folder: Path, name: str) -> pd.DataFrame:
    """All rows of a set, in whichever form it is there: id, minutes, variable, value."""
    parquet, archive, files = (folder / f"set-{name}{suffix}" for suffix in (".parquet", ".tar.gz", ""))
    if parquet.is_file():
        frame = pd.read_parquet(parquet)
        frame.columns = pd.Index(["id", "minutes", "variable", "value"])
        return frame.astype({"id": np.int64, "minutes": np.float64, "variable": str, "value": np.float64})
    if archive.is_file():
        _verify(archive)
        texts = _archived(archive)
    elif files.is_dir():
        texts = ((path.stem, path.read_text()) for path in sorted(files.glob("*.txt")))
    else:
        tried = f"{parquet.name}, {archive.name} nor {files.name}/"
        raise SystemExit(f"{folder}: neither {tried} is there; see the url in this file.")
    parts = []
    for stay, text in texts:
        part = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype={"Parameter": str})
        part.insert(0, "id", int(stay))
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    clock = frame.pop("Time").str.split(":", expand=True).astype(np.float64)
    frame.insert(1, "minutes", 60 * clock[0] + clock[1])
    frame.columns = pd.Index(["id", "minutes", "variable", "value"])
    return frame.astype({"value": np.float64})


def _archived(path: Path) -> Iterator[tuple[str, str]]:
    """The files of an archive, read as they come; nothing is unpacked to disk."""
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".txt") else None
            if file is not None:
                yield Path(member.name).stem, file.read().decode()


def _static(rows: pd.DataFrame, stays: np.ndarray) -> pd.DataFrame:
    """The general descriptors that stand at 00:00, one row per stay; NaN where unknown."""
    first = rows[rows["minutes"] == 0].drop_duplicates(["id", "variable"])
    wide = first.pivot(index="id", columns="variable", values="value")
    wide = wide.reindex(index=stays, columns=[*STATIC, "Weight"]).rename(columns={"Weight": "AdmissionWeight"})
    wide.columns.name = None
    return wide


def _outcomes(folder: Path, sets: str) -> pd.DataFrame:
    tables = []
    for name in sets:
        path = folder / f"Outcomes-{name}.txt"
        if not path.is_file():
            print(f"{path}: not there; the label is left out.", file=sys.stderr)
            return pd.DataFrame()
        _verify(path)
        tables.append(pd.read_csv(path).set_index("RecordID")[["In-hospital_death"]])
    return pd.concat(tables).rename(columns={"In-hospital_death": "Died"})


def _verify(path: Path) -> None:
    if path.name in SHA256 and hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[path.name]:
        print(f"{path}: not the file whose sha256 this script states; going on.", file=sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=os.environ.get("CTDYN_DATA"), help="where the raw files are")
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    parser.add_argument("--sets", default="abc", help="which sets, as ab")
    options = parser.parse_args(arguments)
    if options.root is None:
        parser.error("give --root, or set CTDYN_DATA")
    print(json.dumps(convert(Path(options.root), options.out, options.sets)))


if __name__ == "__main__":
    main()
