import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctdyn._checks import DataError, DataWarning
from ctdyn.data import SeriesSet, co2, from_pandas, read, write_parquet
from ctdyn.data.storage import replacing


def full_set(zone: str | None = None) -> SeriesSet:
    frame = pd.DataFrame(
        {
            "id": ["a", "a", "b"],
            "time": pd.DatetimeIndex(["2020-01-01", "2020-01-03 12:00", "2020-01-02"], tz=zone),
            "hr": [60.0, np.nan, 80.0],
            "on": [1.0, 0.0, np.nan],
            "sd": [0.5, 0.0, 0.25],
            "dose": [0.0, 1.0, 2.0],
            "age": [50.0, 50.0, np.nan],
            "died": [0, 0, 1],
        }
    )
    return from_pandas(
        frame,
        id="id",
        values=["hr", "on"],
        noise={"hr": "sd"},
        inputs="dose",
        static="age",
        labels="died",
        units={"hr": "1/min"},
        kinds={"on": "binary"},
        time_unit="hour",
    )


@pytest.mark.parametrize("zone", [None, "Europe/Paris"])
def test_parquet_says_what_its_columns_are(tmp_path: Path, zone: str | None) -> None:
    data = full_set(zone)
    again = read(data.to_parquet(tmp_path / "data.parquet"))
    pd.testing.assert_frame_equal(again.to_wide(), data.to_wide())
    assert again.channels == data.channels
    assert again.axis == data.axis
    for one, other in zip(data, again, strict=True):
        np.testing.assert_array_equal(one.noise, other.noise)
        np.testing.assert_array_equal(one.static, other.static)
        np.testing.assert_array_equal(one.labels, other.labels)
    only = read(tmp_path / "data.parquet", values=["on"], id=None, drop_empty=True)
    assert only.channel_names == ("on",)
    assert only.channels[0].kind == "binary"


def test_csv_round_trip(tmp_path: Path) -> None:
    data = full_set("Europe/Paris")
    for name in ("data.csv", "data.csv.gz"):
        again = read(
            data.to_csv(tmp_path / name),
            id="id",
            values=["hr", "on"],
            noise={"hr": "hr_noise", "on": "on_noise"},
            inputs=["dose"],
            static=["age"],
            labels=["died"],
        )
        np.testing.assert_array_equal(again[0].values, data[0].values)
        np.testing.assert_array_equal(again[1].inputs, data[1].inputs)
        assert again.axis.zone == "UTC"  # an offset in a CSV file is no name of a zone
        assert again.axis.instant("2020-01-03T12:00+01:00") == data.axis.instant("2020-01-03 12:00")


def test_the_cut_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv"
    path.write_text("id,time,x\n1,0.0,1.0\n1,0.5")
    with pytest.raises(DataError, match=r"cut\.csv: line 3 has 2 fields, but the header has 3"):
        read(path, id="id")
    path.write_text('id,time,x\n1,0.0,1.0\n"1\n2",0.5,1.0\n1,1.0\n')
    with pytest.raises(DataError, match="line 5 has 2 fields"):
        read(path, id="id")


def refused(path: Path) -> bool:
    """A file whose last line lacks a field, or has one that is shorter than all others, is certainly broken."""
    header, *lines, last = path.read_text().split("\n")
    fields = last.split(",")
    shortest = min((len(line.split(",")[-1]) for line in lines), default=0)
    return len(fields) != 3 or not header or fields[2] in ("", "-") or (len(lines) >= 21 and len(fields[2]) < shortest)


@pytest.mark.parametrize("seed", range(20))
def test_a_csv_file_cut_anywhere_never_passes_in_silence(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "cut.csv"
    pd.DataFrame({"id": 1, "time": np.arange(60) / 7, "x": rng.normal(size=60)}).to_csv(path, index=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(rng.integers(1, len(whole) - 2))])
    if path.read_bytes().endswith(b"\n"):
        return  # a whole number of lines is a smaller file, not a broken one
    with pytest.raises(DataError, match=r"cut\.csv") if refused(path) else pytest.warns(DataWarning, match="no end"):
        read(path, id="id", values=["x"])


