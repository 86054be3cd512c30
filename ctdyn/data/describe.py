"""What is in the data: the report to read before a model is fitted."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ._pandas import DataFrame
from .channels import Channel
from .clock import TimeAxis
from .series_set import Intake, SeriesSet


__all__ = ["ChannelSummary", "Description", "describe"]

_CONSTANT = 1e-9
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class ChannelSummary:
    """One channel over all series.

    Args:
        channel: its name, unit and kind.
        observations: how many values were observed.
        density: the share of the rows in which it was observed.
        series: the number of series that have it.
        mean: of the observed values; NaN without any, as are the next three.
        std: their standard deviation.
        min: the smallest.
        max: the largest.
        constant: all values are the same, up to 1e-9 of the largest magnitude.
        sentinel: a repeated extreme value that stands apart from all others, as -1 or 9999, and may mean "missing".

    Example:
        >>> from .arrays import from_ragged
        >>> from_ragged([(range(6), [60, 61, -1, 70, -1, 65])]).describe().channels[0].sentinel
        -1.0
    """

    channel: Channel
    observations: int
    density: float
    series: int
    mean: float
    std: float
    min: float
    max: float
    constant: bool
    sentinel: float | None


@dataclass(frozen=True)
class Description:
    """The report; `str()` of it is for reading, `to_frame()` for computing.

    Args:
        series: the number of series.
        rows: the number of rows.
        lengths: rows per series: the least, the median and the most.
        axis: the clock.
        start: the first time, in the user's terms.
        end: the last time, in the user's terms.
        span: the length of a series on the float clock: the least, the median and the most.
        gaps: the time between neighbouring rows of a series: its 5 %, 50 % and 95 % quantiles, and the longest.
        density: the share of all (row, channel) entries that was observed.
        collisions: the share of the gaps that would vanish if the times were held in float32 as they are.
        channels: one summary per channel.
        intake: what was done to the rows on their way in.
        notes: what looks wrong, one sentence each.

    Example:
        >>> from .arrays import from_ragged
        >>> report = from_ragged([([0, 1, 3], [5.0, 5.0, 5.0])]).describe()
        >>> print(report.notes[0])
        channel 'x' is constant (5): a model can learn nothing but its value.
    """

    series: int
    rows: int
    lengths: tuple[int, int, int]
    axis: TimeAxis
    start: Any
    end: Any
    span: tuple[float, float, float]
    gaps: tuple[float, float, float, float]
    density: float
    collisions: float
    channels: tuple[ChannelSummary, ...]
    intake: Intake
    notes: tuple[str, ...]

    def to_frame(self) -> DataFrame:
        """One row per channel."""
        import pandas as pd

        rows = [
            {
                "channel": one.channel.name,
                "unit": one.channel.unit,
                "kind": one.channel.kind,
                **{name: value for name, value in vars(one).items() if name != "channel"},
            }
            for one in self.channels
        ]
        columns = ["channel", "unit", "kind", *(one.name for one in fields(ChannelSummary) if one.name != "channel")]
        return pd.DataFrame(rows, columns=pd.Index(columns)).set_index("channel")

    def __str__(self) -> str:
        unit = f" {self.axis.unit}" if self.axis.unit else ""
        lines = [
            f"series        {self.series}, with {_triple(self.lengths)} rows (least, median, most); {self.rows} in all",
            f"times         {self.axis}, from {self.start} to {self.end}",
            f"span          {_triple(self.span)}{unit} (least, median, most)",
            f"gaps          {_triple(self.gaps)}{unit} (5 %, 50 %, 95 %, longest)",
            f"density       {100 * self.density:.3g} % of all (row, channel) entries are observed",
            f"intake        {_intake(self.intake)}",
            "",
            _table(self.channels),
        ]
        return "\n".join([*lines, *(["", *(f"! {note}" for note in self.notes)] if self.notes else [])])


def describe(data: SeriesSet) -> Description:
    """What is in the data: counts, gaps, density, and whatever looks wrong.

    Args:
        data: the series.

    Example:
        >>> from .storage import co2
        >>> report = describe(co2())
        >>> report.series, report.rows, report.gaps
        (1, 2225, (7.0, 7.0, 7.0, 133.0))
    """
    times = np.concatenate([one.times for one in data]) if len(data) else np.empty(0)
    lengths = np.array([len(one) for one in data] or [0])
    gaps = np.concatenate([np.diff(one.times) for one in data] or [np.empty(0)])
    spans = np.array([one.span for one in data] or [0.0])
    single = np.concatenate([np.diff(one.times.astype(np.float32)) for one in data] or [np.empty(0)])
    values = np.concatenate([one.values for one in data]) if len(data) else np.empty((0, len(data.channels)))
    codes = np.repeat(np.arange(len(data)), lengths[: len(data)])
    channels = tuple(_summary(channel, values[:, i], codes) for i, channel in enumerate(data.channels))
    ends = data.axis.to_user(np.array([times.min(), times.max()])) if len(times) else (None, None)
    collisions = float(np.mean((single == 0) & (gaps > 0))) if len(gaps) else 0.0
    return Description(
        series=len(data),
        rows=len(times),
        lengths=(int(lengths.min()), int(np.median(lengths)), int(lengths.max())),
        axis=data.axis,
        start=ends[0],
        end=ends[1],
        span=(float(spans.min()), float(np.median(spans)), float(spans.max())),
        gaps=_gap_quantiles(gaps),
        density=float(np.mean(~np.isnan(values))) if values.size else 0.0,
        collisions=collisions,
        channels=channels,
        intake=data.intake,
        notes=_notes(channels, data, collisions),
    )


def _summary(channel: Channel, values: np.ndarray, codes: np.ndarray) -> ChannelSummary:
    seen = ~np.isnan(values)
    known = values[seen]
    if not len(known):
        nan = float("nan")
        return ChannelSummary(channel, 0, 0.0, 0, nan, nan, nan, nan, False, None)
    std = float(known.std())
    return ChannelSummary(
        channel=channel,
        observations=len(known),
        density=len(known) / len(values),
        series=len(np.unique(codes[seen])),
        mean=float(known.mean()),
        std=std,
        min=float(known.min()),
        max=float(known.max()),
        constant=len(known) > 1 and std <= _CONSTANT * float(np.abs(known).max()),
        sentinel=_sentinel(known) if channel.continuous else None,
    )


def _sentinel(values: np.ndarray) -> float | None:
    """An extreme value that occurs more than once and stands further from the rest than the middle 90 % is wide.

    The one negative number among positive ones is suspected as well: -1 is the commonest code for "missing".
    """
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) < 4:
        return None
    for extreme, neighbour, count in ((levels[0], levels[1], counts[0]), (levels[-1], levels[-2], counts[-1])):
        rest = values[values != extreme]
        low, high = np.quantile(rest, [0.05, 0.95])
        alone_negative = extreme < 0 <= neighbour and extreme == np.rint(extreme)
        if count > 1 and (alone_negative or abs(extreme - neighbour) > max(high - low, 1e-12 * abs(extreme))):
            return float(extreme)
    return None


def _gap_quantiles(gaps: np.ndarray) -> tuple[float, float, float, float]:
    if not len(gaps):
        return (0.0, 0.0, 0.0, 0.0)
    low, middle, high = np.quantile(gaps, _QUANTILES)
    return float(low), float(middle), float(high), float(gaps.max())


def _notes(channels: tuple[ChannelSummary, ...], data: SeriesSet, collisions: float) -> tuple[str, ...]:
    notes = []
    for one in channels:
        name = one.channel.name
        if one.observations == 0:
            notes.append(f"channel {name!r} is never observed: leave it out.")
        if one.constant:
            notes.append(f"channel {name!r} is constant ({one.mean:g}): a model can learn nothing but its value.")
        if one.sentinel is not None:
            notes.append(
                f"channel {name!r} holds {one.sentinel:g} again and again, far from all else: if it means 'missing', "
                "replace it by NaN."
            )
    single = sum(int(one.observed.sum()) == 1 for one in data)
    if single:
        notes.append(f"{single} series have a single observation: no gap to learn from.")
    if collisions:
        notes.append(
            f"{100 * collisions:.2g} % of the gaps would vanish in float32: keep the times in float64 until an origin "
            "is subtracted (the library does)."
        )
    if data.intake.near_duplicates:
        notes.append(f"{data.intake.near_duplicates} near-duplicate times: only rounding tells them apart.")
    return tuple(notes)


def _triple(numbers: tuple[float | int, ...]) -> str:
    return " / ".join(f"{number:.4g}" if isinstance(number, float) else str(number) for number in numbers)


def _intake(intake: Intake) -> str:
    told = [
        (intake.empty_rows, "rows without any observation dropped"),
        (intake.empty_series, "series without any observation dropped"),
        (intake.unsorted, "series sorted"),
        (intake.duplicates, "duplicate observations merged"),
        (intake.near_duplicates, "near-duplicate times kept"),
    ]
    done = "; ".join(f"{count} {what}" for count, what in told if count)
    return f"{intake.rows} rows read; {done or 'nothing dropped, sorted or merged'}"


def _table(channels: tuple[ChannelSummary, ...]) -> str:
    head = ("channel", "unit", "kind", "observed", "density", "series", "mean", "std", "min", "max")
    rows: list[tuple[str, ...]] = [head]
    for one in channels:
        numbers = (f"{value:.4g}" for value in (one.mean, one.std, one.min, one.max))
        density = f"{100 * one.density:.3g} %"
        name = (one.channel.name, one.channel.unit or "", one.channel.kind)
        rows.append((*name, str(one.observations), density, str(one.series), *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
