"""From ragged series to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .batch import IrregularBatch, Window
from .series import Series


__all__ = ["collate", "pad"]


def pad(
    series: Sequence[Series], *, dtype: torch.dtype = torch.float64, empty: Sequence[float] | None = None
) -> IrregularBatch:
    """Pad series to the longest, in their raw units, by repeating the last time of each.

    Args:
        series: the series; all have the same channels, and agree on having noise, inputs, static, labels and start.
        dtype: the dtype of the tensors; times keep their precision in float64 only.
        empty: the time to stand in a series without rows, one per series. Default: the median first time of the others.

    Returns:
        A batch `(len(series), time, channel)`; one row of padding at least, so that a time axis is never empty.

    Example:
        >>> short = Series("a", np.array([0.0]), np.array([[1.0]]))
        >>> long = Series("b", np.array([0.0, 2.0]), np.array([[1.0], [5.0]]))
        >>> pad([short, long]).times
        tensor([[0., 0.],
                [0., 2.]], dtype=torch.float64)
    """
    lengths = np.array([len(one) for one in series])
    width = max(1, int(lengths.max()))
    if empty is None:
        firsts = [one.times[0] for one in series if len(one)]
        empty = [float(np.median(firsts)) if firsts else 0.0] * len(series)
    times = _stacked([one.times for one in series], width)
    starts = [one.start for one in series]
    last = np.array([one.times[-1] if len(one) else time for one, time in zip(series, empty, strict=True)])
    tail = np.arange(width) >= lengths[:, None]
    times[tail] = np.broadcast_to(last[:, None], tail.shape)[tail]
    values = _stacked([one.values for one in series], width)
    mask = ~np.isnan(values) & ~tail[..., None]
    values[~mask] = 0.0
    noise = _optional([one.noise for one in series], width)
    if noise is not None:
        noise[~mask] = 0.0
    inputs = _optional([one.inputs for one in series], width)
    if inputs is not None:
        _hold_last(inputs, lengths)
    start = _optional(starts, width)
    if start is not None:
        start[tail] = times[tail]

    def tensor(array: np.ndarray | None) -> Tensor | None:
        return None if array is None else torch.from_numpy(array).to(dtype)

    return IrregularBatch(
        times=torch.from_numpy(times).to(dtype),
        values=torch.from_numpy(values).to(dtype),
        mask=torch.from_numpy(mask),
        inputs=tensor(inputs),
        static=tensor(_per_series([one.static for one in series])),
        noise=tensor(noise),
        start=tensor(start),
        labels=tensor(_per_series([one.labels for one in series])),
    )


def collate(windows: Sequence[tuple[Series, Series]], *, dtype: torch.dtype = torch.float64) -> Window:
    """Pad contexts and targets into a `Window` in raw units. An empty context stands at the first time of its target.

    Where every context is its target (`Reconstruct`), so are the two batches.

    Args:
        windows: pairs (context, target), as window makers return them.
        dtype: the dtype of the tensors.

    Example:
        >>> series = Series("a", np.array([0.0, 1.0, 2.0]), np.array([[1.0], [2.0], [3.0]]))
        >>> collate([(series.before(2.0), series.after(2.0))]).target.values
        tensor([[[3.]]], dtype=torch.float64)
    """
    contexts, targets = [context for context, _ in windows], [target for _, target in windows]
    if all(context is target for context, target in windows):
        whole = pad(contexts, dtype=dtype)
        return Window(whole, whole)
    return Window(
        pad(contexts, dtype=dtype, empty=[float(target.times[0]) if len(target) else 0.0 for target in targets]),
        pad(targets, dtype=dtype, empty=[float(context.times[-1]) if len(context) else 0.0 for context in contexts]),
    )


def _stacked(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    padded = np.zeros((len(rows), width, *rows[0].shape[1:]))
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def _optional(rows: Sequence[np.ndarray | None], width: int) -> np.ndarray | None:
    present = [row for row in rows if row is not None]
    return _stacked(present, width) if len(present) == len(rows) else None


def _per_series(rows: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [row for row in rows if row is not None]
    return np.stack(present).astype(np.float64) if len(present) == len(rows) else None


def _hold_last(inputs: np.ndarray, lengths: np.ndarray) -> None:
    for row, length in zip(inputs, lengths, strict=True):
        if length:
            row[length:] = row[length - 1]
