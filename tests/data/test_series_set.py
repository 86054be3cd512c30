from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn._checks import DataError, UnknownIdError
from ctdyn.data import Channel, Series, SeriesSet, from_pandas, from_ragged


def numbered(count: int) -> SeriesSet:
    return from_ragged([(np.arange(3.0) + i, np.full(3, float(i))) for i in range(count)])


def dated(zone: str | None = None) -> SeriesSet:
    times = pd.date_range("2020-01-01", periods=6, freq="D", tz=zone)
    return from_pandas(pd.DataFrame({"id": ["a", "b"] * 3, "time": times, "x": np.arange(6.0)}), id="id")


def test_it_is_a_sequence() -> None:
    data = numbered(5)
    assert len(data) == 5
    assert [one.id for one in data] == [0, 1, 2, 3, 4]
    assert data[-1].id == 4
    assert data[1:3].ids == (1, 2)
    assert data[[3, 0]].ids == (3, 0)
    assert data[np.array([True, False, False, False, True])].ids == (0, 4)
    assert len(data[[]]) == 0


def test_ids() -> None:
    data = numbered(5)
    assert data.select([4, 2]).ids == (4, 2)
    assert data.by_id(3).values[0, 0] == 3.0
    with pytest.raises(UnknownIdError, match="2 unseen ids, first: 7, 8"):
        data.select([1, 7, 8])
    with pytest.raises(DataError, match="unique"):
        SeriesSet((data[0], data[0]), data.channels)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((0.8,), [8, 2]), ((0.6, 0.2, 0.2), [6, 2, 2]), ((5, 3), [5, 3, 2]), ((4, 6), [4, 6]), ((0.5, 0.25), [5, 3, 2])],
)
def test_split_sizes(sizes: tuple[float, ...], expected: list[int]) -> None:
    parts = numbered(10).split(*sizes)
    counts = [len(part) for part in parts]
    assert sum(counts) == 10
    assert np.abs(np.array(counts) - expected).max() <= 1
    assert len(counts) == len(expected)
    assert sorted(one.id for part in parts for one in part) == list(range(10))


def test_split_is_seeded_and_keeps_the_order_inside() -> None:
    data = numbered(20)
    first, again, other = (data.split(0.5, seed=seed)[0].ids for seed in (1, 1, 2))
    assert first == again != other
    assert list(first) == sorted(first)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("count", "sizes", "message"),
    [
        (1, (0.8,), "empty part.*split_time"),
        (3, (0.99, 0.005, 0.005), "empty"),
        (3, (2, 3), "at most 3"),
        (3, (0.9, 0.9), "at most 1"),
        (3, (-1, 2), "positive"),
        (3, (), "positive"),
        (30, (True,), "shares below 1"),
    ],
)
def test_bad_splits(count: int, sizes: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        numbered(count).split(*sizes)


def test_splitting_along_the_clock() -> None:
    before, after = dated().split_time("2020-01-03")
    assert [len(one) for one in before] == [1, 1]
    assert [len(one) for one in after] == [2, 2]
    assert before.axis == after.axis
    assert [len(one) for one in dated().before(pd.Timestamp("2020-01-02"))] == [1, 0]
    assert dated().before("2020-01-02").observed().ids == ("a",)
    assert [len(one) for one in dated().between("2020-01-02", "2020-01-04")] == [1, 1]
    assert [len(one) for one in dated().before(48.0)] == [1, 1]  # hours since the first stamp


def test_a_time_of_the_wrong_zone() -> None:
    with pytest.raises(DataError, match="tz_localize"):
        dated("UTC").before(pd.Timestamp("2020-01-02"))


def test_channels_are_matched_by_name() -> None:
    data = from_ragged([([0.0], [[1.0, 2.0]])], channels=[Channel("hr", "1/min"), Channel("bp")], noise=[[[0.1, 0.2]]])
    swapped = data.with_channels([Channel("bp", "mmHg"), Channel("hr", "1/min")])
    assert swapped[0].values.tolist() == [[2.0, 1.0]]
    assert swapped[0].noise is not None
    assert swapped[0].noise.tolist() == [[0.2, 0.1]]
    assert [channel.unit for channel in swapped.channels] == [None, "1/min"]
    assert data.with_channels(data.channels) is data
    kinds = data.with_channels([Channel("hr", kind="positive"), Channel("bp")])
    assert kinds.channels == (Channel("hr", "1/min", "positive"), Channel("bp"))
    assert kinds.with_channels(["hr", "bp"]).channels == kinds.channels
    with pytest.raises(DataError, match="misses channel 'temp'"):
        data.with_channels(["hr", "bp", "temp"])
    with pytest.raises(DataError, match="unknown channel 'bp'"):
        data.with_channels(["hr"])
    with pytest.raises(DataError, match="in 1/min, but Hz was expected"):
        data.with_channels([Channel("hr", "Hz"), "bp"])


def test_batch_has_no_nan_and_keeps_its_own_clock() -> None:
    data = from_ragged([([0.0, 1.0], [1.0, np.nan]), ([5.0], [2.0])], drop_empty=True)
    batch = data.batch()
    assert batch.times.tolist() == [[0.0], [5.0]]
    assert batch.values.dtype == torch.float64
    with pytest.raises(DataError, match="empty"):
        data[[]].batch()


def test_the_same_number_of_channels_everywhere() -> None:
    with pytest.raises(DataError, match="2 channels"):
        SeriesSet((Series("a", np.zeros(1), np.zeros((1, 1))),), (Channel("x"), Channel("y")))


def test_repr_says_what_is_in_it() -> None:
    assert repr(dated("UTC")) == (
        "SeriesSet(2 series, 6 rows, channels: x; times: datetimes (hours since 2020-01-01 UTC, shown in UTC))"
    )
