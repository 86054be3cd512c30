"""A set of irregular series: what a data file becomes, and what a forecaster is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from .._checks import DataError, UnknownIdError, few
from ._pandas import DataFrame
from .batch import IrregularBatch
from .channels import Channel, check_unit, unique_channels
from .clock import TimeAxis, between_clocks
from .collate import pad
from .series import Series


__all__ = ["Intake", "SeriesSet", "on_axis", "on_clock"]


@dataclass(frozen=True)
class Intake:
    """What was done to the rows on their way in; `SeriesSet.describe` tells it.

    Args:
        rows: how many rows came.
        empty_rows: rows that were dropped because nothing was observed in them.
        unsorted: series that had to be sorted.
        duplicates: observations that were merged into another of the same series, channel and time.
        near_duplicates: pairs of times that only rounding can tell apart.
        empty_series: ids that were dropped because nothing was observed in them.

    Example:
        >>> from .arrays import from_ragged
        >>> from_ragged([([1.0, 0.0, 2.0], [1.0, 2.0, np.nan])]).intake
        Intake(rows=3, empty_rows=1, unsorted=1, duplicates=0, near_duplicates=0, empty_series=0)
    """

    rows: int = 0
    empty_rows: int = 0
    unsorted: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    empty_series: int = 0


@dataclass(frozen=True, eq=False)
class SeriesSet(Sequence[Series]):
    """Series that share channels and a clock, each observed at its own times. Immutable: a method returns a new set.

    Build one with `from_pandas`, `from_ragged`, `from_padded` or `read`.

    Args:
        series: the series.
        channels: what the columns of their values are.
        axis: the user's clock.
        input_names: what the columns of their inputs are.
        static_names: what their static covariates are.
        label_names: what their labels are.
        intake: what was done to the rows on their way in.

    Raises:
        DataError: an id occurs twice, or a series has another number of channels.

    Example:
        >>> series = [Series(i, np.arange(3.0), np.ones((3, 1))) for i in "abcde"]
        >>> data = SeriesSet(tuple(series), (Channel("x"),))
        >>> train, test = data.split(0.8, seed=0)
        >>> len(train), len(test), len(data.before(1.5).by_id("a"))
        (4, 1, 2)
    """

    series: tuple[Series, ...]
    channels: tuple[Channel, ...]
    axis: TimeAxis = field(default_factory=TimeAxis)
    input_names: tuple[str, ...] = ()
    static_names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    intake: Intake = field(default_factory=Intake)

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.series):
            repeated = [one for one in dict.fromkeys(self.ids) if self.ids.count(one) > 1]
            raise DataError(f"ids must be unique; {few(repeated)} occurs more than once.")
        wrong = [one.id for one in self.series if one.values.shape[1] != len(self.channels)]
        if wrong:
            raise DataError(f"series {few(wrong)} must have {len(self.channels)} channels: {few(self.channel_names)}.")

    # -- a sequence of series

    @property
    def ids(self) -> tuple[object, ...]:
        """What the series are called, in order."""
        return tuple(one.id for one in self.series)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names of the channels, in order."""
        return tuple(channel.name for channel in self.channels)

    def __len__(self) -> int:
        return len(self.series)

    def __iter__(self) -> Iterator[Series]:
        return iter(self.series)

    @overload
    def __getitem__(self, index: int) -> Series: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> SeriesSet: ...

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> Series | SeriesSet:
        """One series for an integer; a set for a slice, a boolean mask or a list of positions."""
        if isinstance(index, int | np.integer):
            return self.series[index]
        if isinstance(index, slice):
            return replace(self, series=self.series[index])
        positions = np.arange(len(self))[np.asarray(index, dtype=None if len(index) else np.int64)]
        return replace(self, series=tuple(self.series[position] for position in positions))

    def __repr__(self) -> str:
        rows = sum(len(one) for one in self.series)
        names = ", ".join(self.channel_names) or "none"
        return f"SeriesSet({len(self)} series, {rows} rows, channels: {names}; times: {self.axis})"

    def by_id(self, id: object) -> Series:
        """The series of that id.

        Raises:
            UnknownIdError: there is none.
        """
        return self.select([id])[0]

    def select(self, ids: Iterable[object]) -> SeriesSet:
        """The series of these ids, in that order.

        Raises:
            UnknownIdError: an id is not in the set.
        """
        where, wanted = {one: position for position, one in enumerate(self.ids)}, list(ids)
        unseen = [one for one in wanted if one not in where]
        if unseen:
            raise UnknownIdError(
                f"{len(unseen)} unseen ids, first: {few(unseen)}. The {len(self)} series are called {few(self.ids, 3)}."
            )
        return self[[where[one] for one in wanted]]

    def with_channels(self, channels: Iterable[Channel | str]) -> SeriesSet:
        """The same data with the channels of a model: matched by name, put into its order.

        Channels of which the data say no kind but "real" are of the kind that the model says.

        Raises:
            DataError: a channel is missing, there is one that the model does not know, or a unit differs.

        Example:
            >>> data = SeriesSet((Series("a", np.zeros(1), np.array([[1.0, 2.0]])),), (Channel("x"), Channel("y")))
            >>> data.with_channels(["y", "x"])[0].values.tolist()
            [[2.0, 1.0]]
        """
        wanted = unique_channels(channels)
        names = [channel.name for channel in wanted]
        missing = [name for name in names if name not in self.channel_names]
        extra = [name for name in self.channel_names if name not in names]
        if missing or extra:
            faults = [f"misses channel {few(missing)}"] * bool(missing) + [f"has unknown channel {few(extra)}"] * bool(
                extra
            )
            raise DataError(
                f"the data {' and '.join(faults)}; expected {few(names, 40)}, got {few(self.channel_names, 40)}."
            )
        order = [self.channel_names.index(name) for name in names]
        owned = [(model, self.channels[i]) for model, i in zip(wanted, order, strict=True)]
        for model, own in owned:
            check_unit(own, model)
        channels = tuple(replace(own, kind=model.kind) if own.kind == "real" else own for model, own in owned)
        if order == list(range(len(order))):
            return self if channels == self.channels else replace(self, channels=channels)

        def reordered(one: Series) -> Series:
            return replace(one, values=one.values[:, order], noise=None if one.noise is None else one.noise[:, order])

        return replace(self, series=tuple(map(reordered, self.series)), channels=channels)

    def with_covariates(self, inputs: Sequence[str], static: Sequence[str]) -> SeriesSet:
        """The same data with the covariates of a training: matched by name, put into its order.

        A set that has no inputs at all, or no static covariates, stays without them.

        Args:
            inputs: names of the inputs.
            static: names of the static covariates.

        Raises:
            DataError: a covariate is missing, or there is one that the training did not have.

        Example:
            >>> one = Series("a", np.zeros(1), np.ones((1, 1)), static=np.array([1.0, 2.0]))
            >>> data = SeriesSet((one,), (Channel("x"),), static_names=("age", "height"))
            >>> data.with_covariates([], ["height", "age"])[0].static.tolist()
            [2.0, 1.0]
        """
        of_inputs = _order("input", self.input_names, inputs)
        of_static = _order("static covariate", self.static_names, static)
        if of_inputs is None and of_static is None:
            return self

        def reordered(one: Series) -> Series:
            given = one.inputs if of_inputs is None or one.inputs is None else one.inputs[:, of_inputs]
            fixed = one.static if of_static is None or one.static is None else one.static[of_static]
            return replace(one, inputs=given, static=fixed)

        return replace(
            self,
            series=tuple(map(reordered, self.series)),
            input_names=self.input_names if of_inputs is None else tuple(inputs),
            static_names=self.static_names if of_static is None else tuple(static),
        )

    # -- splitting

    def split(self, *sizes: float | int, seed: int = 0) -> tuple[SeriesSet, ...]:
        """Split by id, at random; whatever the sizes leave over becomes a last part.

        Args:
            sizes: shares below 1, as `split(0.6, 0.2, 0.2)`, or numbers of series, as `split(16, 3)`.
            seed: of the permutation. Inside a part the series keep their order.

        Raises:
            DataError: the sizes are more than there is, or leave a part empty.

        Example:
            >>> data = SeriesSet(tuple(Series(i, np.zeros(1), np.ones((1, 1))) for i in range(23)), (Channel("x"),))
            >>> [len(part) for part in data.split(16, 3)]
            [16, 3, 4]
        """
        if any(isinstance(size, bool) or not isinstance(size, int | float | np.number) for size in sizes):
            raise DataError(f"sizes must be shares below 1, or numbers of series; got {sizes}.")
        total = len(self)
        shares = any(isinstance(size, float | np.floating) for size in sizes)
        exact = np.asarray(sizes, dtype=np.float64) * (total if shares else 1)
        if not sizes or not (exact > 0).all() or exact.sum() > total * (1 + 1e-9):
            raise DataError(f"sizes must be positive and add up to at most {'1' if shares else total}; got {sizes}.")
        ends = np.rint(np.cumsum(exact)).astype(int)
        ends = ends if ends[-1] == total and np.isclose(exact.sum(), total) else np.append(ends, total)
        counts = np.diff(ends, prepend=0)
        if (counts == 0).any():
            raise DataError(
                f"splitting {total} series by {sizes} leaves an empty part (sizes {counts.tolist()}); use other "
                "sizes, more series, or split_time(time) for a split along the clock."
            )
        order = np.random.default_rng(seed).permutation(total)
        return tuple(self[np.sort(part)] for part in np.split(order, ends[:-1]))

    def split_time(self, time: Any) -> tuple[SeriesSet, SeriesSet]:
        """All series before a time, and from it on: a number on the float clock, a datetime, or its text."""
        return self.before(time), self.after(time)

    def before(self, time: Any) -> SeriesSet:
        """Every series with its rows before a time; a series that has none stays, with no rows."""
        at = self.axis.instant(time)
        return self._map(lambda one: one.before(at))

    def after(self, time: Any) -> SeriesSet:
        """Every series with its rows from a time on; a series that has none stays, with no rows."""
        at = self.axis.instant(time)
        return self._map(lambda one: one.after(at))

    def between(self, start: Any, end: Any) -> SeriesSet:
        """Every series with its rows from `start` up to, but not at, `end`."""
        low, high = self.axis.instant(start), self.axis.instant(end)
        return self._map(lambda one: one.between(low, high))

    def observed(self) -> SeriesSet:
        """The series that have at least one observation."""
        return self[[position for position, one in enumerate(self.series) if one.observed.any()]]

    def _map(self, cut: Callable[[Series], Series]) -> SeriesSet:
        return replace(self, series=tuple(cut(one) for one in self.series))

    # -- on the way out

    def batch(self, *, dtype: torch.dtype = torch.float64) -> IrregularBatch:
        """All series, padded, in raw units: `(len(self), time, channel)`.

        Raises:
            DataError: the set is empty.
        """
        if not self.series:
            raise DataError("a batch needs at least one series; the set is empty.")
        return pad(self.series, dtype=dtype)

    def describe(self) -> Any:
        """What is in the data, for reading: counts, gaps, density, and whatever looks wrong (see `Description`)."""
        from .describe import describe

        return describe(self)

    def to_long(self) -> DataFrame:
        """A frame with one row per observation: id, time, channel, value (and noise)."""
        from .frames import to_long

        return to_long(self)

    def to_wide(self) -> DataFrame:
        """A frame with one row per time: id, time, one column per channel, then noise, inputs, static and labels."""
        from .frames import to_wide

        return to_wide(self)

    def to_csv(self, path: str | Path) -> Path:
        """Write `to_wide()` as CSV; what stood there before is replaced only when the file is complete."""
        from .storage import write_csv

        return write_csv(self.to_wide(), path)

    def to_parquet(self, path: str | Path) -> Path:
        """Write the set as parquet together with what its columns are, so that `read(path)` needs no arguments."""
        from .storage import write_set

        return write_set(self, path)


