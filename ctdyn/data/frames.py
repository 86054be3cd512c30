"""Frames and arrays in, frames out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._checks import DataError, few
from ._assemble import Columns, Policy, assemble
from ._columns import Entries, numeric, pivoted
from ._pandas import DataFrame
from ._stamps import BadTimeError
from .channels import Channel, unique_channels
from .clock import TimeAxis
from .series_set import SeriesSet


__all__ = ["from_pandas", "to_long", "to_wide"]

Names = str | Sequence[str] | None


def from_pandas(
    df: DataFrame,
    *,
    id: str | None = None,
    time: str = "time",
    values: Names = None,
    variable: str | None = None,
    value: str | None = None,
    noise: str | Sequence[str] | Mapping[str, str] | None = None,
    inputs: Names = None,
    static: Names = None,
    labels: Names = None,
    start: str | None = None,
    sums: Names = None,
    units: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    time_unit: str | None = None,
    duplicates: str = "error",
    sort: bool = True,
    drop_empty: bool = False,
) -> SeriesSet:
    """Irregular series from a frame: wide (a column per channel) or long (a row per observation). Start here.

    NaN in a value means not observed. Rows in which nothing was observed are dropped, unless there are inputs;
    `describe()` counts them. Booleans become a binary channel, integers a real one.

    Args:
        df: the frame, in any order of rows.
        id: the column (or index level) that says which series a row belongs to; None: all rows are one series.
        time: the column (or index level) of times: numbers, datetimes of any unit, with or without a zone, timedeltas,
            or text in ISO 8601. Datetimes keep their zone for the way out.
        values: wide form, the columns of the channels; None: all columns that are not named otherwise; none, as `[]`,
            for times that are asked about (`forecast(at=...)`) and inputs known there. Long form, which of the
            variables to keep, in that order.
        variable: long form, the column that names the channel.
        value: long form, the column of the observation.
        noise: columns of standard errors, in the unit of the value. Wide form: one per channel in their order, or a
            mapping from channels to columns; long form: one column.
        inputs: columns known at every row, the future included.
        static: columns that are constant within a series; NaN where unknown.
        labels: columns that are constant within a series and are to be predicted.
        start: the column of times at which an aggregated observation (a mean, a sum) begins; for an observation at one
            instant, its time. Rows of one time and different start stay apart.
        sums: channels that hold sums from start to time. They become means, per unit of the float clock: what every
            model reads; times the length of an interval they are sums again.
        units: the unit of each channel.
        kinds: the kind of each channel, if not "real": see `Channel`.
        time_unit: the unit of the float clock, as "hour"; for numbers, what they are in. Default for datetimes: chosen
            from the longest series.
        duplicates: two observations of a channel at one time are an "error", or become their "mean", or the "first" or
            "last" in the order of the rows stands.
        sort: sort rows by time within each series; False: unsorted rows are an error.
        drop_empty: leave out ids without any observation; False: they are an error.

    Returns:
        The series, in the order in which their ids appear.

    Raises:
        DataError: a column is missing or is not numeric, a time is missing or looks like a packed date, a value is
            infinite, and the like. The message names the series, the column and the cure.

    Example:
        >>> import pandas as pd
        >>> df = pd.DataFrame({"who": [1, 1, 2], "hours": [0.0, 1.5, 0.2], "hr": [60, 61, 80], "bp": [None, 120, None]})
        >>> data = from_pandas(df, id="who", time="hours", units={"hr": "1/min"})
        >>> data
        SeriesSet(2 series, 3 rows, channels: hr, bp; times: numbers without a unit)
        >>> long = data.to_long()
        >>> from_pandas(long, id="id", variable="channel", value="value").to_wide().equals(data.to_wide())
        True
    """
    policy = Policy(duplicates, sort, drop_empty)
    if (variable is None) != (value is None):
        raise DataError(
            "a long frame needs both variable= (the column of names) and value= (the column of observations)."
        )
    table = _table(df, id, time)
    names = {"inputs": _names(inputs), "static": _names(static), "labels": _names(labels)}
    taken = [name for name in (id, time, start, variable, value) if name is not None]
    taken += [name for group in names.values() for name in group]
    _require(table, taken)
    codes, ids = _codes(table, id)
    axis, times = _clock(table, time, codes, ids, time_unit)

    def where(row: int) -> str:
        return f"series {ids[codes[row]]!r}"

    columns = Columns(
        ids=ids,
        codes=codes,
        axis=axis,
        times=times,
        values=np.empty((len(table), 0)),
        channels=(),
        inputs=_matrix(table, names["inputs"], where) if names["inputs"] else None,
        start=None if start is None else _starts(table, start, axis),
        static=_per_series(table, names["static"], codes, ids, where),
        labels=_per_series(table, names["labels"], codes, ids, where),
        names=names,
        time=time,
    )
    if variable is not None and value is not None:
        entries = _entries(table, variable, value, _names(noise), where)
        columns = pivoted(columns, entries, _names(values), policy)
    else:
        columns = _wide(table, columns, values, noise, taken, where)
    columns = replace(columns, channels=_annotated(columns.channels, units, kinds))
    return assemble(_as_means(columns, _names(sums)), policy)


def to_long(data: SeriesSet) -> DataFrame:
    """A frame with one row per observation: id, time, channel, value, and noise and start where there are any.

    Args:
        data: the series.

    Example:
        >>> from .arrays import from_ragged
        >>> print(to_long(from_ragged([([0.0, 1.0], [[1.0, np.nan], [2.0, 3.0]])])).to_string(index=False))
         id  time channel  value
          0   0.0      x0    1.0
          0   1.0      x0    2.0
          0   1.0      x1    3.0
    """
    import pandas as pd

    if not len(data):
        return pd.DataFrame({"id": [], "time": [], "channel": [], "value": []})
    lengths = [len(one) for one in data]
    values = np.concatenate([one.values for one in data])
    row, channel = np.nonzero(~np.isnan(values))
    frame = {
        "id": pd.Series(list(data.ids)).repeat(lengths).to_numpy()[row],
        "time": data.axis.to_user(np.concatenate([one.times for one in data])[row]),
        "channel": np.array(data.channel_names, dtype=object)[channel],
        "value": values[row, channel],
    }
    noise = [one.noise for one in data if one.noise is not None]
    if len(noise) == len(data):
        frame["noise"] = np.concatenate(noise)[row, channel]
    if any(one.start is not None for one in data):
        starts = np.concatenate([one.times if one.start is None else one.start for one in data])
        frame["start"] = data.axis.to_user(starts[row])
    return pd.DataFrame(frame)


def to_wide(data: SeriesSet) -> DataFrame:
    """A frame with one row per time: id, time, the channels, then `<channel>_noise`, start, inputs, static and labels.

    Args:
        data: the series.

    Raises:
        DataError: two columns would have the same name.

    Example:
        >>> from .arrays import from_ragged
        >>> print(to_wide(from_ragged([([0.0, 1.0], [[1.0, np.nan], [2.0, 3.0]])])).to_string(index=False))
         id  time  x0  x1
          0   0.0 1.0 NaN
          0   1.0 2.0 3.0
    """
    import pandas as pd

    lengths = [len(one) for one in data]
    parts = [pd.DataFrame({"id": pd.Series(list(data.ids)).repeat(lengths).to_numpy()})]

    def add(names: Iterable[str], rows: list[np.ndarray | None]) -> None:
        present = [row for row in rows if row is not None]
        if present and len(present) == len(data):
            parts.append(pd.DataFrame(np.concatenate(present), columns=pd.Index(list(names))))

    times = np.concatenate([one.times for one in data]) if len(data) else np.empty(0)
    parts.append(pd.DataFrame({"time": data.axis.to_user(times)}))
    add(data.channel_names, [one.values for one in data])
    add([f"{name}_noise" for name in data.channel_names], [one.noise for one in data])
    if any(one.start is not None for one in data):
        starts = np.concatenate([one.times if one.start is None else one.start for one in data])
        parts.append(pd.DataFrame({"start": data.axis.to_user(starts)}))
    add(data.input_names, [one.inputs for one in data])
    add(data.static_names, [_repeated(one.static, len(one)) for one in data])
    add(data.label_names, [_repeated(one.labels, len(one)) for one in data])
    frame = pd.concat(parts, axis=1)
    if not frame.columns.is_unique:
        raise DataError(
            f"columns {few(frame.columns[frame.columns.duplicated()])} occur twice; rename the channels first."
        )
    return frame


def _repeated(row: np.ndarray | None, count: int) -> np.ndarray | None:
    return None if row is None else np.broadcast_to(row, (count, len(row)))


def _names(names: str | Iterable[str] | None) -> tuple[str, ...]:
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


def _table(df: Any, id: str | None, time: str) -> DataFrame:
    import pandas as pd

    if not isinstance(df, pd.DataFrame):
        raise TypeError(f"from_pandas needs a pandas.DataFrame; got {type(df).__name__}. Arrays go to from_ragged.")
    if not df.columns.is_unique:
        raise DataError(f"column {few(df.columns[df.columns.duplicated()])} occurs more than once; rename or drop it.")
    levels = [name for name in df.index.names if name is not None and name in (id, time) and name not in df.columns]
    table = df.reset_index(levels) if levels else df
    if not len(table):
        raise DataError(f"the frame has no rows (columns: {few(table.columns, 40)}).")
    return table


def _require(table: DataFrame, names: Iterable[object]) -> None:
    import pandas as pd

    missing = [name for name in names if name not in table.columns]
    if missing:
        hint = ""
        if isinstance(table.index, pd.DatetimeIndex) and table.index.name is None:
            hint = f" If the index is the time, name it: df.rename_axis({missing[0]!r})."
        raise DataError(f"column {few(missing)} is missing; the columns are {few(table.columns, 40)}.{hint}")


def _codes(table: DataFrame, id: str | None) -> tuple[np.ndarray, list[Any]]:
    import pandas as pd

    if id is None:
        return np.zeros(len(table), dtype=np.int64), [0]
    column = table[id]
    # A CSV file cannot tell an empty text from a missing one.
    codes, uniques = pd.factorize(column.mask(column == "") if pd.api.types.is_string_dtype(column.dtype) else column)
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise DataError(
            f"column {id!r}: {int((codes < 0).sum())} rows have no id (first: row {row}); drop them "
            f"(df.dropna(subset=[{id!r}])) or fill the ids in."
        )
    return codes.astype(np.int64), list(uniques.tolist())


def _clock(
    table: DataFrame, time: str, codes: np.ndarray, ids: list[Any], unit: str | None
) -> tuple[TimeAxis, np.ndarray]:
    try:
        return TimeAxis.read(table[time], codes, unit)
    except BadTimeError as error:
        raise DataError(f"series {ids[codes[error.row]]!r}, column {time!r}: {error}") from error
    except DataError as error:
        raise DataError(f"column {time!r}: {error}") from error


def _starts(table: DataFrame, start: str, axis: TimeAxis) -> np.ndarray:
    try:
        return axis.to_float(table[start])
    except DataError as error:
        raise DataError(f"column {start!r}: {error}") from error


def _wide(
    table: DataFrame,
    columns: Columns,
    values: Names,
    noise: Names | Mapping[str, str],
    taken: list[str],
    where: Callable[[int], str],
) -> Columns:
    errors = dict(noise) if isinstance(noise, Mapping) else {}
    listed = () if isinstance(noise, Mapping) else _names(noise)
    spoken = {*taken, *errors.values(), *listed}
    others = tuple(name for name in table.columns if name not in spoken)
    names = others if values is None else _names(values)
    if listed and len(listed) != len(names):
        raise DataError(f"noise needs one column per channel, or a mapping; got {few(listed)} for {few(names, 40)}.")
    errors = errors or dict(zip(names, listed, strict=False))
    _require(table, [*names, *errors.values()])
    unknown = [name for name in errors if name not in names]
    if unknown:
        raise DataError(f"noise is given for {few(unknown)}, which is no channel; the channels are {few(names, 40)}.")
    channels = [Channel(str(name), kind="binary" if _is_boolean(table[name]) else "real") for name in names]
    matrix = _matrix(table, names, where)
    known = None
    if errors:
        # A channel without a column of its own has no error beyond what a model learns.
        known = np.zeros_like(matrix)
        for position, name in enumerate(names):
            if name in errors:
                known[:, position] = numeric(table[errors[name]], errors[name], where)
    alone = not channels and (columns.inputs is not None or values is not None)
    return replace(columns, values=matrix, noise=known, channels=() if alone else unique_channels(channels))


def _is_boolean(column: Any) -> bool:
    from pandas.api import types

    # Among missing entries they are objects.
    return types.is_bool_dtype(column.dtype) or (
        column.dtype == object and types.infer_dtype(column, skipna=True) == "boolean"
    )


def _entries(
    table: DataFrame, variable: str, value: str, noise: tuple[str, ...], where: Callable[[int], str]
) -> Entries:
    import pandas as pd

    if len(noise) > 1:
        raise DataError(f"a long frame has one column of noise; got {few(noise)}.")
    _require(table, noise)
    labels = table[variable].astype(object)
    codes, uniques = pd.factorize(labels.where(labels != ""))
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise DataError(
            f"{where(row)}, column {variable!r}: {int((codes < 0).sum())} rows name no channel; drop them "
            f"(df.dropna(subset=[{variable!r}])) or name them."
        )
    return Entries(
        variables=tuple(str(name) for name in uniques),
        codes=codes.astype(np.int64),
        values=numeric(table[value], value, where),
        noise=numeric(table[noise[0]], noise[0], where) if noise else None,
    )


def _annotated(
    channels: tuple[Channel, ...], units: Mapping[str, str] | None, kinds: Mapping[str, str] | None
) -> tuple[Channel, ...]:
    names = [channel.name for channel in channels]
    units, kinds = units or {}, kinds or {}
    unknown = [name for name in (*units, *kinds) if name not in names]
    if unknown:
        raise DataError(
            f"units or kinds are given for {few(unknown)}, which is no channel; the channels are {few(names, 40)}."
        )
    return tuple(
        replace(channel, unit=units.get(channel.name), kind=kinds.get(channel.name, channel.kind))
        for channel in channels
    )


def _as_means(columns: Columns, sums: tuple[str, ...]) -> Columns:
    """Sums over intervals as means, per unit of the clock."""
    if not sums:
        return columns
    names = [channel.name for channel in columns.channels]
    unknown = [name for name in sums if name not in names]
    if unknown:
        raise DataError(f"sums names {few(unknown)}, which is no channel; the channels are {few(names, 40)}.")
    if columns.start is None:
        raise DataError(f"{few(sums)} holds sums, and of which interval is not known; give start= (the column).")
    length, values = columns.times - columns.start, columns.values.copy()
    noise = None if columns.noise is None else columns.noise.copy()
    for name in sums:
        place = names.index(name)
        empty = np.flatnonzero(~(length > 0) & ~np.isnan(values[:, place]))
        if len(empty):
            raise DataError(
                f"{columns.where(int(empty[0]))}, column {name!r}: a sum over an interval of no length; start must lie "
                "before the time."
            )
        for array in (values, noise):
            if array is not None:
                array[:, place] /= np.where(length > 0, length, 1.0)
    rate = columns.axis.unit or "unit of time"
    channels = tuple(
        replace(channel, unit=f"{channel.unit}/{rate}") if channel.name in sums and channel.unit else channel
        for channel in columns.channels
    )
    return replace(columns, values=values, noise=noise, channels=channels)


def _matrix(table: DataFrame, names: Sequence[Any], where: Callable[[int], str]) -> np.ndarray:
    matrix = np.empty((len(table), len(names)))
    for position, name in enumerate(names):
        matrix[:, position] = numeric(table[name], str(name), where)
    return matrix


def _per_series(
    table: DataFrame, names: tuple[str, ...], codes: np.ndarray, ids: list[Any], where: Callable[[int], str]
) -> np.ndarray | None:
    """Columns that are constant within a series, one row per series."""
    if not names:
        return None
    matrix = _matrix(table, names, where)
    first = np.full(len(ids), len(codes), dtype=np.int64)
    np.minimum.at(first, codes, np.arange(len(codes)))
    held = matrix[first][codes]
    differs = np.argwhere((matrix != held) & ~(np.isnan(matrix) & np.isnan(held)))
    if len(differs):
        # Two values tell more of what is wrong than a value and a gap.
        gaps = np.isnan(matrix + held)[tuple(differs.T)]
        row, column = (int(i) for i in differs[int(gaps.argmin())])
        name = names[column]
        cure = "Make it a channel or an input if it changes."
        if gaps.all():
            cure = f"Fill the other rows in: df[{name!r}] = df.groupby(id)[{name!r}].transform('first')."
        raise DataError(
            f"{where(row)}, column {name!r}: a static covariate or label must be constant within a series; got "
            f"{held[row, column]} and {matrix[row, column]}. {cure}"
        )
    return matrix[first]
