"""A forecast against the truth: the scores of every entry, and every metric as one tidy frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .._checks import DataError, few
from ..data import Channel, Series, SeriesSet
from ..data.channels import CONTINUOUS, check_unit
from ..data.series_set import on_axis
from .averages import average_per_channel, average_per_series_and_channel, average_pooled
from .scores import crps, distance_to_nearest, interval, interval_score, pit, worst_coverage


__all__ = ["Forecasted", "evaluate", "score_entries", "summarize"]

#: The levels of the central intervals that every table shows.
LEVELS = (0.5, 0.8, 0.9)

#: Samples that are scored at a time (80 MB), and the columns of entries that are not for users.
_BLOCK = 10_000_000
_INTERNAL = ("series", "row", "column", "time", "mean", "log_density")

Array = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]
Row = tuple[str, float, str, str, str, float, int]


@runtime_checkable
class Forecasted(Protocol):
    """What a forecast must offer to be scored: who, where, when, the samples, and what it was conditioned on.

    `times` holds one `(time,)` array per series on the float clock of `context`, `samples` one
    `(sample, time, channel)` array per series in data units, `context` the observations conditioned on.

    Example:
        >>> from types import SimpleNamespace
        >>> isinstance(SimpleNamespace(ids=[], channels=[], times=[], samples=[], context=None), Forecasted)
        True
    """

    @property
    def ids(self) -> Sequence[Any]:
        """The ids of the series."""
        ...

    @property
    def channels(self) -> Sequence[Channel]:
        """The channels, in the order of the last axis of the samples."""
        ...

    @property
    def times(self) -> Sequence[Array]:
        """Query times of each series."""
        ...

    @property
    def samples(self) -> Sequence[Array]:
        """Samples of each series."""
        ...

    @property
    def context(self) -> SeriesSet:
        """The observations conditioned on."""
        ...


def score_entries(
    forecast: Forecasted,
    truth: SeriesSet,
    *,
    log_density: Sequence[Array] | None = None,
    means: Sequence[Array] | None = None,
    scale: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """The scores of every observed entry, one row each: what `evaluate` averages, for your own breakdowns.

    Args:
        forecast: what to score.
        truth: the observations; entries at times that were not forecast are ignored. Datetimes may have been read with
            another unit and origin than those of the forecast.
        log_density: log predictive density of the truth in data units, one `(time, channel)` array per series of the
            forecast; None leaves the NLL out. Samples alone do not give one.
        means: the exact mean of each forecast where it is known, one `(time, channel)` array per series; None
            averages the samples, which adds a share of 1 / samples of the predictive variance to the squared error.
        scale: divide the errors of each channel by this number (usually its standard deviation in the training data),
            so that channels of different units can be averaged; None keeps data units.

    Returns:
        A frame with columns id, time, channel, kind, distance (to the nearest context observation of the channel),
        truth, squared_error (of the mean), absolute_error (of the median), crps, pit, nll where known, and for each
        level of .5, .8 and .9 covered and interval_score.

    Raises:
        DataError: a forecast series is not in the truth, a channel is missing from it or in another unit, its clock
            is of another sort, or no entry is left to score.

    Example:
        >>> from ctdyn import Forecaster
        >>> from ctdyn.data import from_ragged
        >>> from ctdyn.models import OwnMean
        >>> series = from_ragged([([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 2.0, 2.5])] * 4, channels=["x"])
        >>> forecaster = Forecaster(OwnMean(series.channels)).fit(series)
        >>> forecast = forecaster.forecast(series.before(2.5), at=[3.0])
        >>> entries = score_entries(forecast, series, means=forecast.means)
        >>> entries["distance"].tolist(), entries["squared_error"].round(6).tolist()
        ([1.0, 1.0, 1.0, 1.0], [0.25, 0.25, 0.25, 0.25])
    """
    names = [channel.name for channel in forecast.channels]
    factors, truth = _factors(names, scale), on_axis(truth, forecast.context.axis)
    columns = _columns(forecast.channels, truth, "truth")
    context_columns = _columns(forecast.channels, forecast.context, "context")
    truths, contexts = ({one.id: one for one in part} for part in (truth, forecast.context))
    unknown = [id for id in forecast.ids if id not in truths]
    if unknown:
        raise DataError(f"the truth has no series {few(unknown)}; pass the set that the forecast was asked for.")
    blocks, pending = [], []
    for index, id in enumerate(forecast.ids):
        part = _entries(forecast, index, (truths[id], columns), (contexts[id], context_columns))
        for name, given in (("mean", means), ("log_density", log_density)):
            if given is not None:
                part[name] = np.asarray(given[index], dtype=np.float64)[part["row"], part["column"]]
        samples = np.asarray(forecast.samples[index])[:, part["row"], part["column"]].astype(np.float64)
        pending.append((part | {"mean": part.get("mean", samples.mean(0))}, samples))
        # Blocks keep the memory flat, whatever the number of series and samples.
        if sum(held.size for _, held in pending) > _BLOCK:
            blocks.append(_scored(pending, factors))
            pending = []
    if any(held.size for _, held in pending):
        blocks.append(_scored(pending, factors))
    entries = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]} if blocks else {}
    if not entries:
        raise DataError(
            "the truth holds no observation at any forecast time, so there is nothing to score; forecast at the times "
            "of the truth (at=truth)."
        )
    numbers, names_of = entries["column"], np.asarray(names, dtype=object)
    frame = {
        "id": pd.Index(forecast.ids, dtype=object).take(entries["series"]),
        "time": entries["time"],
        "channel": names_of[numbers],
        "kind": np.asarray([channel.kind for channel in forecast.channels], dtype=object)[numbers],
    }
    return pd.DataFrame(frame | {name: value for name, value in entries.items() if name not in _INTERNAL})


def evaluate(
    forecast: Forecasted,
    truth: SeriesSet,
    *,
    by_distance: int | Sequence[float] | None = None,
    log_density: Sequence[Array] | None = None,
    means: Sequence[Array] | None = None,
    scale: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Every metric of a forecast as one tidy frame.

    Pooled over all entries: mse (of the mean), mae (of the median), nll (nats per observation), crps, pit_mean (0.5 if
    unbiased), pit_distance (Kolmogorov's distance of the PIT from uniform, 0 if calibrated), and at each level of .5,
    .8 and .9 interval_score and coverage. mse and mae also by the two other protocols of this literature, "per series
    and channel" and "per channel"; coverage also for the "worst channel" among those with at least 50 entries that are
    not all the same. Rows with protocol "channel" give one channel each.
    Binary, categorical, count and nonnegative channels count in mse, mae, nll and crps alone: where single values have
    probabilities, an interval covers more than its level however good the forecast is, and the rest is NaN.

    Args:
        forecast: what to score.
        truth: the observations; entries at times that were not forecast are ignored. Datetimes may have been read with
            another unit and origin than those of the forecast.
        by_distance: also break the scores down by the distance to the nearest context observation of the channel, in
            this many quantile bins or between these edges. Entries of channels without context are "unobserved".
        log_density: as for `score_entries`.
        means: as for `score_entries`.
        scale: as for `score_entries`.

    Returns:
        A frame with columns metric, level, protocol, channel ("all" or a name), distance ("all" or a bin), value and
        count (of entries).

    Raises:
        DataError: see `score_entries`.
        ValueError: `by_distance` gives fewer than two edges, or a number of bins below one.

    Example:
        >>> from ctdyn import Forecaster
        >>> from ctdyn.data import from_ragged
        >>> from ctdyn.models import OwnMean
        >>> series = from_ragged([([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 2.0, 2.5])] * 4, channels=["x"])
        >>> forecaster = Forecaster(OwnMean(series.channels)).fit(series)
        >>> forecast = forecaster.forecast(series.before(2.5), at=[3.0])
        >>> table = evaluate(forecast, series, means=forecast.means)
        >>> table.loc[table["metric"] == "mse", "value"].round(6).tolist()  # pooled, and by the other protocols
        [0.25, 0.25, 0.25, 0.25]
    """
    entries = score_entries(forecast, truth, log_density=log_density, means=means, scale=scale)
    columns = {str(name): np.asarray(entries[name]) for name in entries.columns}
    rows = _summary_rows(columns, "all")
    for channel in forecast.channels:
        rows += _channel_rows(_select(columns, columns["channel"] == channel.name), channel.name)
    if by_distance is not None:
        labels, codes = _distance_bins(columns["distance"], by_distance)
        for code, label in enumerate(labels):
            if np.any(codes == code):
                rows += _summary_rows(_select(columns, codes == code), label)
    return pd.DataFrame(rows, columns=["metric", "level", "protocol", "channel", "distance", "value", "count"])