def on_clock(one: Series, way: Callable[[np.ndarray], np.ndarray]) -> Series:
    """A series on another float clock.

    Args:
        one: the series.
        way: the way there, from `between_clocks`.

    Example:
        >>> on_clock(Series("a", np.array([0.0, 1.0]), np.ones((2, 1))), lambda times: 24 * times).times
        array([ 0., 24.])
    """
    return replace(one, times=way(one.times), start=None if one.start is None else way(one.start))


def on_axis(series: SeriesSet, wanted: TimeAxis) -> SeriesSet:
    """Series on the clock of others, with which they are compared, or to which numbers that were said are meant.

    Args:
        series: on a clock of their own.
        wanted: the clock.

    Raises:
        DataError: see `between_clocks`.

    Example:
        >>> one = Series("a", np.zeros(1), np.ones((1, 1)))
        >>> own = SeriesSet((one,), (Channel("x"),), TimeAxis("day", "2020-01-02"))
        >>> on_axis(own, TimeAxis("hour", "2020-01-01"))[0].times
        array([24.])
    """
    if series.axis == wanted:
        return series
    way = between_clocks(wanted, series.axis)
    return replace(series, axis=wanted, series=tuple(on_clock(one, way) for one in series))


def _order(kind: str, own: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Where the wanted columns are; None where they are in order, or there are none."""
    if not own or tuple(own) == tuple(wanted):
        return None
    if sorted(own) != sorted(wanted):
        raise DataError(
            f"the series have the {kind}s {few(own, 40)}, and those of the training had "
            f"{few(wanted, 40) if wanted else 'none'}; rename or drop columns, or train with them."
        )
    return [list(own).index(name) for name in wanted]
