import importlib

import numpy as np
import pytest
import torch

from ctdyn._checks import DataError
from ctdyn.data import (
    Extrapolate,
    Interpolate,
    Reconstruct,
    SeriesSet,
    Standardize,
    Window,
    WindowLoader,
    from_ragged,
    loader,
)


# The package exports the function under the name of its module.
loading = importlib.import_module("ctdyn.data.loader")


def ragged(count: int = 50, longest: int = 40) -> SeriesSet:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, longest, count)
    return from_ragged([(np.sort(rng.uniform(0, 1, n)), rng.normal(size=n)) for n in lengths])


def make(data: SeriesSet | None = None, **options: object) -> WindowLoader:
    data = ragged() if data is None else data
    return loader(data, Interpolate(), Standardize().fit(data), **{"batch_size": 8, **options})  # type: ignore[arg-type]


def same(first: Window, second: Window) -> bool:
    return torch.equal(first.context.values, second.context.values) and torch.equal(
        first.target.times, second.target.times
    )


def test_every_series_once_per_epoch() -> None:
    batches = make()
    windows = list(batches)
    assert len(windows) == len(batches) == 7
    assert sum(len(window.context.times) for window in windows) == 50
    assert all(window.context.values.dtype == torch.float32 for window in windows)


def test_epochs_differ_and_are_reproducible() -> None:
    one, other = make(seed=3), make(seed=3)
    first, second = list(one), list(one)
    assert not all(same(a, b) for a, b in zip(first, second, strict=True))
    assert all(same(a, b) for a, b in zip(first, other, strict=True))
    assert all(same(a, b) for a, b in zip(second, other, strict=True))
    one.set_epoch(0)
    assert all(same(a, b) for a, b in zip(first, one, strict=True))
    assert not all(same(a, b) for a, b in zip(first, make(seed=4), strict=True))


def test_without_shuffling_every_epoch_is_the_same() -> None:
    batches = make(shuffle=False)
    assert all(same(a, b) for a, b in zip(list(batches), list(batches), strict=True))


@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_restart_in_the_middle_of_an_epoch(stop: int) -> None:
    whole = make()
    expected = list(whole) + list(whole)
    first = make()
    seen = []
    for window in first:
        if len(seen) == stop:
            break
        seen.append(window)
        state = first.state_dict()
    state = state if stop else make().state_dict()
    restarted = make()
    restarted.load_state_dict(state)
    if stop < len(whole):
        seen += list(restarted)
    seen += list(restarted)
    assert len(seen) == len(expected)
    assert all(same(a, b) for a, b in zip(seen, expected, strict=True))


def test_a_pass_that_was_broken_off_starts_again() -> None:
    batches = make()
    first = next(iter(batches))
    assert same(first, next(iter(batches)))


def test_a_trainer_that_counts_batches_gets_new_epochs() -> None:
    counted, reference = make(), make()
    for _ in range(2):
        iterator = iter(counted)
        windows = [next(iterator) for _ in range(len(counted))]
        assert all(same(a, b) for a, b in zip(windows, reference, strict=True))


def test_batches_hold_similar_lengths() -> None:
    data = ragged(400, 200)
    padded = sum(window.context.mask.numel() + window.target.mask.numel() for window in make(data, batch_size=16))
    assert padded < 1.3 * sum(len(one) for one in data)


def test_a_window_does_not_depend_on_the_others_in_its_batch() -> None:
    data = ragged()
    small, large = make(data, batch_size=1, shuffle=False), make(data, batch_size=50, shuffle=False)
    (together,) = large
    for row, alone in enumerate(small):
        count = alone.context.times.shape[1]
        assert torch.equal(alone.context.values[0], together.context.values[row, :count])


def test_repeats() -> None:
    data = ragged(3)
    assert sum(len(window.context.times) for window in make(data, repeats=10)) == 30


def test_repeats_fill_a_batch_up_to_a_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ragged(3)
    (window,) = make(data, batch_size=31, repeats=None)
    assert len(window.context.times) == 30
    # Three windows of the longest take some 120 rows.
    monkeypatch.setattr(loading, "_ROWS", 4 * 3 * max(map(len, data)))
    (window,) = make(data, batch_size=31, repeats=None)
    assert len(window.context.times) == 12
    monkeypatch.setattr(loading, "_ROWS", 1)
    (window,) = make(data, batch_size=31, repeats=None)
    assert len(window.context.times) == 3
    fixed = loader(data, Reconstruct(), Standardize().fit(data), batch_size=31, repeats=None)
    assert sum(len(window.context.times) for window in fixed) == 3


def test_short_series_are_left_out_and_counted() -> None:
    data = from_ragged([([0.0], [1.0]), ([0.0, 1.0], [1.0, 2.0]), ([0.0, 2.0], [1.0, 2.0])])
    batches = make(data)
    assert batches.too_short == 1
    assert sum(len(window.context.times) for window in batches) == 2
    with pytest.raises(DataError, match=r"none of the 3 series is long enough for Extrapolate\(context=100.0"):
        loader(data, Extrapolate(context=100.0), Standardize().fit(data), batch_size=2)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"repeats": 0}])
def test_bad_arguments(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make(**options)