def summarize(table: pd.DataFrame) -> dict[str, float]:
    """The overall figures of an `evaluate` table as one row of a comparison.

    Args:
        table: what `evaluate` returned.

    Returns:
        Value by column name, for example "mse", "mse per channel", "crps", "coverage 0.9", "worst coverage 0.9".

    Example:
        >>> from ctdyn import Forecaster
        >>> from ctdyn.data import from_ragged
        >>> from ctdyn.models import OwnMean
        >>> series = from_ragged([([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 2.0, 2.5])] * 4, channels=["x"])
        >>> forecaster = Forecaster(OwnMean(series.channels)).fit(series)
        >>> forecast = forecaster.forecast(series.before(2.5), at=[3.0])
        >>> round(summarize(evaluate(forecast, series, means=forecast.means))["mse"], 6)
        0.25
    """
    columns = {name: np.asarray(table[name]) for name in ("metric", "level", "protocol", "distance", "value")}
    overall = _select(columns, (columns["distance"] == "all") & (columns["protocol"] != "channel"))
    row = {}
    for metric, level, protocol, _, value in zip(*overall.values(), strict=True):
        name = metric if np.isnan(level) else f"{metric} {level:g}"
        if protocol == "worst channel":
            name = f"worst {name}"
        elif protocol != "pooled":
            name = f"{name} {protocol}"
        row[name] = float(value)
    return row


