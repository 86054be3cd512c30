import numpy as np
import pytest
import torch

from ctdyn.data import Series, collate, from_ragged, pad


def make(times: list[float], values: list[float]) -> Series:
    return Series("a", np.array(times), np.array(values)[:, None])


def test_padding_repeats_the_last_time_with_an_empty_mask() -> None:
    batch = pad([make([0.0, 1.0, 2.0], [1.0, np.nan, 3.0]), make([5.0], [9.0])])
    assert batch.times.tolist() == [[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]]
    assert batch.mask[..., 0].tolist() == [[True, False, True], [True, False, False]]
    assert batch.values[..., 0].tolist() == [[1.0, 0.0, 3.0], [9.0, 0.0, 0.0]]
    assert pad([make([0.0], [1.0])], dtype=torch.float32).values.dtype == torch.float32


def test_empty_series_stand_where_the_others_begin() -> None:
    batch = pad([make([], []), make([2.4e6], [1.0])])
    assert batch.times[:, 0].tolist() == [2.4e6, 2.4e6]
    assert batch.observed.tolist() == [[False], [True]]
    assert pad([make([], [])]).times.tolist() == [[0.0]]


def test_an_empty_context_stands_at_its_target() -> None:
    whole = make([3.0, 4.0], [1.0, 2.0])
    window = collate([(whole.before(0.0), whole), (whole, whole.after(9.0))])
    assert window.context.times[0].tolist() == [3.0, 3.0]
    assert window.target.times[1].tolist() == [4.0, 4.0]


def test_optional_parts_are_padded_too() -> None:
    data = from_ragged(
        [([0.0, 1.0], [1.0, 2.0]), ([4.0], [3.0])], noise=[[0.1, 0.2], [0.3]], inputs=[[[1.0], [2.0]], [[7.0]]]
    )
    batch = pad(list(data))
    assert batch.inputs is not None
    assert batch.inputs[1, :, 0].tolist() == [7.0, 7.0]
    assert batch.noise is not None
    assert batch.noise[1, :, 0].tolist() == [0.3, 0.0]


def test_lengths_from_one_to_thousands() -> None:
    rng = np.random.default_rng(0)
    series = [make(np.sort(rng.uniform(size=n)).tolist(), rng.normal(size=n).tolist()) for n in (1, 7, 300, 5000)]
    batch = pad(series)
    for row, one in enumerate(series):
        alone = pad([one])
        assert torch.equal(batch.times[row, : len(one)], alone.times[0])
        assert torch.equal(batch.values[row, : len(one)], alone.values[0])
        assert not batch.mask[row, len(one) :].any()


def test_a_million_rows() -> None:
    one = Series("long", np.arange(1e6), np.zeros((10**6, 1)))
    assert pad([one]).times.shape == (1, 10**6)


def test_no_series() -> None:
    with pytest.raises(ValueError, match="max"):
        pad([])
