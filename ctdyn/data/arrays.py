"""Arrays in: a list of ragged pairs, or padded blocks with a mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .._checks import DataError, few
from ._assemble import Columns, Policy, assemble
from ._stamps import BadTimeError
from .channels import Channel, unique_channels
from .clock import TimeAxis
from .series_set import SeriesSet


__all__ = ["from_padded", "from_ragged"]


def from_ragged(
    pairs: Iterable[tuple[Any, Any]],
    *,
    channels: Sequence[Channel | str] | None = None,
    ids: Sequence[Any] | None = None,
    noise: Sequence[Any] | None = None,
    inputs: Sequence[Any] | None = None,
    static: Any = None,
    labels: Any = None,
    time_unit: str | None = None,
    duplicates: str = "error",
    sort: bool = True,
    drop_empty: bool = False,
) -> SeriesSet:
    """Irregular series from a list of (times, values), each of its own length.

    Args:
        pairs: times `(n,)`, numbers or datetimes, and values `(n, channel)` or `(n,)`, NaN where not observed.
        channels: what the columns of the values are; default: "x", or "x0", "x1" and so on.
        ids: what the series are called; default: 0, 1, 2 and so on.
        noise: standard errors, one array per series with the shape of its values.
        inputs: covariates known at each row, one array `(n, input)` per series.
        static: covariates per series, `(series, feature)`.
        labels: labels per series, `(series, label)`.
        time_unit: as in `from_pandas`.
        duplicates: as in `from_pandas`.
        sort: as in `from_pandas`.
        drop_empty: as in `from_pandas`.

    Returns:
        The series in their order.

    Raises:
        DataError: shapes disagree, or one of the faults that `from_pandas` lists.

    Example:
        >>> data = from_ragged([([0.0, 1.0], [1.0, 2.0]), ([0.5], [3.0])], ids=["a", "b"])
        >>> [len(one) for one in data]
        [2, 1]
    """
    listed = [(times, _two_axes(values)) for times, values in pairs]
    if not listed:
        raise DataError("there is no series; give a list of (times, values).")
    names = list(range(len(listed))) if ids is None else list(ids)
    _check_count(len(listed), ids=names, noise=noise, inputs=inputs, static=static, labels=labels)
    width = max(values.shape[1] for _, values in listed)
    for name, (times, values) in zip(names, listed, strict=True):
        if len(times) != len(values) or (len(values) and values.shape[1] != width):
            raise DataError(
                f"series {name!r}: values must be (time, channel) with {width} channels on {len(times)} times; got "
                f"shape {values.shape}."
            )
    codes = np.repeat(np.arange(len(listed)), [len(times) for times, _ in listed])
    axis, times = _read_times([times for times, _ in listed], codes, names, time_unit)
    given = {"inputs": _stack(inputs, names, codes, "inputs"), "noise": _stack(noise, names, codes, "noise")}
    columns = Columns(
        ids=names,
        codes=codes,
        axis=axis,
        times=times,
        values=np.concatenate([values.reshape(-1, width) for _, values in listed]),
        channels=_named(channels, width),
        noise=given["noise"],
        inputs=given["inputs"],
        static=None if static is None else _two_axes(static),
        labels=None if labels is None else _two_axes(labels),
        names=_numbered(inputs=given["inputs"], static=static, labels=labels),
    )
    _check_noise_shape(columns)
    return assemble(columns, Policy(duplicates, sort, drop_empty))


def from_padded(
    times: Any,
    values: Any,
    mask: Any = None,
    *,
    channels: Sequence[Channel | str] | None = None,
    ids: Sequence[Any] | None = None,
    noise: Any = None,
    time_unit: str | None = None,
    drop_empty: bool = False,
) -> SeriesSet:
    """Irregular series from padded blocks. What the mask hides is never read, padded times included.

    For inputs, static covariates, labels and a policy for duplicates, use `from_ragged`.

    Args:
        times: `(series, time)`, or `(time,)` where all share them.
        values: `(series, time, channel)`, or `(series, time)` for one channel; NaN where not observed.
        mask: True where observed, with the shape of `values`, or `(series, time)`; default: wherever `values` is not
            NaN.
        channels: what the columns of the values are; default: "x", or "x0", "x1" and so on.
        ids: what the series are called; default: 0, 1, 2 and so on.
        noise: standard errors with the shape of `values`.
        time_unit: as in `from_pandas`.
        drop_empty: as in `from_pandas`.

    Returns:
        The series in their order, without the padding.

    Raises:
        DataError: shapes disagree, the mask is True where a value is NaN, or one of the faults that `from_pandas`
            lists.

    Example:
        >>> data = from_padded([[0.0, 1.0], [0.5, 0.0]], [[1.0, 2.0], [3.0, 0.0]], [[True, True], [True, False]])
        >>> [one.times.tolist() for one in data]
        [[0.0, 1.0], [0.5]]
    """
    block = np.asarray(values, dtype=np.float64)
    block = block[..., None] if block.ndim == 2 else block
    clock = np.asarray(times)
    clock = np.broadcast_to(clock, (len(block), len(clock))) if clock.ndim == 1 else clock
    if block.ndim != 3 or clock.shape != block.shape[:2]:
        raise DataError(
            f"values must be (series, time, channel) on times (series, time); got values of shape {np.shape(values)} "
            f"and times of shape {np.shape(times)}."
        )
    seen = _mask(mask, block)
    names = list(range(len(block))) if ids is None else list(ids)
    _check_count(len(block), ids=names, noise=noise)
    disagree = np.argwhere(seen & np.isnan(block))
    if len(disagree):
        series, row, channel = (int(i) for i in disagree[0])
        raise DataError(
            f"series {names[series]!r}, time index {row}, channel {channel}: the mask says observed, but the value is "
            f"NaN ({len(disagree)} such entries). Use mask & ~np.isnan(values)."
        )
    series, row = np.nonzero(seen.any(axis=2))
    error = None if noise is None else np.asarray(noise, dtype=np.float64)
    if error is not None and error.shape != np.shape(values):
        raise DataError(f"noise must have the shape of values {np.shape(values)}; got shape {error.shape}.")
    axis, floats = _read_times([clock[series, row]], series, names, time_unit)
    columns = Columns(
        ids=names,
        codes=series,
        axis=axis,
        times=floats,
        values=np.where(seen, block, np.nan)[series, row],
        channels=_named(channels, block.shape[2]),
        noise=None if error is None else error.reshape(block.shape)[series, row],
    )
    return assemble(columns, Policy(drop_empty=drop_empty))


def _mask(mask: Any, block: np.ndarray) -> np.ndarray:
    if mask is None:
        return ~np.isnan(block)
    given = np.asarray(mask)
    seen = given[..., None] if given.ndim == 2 else given
    if given.ndim not in (2, 3) or seen.shape[:2] != block.shape[:2] or seen.shape[2] not in (1, block.shape[2]):
        raise DataError(
            f"mask must have the shape of values {block.shape}, or {block.shape[:2]}; got shape {given.shape}."
        )
    if seen.dtype != bool and not np.isin(seen, (0, 1)).all():
        raise DataError(f"mask must be boolean, or 0 and 1; got {given.dtype}.")
    return np.broadcast_to(seen.astype(bool), block.shape)


def _two_axes(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array


def _numbered(**given: Any) -> dict[str, tuple[str, ...]]:
    """Names for columns that came without: input0, input1, static0 and so on."""
    present = {name: _two_axes(value).shape[1] for name, value in given.items() if value is not None}
    return {name: tuple(f"{name.rstrip('s')}{i}" for i in range(width)) for name, width in present.items()}


def _check_count(count: int, **given: Any) -> None:
    for name, value in given.items():
        if value is not None and len(value) != count:
            raise DataError(f"{name} must have one entry per series ({count}); got {len(value)}.")


def _named(channels: Sequence[Channel | str] | None, width: int) -> tuple[Channel, ...]:
    default = ["x"] if width == 1 else [f"x{i}" for i in range(width)]
    found = unique_channels(default if channels is None else channels)
    if len(found) != width:
        raise DataError(f"the values have {width} channels, but {len(found)} are named: {few(c.name for c in found)}.")
    return found


def _stack(rows: Sequence[Any] | None, ids: list[Any], codes: np.ndarray, what: str) -> np.ndarray | None:
    if rows is None:
        return None
    arrays = [_two_axes(row) for row in rows]
    for name, array, length in zip(ids, arrays, np.bincount(codes, minlength=len(ids)), strict=True):
        if len(array) != length:
            raise DataError(f"series {name!r}: {what} must have one row per time ({length}); got shape {array.shape}.")
    width = max(array.shape[1] for array in arrays)
    for name, array in zip(ids, arrays, strict=True):
        if array.shape[1] != width:
            raise DataError(f"series {name!r}: {what} must have {width} columns, as in others; got {array.shape[1]}.")
    return np.concatenate(arrays)


def _check_noise_shape(columns: Columns) -> None:
    if columns.noise is not None and columns.noise.shape != columns.values.shape:
        raise DataError(
            f"noise must have {columns.values.shape[1]} columns, one per channel; got {columns.noise.shape[1]}."
        )


def _read_times(times: list[Any], codes: np.ndarray, ids: list[Any], unit: str | None) -> tuple[TimeAxis, np.ndarray]:
    import pandas as pd

    present = [pd.Series(part) for part in times if len(part)]
    if not present:
        raise DataError(f"series {few(ids, 3)}: no observations in any channel; a set needs at least one observation.")
    # Concatenating columns of different zones gives objects, which are then read as instants.
    column = pd.concat(present, ignore_index=True) if len(present) > 1 else present[0]
    try:
        return TimeAxis.read(column, codes, unit)
    except BadTimeError as error:
        raise DataError(f"series {ids[codes[error.row]]!r}: {error}") from error
