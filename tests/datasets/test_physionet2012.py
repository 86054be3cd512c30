import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import from_pandas, read


STAYS = {
    132539: "00:00,RecordID,132539\n00:00,Age,54\n00:00,Gender,0\n00:00,Height,-1\n00:00,ICUType,4\n00:00,Weight,-1\n"
    "00:07,HR,73\n00:07,HR,75\n00:37,HR,77\n00:37,Temp,35.6\n48:00,HR,80\n",
    132540: "00:00,RecordID,132540\n00:00,Age,76\n00:00,Gender,1\n00:00,Height,175.3\n00:00,ICUType,2\n"
    "00:00,Weight,81.6\n"
    "01:11,HR,88\n01:11,,3\n02:00,Weight,82\n03:00,Temp,-17.8\n03:00,pH,735\n",
    140501: "00:00,RecordID,140501\n00:00,Age,70\n00:00,Gender,-1\n00:00,Height,-1\n00:00,ICUType,1\n00:00,Weight,60\n",
}
COUNTS = {
    "stays": 2,
    "empty_stays_dropped": 1,
    "observations": 8 - 1,
    "duplicates_averaged": 1,
    "missing_dropped": 4,
    "impossible_dropped": 2,
    "unnamed_dropped": 1,
    "channels": 3,
}


def write_archive(folder: Path) -> None:
    with tarfile.open(folder / "set-a.tar.gz", "w:gz") as archive:
        for stay, text in STAYS.items():
            content = f"Time,Parameter,Value\n{text}".encode()
            member = tarfile.TarInfo(f"set-a/{stay}.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_files(folder: Path) -> None:
    (folder / "set-a").mkdir()
    for stay, text in STAYS.items():
        (folder / "set-a" / f"{stay}.txt").write_text(f"Time,Parameter,Value\n{text}")


def write_parquet(folder: Path) -> None:
    rows = []
    for stay, text in STAYS.items():
        for line in text.splitlines():
            time, parameter, value = line.split(",")
            hours, minutes = time.split(":")
            rows.append((stay, 60 * int(hours) + int(minutes), parameter, float(value)))
    frame = pd.DataFrame(rows, columns=["RecordID", "minutes", "Parameter", "Value"])
    types = {"RecordID": "int32", "minutes": "int16", "Parameter": "category", "Value": "float32"}
    frame.astype(types).to_parquet(folder / "set-a.parquet")


@pytest.mark.parametrize("write", [write_archive, write_files, write_parquet])
def test_small_files_of_the_same_format(tmp_path: Path, converted: Callable, write: Callable[[Path], None]) -> None:
    folder = tmp_path / "physionet2012"
    folder.mkdir()
    write(folder)
    (folder / "Outcomes-a.txt").write_text(
        "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n"
        "132539,6,1,5,-1,0\n132540,16,8,8,-1,1\n140501,1,1,1,-1,0\n"
    )
    out, counts, _ = converted("physionet2012", tmp_path, "--sets", "a")
    assert counts == COUNTS
    data = read(out)
    assert data.channel_names == ("HR", "Temp", "Weight")
    first, second = data.by_id(132539), data.by_id(132540)
    np.testing.assert_allclose(first.times, [7 / 60, 37 / 60, 48.0])
    np.testing.assert_allclose(first.values[:, 0], [74.0, 77.0, 80.0])
    assert data.static_names == ("Age", "Gender", "Height", "ICUType", "AdmissionWeight")
    np.testing.assert_allclose(first.static, [54.0, 0.0, np.nan, 4.0, np.nan])  # type: ignore[arg-type]
    np.testing.assert_allclose(second.static, [76.0, 1.0, 175.3, 2.0, 81.6], rtol=1e-6)  # type: ignore[arg-type]
    assert second.times[0] == 0.0  # the weight at admission is an observation as well
    assert (first.labels[0], second.labels[0]) == (0.0, 1.0)  # type: ignore[index]
    assert data.axis.duration("1D") == 24.0


def test_outcomes_may_be_absent(tmp_path: Path, converted: Callable) -> None:
    write_files(tmp_path)
    out, _, told = converted("physionet2012", tmp_path, "--sets", "a")
    assert "the label is left out" in told
    assert read(out).label_names == ()


@pytest.mark.slow
def test_the_real_files(data_root: Path, converted: Callable) -> None:
    out, counts, told = converted("physionet2012", data_root)
    assert not told
    assert (counts["stays"], counts["empty_stays_dropped"], counts["unnamed_dropped"]) == (11988, 12, 2403)
    frame = pd.read_parquet(out)
    assert frame.drop_duplicates("id")["Died"].sum() in range(1700, 1708)  # 1,707 deaths, less those of empty stays
    some = frame[frame["id"].isin(frame["id"].unique()[:200])]
    data = from_pandas(some, id="id", variable="variable", value="value", static=["Age"], labels=["Died"])
    assert len(data) == 200
