"""Figures: forecasts as fans, and how far to trust them. Nothing here touches pyplot or its global state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from ._checks import DataError, few
from .data import Series, SeriesSet, TimeAxis
from .data.channels import CONTINUOUS
from .data.series_set import on_axis
from .metrics import Forecasted, average_pooled, interval, quantiles


__all__ = ["plot_calibration", "plot_forecast", "plot_work_precision"]

_BAND, _LINE, _SEEN, _HIDDEN, _GRID = "#2a78b5", "#15507f", "#2b2b2b", "#d1495b", "#e6e6e6"


class _Shown(Figure):
    """A figure that a notebook shows by itself, without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def plot_forecast(
    forecast: Forecasted,
    truth: SeriesSet | None = None,
    *,
    ids: Iterable[Any] | None = None,
    channels: Iterable[str] | None = None,
    levels: Sequence[float] = (0.5, 0.8, 0.9),
    max_panels: int = 12,
) -> Figure:
    """A fan chart: median and central intervals of a forecast, the observations it rests on, and what came true.

    Args:
        forecast: what to draw, one panel per series and channel.
        truth: observations at the forecast times, if known.
        ids: which series; None: as many as fit.
        channels: names of the channels; None: as many as fit, those with observations first.
        levels: probabilities of the bands.
        max_panels: draw no more panels than this; a note below the figure says what was left out.

    Returns:
        A matplotlib figure: `figure.savefig("forecast.png")`, or the last line of a notebook cell.

    Raises:
        DataError: an id or a channel is not in the forecast, or not in the truth, or there is nothing to draw.

    Example:
        >>> from ctdyn import Forecaster
        >>> from ctdyn.data import from_ragged
        >>> from ctdyn.models import OwnMean
        >>> series = from_ragged([([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 2.0, 2.5])] * 4, channels=["x"])
        >>> forecaster = Forecaster(OwnMean(series.channels)).fit(series)
        >>> forecast = forecaster.forecast(series.before(2.5), at=[3.0])
        >>> len(plot_forecast(forecast, truth=series).axes)
        4
    """
    known_ids, known_channels = list(forecast.ids), [channel.name for channel in forecast.channels]
    rows, columns = _positions(ids, known_ids, "series"), _positions(channels, known_channels, "channel")
    pairs = [(row, column) for row in rows for column in columns]
    if not pairs:
        raise DataError("there is nothing to draw: no series or no channel.")
    if truth is not None:
        # Read by itself it has an origin of its own.
        truth = on_axis(truth, forecast.context.axis)
        _positions([known_channels[column] for column in columns], list(truth.channel_names), "channel", "truth")
    if channels is None:
        pairs = [pair for pair in pairs if _has_values(forecast, truth, *pair)] or pairs
    shown = pairs[: max(1, max_panels)]
    figure, axes = _panels(len(shown))
    for ax, (row, column) in zip(axes, shown, strict=True):
        _draw_panel(ax, forecast, truth, row, column, sorted(levels, reverse=True))
    handles: dict[str, Any] = {}
    for ax in axes:
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=6, frameon=False)
    if len(shown) < len(pairs):
        figure.supxlabel(f"{len(pairs) - len(shown)} more panels not shown", fontsize=8, color="0.4")
    return figure