def _factors(names: Sequence[str], scale: Mapping[str, float] | None) -> Array:
    if scale is None:
        return np.ones(len(names))
    missing = [name for name in names if name not in scale]
    if missing:
        raise ValueError(f"scale has no entry for channel {few(missing)}; give one number per channel.")
    factors = np.asarray([scale[name] for name in names], dtype=np.float64)
    if not np.all(np.isfinite(factors) & (factors > 0)):
        raise ValueError(f"the scale of a channel must be positive and finite; got {dict(scale)!r}.")
    return factors


def _columns(channels: Sequence[Channel], series: SeriesSet, what: str) -> list[int]:
    known = {channel.name: place for place, channel in enumerate(series.channels)}
    missing = [channel.name for channel in channels if channel.name not in known]
    if missing:
        raise DataError(f"the {what} has no channel {few(missing)}; it has {few(known)}.")
    places = [known[channel.name] for channel in channels]
    for place, channel in zip(places, channels, strict=True):
        check_unit(series.channels[place], channel, what)
    return places


def _match(times: Array, truth: Series, columns: list[int]) -> tuple[NDArray[np.int64], Array]:
    """Rows of the forecast that have a truth, and the values there (NaN where not observed)."""
    if not truth.times.size:
        return np.empty(0, dtype=np.int64), np.empty((0, len(columns)))
    own = np.asarray(truth.values, dtype=np.float64)[:, columns]
    # Times that travelled through a unit change come back with the last bits different.
    tolerance = 1e-12 * np.maximum(np.abs(times), np.ptp(truth.times))
    if times.shape == truth.times.shape and bool((np.abs(truth.times - times) <= tolerance).all()):
        # Several rows may share a time: a value, and means over intervals that end there.
        return np.arange(times.size), own
    after = np.minimum(np.searchsorted(truth.times, times), truth.times.size - 1)
    before = np.maximum(after - 1, 0)
    place = np.where(np.abs(truth.times[before] - times) < np.abs(truth.times[after] - times), before, after)
    rows = np.flatnonzero(np.abs(truth.times[place] - times) <= tolerance)
    return rows, own[place[rows]]


def _distances(times: Array, context: Series, columns: list[int]) -> Array:
    known = ~np.isnan(context.values)
    return np.stack([distance_to_nearest(times, context.times[known[:, c]]) for c in columns], axis=1)


def _entries(
    forecast: Forecasted, index: int, truth: tuple[Series, list[int]], context: tuple[Series, list[int]]
) -> Columns:
    """Where the truth of one series was observed; each series comes with the columns of the channels."""
    times = np.asarray(forecast.times[index], dtype=np.float64)
    rows, observed = _match(times, *truth)
    i, j = np.nonzero(~np.isnan(observed))
    return {
        "series": np.full(i.size, index),
        "row": rows[i],
        "column": j,
        "time": times[rows[i]],
        "distance": _distances(times[rows], *context)[i, j],
        "truth": observed[i, j],
    }


def _scored(parts: list[tuple[Columns, Array]], factors: Array) -> Columns:
    """The entries of some series, joined, with their scores."""
    entries = {key: np.concatenate([part[key] for part, _ in parts]) for key in parts[0][0]}
    factor = factors[entries["column"]]
    samples, truth = np.concatenate([samples for _, samples in parts], axis=1) / factor, entries["truth"] / factor
    scores = {
        "squared_error": np.square(entries["mean"] / factor - truth),
        "absolute_error": np.abs(np.median(samples, axis=0) - truth),
        "crps": crps(samples, truth),
        "pit": pit(samples, truth),
    }
    if "log_density" in entries:
        scores["nll"] = -entries["log_density"] - np.log(factor)
    for level in LEVELS:
        lower, upper = interval(samples, level)
        scores[f"covered {level:g}"] = ((lower <= truth) & (truth <= upper)).astype(np.float64)
        scores[f"interval_score {level:g}"] = interval_score(samples, truth, level)
    return entries | scores


