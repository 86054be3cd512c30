"""From flat columns to a set of series: sorting, duplicates, empty rows, and every check on the way."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._checks import DataError, DataWarning, few
from .channels import AMOUNTS, Channel
from .clock import TimeAxis
from .series import Series
from .series_set import Intake, SeriesSet


__all__ = ["DUPLICATES", "Columns", "Policy", "assemble", "backwards"]

DUPLICATES = ("error", "mean", "first", "last")
_NEAR = 1e-9  # of the span: times closer than this are apart by rounding only
_ROUNDING = 1e-15  # of the times themselves


@dataclass(frozen=True)
class Policy:
    """What to do with rows that need a decision.

    Args:
        duplicates: two observations of one channel at one time: "error", or keep their "mean", the "first" or the
            "last".
        sort: sort the rows of each series by time; False: unsorted rows are an error.
        drop_empty: leave out ids without any observation; False: they are an error.
    """

    duplicates: str = "error"
    sort: bool = True
    drop_empty: bool = False

    def __post_init__(self) -> None:
        if self.duplicates not in DUPLICATES:
            raise DataError(f"duplicates must be one of {DUPLICATES}; got {self.duplicates!r}.")


@dataclass(frozen=True)
class Columns:
    """Rows of all series, flat and in any order, and what is known per series.

    Args:
        ids: what the series are called, `(series,)`.
        codes: the series of each row, `(n,)`.
        axis: the clock.
        times: the time of each row on the float clock, NaN where missing, `(n,)`.
        values: the observations, NaN where there is none, `(n, channel)`.
        channels: what the columns of `values` are.
        noise: standard errors, `(n, channel)`.
        inputs: covariates known at each row, `(n, input)`.
        start: where an aggregated observation begins, `(n,)`.
        static: covariates per series, `(series, feature)`.
        labels: labels per series, `(series, label)`.
        names: the names of inputs, static and labels.
        time: what the column of times is called.
        dropped: rows without an observation that were left out before.
        unsorted: series that were sorted before.
    """

    ids: list[Any]
    codes: np.ndarray
    axis: TimeAxis
    times: np.ndarray
    values: np.ndarray
    channels: tuple[Channel, ...]
    noise: np.ndarray | None = None
    inputs: np.ndarray | None = None
    start: np.ndarray | None = None
    static: np.ndarray | None = None
    labels: np.ndarray | None = None
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    time: str = "time"
    dropped: int = 0
    unsorted: int = 0

    def rows(self, index: np.ndarray) -> Columns:
        """Some rows, in that order."""
        kept = {name: getattr(self, name) for name in ("codes", "times", "values", "noise", "inputs", "start")}
        return replace(self, **{name: None if value is None else value[index] for name, value in kept.items()})

    def where(self, row: int) -> str:
        """The series and the time of a row, for a message."""
        at = self.axis.to_user(self.times[row : row + 1])[0] if np.isfinite(self.times[row]) else "missing"
        return f"series {self.ids[self.codes[row]]!r}, time {at}"


def assemble(columns: Columns, policy: Policy) -> SeriesSet:
    """Check the rows, put them in order, and cut them into series.

    Raises:
        DataError: see `from_pandas`.
    """
    if not len(columns.times):
        raise DataError("the data have no rows; a set needs at least one observation.")
    came = len(columns.times) + columns.dropped
    _check_times(columns)
    _check_values(columns)
    _check_noise(columns)
    _check_inputs(columns)
    _check_per_series(columns)
    columns = _without_empty_rows(columns)
    empty_rows = came - len(columns.times)
    columns, empty_series = _without_empty_series(columns, policy)
    columns, unsorted = _in_order(columns, policy)
    columns, merged = _merged(columns, policy)
    near = _near_duplicates(columns)
    intake = Intake(came, empty_rows, columns.unsorted + unsorted, merged, near, empty_series)
    return SeriesSet(
        series=_cut(columns),
        channels=columns.channels,
        axis=columns.axis,
        input_names=columns.names.get("inputs", ()),
        static_names=columns.names.get("static", ()),
        label_names=columns.names.get("labels", ()),
        intake=intake,
    )


def _check_times(columns: Columns) -> None:
    bad = np.flatnonzero(~np.isfinite(columns.times))
    if len(bad):
        ids = [columns.ids[code] for code in dict.fromkeys(columns.codes[bad].tolist())]
        what = "infinite" if np.isinf(columns.times[bad[0]]) else "missing (NaN or NaT)"
        raise DataError(
            f"column {columns.time!r}: {len(bad)} times are {what}, in series {few(ids, 3)}; drop these rows "
            f"(df.dropna(subset=[{columns.time!r}])) or fill the times in."
        )
    if columns.start is not None:
        bad = np.flatnonzero(~(columns.start <= columns.times))
        if len(bad):
            raise DataError(
                f"{columns.where(int(bad[0]))}: start is missing or lies after the time of the observation."
            )


def _check_values(columns: Columns) -> None:
    infinite = np.isinf(columns.values)
    if infinite.any():
        row, channel = (int(i) for i in np.argwhere(infinite)[0])
        raise DataError(
            f"{columns.where(row)}, column {columns.channels[channel].name!r}: the value is infinite "
            f"({int(infinite.sum())} such values); replace infinite values by NaN (not observed)."
        )
    for position, channel in enumerate(columns.channels):
        if channel.kind == "real":
            continue
        values = columns.values[:, position]
        allowed, holds = _ALLOWED[channel.kind]
        bad = np.flatnonzero(~(np.isnan(values) | allowed(values)))
        if len(bad):
            zeros = channel.kind == "positive" and not (values[bad] < 0).any()
            raise DataError(
                f"{columns.where(int(bad[0]))}, column {channel.name!r}: a {channel.kind} channel holds {holds} only; "
                f"got {values[bad[0]]}. Recode it, or declare it {'nonnegative' if zeros else 'real'}."
            )


def _are_whole(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & (values == np.round(values))


_ALLOWED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "positive": (lambda values: values > 0, "values above 0"),
    "nonnegative": (lambda values: values >= 0, "0 and values above"),
    "count": (_are_whole, "0, 1, 2 ..."),
    "categorical": (_are_whole, "0, 1, 2 ..."),
    "binary": (lambda values: (values == 0) | (values == 1), "0 and 1"),
}


def _check_noise(columns: Columns) -> None:
    if columns.noise is None:
        return
    seen = ~np.isnan(columns.values)
    # A comparison with NaN is false, so a missing standard error is found as well.
    bad = np.argwhere(seen & ~((columns.noise >= 0) & np.isfinite(columns.noise)))
    if len(bad):
        row, channel = (int(i) for i in bad[0])
        raise DataError(
            f"{columns.where(row)}: the noise of column {columns.channels[channel].name!r} is "
            f"{columns.noise[row, channel]} ({len(bad)} such entries); a standard error is a finite number, not "
            "negative. Use 0 where it is exact."
        )


def _check_inputs(columns: Columns) -> None:
    if columns.inputs is None:
        return
    bad = np.argwhere(~np.isfinite(columns.inputs))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise DataError(
            f"{columns.where(row)}: the input {columns.names['inputs'][column]!r} is {columns.inputs[row, column]} "
            f"({len(bad)} such entries); inputs are known at every row. Fill them in (df.ffill()), or make it a "
            "channel."
        )


def _check_per_series(columns: Columns) -> None:
    for name, what in (("static", "static covariate"), ("labels", "label")):
        known = getattr(columns, name)
        bad = np.argwhere(np.isinf(np.empty((0, 0)) if known is None else known))
        if len(bad):
            row, column = (int(i) for i in bad[0])
            raise DataError(
                f"series {columns.ids[row]!r}: the {what} {columns.names[name][column]!r} is infinite ({len(bad)} such "
                "entries); replace it by a number, or by NaN where it is not known."
            )


def _without_empty_rows(columns: Columns) -> Columns:
    """A row in which nothing was observed says nothing, unless it carries inputs."""
    if columns.inputs is not None or not columns.channels:
        return columns
    seen = ~np.isnan(columns.values).all(axis=1)
    return columns if seen.all() else columns.rows(np.flatnonzero(seen))


def _without_empty_series(columns: Columns, policy: Policy) -> tuple[Columns, int]:
    if not columns.channels:
        return columns, 0  # times, and perhaps inputs, where nothing can be observed yet
    seen = ~np.isnan(columns.values).all(axis=1)
    counts = np.bincount(columns.codes[seen], minlength=len(columns.ids))
    empty = np.flatnonzero(counts == 0)
    if not len(empty):
        return columns, 0
    if not policy.drop_empty or len(empty) == len(columns.ids):
        alone = "" if columns.inputs is None else " Where inputs are all that is known, name no channel (values=[])."
        raise DataError(
            f"series {few([columns.ids[code] for code in empty], 3)}: no observations in any channel ({len(empty)} "
            f"such series); drop them (drop_empty=True), or check the columns of values.{alone}"
        )
    kept = np.flatnonzero(counts > 0)
    columns = columns.rows(np.flatnonzero(counts[columns.codes] > 0))
    new_code = np.cumsum(counts > 0) - 1
    return (
        replace(
            columns,
            ids=[columns.ids[code] for code in kept],
            codes=new_code[columns.codes],
            static=None if columns.static is None else columns.static[kept],
            labels=None if columns.labels is None else columns.labels[kept],
        ),
        len(empty),
    )


def backwards(codes: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The rows whose time is before that of the row above them in the same series."""
    by_series = np.argsort(codes, kind="stable")
    back = (np.diff(times[by_series]) < 0) & (np.diff(codes[by_series]) == 0)
    return by_series[1:][back]


