import datetime

import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn._checks import DataError
from ctdyn.data._stamps import BadTimeError, Stamps, localized, looks_like_epoch, parse_times, unit_seconds


@pytest.mark.parametrize("unit", ["D", "h", "s", "ms", "us", "ns"])
def test_the_unit_of_datetime64_is_read_from_the_dtype(unit: str) -> None:
    stamps = parse_times(np.array(["2020-01-01", "2020-01-03"], dtype=f"datetime64[{unit}]"))
    assert isinstance(stamps, Stamps)
    np.testing.assert_array_equal(stamps.since("2020-01-01", 86400.0), [0.0, 2.0])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_pandas_columns_of_every_unit_agree(unit: str) -> None:
    column = pd.Series(pd.to_datetime(["2021-03-01 12:00:01", None, "2021-03-02 00:00:00"])).astype(
        f"datetime64[{unit}]"
    )
    stamps = parse_times(column)
    assert isinstance(stamps, Stamps)
    assert stamps.missing.tolist() == [False, True, False]
    np.testing.assert_array_equal(stamps.since("2021-03-01", 1.0)[[0, 2]], [43201.0, 86400.0])


def test_a_nanosecond_survives_fifty_years_of_origin() -> None:
    stamps = parse_times(np.array(["2020-01-01T00:00:00.000000001", "2020-01-01T00:00:00.000000004"], dtype="M8[ns]"))
    assert isinstance(stamps, Stamps)
    np.testing.assert_allclose(stamps.since(stamps.earliest(), 1.0), [0.0, 3e-9], rtol=1e-12)


def test_years_outside_the_range_of_nanoseconds() -> None:
    stamps = parse_times(np.array(["1066-10-14", "2500-01-01"], dtype="M8[s]"))
    assert isinstance(stamps, Stamps)
    expected = (np.datetime64("2500-01-01") - np.datetime64("1066-10-14")).astype(int)
    np.testing.assert_array_equal(stamps.since("1066-10-14", 86400.0), [0.0, expected])


def test_arrow_dates_objects_and_text() -> None:
    arrow = pd.Series(pd.to_datetime(["2020-01-02"])).convert_dtypes(dtype_backend="pyarrow")
    for column in (arrow, [datetime.date(2020, 1, 2)], [datetime.datetime(2020, 1, 2)], ["2020-01-02"]):
        stamps = parse_times(column)
        assert isinstance(stamps, Stamps)
        assert stamps.earliest() == "2020-01-02"
    with_clock = parse_times(["2020-01-02", "2020-01-03 06:00", "2020-01-03T06:00:00.25"])
    assert isinstance(with_clock, Stamps)
    np.testing.assert_allclose(with_clock.since("2020-01-02", 3600.0), [0.0, 30.0, 30.0 + 0.25 / 3600])


def test_numbers_of_every_container() -> None:
    for column in ([0, 1], np.array([0, 1], dtype="int16"), torch.tensor([0, 1]), pd.Series([0, 1], dtype="Int64")):
        parsed = parse_times(column)
        assert isinstance(parsed, np.ndarray)
        assert parsed.tolist() == [0, 1]
    missing = parse_times(pd.Series([0, None], dtype="Int64"))
    assert isinstance(missing, np.ndarray)
    assert np.isnan(missing[1])
    objects = parse_times(pd.Series([np.int64(0), np.float32(5), None], dtype=object))
    np.testing.assert_array_equal(objects, [0.0, 5.0, np.nan])  # type: ignore[arg-type]
    assert parse_times([]).dtype == np.float64  # type: ignore[union-attr]


def test_offsets_become_instants() -> None:
    stamps = parse_times(["2020-06-01T12:00+02:00", "2020-12-01T12:00+01:00", "2020-12-01T11:00Z"])
    assert isinstance(stamps, Stamps)
    assert stamps.zone == "UTC"
    hours = stamps.since("2020-06-01T10:00:00", 3600.0)
    assert hours[0] == 0.0
    assert hours[1] == hours[2]


def test_mixed_naive_and_zoned_times_are_refused() -> None:
    with pytest.raises(BadTimeError, match="mix naive datetimes") as caught:
        parse_times(["2020-06-01T12:00+02:00", "2020-06-01T13:00"])
    assert caught.value.row == 1
    with pytest.raises(BadTimeError, match="tz_localize"):
        parse_times([pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-01", tz="UTC")])


@pytest.mark.parametrize("bad", ["01/02/2020", "yesterday", "1.5 h"])
def test_ambiguous_or_unreadable_text_is_refused(bad: str) -> None:
    with pytest.raises(BadTimeError, match=r"pandas\.to_datetime") as caught:
        parse_times(["2020-01-01", bad])
    assert caught.value.row == 1


@pytest.mark.parametrize(
    "column", [pd.Series([True, False]), pd.Series([1j]), pd.Series(pd.period_range("2020", periods=2, freq="M"))]
)
def test_what_is_no_time(column: pd.Series) -> None:
    with pytest.raises(DataError):
        parse_times(column)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_packed_dates_are_found(unit: str) -> None:
    epochs = pd.date_range("2001-01-01", "2030-01-01", freq="YS").astype(f"datetime64[{unit}]").astype("int64")
    assert looks_like_epoch(epochs.to_numpy()) == unit
    as_floats = looks_like_epoch(epochs.to_numpy().astype(float))
    assert as_floats == ("ns" if unit == "ns" else None)


def test_packed_days_are_found() -> None:
    assert looks_like_epoch(np.array([19580329, 20011229])) == "%Y%m%d"
    assert looks_like_epoch(np.array([19580329, 19580399])) is None
    assert looks_like_epoch(np.arange(100)) is None
    assert looks_like_epoch(np.array([2451545.0, 2459000.5])) is None


def test_units_by_many_names() -> None:
    assert unit_seconds("s") == unit_seconds("seconds") == 1.0
    assert unit_seconds("Days") == unit_seconds("d") == 86400.0
    assert unit_seconds("ms") == 1e-3
    assert unit_seconds("parsec") is None


def test_the_hour_that_summer_time_skips() -> None:
    with pytest.raises(DataError, match="not an instant in Europe/Paris"):
        localized(["2020-03-29 02:30"], "Europe/Paris")