def _select(columns: Columns, where: NDArray[np.bool_]) -> Columns:
    return {name: column[where] for name, column in columns.items()}


def _summary_rows(entries: Columns, distance: str) -> list[Row]:
    channel, rows = entries["channel"], []
    # Ids may be of any type, mixed ones included, which numpy cannot sort.
    codes: dict[Any, int] = {}
    series = np.asarray([codes.setdefault(id, len(codes)) for id in entries["id"].tolist()])
    for metric, column in (("mse", "squared_error"), ("mae", "absolute_error")):
        errors = entries[column]
        averages = {
            "pooled": average_pooled(errors),
            "per series and channel": average_per_series_and_channel(errors, series, channel),
            "per channel": average_per_channel(errors, channel),
        }
        rows += [(metric, np.nan, name, "all", distance, value, errors.size) for name, value in averages.items()]
    rows += _proper_rows(entries, "pooled", "all", distance)
    real = _varying(_select(entries, np.isin(entries["kind"], CONTINUOUS)))
    for level in LEVELS:
        value, name = worst_coverage(real[f"covered {level:g}"], real["channel"], level)
        count = int(np.sum(real["channel"] == name))
        rows.append(("coverage", level, "worst channel", name or "all", distance, value, count))
    return rows


def _varying(entries: Columns) -> Columns:
    """The entries of channels whose truth varies: intervals of a constant one cover all of it or nothing."""
    channel, truth = entries["channel"], entries["truth"]
    constant = [name for name in set(channel.tolist()) if np.ptp(truth[channel == name]) == 0]
    return _select(entries, ~np.isin(channel, constant))


def _channel_rows(entries: Columns, name: str) -> list[Row]:
    errors = {"mse": entries["squared_error"], "mae": entries["absolute_error"]}
    rows = [
        (metric, np.nan, "channel", name, "all", average_pooled(error), error.size) for metric, error in errors.items()
    ]
    return rows + _proper_rows(entries, "channel", name, "all")


def _proper_rows(entries: Columns, protocol: str, channel: str, distance: str) -> list[Row]:
    key, count = (protocol, channel, distance), entries["crps"].size
    rows: list[Row] = [
        (metric, np.nan, *key, average_pooled(entries[metric]), count)
        for metric in ("nll", "crps")
        if metric in entries
    ]
    real = _select(entries, np.isin(entries["kind"], CONTINUOUS))
    count = real["pit"].size
    for level in LEVELS:
        rows += [
            ("coverage", level, *key, average_pooled(real[f"covered {level:g}"]), count),
            ("interval_score", level, *key, average_pooled(real[f"interval_score {level:g}"]), count),
        ]
    rows.append(("pit_mean", np.nan, *key, average_pooled(real["pit"]), count))
    rows.append(("pit_distance", np.nan, *key, _distance_from_uniform(real["pit"]), count))
    return rows


def _distance_from_uniform(transformed: Array) -> float:
    if not transformed.size:
        return float("nan")
    ordered, steps = np.sort(transformed), np.arange(transformed.size + 1) / transformed.size
    return float(max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1])))


def _distance_bins(distance: Array, bins: int | Sequence[float]) -> tuple[list[str], NDArray[np.int64]]:
    """The labels of the bins, and which of them each entry falls into (-1: none)."""
    finite = distance[np.isfinite(distance)]
    if isinstance(bins, int | np.integer):
        if bins < 1:
            raise ValueError(f"by_distance needs at least one bin; got {bins}.")
        inner = np.quantile(finite, np.arange(1, bins) / bins) if finite.size else np.empty(0)
        edges = np.unique(np.concatenate([[0.0], inner, [np.inf]]))
    else:
        edges = np.asarray(bins, dtype=np.float64)
        if edges.size < 2 or np.any(np.diff(edges) <= 0):
            raise ValueError(f"by_distance needs at least two increasing edges; got {list(bins)!r}.")
    labels = [f"[{low:.4g}, {high:.4g})" for low, high in pairwise(edges.tolist())]
    if len(set(labels)) < len(labels):
        labels = [f"[{low!r}, {high!r})" for low, high in pairwise(edges.tolist())]
    codes = np.searchsorted(edges, distance, side="right") - 1
    codes[(codes < 0) | (codes >= len(labels))] = -1
    codes[np.isinf(distance)] = len(labels)
    return [*labels, "unobserved"], codes