def test_a_last_field_that_is_shorter_than_all_others(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv"
    rows = "".join(f"1,{i}.0,{1000 + i}.125\n" for i in range(30))
    path.write_text(f"id,time,x\n{rows}1,31.0,10")
    with pytest.raises(DataError, match=r"the last line has no end.*shorter than all others"):
        read(path, id="id")
    path.write_text(f"id,time,x\n{rows}1,31.0,")
    with pytest.raises(DataError, match="its last field is empty"):
        read(path, id="id")
    path.write_text(f"id,time,x\n{rows}1,31.0,1031.125")
    with pytest.warns(DataWarning, match="the last line has no end"):
        assert len(read(path, id="id")[0]) == 31


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"id,time,x\n", "no rows"),
        (b"id,time,id\n1,2,3\n", "'id' occurs more than once"),
        (b"id,time,x\n1,0.0,high\n", "column 'x': 'high' is not a number"),
        (b"id,time,x\n1,2020-13-01,1.0\n", "column 'time'.*could not be read"),
        (b"id,time,x\n1,0.0,\xff\xfe\n", "column 'x'"),
        (b"id;time;x\n1;0.0;1.0\n", "column 'id', 'time' is missing"),
        (b"id,time,x\n1,20200101,1.0\n", "YYYYMMDD"),
    ],
)
def test_bad_csv_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.csv: .*{message}"):
        read(path, id="id")


def test_a_cut_gzip_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"id,time,x\n" + b"1,0.5,1.0\n" * 5000)[:-20])
    with pytest.raises(DataError, match=r"cut\.csv\.gz"):
        read(path, id="id", duplicates="mean")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_cut_parquet_files(tmp_path: Path, share: float) -> None:
    path = full_set().to_parquet(tmp_path / "cut.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"cut\.parquet: not a complete parquet file"):
        read(path)


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    data = full_set()
    data[:1].to_parquet(tmp_path / "1.parquet")
    data[1:].to_parquet(tmp_path / "2.parquet")
    pd.testing.assert_frame_equal(read(tmp_path).to_wide(), data.to_wide())
    pq.write_table(pa.table({"id": ["c"], "time": [1.0]}), tmp_path / "3.parquet")
    with pytest.raises(DataError, match=r"3\.parquet: its schema differs from that of 1\.parquet: .*hr"):
        read(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"no \.parquet file"):
        read(tmp_path / "none")


def test_what_a_file_says_about_its_columns_is_data(tmp_path: Path) -> None:
    table = pa.table({"id": [1], "time": [0.0], "x": [1.0]})
    for description in (b"{", json.dumps({"df": 1}).encode(), json.dumps(["id"]).encode()):
        pq.write_table(table.replace_schema_metadata({b"ctdyn.columns": description}), tmp_path / "odd.parquet")
        with pytest.raises(DataError, match="its description of the columns"):
            read(tmp_path / "odd.parquet")


def test_files_that_are_not_there_or_not_known(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read(tmp_path / "none.csv")
    (tmp_path / "data.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r"name it \.csv"):
        read(tmp_path / "data.xlsx")


def test_writing_replaces_at_once_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def fails() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.csv"]
    full_set().to_csv(path)
    assert os.listdir(tmp_path) == ["out.csv"]


def test_a_long_frame_with_its_description(tmp_path: Path) -> None:
    frame = full_set().to_long()
    path = write_parquet(frame, tmp_path / "long.parquet", id="id", variable="channel", value="value", noise="noise")
    assert read(path).channel_names == ("hr", "on")


def test_the_co2_record() -> None:
    data = co2()
    assert (len(data), len(data[0])) == (1, 2225)
    frame = data.to_wide()
    assert str(frame["time"].iloc[0]) == "1958-03-29 00:00:00"
    assert str(frame["time"].iloc[-1]) == "2001-12-29 00:00:00"
    assert (frame["co2"].iloc[0], frame["co2"].iloc[-1]) == (316.1, 371.5)
    assert data.axis.unit == "day"
    assert data.intake.empty_rows == 59


def test_an_input_that_is_called_like_a_standard_error_is_none(tmp_path: Path) -> None:
    frame = pd.DataFrame({"time": [0.0, 1.0], "x": [1.0, 2.0], "x_noise": [3.0, 4.0]})
    back = read(from_pandas(frame, inputs="x_noise").to_parquet(tmp_path / "set.parquet"))
    assert back.input_names == ("x_noise",)
    assert back[0].noise is None


@pytest.mark.parametrize(
    ("written", "ids"), [(["007", "12"], ("007", "12")), (["7", "12"], (7, 12)), (["-7", "0"], (-7, 0))]
)
def test_ids_keep_their_leading_zeros(tmp_path: Path, written: list[str], ids: tuple[object, ...]) -> None:
    path = tmp_path / "data.csv"
    path.write_text("id,time,x\n" + "".join(f"{id},{t},00{t}.5\n" for id in written for t in range(2)))
    series = read(path, id="id")
    assert series.ids == ids
    np.testing.assert_array_equal(series[0].values[:, 0], [0.5, 1.5])
    path.write_text("id,time,x\n007,0,1\n,1,2\n")
    with pytest.raises(DataError, match="id"):
        read(path, id="id")
