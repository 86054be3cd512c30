"""Japanese Vowels: which of nine speakers says two vowels, ragged series of 12 channels, as parquet.

    python datasets/japanese_vowels.py --root RAW --out vowels.parquet

Url: https://github.com/aeon-toolkit/aeon/tree/a101ddc/aeon/datasets/data/JapaneseVowels, a copy of
https://archive.ics.uci.edu/dataset/128 in the format of the UEA archive.
Files: JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts, as they are or with .gz behind the name, in
RAW/japanese_vowels/, RAW/JapaneseVowels/ or RAW/. After `@data` one series per line: the 12 channels and the speaker,
separated by colons; the values of a channel by commas.
sha256: db1a95abb817aaa4d3ab941ffc48107d1a4dbca63cf30c739b3a72de7c4e7091 (train, .gz),
b2defceea4a3b652e3807872472d2d333d9246c05fc0cc7bbbe9494d52c70366 (test, .gz).
Licence: CC BY 4.0 (UCI); aeon itself is BSD-3-Clause.
Citation: M. Kudo, J. Toyama, M. Shimbo, Multidimensional curve classification using passing-through regions, Pattern
Recognition Letters 20, 1999, https://doi.org/10.1016/S0167-8655(99)00077-X. Task: name the speaker of each test series;
accuracy. 270 series for training (30 of each speaker), 370 for the test (24 to 88 of each).
Out: wide, one row per frame. Ids are train-000 ... and test-000 ..., in the order of the files: the split is the id.
Time is the number of the frame (6.4 ms apart). Channels are lpc01 .. lpc12, the label is `speaker`, 0 to 8 (the files
say 1 to 9).
Traps: series are 7 to 29 frames long and the length says something of the speaker; the series of a speaker stand
together, so that a validation set must be drawn and not cut; the same speaker is in both parts, so that this is about
speakers that are known.
"""

import argparse
import gzip
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from ctdyn.data import write_parquet


SHA256 = {
    "TRAIN": "db1a95abb817aaa4d3ab941ffc48107d1a4dbca63cf30c739b3a72de7c4e7091",
    "TEST": "b2defceea4a3b652e3807872472d2d333d9246c05fc0cc7bbbe9494d52c70366",
}
FOLDERS = ("japanese_vowels", "JapaneseVowels", "")


def read_part(root: Path, part: str) -> list[str]:
    """The lines of a part, the header left out."""
    name = f"JapaneseVowels_{part}.ts"
    candidates = [root / folder / file for folder in FOLDERS for file in (f"{name}.gz", name)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise SystemExit(f"{root}: no japanese_vowels/{name}.gz and no {name} there; see the url in this file.")
    raw = path.read_bytes()
    if path.suffix == ".gz":
        if hashlib.sha256(raw).hexdigest() != SHA256[part]:
            print(f"{path}: not the file whose sha256 this script states; going on.", file=sys.stderr)
        raw = gzip.decompress(raw)
    lines = [line.strip() for line in raw.decode().splitlines()]
    if "@data" not in [line.lower() for line in lines]:
        raise SystemExit(f"{path}: there is no line @data, behind which the series would stand.")
    start = [line.lower() for line in lines].index("@data") + 1
    return [line for line in lines[start:] if line]


def parse(line: str, name: str) -> pd.DataFrame:
    """One series as a frame."""
    *channels, speaker = line.split(":")
    values = [np.array(channel.split(","), dtype=np.float64) for channel in channels]
    lengths = {len(channel) for channel in values}
    if len(lengths) != 1:
        raise SystemExit(f"{name}: its channels have different lengths, {sorted(lengths)}.")
    frame = pd.DataFrame({f"lpc{i:02d}": channel for i, channel in enumerate(values, 1)})
    frame.insert(0, "time", np.arange(len(frame), dtype=np.float64))
    frame.insert(0, "id", name)
    frame["speaker"] = int(speaker) - 1
    return frame


def convert(root: Path, out: Path) -> dict[str, int]:
    """Write the series found under `root` to `out`; how many each part has."""
    parts = {part: read_part(root, part) for part in SHA256}
    frames = [parse(line, f"{part.lower()}-{i:03d}") for part, lines in parts.items() for i, line in enumerate(lines)]
    table = pd.concat(frames, ignore_index=True)
    channels = [name for name in table.columns if name.startswith("lpc")]
    write_parquet(table, out, id="id", time="time", values=channels, labels=["speaker"], time_unit="frame")
    return {"rows": len(table), **{part.lower(): len(lines) for part, lines in parts.items()}}


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