def _in_order(columns: Columns, policy: Policy) -> tuple[Columns, int]:
    codes, times = columns.codes, columns.times
    back = backwards(codes, times)
    unsorted = len(np.unique(codes[back]))
    if unsorted and not policy.sort:
        raise DataError(
            f"{columns.where(int(back.min()))}: the times go backwards here (in {unsorted} series); sort the rows, or "
            "use sort=True."
        )
    if not unsorted and columns.start is None and bool((np.diff(codes) >= 0).all()):
        return columns, 0
    keys = (times, codes) if columns.start is None else (columns.start, times, codes)
    return columns.rows(np.lexsort(keys)), unsorted


def _merged(columns: Columns, policy: Policy) -> tuple[Columns, int]:
    """One row per series, time and start. Rows that observe different channels are put together without loss."""
    codes, times = columns.codes, columns.times
    fresh = np.ones(len(times), dtype=bool)
    fresh[1:] = (np.diff(times) > 0) | (np.diff(codes) != 0)
    if columns.start is not None:
        fresh[1:] |= np.diff(columns.start) != 0
    if fresh.all():
        return columns, 0
    group = np.cumsum(fresh) - 1
    first = np.flatnonzero(fresh)
    groups, width = len(first), columns.values.shape[1]
    seen = ~np.isnan(columns.values)
    row, channel = np.nonzero(seen)
    cell = group[row] * width + channel
    count = np.bincount(cell, minlength=groups * width)
    merged = int((count[count > 1] - 1).sum())
    if merged and policy.duplicates == "error":
        repeated = int(np.flatnonzero(count > 1)[0])
        name = columns.channels[repeated % width].name
        raise DataError(
            f"{columns.where(int(first[repeated // width]))}, column {name!r}: {int(count[repeated])} observations at "
            f'the same time ({merged} duplicates in all); use duplicates="mean", "first" or "last", or mend the times.'
        )
    _check_agreeing_inputs(columns, group, first)
    pick = {"mean": _mean, "first": _first, "last": _last}.get(policy.duplicates, _mean)
    values, noise = pick(columns, row, channel, cell, count)
    _check_means(columns, first, cell, columns.values[row, channel] != values[cell], policy)
    shape = (groups, width)
    thinned = columns.rows(first)
    noise = None if noise is None else noise.reshape(shape)
    return replace(thinned, values=values.reshape(shape), noise=noise), merged


