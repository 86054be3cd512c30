import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn._checks import DataError
from ctdyn.data import from_padded, from_ragged


def test_ragged_arrays_of_every_container() -> None:
    data = from_ragged(
        [([0, 1], [1, 2]), (torch.tensor([0.5]), torch.tensor([[3.0]])), (np.array([2.0]), np.array([4]))]
    )
    assert [one.values[:, 0].tolist() for one in data] == [[1.0, 2.0], [3.0], [4.0]]
    assert data.channel_names == ("x",)
    assert from_ragged([([0.0], [[1.0, 2.0]])]).channel_names == ("x0", "x1")


def test_ragged_datetimes() -> None:
    one, other = (
        pd.date_range("2020-01-01", periods=3, tz="Asia/Tokyo"),
        pd.date_range("2020-01-02", periods=2, tz="UTC"),
    )
    data = from_ragged([(one, [1.0, 2.0, 3.0]), (other, [1.0, 2.0])])
    assert data.axis.zone == "UTC"
    assert data[1].times[0] - data[0].times[0] == 33.0  # hours
    with pytest.raises(DataError, match=r"series 1: times mix naive"):
        from_ragged([(one, [1.0, 2.0, 3.0]), (other.tz_localize(None), [1.0, 2.0])])


def test_everything_beside_the_values() -> None:
    data = from_ragged(
        [([0.0, 1.0], [1.0, 2.0]), ([0.0], [3.0])],
        ids=["a", "b"],
        noise=[[0.1, 0.2], [0.3]],
        inputs=[[[1.0], [2.0]], [[3.0]]],
        static=[[5.0], [6.0]],
        labels=[0, 1],
        channels=["hr"],
        time_unit="hour",
    )
    batch = data.batch()
    assert batch.noise is not None
    assert batch.noise[..., 0].tolist() == [[0.1, 0.2], [0.3, 0.0]]
    assert batch.inputs is not None
    assert batch.inputs[..., 0].tolist() == [[1.0, 2.0], [3.0, 3.0]]
    assert batch.static is not None
    assert batch.static.tolist() == [[5.0], [6.0]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [[0.0], [1.0]]
    assert (data.input_names, data.static_names, data.label_names) == (("input0",), ("static0",), ("label0",))
    assert data.axis.duration("90min") == 1.5


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([], {}, "no series"),
        ([([0.0], [1.0]), ([], [])], {}, "series 1: no observations"),
        ([([], [])], {}, "no observations"),
        ([([0.0, 1.0], [1.0])], {}, r"series 0: values must be \(time, channel\)"),
        ([([0.0], [[1.0]]), ([0.0], [[1.0, 2.0]])], {}, "series 0: values must be"),
        ([([0.0], [1.0])], {"ids": ["a", "b"]}, r"ids must have one entry per series \(1\)"),
        ([([0.0], [1.0]), ([0.0], [1.0])], {"ids": ["a", "a"]}, "unique"),
        ([([0.0], [1.0])], {"channels": ["x", "y"]}, "1 channels, but 2 are named"),
        ([([0.0], [1.0])], {"noise": [[0.1, 0.2]]}, "series 0: noise"),
        ([([0.0], [1.0])], {"noise": [[-0.1]]}, "not negative"),
        ([([0.0], [1.0])] * 2, {"inputs": [[[1.0]], [[1.0, 2.0]]]}, "series 0: inputs must have 2 columns"),
        ([([0.0], [1.0])], {"static": [[np.inf]]}, "'static0' is infinite"),
        ([([0.0, 0.0], [1.0, 2.0])], {}, "2 observations at the same time"),
        ([([1.0, 0.0], [1.0, 2.0])], {"sort": False}, "go backwards"),
        ([([0.0], [np.inf])], {}, "infinite"),
        ([([np.nan], [1.0])], {}, "missing"),
        ([([1_600_000_000_000_000_000], [1.0])], {}, "epoch in ns"),
    ],
)
def test_bad_ragged_arrays(pairs: list, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_ragged(pairs, **options)


def test_an_empty_series_can_be_left_out() -> None:
    data = from_ragged([([], []), ([0.0], [1.0])], ids=["none", "one"], static=[[1.0], [2.0]], drop_empty=True)
    assert data.ids == ("one",)
    assert data[0].static is not None
    assert data[0].static.tolist() == [2.0]


def test_padding_comes_off_again() -> None:
    ragged = from_ragged([([0.0, 1.0, 4.0], [[1.0, 2.0], [np.nan, 3.0], [4.0, np.nan]]), ([2.0], [[5.0, 6.0]])])
    batch = ragged.batch()
    again = from_padded(batch.times, batch.values, batch.mask)
    for one, other in zip(ragged, again, strict=True):
        np.testing.assert_array_equal(one.times, other.times)
        np.testing.assert_array_equal(one.values, other.values)


def test_what_the_mask_hides_is_not_read() -> None:
    data = from_padded([[0.0, np.nan]], [[[1.0], [np.inf]]], [[True, False]])
    assert data[0].times.tolist() == [0.0]
    shared = from_padded([0.0, 1.0], np.ones((3, 2)), noise=np.full((3, 2), 0.1))
    assert [len(one) for one in shared] == [2, 2, 2]
    assert shared[0].noise is not None
    assert shared[0].noise.shape == (2, 1)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 2, 1), dtype=bool), "the mask says observed, but the value is NaN"),
        (np.ones((2, 3, 1), dtype=bool), r"mask must have the shape of values \(2, 2, 1\).*got shape \(2, 3, 1\)"),
        (np.ones(2, dtype=bool), "mask must have the shape"),
        (np.full((2, 2), 0.5), "0 and 1"),
    ],
)
def test_bad_masks(mask: np.ndarray, message: str) -> None:
    values = np.array([[1.0, 2.0], [3.0, np.nan]])[..., None]
    with pytest.raises(DataError, match=message):
        from_padded([[0.0, 1.0], [0.0, 1.0]], values, mask)


def test_bad_blocks() -> None:
    with pytest.raises(DataError, match=r"values of shape \(2, 3, 1\) and times of shape \(2, 2\)"):
        from_padded(np.zeros((2, 2)), np.zeros((2, 3, 1)))
    with pytest.raises(DataError, match=r"noise must have the shape of values \(2, 1\); got shape \(2, 2\)"):
        from_padded([0.0], [[1.0], [2.0]], noise=np.zeros((2, 2)))
    with pytest.raises(DataError, match="series 1: no observations"):
        from_padded([0.0], [[1.0], [np.nan]])
