import numpy as np
import pandas as pd
import pytest

from ctdyn._checks import DataError
from ctdyn._config import from_config, to_config
from ctdyn.data import TimeAxis
from ctdyn.data.clock import between_clocks


def axis_of(times: object, unit: str | None = None) -> tuple[TimeAxis, np.ndarray]:
    return TimeAxis.read(times, np.zeros(len(times), dtype=int), unit)  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Paris", "Asia/Kolkata"])
@pytest.mark.parametrize("float_unit", ["second", "minute", "hour", "day", "week", "year"])
def test_round_trip_to_the_microsecond(unit: str, zone: str | None, float_unit: str) -> None:
    stamps = pd.DatetimeIndex(["1969-12-31 23:59:59", "2020-03-29 03:30:00", "2024-02-29 12:34:56"], tz=zone).as_unit(
        unit  # type: ignore[arg-type]
    )
    axis, floats = axis_of(stamps, float_unit)
    back = axis.to_user(floats)
    assert isinstance(back, pd.DatetimeIndex)
    assert (back == stamps).all()
    assert str(back.tz) == str(stamps.tz)


def test_round_trip_of_odd_microseconds() -> None:
    rng = np.random.default_rng(0)
    stamps = pd.DatetimeIndex(
        np.datetime64("1990-01-01", "us") + rng.integers(0, 30 * 365 * 86400 * 10**6, 500).astype("m8[us]")
    )
    axis, floats = axis_of(stamps)
    error = np.abs((axis.to_user(floats) - stamps) / pd.Timedelta("1us"))  # type: ignore[operator]
    assert error.max() <= 1  # the spacing of float64 days over thirty years


def test_nanoseconds_stay_over_a_short_span() -> None:
    stamps = pd.DatetimeIndex(["2020-01-01 00:00:00.000000001", "2020-01-01 00:00:00.000000007"])
    axis, floats = axis_of(stamps)
    assert axis.resolution == "ns"
    assert (axis.to_user(floats) == stamps).all()


@pytest.mark.parametrize(
    ("end", "unit"),
    [("2020-01-01 00:05", "second"), ("2020-01-01 06:00", "minute"), ("2020-01-04", "hour"), ("2040-01-01", "day")],
)
def test_the_unit_suits_the_span(end: str, unit: str) -> None:
    assert axis_of(["2020-01-01 00:00", end])[0].unit == unit


def test_the_unit_suits_the_longest_series_not_the_calendar() -> None:
    times = pd.to_datetime(["2010-01-01", "2010-01-02", "2020-05-05", "2020-05-06"])
    axis, _ = TimeAxis.read(times, np.array([0, 0, 1, 1]))
    assert axis.unit == "hour"


def test_timedeltas_are_numbers_with_a_unit() -> None:
    axis, floats = axis_of(pd.to_timedelta(["0h", "36h"]), "day")
    assert not axis.is_datetime
    assert floats.tolist() == [0.0, 1.5]
    assert axis.duration("12h") == 0.5


def test_durations() -> None:
    axis = TimeAxis("day", "2020-01-01")
    assert axis.duration(2) == axis.duration("2D") == axis.duration(pd.Timedelta("48h")) == 2.0
    assert axis.duration(np.timedelta64(12, "h")) == 0.5
    with pytest.raises(DataError, match="not a length of time"):
        axis.duration("soon")
    for bare in ("5", " 1.5 ", "-5", "+5", "1,5"):
        with pytest.raises(DataError, match="without a unit"):
            axis.duration(bare)
    with pytest.raises(DataError, match=r"'1,5D' has a comma.*'1\.5D'"):
        axis.duration("1,5D")
    assert axis.duration(str(pd.Timedelta("36h"))) == axis.duration("1 days, 12:00:00") == 1.5
    with pytest.raises(DataError, match="longer than a timedelta can be; give a number"):
        axis.duration("1000000D")
    with pytest.raises(DataError, match="finite"):
        axis.duration(float("nan"))
    with pytest.raises(DataError, match="time_unit='hour'"):
        TimeAxis().duration(pd.Timedelta("1h"))


def test_instants_of_another_sort_are_refused() -> None:
    with pytest.raises(DataError, match="give numbers"):
        TimeAxis("hour").instant("2020-01-01")
    with pytest.raises(DataError, match="packed date"):
        TimeAxis("hour", "2020-01-01").instant(1_600_000_000_000_000_000)
    with pytest.raises(DataError, match="has no time zone"):
        TimeAxis("hour", "2020-01-01", "UTC").instant(pd.Timestamp("2020-01-01"))
    with pytest.raises(DataError, match="has a time zone"):
        TimeAxis("hour", "2020-01-01").instant(pd.Timestamp("2020-01-01", tz="UTC"))
    with pytest.raises(DataError, match="NaN or NaT"):
        TimeAxis("hour", "2020-01-01").instant(pd.NaT)
    for axis in (TimeAxis("hour", "2020-01-01"), TimeAxis(), TimeAxis("frame")):
        with pytest.raises(DataError, match="duration"):
            axis.instant(pd.Timedelta("1h"))
    assert TimeAxis("minute").instant(pd.Timedelta("1h")) == 60.0


def test_text_is_read_in_the_zone_of_the_data() -> None:
    axis = TimeAxis("hour", "2020-03-28T23:00:00", "Europe/Paris")
    assert axis.instant("2020-03-29") == 0.0
    assert axis.instant("2020-03-29 03:00") == 2.0  # summer time begins at 02:00
    assert axis.instant("2020-03-29T00:00Z") == 1.0


def test_a_datetime_axis_needs_a_unit_of_time() -> None:
    with pytest.raises(DataError, match="unit of time"):
        axis_of(["2020-01-01"], "furlong")


def test_missing_times_become_nan() -> None:
    assert np.isnan(axis_of(["2020-01-01", None])[1][1])
    assert np.isnan(axis_of([pd.NaT, pd.NaT])[1]).all()


def test_it_is_plain_data() -> None:
    axis = TimeAxis("day", "2020-01-01", "UTC")
    assert from_config(to_config(axis), {"TimeAxis": TimeAxis}) == axis


def test_from_clock_to_clock_without_losing_digits_to_the_origin() -> None:
    wanted, own = TimeAxis("day", "1970-01-01"), TimeAxis("second", "2023-11-14T22:13:20")
    way, times = between_clocks(wanted, own), np.array([0.0, 1e6, 1e8])
    np.testing.assert_allclose(way(times), (1.7e9 + times) / 86400.0, rtol=1e-15)
    assert between_clocks(own, own)(times) is times
    np.testing.assert_array_equal(between_clocks(TimeAxis("hour"), TimeAxis())(times), times)


@pytest.mark.parametrize(
    ("wanted", "own"),
    [
        (TimeAxis("hour"), TimeAxis("day")),
        (TimeAxis("day", "2020-01-01"), TimeAxis("day")),
        (TimeAxis("day", "2020-01-01"), TimeAxis("day", "2020-01-01", zone="Europe/Paris")),
    ],
)
def test_clocks_of_different_sorts_have_no_way_between(wanted: TimeAxis, own: TimeAxis) -> None:
    with pytest.raises(DataError, match=r"expected|time zone"):
        between_clocks(wanted, own)