def plot_calibration(entries: pd.DataFrame, *, num_bins: int = 8) -> Figure:
    """How far to trust the intervals: PIT histogram, coverage against level, and coverage against the gap.

    Args:
        entries: what `ctdyn.metrics.score_entries` returned.
        num_bins: bins of the distance to the nearest observation.

    Returns:
        A matplotlib figure of three panels; a calibrated forecast is flat, on the diagonal, and flat again.

    Example:
        >>> from ctdyn.metrics import score_entries
        >>> from ctdyn import Forecaster
        >>> from ctdyn.data import from_ragged
        >>> from ctdyn.models import OwnMean
        >>> series = from_ragged([([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 2.0, 2.5])] * 4, channels=["x"])
        >>> forecaster = Forecaster(OwnMean(series.channels)).fit(series)
        >>> forecast = forecaster.forecast(series.before(2.5), at=[3.0])
        >>> len(plot_calibration(score_entries(forecast, series)).axes)
        3
    """
    real = np.isin(entries["kind"], CONTINUOUS)
    pit, distance = np.asarray(entries["pit"])[real], np.asarray(entries["distance"])[real]
    figure = _Shown(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.hist(pit, bins=10, range=(0, 1), weights=np.full(pit.size, 1 / max(pit.size, 1)), color=_BAND, alpha=0.75)
    left.axhline(0.1, color=_SEEN, lw=1, ls="--")
    left.set(title="PIT: flat is calibrated", xlabel="place of the truth in its forecast", ylabel="share", xlim=(0, 1))
    levels = np.linspace(0.02, 0.98, 49)
    middle.plot([0, 1], [0, 1], color=_SEEN, lw=1, ls="--")
    middle.plot(levels, [average_pooled(np.abs(2 * pit - 1) <= level) for level in levels], color=_LINE, lw=2)
    middle.set(title="coverage of central intervals", xlabel="level", ylabel="coverage", xlim=(0, 1), ylim=(0, 1))
    finite = np.isfinite(distance)
    groups = np.array_split(np.argsort(distance[finite], kind="stable"), num_bins)
    for level, shade in ((0.5, 0.35), (0.8, 0.65), (0.9, 1.0)):
        covered = np.asarray(entries[f"covered {level:g}"])[real][finite]
        points = [(distance[finite][group].mean(), covered[group].mean()) for group in groups if group.size]
        right.plot(*zip(*points, strict=True), "o-", color=_LINE, alpha=shade, ms=4, label=f"{level:.0%}")
        right.axhline(level, color=_SEEN, lw=1, ls="--", alpha=shade)
    right.set(title="coverage by gap", xlabel="time to the nearest observation", ylim=(0, 1.02))
    right.legend(frameon=False, loc="lower left", ncols=3)
    for ax in (left, middle, right):
        _clean(ax)
    return figure


def plot_work_precision(table: pd.DataFrame, *, error: str = "max_error") -> Figure:
    """Error against cost, one line per method: the lower left wins, and lines that cross say where.

    Args:
        table: what `ctdyn.compare_solvers` returned.
        error: the column to draw: `max_error`, `rms_error` or `gradient_error`.

    Returns:
        A figure with two panels: the error against the evaluations of the field, and against the time of a solve (with
        its backward pass for `gradient_error`).

    Raises:
        ValueError: the table has no such column.

    Example:
        >>> table = pd.DataFrame(
        ...     {"method": ["Tsit5", "Tsit5"], "max_error": [1e-3, 1e-6], "evaluations": [20, 50], "forward_ms": [1, 2]}
        ... )
        >>> len(plot_work_precision(table).axes)
        2
    """
    cost = "both_ms" if error == "gradient_error" else "forward_ms"
    missing = [name for name in ("method", error, "evaluations", cost) if name not in table.columns]
    if missing:
        raise ValueError(f"the table lacks {few(missing)}; it has {few(list(table.columns))}.")
    figure = _Shown(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for ax, column, label in ((left, "evaluations", "evaluations per series"), (right, cost, "milliseconds")):
        for method, rows in table.groupby("method", sort=False):
            rows = rows.sort_values(column)
            ax.plot(rows[column], rows[error].clip(lower=1e-17), marker="o", markersize=4, linewidth=1.2, label=method)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(label)
        _clean(ax)
    left.set_ylabel(error.replace("_", " "))
    right.legend(frameon=False, fontsize="small")
    return figure


def _positions(wanted: Iterable[Any] | None, known: list[Any], what: str, whose: str = "forecast") -> list[int]:
    if wanted is None:
        return list(range(len(known)))
    listed = [wanted] if isinstance(wanted, str) else list(wanted)
    unknown = [one for one in listed if one not in known]
    if unknown:
        raise DataError(f"the {whose} has no {what} {few(unknown)}; it has {few(known)}.")
    return [known.index(one) for one in listed]


def _column(series_set: SeriesSet, name: str) -> int:
    return [channel.name for channel in series_set.channels].index(name)


def _observations(series_set: SeriesSet, id: object, name: str) -> tuple[Series, np.ndarray, int]:
    """The series, which of its rows have a value, and the column of the channel."""
    series, column = series_set.by_id(id), _column(series_set, name)
    return series, ~np.isnan(series.values[:, column]), column


def _has_values(forecast: Forecasted, truth: SeriesSet | None, row: int, column: int) -> bool:
    id, name = forecast.ids[row], forecast.channels[column].name
    sets = [forecast.context] if truth is None else [forecast.context, truth]
    return any(bool(_observations(one, id, name)[1].any()) for one in sets)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = 1 if count == 1 else 2 if count <= 4 else 3
    rows = ceil(count / columns)
    size = (10.0, 4.6) if count == 1 else (4.6 * columns, 0.7 + 2.6 * rows)
    figure = _Shown(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _draw_panel(
    ax: Axes, forecast: Forecasted, truth: SeriesSet | None, row: int, column: int, levels: Sequence[float]
) -> None:
    axis, channel, id = forecast.context.axis, forecast.channels[column], forecast.ids[row]
    order = np.argsort(forecast.times[row], kind="stable")
    times = _drawable(axis, np.asarray(forecast.times[row])[order])
    samples = np.asarray(forecast.samples[row], dtype=np.float64)[:, order, column]
    marker = "_" if order.size == 1 else None
    for depth, level in enumerate(levels):
        lower, upper = interval(samples, level)
        alpha = 0.16 + 0.30 * depth / max(len(levels) - 1, 1)
        label = f"{level:.0%} interval"
        ax.fill_between(times, lower, upper, color=_BAND, alpha=alpha, lw=0 if marker is None else 6, label=label)
    ax.plot(times, quantiles(samples, 0.5), color=_LINE, lw=1.6, marker=marker, label="median", zorder=3)
    if truth is not None:
        series, known, place = _observations(truth, id, channel.name)
        x, y = _drawable(axis, series.times[known]), series.values[known, place]
        ax.plot(x, y, "o", ms=_marker_size(x.size), mfc="white", mec=_HIDDEN, mew=0.9, label="truth", zorder=5)
    _draw_context(ax, forecast.context, id, channel.name)
    ax.set_title(f"{id} · {channel.name}", fontsize=10, loc="left")
    ax.set_ylabel(channel.unit or "")
    _label_time(ax, axis)
    _clean(ax)


def _draw_context(ax: Axes, context: SeriesSet, id: object, name: str) -> None:
    series, known, place = _observations(context, id, name)
    times, values = _drawable(context.axis, series.times[known]), series.values[known, place]
    if series.noise is not None:
        ax.errorbar(times, values, series.noise[known, place], fmt="none", ecolor=_SEEN, alpha=0.35, lw=0.8, zorder=2)
    ax.plot(times, values, "o", ms=_marker_size(values.size), color=_SEEN, mew=0, label="observed", zorder=4)


def _marker_size(count: int) -> float:
    return float(np.clip(40.0 / np.sqrt(count + 30.0), 1.6, 4.5))


def _drawable(axis: TimeAxis, times: np.ndarray) -> np.ndarray:
    user = axis.to_user(times)
    if isinstance(user, pd.DatetimeIndex):
        return user.tz_localize(None).to_numpy()
    return np.asarray(user)


def _label_time(ax: Axes, axis: TimeAxis) -> None:
    if axis.is_datetime:
        locator = AutoDateLocator(minticks=3, maxticks=8)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        ax.set_xlabel(f"time ({axis.zone})" if axis.zone else "")
    else:
        ax.set_xlabel(f"time ({axis.unit})" if axis.unit else "time")


def _clean(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.6")
    ax.tick_params(colors="0.3", labelsize=9)
    ax.grid(axis="y", color=_GRID, lw=0.8)
    ax.set_axisbelow(True)
