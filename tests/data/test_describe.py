import numpy as np
import pandas as pd
import pytest

from ctdyn.data import describe, from_pandas, from_ragged


def test_counts_gaps_and_density() -> None:
    data = from_ragged([([0.0, 1.0, 3.0], [[1.0, 5.0], [2.0, np.nan], [np.nan, 7.0]]), ([0.0], [[4.0, np.nan]])])
    report = describe(data)
    assert (report.series, report.rows, report.lengths) == (2, 4, (1, 2, 3))
    assert report.span == (0.0, 1.5, 3.0)
    assert report.gaps[1:] == pytest.approx((1.5, 1.95, 2.0))
    assert report.density == 5 / 8
    assert (report.start, report.end) == (0.0, 3.0)
    frame = report.to_frame()
    assert frame.loc["x0", ["observations", "series", "mean", "min", "max"]].tolist() == [
        3,
        2,
        pytest.approx(7 / 3),
        1.0,
        4.0,
    ]
    assert frame.loc["x1", "density"] == 0.5


@pytest.mark.parametrize(
    ("values", "sentinel"),
    [
        ([-1.0, 60.0, 61.0, -1.0, 70.0, 65.0], -1.0),
        ([9999.0, 60.0, 61.0, 9999.0, 70.0, 65.0], 9999.0),
        ([-99.0, -3.0, 2.0, -99.0, 0.0, 1.0], -99.0),
        ([-1.0, 0.0, 1.0, -1.0, 2.0, -2.0], None),
        ([1.0, 2.0, 3.0, 2.0, 4.0, 5.0], None),
        ([60.0, 61.0, 62.0, 200.0, 63.0, 64.0], None),  # once is an outlier
    ],
)
def test_sentinels(values: list[float], sentinel: float | None) -> None:
    report = describe(from_ragged([(np.arange(len(values)), values)]))
    assert report.channels[0].sentinel == sentinel
    assert ("again and again" in str(report)) == (sentinel is not None)


def test_constant_and_unobserved_channels_are_noted() -> None:
    frame = pd.DataFrame({"time": [0.0, 1.0], "flat": [5.0, 5.0 + 1e-12], "none": [np.nan, np.nan], "x": [1.0, 2.0]})
    report = describe(from_pandas(frame))
    assert [one.constant for one in report.channels] == [True, False, False]
    assert "'flat' is constant" in str(report)
    assert "'none' is never observed" in str(report)


def test_times_that_float32_cannot_tell_apart() -> None:
    report = describe(from_ragged([(2451545.0 + np.arange(10) / 100, np.arange(10.0))]))
    assert report.collisions > 0.5
    assert "float32" in str(report)
    assert describe(from_ragged([(np.arange(10) / 100, np.arange(10.0))])).collisions == 0.0


def test_the_clock_is_told() -> None:
    times = pd.date_range("2020-01-01", periods=3, tz="Europe/Paris")
    text = str(describe(from_pandas(pd.DataFrame({"time": times, "x": [1.0, 2.0, 3.0]}), units={"x": "mm"})))
    assert "hours since 2019-12-31T23:00:00 UTC, shown in Europe/Paris" in text
    assert "2020-01-01 00:00:00+01:00" in text
    assert "mm" in text


def test_what_was_merged_and_sorted_is_told() -> None:
    frame = pd.DataFrame({"time": [1.0, 0.0, 0.0], "x": [1.0, 2.0, 4.0]})
    text = str(describe(from_pandas(frame, duplicates="mean")))
    assert "3 rows read; 1 series sorted; 1 duplicate observations merged" in text


def test_an_empty_set() -> None:
    assert describe(from_ragged([([0.0], [1.0])])[[]]).rows == 0


def test_times_without_channels() -> None:
    table = describe(from_pandas(pd.DataFrame({"time": [0.0, 1.0]}), values=[])).to_frame()
    whole = describe(from_ragged([([0.0], [1.0])])).to_frame()
    assert len(table) == 0
    assert list(table.columns) == list(whole.columns)
