"""The loader: windows of training series, in model units, in batches of similar length; seeded and restartable."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from .._checks import DataError, check_count
from .batch import Window
from .collate import collate
from .scaling import Scaler
from .series import Series
from .series_set import SeriesSet
from .windows import WindowMaker


__all__ = ["WindowLoader", "loader"]

_TRIES = 4
_POOL = 32  # batches that are sorted by length together
_ROWS = 200_000  # of the repeats that fill a batch: each step pays for every one of them


class WindowLoader:
    """An iterable of `Window` in model units; every pass is one epoch. Made by `loader`.

    The seed, the epoch and the series determine a window, and nothing else: a run that is restarted with
    `load_state_dict` sees what it would have seen.

    Args:
        series_set: the series.
        windows: how each is cut.
        scaler: a fitted scaler.
        batch_size: windows per batch.
        seed: of every random choice.
        shuffle: a new order and new windows in every epoch; False: the same ones in every epoch.
        dtype: what the model computes in.
        repeats: windows per series and epoch; None: as in `loader`.

    Example:
        >>> from .arrays import from_ragged
        >>> from .scaling import Standardize
        >>> from .windows import Reconstruct
        >>> data = from_ragged([([0.0, 1.0], [1.0, 2.0])] * 3)
        >>> batches = WindowLoader(data, Reconstruct(), Standardize().fit(data), batch_size=2)
        >>> iterator = iter(batches)
        >>> window = next(iterator)
        >>> batches.state_dict()
        {'epoch': 0, 'position': 1}
    """

    def __init__(
        self,
        series_set: SeriesSet,
        windows: WindowMaker,
        scaler: Scaler,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        dtype: torch.dtype = torch.float32,
        repeats: int | None = 1,
    ) -> None:
        check_count("batch_size", batch_size)
        if repeats is not None:
            check_count("repeats", repeats)
        self.series_set, self.windows, self.scaler = series_set, windows.on(series_set.axis), scaler
        self.batch_size, self.seed, self.shuffle, self.dtype = batch_size, seed, shuffle, dtype
        self.epoch, self.position, self._resuming = 0, 0, False
        rows = {index: self._rows(self._window(index, 0, 0)) for index in range(len(series_set))}
        fits = [index for index, count in rows.items() if count]
        if not fits:
            raise DataError(
                f"none of the {len(series_set)} series is long enough for {windows}; use shorter windows or longer "
                "series."
            )
        self.too_short = len(series_set) - len(fits)
        self.repeats = self._filling(len(fits) * max(rows.values())) if repeats is None else repeats
        self._items = np.array([(index, repeat) for index in fits for repeat in range(self.repeats)])
        self._lengths = np.array([len(series_set[int(index)]) for index in self._items[:, 0]])

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self._items) // self.batch_size)

    def __iter__(self) -> Iterator[Window]:
        """One epoch, from its start or from where `load_state_dict` has left off; after a whole one, the next."""
        # Checked here, not at the end: a trainer that counts batches never asks for the one after the last.
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        elif not self._resuming:
            self.position = 0
        self._resuming = False
        batches = self._batches()
        while self.position < len(batches):
            pairs = [
                self._window(int(index), int(repeat), self.epoch)
                for index, repeat in self._items[batches[self.position]]
            ]
            # Counted before the batch is handed out: a state saved while it is in use goes on behind it.
            self.position += 1
            usable = [pair for pair in pairs if pair is not None]
            if usable:
                yield self._in_units(usable)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.epoch, self.position, self._resuming = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """Where the loader is."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go where another loader of the same series, windows and seed was."""
        self.epoch, self.position, self._resuming = int(state["epoch"]), int(state["position"]), True

    def _filling(self, rows: int) -> int:
        """How often each series is cut to fill a batch, where a window of each takes so many rows with its padding."""
        return max(1, min(self.batch_size // len(self.series_set), _ROWS // rows)) if self.windows.varies else 1

    @staticmethod
    def _rows(pair: tuple[Series, Series] | None) -> int:
        return 0 if pair is None else len(pair[0]) + len(pair[1])

    def _window(self, index: int, repeat: int, epoch: int) -> tuple[Series, Series] | None:
        rng = np.random.default_rng([self.seed, epoch if self.shuffle else 0, repeat, index])
        for _ in range(_TRIES):
            pair = self.windows(self.series_set[index], rng)
            if pair is not None:
                return pair
        return None

    def _in_units(self, pairs: list[tuple[Series, Series]]) -> Window:
        raw = collate(pairs)
        units = self.scaler.units(raw.context)
        return raw.map(lambda part: units.to_model(part).to(self.dtype))

    def _batches(self) -> list[np.ndarray]:
        """Item numbers of each batch: similar lengths together, the rest at random."""
        if not self.shuffle:
            order = np.argsort(self._lengths, kind="stable")
            return np.split(order, np.arange(self.batch_size, len(order), self.batch_size))
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self._items))
        pools = np.split(order, np.arange(_POOL * self.batch_size, len(order), _POOL * self.batch_size))
        ordered = [pool[np.argsort(self._lengths[pool], kind="stable")] for pool in pools]
        batches = [
            batch
            for pool in ordered
            for batch in np.split(pool, np.arange(self.batch_size, len(pool), self.batch_size))
        ]
        return [batches[position] for position in rng.permutation(len(batches))]


def loader(
    series_set: SeriesSet,
    windows: WindowMaker,
    scaler: Scaler,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = True,
    dtype: torch.dtype = torch.float32,
    repeats: int | None = 1,
) -> WindowLoader:
    """Batches of windows in model units, for training and validation.

    Iterate over it as it is; it stands in the place of torch's `DataLoader`, which would need items by their number.

    Args:
        series_set: the series; the scaler must have been fitted on the training ones.
        windows: how each series is cut.
        scaler: a fitted scaler.
        batch_size: windows per batch.
        seed: of every random choice.
        shuffle: a new order and new windows in every epoch; False (validation): the same ones in every epoch.
        dtype: what the model computes in.
        repeats: windows per series and epoch, for few long series. None: as many as fill a batch, up to about
            200,000 rows of context and target, where the windows of a series differ: a step costs what its rows cost.

    Returns:
        An iterable with a length, `set_epoch`, `state_dict` and `load_state_dict`.

    Raises:
        DataError: no series is long enough for the windows.

    Example:
        >>> from .windows import Interpolate
        >>> from .scaling import Standardize
        >>> from .channels import Channel
        >>> series = [Series(i, np.arange(4.0), np.arange(4.0)[:, None]) for i in range(6)]
        >>> data = SeriesSet(tuple(series), (Channel("x"),))
        >>> batches = loader(data, Interpolate(), Standardize().fit(data), batch_size=4)
        >>> len(batches), sorted(tuple(window.context.values.shape) for window in batches)
        (2, [(2, 2, 1), (4, 2, 1)])
    """
    return WindowLoader(
        series_set, windows, scaler, batch_size=batch_size, seed=seed, shuffle=shuffle, dtype=dtype, repeats=repeats
    )