def _check_means(columns: Columns, first: np.ndarray, cell: np.ndarray, differs: np.ndarray, policy: Policy) -> None:
    """Between two classes there is none, nor between two whole numbers."""
    width = len(columns.channels)
    whole = np.array([channel.kind not in AMOUNTS for channel in columns.channels], dtype=bool)
    bad = cell[differs & whole[cell % width]]
    if policy.duplicates == "mean" and len(bad):
        channel, row = columns.channels[bad[0] % width], int(first[bad[0] // width])
        raise DataError(
            f"{columns.where(row)}, column {channel.name!r}: different observations at one time "
            f'have no mean in a {channel.kind} channel; use duplicates="first" or "last", or mend the times.'
        )


def _mean(columns: Columns, row: Any, channel: Any, cell: Any, count: Any) -> tuple[np.ndarray, np.ndarray | None]:
    total = np.bincount(cell, weights=columns.values[row, channel], minlength=len(count))
    divisor = np.where(count > 0, count, np.nan)
    if columns.noise is None:
        return total / divisor, None
    variance = np.bincount(cell, weights=columns.noise[row, channel] ** 2, minlength=len(count))
    return total / divisor, np.sqrt(variance) / divisor


def _first(columns: Columns, row: Any, channel: Any, cell: Any, count: Any) -> tuple[np.ndarray, np.ndarray | None]:
    return _chosen(columns, row[::-1], channel[::-1], cell[::-1], count)


def _last(columns: Columns, row: Any, channel: Any, cell: Any, count: Any) -> tuple[np.ndarray, np.ndarray | None]:
    return _chosen(columns, row, channel, cell, count)


def _chosen(columns: Columns, row: Any, channel: Any, cell: Any, count: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """The observation that is written last stands."""
    values = np.full(len(count), np.nan)
    values[cell] = columns.values[row, channel]
    if columns.noise is None:
        return values, None
    noise = np.full(len(count), np.nan)
    noise[cell] = columns.noise[row, channel]
    return values, noise


def _check_agreeing_inputs(columns: Columns, group: np.ndarray, first: np.ndarray) -> None:
    rows = columns.inputs
    if rows is None:
        return
    differs = np.flatnonzero((rows != rows[first][group]).reshape(len(group), -1).any(axis=1))
    if len(differs):
        raise DataError(f"{columns.where(int(differs[0]))}: two rows at the same time have different inputs.")


def _near_duplicates(columns: Columns) -> int:
    codes, times = columns.codes, columns.times
    bounds = np.flatnonzero(np.diff(codes, prepend=-1))
    span = np.maximum.reduceat(times, bounds) - np.minimum.reduceat(times, bounds)
    size = np.maximum.reduceat(np.abs(times), bounds)
    least = np.zeros(len(columns.ids))
    least[codes[bounds]] = np.maximum(_NEAR * np.maximum(span, float(np.median(span))), _ROUNDING * size)
    close = np.diff(times) < least[codes[1:]]
    if columns.start is not None:
        # Intervals that share an end are told apart by their beginning.
        close &= np.abs(np.diff(columns.start)) < least[codes[1:]]
    near = np.flatnonzero((np.diff(codes) == 0) & close)
    if len(near):
        warnings.warn(
            f"{columns.where(int(near[0]))}: {len(near)} near-duplicate times, closer to the next than {_NEAR:g} of "
            "the span; they are kept as they are. Round the times if they are meant to be the same.",
            DataWarning,
            stacklevel=4,
        )
    return len(near)


def _cut(columns: Columns) -> tuple[Series, ...]:
    bounds = np.searchsorted(columns.codes, np.arange(1, len(columns.ids)))

    def parts(rows: np.ndarray | None) -> list[Any]:
        if rows is None:
            return [None] * len(columns.ids)
        own = np.array(rows)
        own.flags.writeable = False  # the series are views of it, and a set does not change
        return np.split(own, bounds)

    times, values = parts(columns.times), parts(columns.values)
    noise, inputs, start = parts(columns.noise), parts(columns.inputs), parts(columns.start)
    return tuple(
        Series(
            id=id,
            times=times[position],
            values=values[position],
            noise=noise[position],
            inputs=inputs[position],
            static=None if columns.static is None else columns.static[position],
            labels=None if columns.labels is None else columns.labels[position],
            start=start[position],
        )
        for position, id in enumerate(columns.ids)
    )
