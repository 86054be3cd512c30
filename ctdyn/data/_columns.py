"""Columns of a frame as float64, and long rows as wide ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._checks import DataError, few
from ._assemble import Columns, Policy, backwards
from .channels import unique_channels


__all__ = ["Entries", "numeric", "pivoted"]


def numeric(column: Any, name: str, where: Callable[[int], str]) -> np.ndarray:
    """A column of a frame as float64; missing entries become NaN.

    Args:
        column: the column.
        name: what it is called.
        where: names the series of a row, for the message.

    Raises:
        DataError: an entry is not a number. Text is refused even where it looks like one.

    Example:
        >>> import pandas as pd
        >>> numeric(pd.Series([True, None], dtype="boolean"), "on", str)
        array([ 1., nan])
    """
    import pandas as pd
    from pandas.api import types

    dtype = column.dtype
    if types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    present = column.notna().to_numpy()
    if not present.any():
        return np.full(len(column), np.nan)
    if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype) or types.is_complex_dtype(dtype):
        raise DataError(
            f"{where(0)}, column {name!r} holds {dtype}, not numbers; name the columns that are (values=[...])."
        )
    text = column.astype(object)
    numbers = np.asarray(pd.to_numeric(text, errors="coerce"), dtype=np.float64)
    written = np.array([isinstance(entry, str) for entry in text]) & present
    words = np.isnan(numbers) & present
    # One word makes a whole column text: what to name is the word, and not the numbers around it.
    bad, fault = (words, "is not a number") if words.any() else (written, "is not a number but text")
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{where(row)}, column {name!r}: {text.iloc[row]!r} {fault} ({int(bad.sum())} such entries). "
            + (_of_classes(text[present], name) if words[present].all() else _of_numbers(name, bool(words.any())))
        )
    return numbers


def _of_classes(text: Any, name: str) -> str:
    """What to do with a column of nothing but words."""
    classes = list(dict.fromkeys(text))
    codes = ", ".join(f"{word!r}: {code}" for code, word in enumerate(classes[:3]))
    more = ", ..." if len(classes) > 3 else ""
    return (
        f"If its words are classes, number them, as df[{name!r}].map({{{codes}{more}}}), and say so of a channel by "
        f"kinds={{{name!r}: 'categorical'}}. Else leave the column out."
    )


def _of_numbers(name: str, words: bool) -> str:
    """What to do with a column of numbers written as text, some of which may be words."""
    how, what = (", errors='coerce'", " to make words missing") if words else ("", "")
    return f"Use pandas.to_numeric(df[{name!r}]{how}){what}, or leave the column out."


@dataclass(frozen=True)
class Entries:
    """The observations of a long frame, one per row.

    Args:
        variables: the names that occur, in order of appearance.
        codes: which of them each row is, `(n,)`.
        values: the observations, `(n,)`.
        noise: their standard errors, `(n,)`.
    """

    variables: tuple[str, ...]
    codes: np.ndarray
    values: np.ndarray
    noise: np.ndarray | None = None


def pivoted(columns: Columns, entries: Entries, wanted: tuple[str, ...], policy: Policy) -> Columns:
    """One row per series and time with a column per variable; a repeated observation gets a row of its own.

    Args:
        columns: everything but the values, one row per entry.
        entries: the observations.
        wanted: the variables to keep, in their order; none: all of them.
        policy: whether unsorted rows are an error.

    Raises:
        DataError: a wanted variable does not occur, unsorted rows are an error, or rows at one time disagree.
    """
    channels = unique_channels(wanted or entries.variables)
    names = [channel.name for channel in channels]
    unknown = [name for name in names if name not in entries.variables]
    if unknown:
        raise DataError(f"variable {few(unknown)} does not occur; the frame has {few(entries.variables, 60)}.")
    position = np.array([names.index(name) if name in names else -1 for name in entries.variables], dtype=np.int64)
    channel = position[entries.codes]
    kept = np.flatnonzero((channel >= 0) & (~np.isnan(entries.values) | ~np.isfinite(columns.times)))
    dropped = int((np.isnan(entries.values) & (channel >= 0)).sum())
    columns, channel, values = columns.rows(kept), channel[kept], entries.values[kept]
    noise = None if entries.noise is None else entries.noise[kept]
    back = backwards(columns.codes, columns.times)
    if len(back) and not policy.sort:
        raise DataError(f"{columns.where(int(back[0]))}: the times go backwards here; sort the rows, or use sort=True.")
    # By series, time, start and channel, then as they came: equal neighbours are repeated observations.
    start = columns.times if columns.start is None else columns.start
    order = np.lexsort((channel, start, columns.times, columns.codes))
    codes, times, start, channel = columns.codes[order], columns.times[order], start[order], channel[order]
    same_time = (np.diff(codes) == 0) & (np.diff(times) == 0) & (np.diff(start) == 0)
    repeat = _run_position(np.append(False, same_time & (np.diff(channel) == 0)))
    # A row per series, time, start and number of the repetition.
    rows_order = np.lexsort((repeat, start, times, codes))
    starts = np.ones(len(order), dtype=bool)
    a, b = rows_order[:-1], rows_order[1:]
    starts[1:] = (codes[a] != codes[b]) | ~((times[a] == times[b]) & (start[a] == start[b])) | (repeat[a] != repeat[b])
    row = np.empty(len(order), dtype=np.int64)
    row[rows_order] = np.cumsum(starts) - 1
    source = order[rows_order[starts]]
    shape = (int(starts.sum()), len(names))
    matrix = np.full(shape, np.nan)
    matrix[row, channel] = values[order]
    known = None
    if noise is not None:
        known = np.full(shape, np.nan)
        known[row, channel] = noise[order]
    _check_inputs(columns, order, source[row])
    return replace(
        columns.rows(source),
        values=matrix,
        noise=known,
        channels=channels,
        dropped=dropped,
        unsorted=len(np.unique(columns.codes[back])),
    )


def _run_position(continues: np.ndarray) -> np.ndarray:
    """The position of each entry in its run; an entry continues the run of the one before where `continues` is True."""
    index = np.arange(len(continues))
    return index - np.maximum.accumulate(np.where(continues, 0, index))


def _check_inputs(columns: Columns, order: np.ndarray, source: np.ndarray) -> None:
    known = columns.inputs
    if known is None:
        return
    differs = np.flatnonzero((known[order] != known[source]).any(axis=1))
    if len(differs):
        raise DataError(f"{columns.where(int(order[differs[0]]))}: two rows at the same time have different inputs.")
