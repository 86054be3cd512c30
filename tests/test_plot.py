import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ctdyn._checks import DataError
from ctdyn.data import Channel, Series, SeriesSet, TimeAxis
from ctdyn.metrics import interval, score_entries
from ctdyn.plot import plot_calibration, plot_forecast


@dataclass(frozen=True)
class Given:
    context: SeriesSet
    times: tuple[np.ndarray, ...]
    samples: tuple[np.ndarray, ...]

    @property
    def ids(self) -> tuple[Any, ...]:
        return self.context.ids

    @property
    def channels(self) -> tuple[Channel, ...]:
        return self.context.channels


def made(num_series=2, axis=None, noise=False, num_queries=20):
    rng = np.random.default_rng(0)
    channels, axis = (Channel("co2", unit="ppm"), Channel("temp")), axis or TimeAxis("year")
    contexts, truths, times, samples = [], [], [], []
    for id in range(num_series):
        past, future = np.sort(rng.uniform(0, 5, 30)), rng.permuted(np.linspace(5, 8, num_queries))
        values = np.where(rng.random((30, 2)) < 0.7, rng.normal(size=(30, 2)), np.nan)
        contexts.append(Series(f"s{id}", past, values, noise=np.full((30, 2), 0.2) if noise else None))
        truths.append(Series(f"s{id}", np.sort(future), rng.normal(size=(num_queries, 2))))
        times.append(future)
        samples.append(rng.normal(size=(100, num_queries, 2)) * np.sqrt(future - 4)[:, None])
    context, truth = (SeriesSet(tuple(part), channels, axis) for part in (contexts, truths))
    return Given(context, tuple(times), tuple(samples)), truth


def drawn(figure):
    figure.canvas.draw()
    return figure


def test_fan_shows_what_it_says():
    forecast, truth = made()
    figure = drawn(plot_forecast(forecast, truth))
    assert isinstance(figure, Figure)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["s0 · co2", "s0 · temp", "s1 · co2", "s1 · temp"]
    assert figure.axes[0].get_ylabel() == "ppm"
    assert figure.axes[0].get_xlabel() == "time (year)"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["90% interval", "80% interval", "50% interval", "median", "truth", "observed"]


def test_median_is_drawn_in_order_of_time_and_bands_are_the_intervals():
    forecast, _ = made(num_series=1)
    ax = drawn(plot_forecast(forecast, channels=["co2"])).axes[0]
    median = next(line for line in ax.lines if line.get_label() == "median")
    order = np.argsort(forecast.times[0])
    np.testing.assert_allclose(median.get_xdata(), forecast.times[0][order])
    np.testing.assert_allclose(median.get_ydata(), np.median(forecast.samples[0][:, order, 0], axis=0), atol=1e-9)
    widest = next(band for band in ax.collections if band.get_label() == "90% interval")
    lower, upper = interval(forecast.samples[0][..., 0], 0.9)
    heights = widest.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(lower.min())
    assert heights.max() == pytest.approx(upper.max())


def test_panels_are_limited_and_chosen():
    forecast, truth = made(num_series=10)
    figure = drawn(plot_forecast(forecast, truth, max_panels=5))
    assert len(figure.axes) == 5
    assert "15 more" in figure.get_supxlabel()
    chosen = plot_forecast(forecast, ids=["s7"], channels=["temp"])
    assert [ax.get_title(loc="left") for ax in chosen.axes] == ["s7 · temp"]
    with pytest.raises(DataError, match="no series 'x'"):
        plot_forecast(forecast, ids=["x"])
    with pytest.raises(DataError, match="no channel 'x'"):
        plot_forecast(forecast, channels=["x"])


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_datetimes_are_drawn_on_the_users_clock(zone):
    axis = TimeAxis("day", origin="2020-01-01", zone=zone)
    forecast, truth = made(axis=axis)
    ax = drawn(plot_forecast(forecast, truth)).axes[0]
    median = next(line for line in ax.lines if line.get_label() == "median")
    first = pd.Timestamp("2020-01-06") if zone is None else pd.Timestamp("2020-01-06 01:00")
    assert pd.Timestamp(median.get_xdata()[0]) == first


def test_a_truth_that_was_read_by_itself_is_drawn_where_it_happened():
    forecast, truth = made(axis=TimeAxis("day", origin="2020-01-01"))
    shifted = tuple(replace(one, times=(one.times - 5.0) * 24.0) for one in truth)
    alone = replace(truth, series=shifted, axis=TimeAxis("hour", origin="2020-01-06"))
    figures = [drawn(plot_forecast(forecast, one)) for one in (truth, alone)]
    lines = [next(line for line in one.axes[0].lines if line.get_label() == "truth") for one in figures]
    apart = lines[0].get_xdata().astype("datetime64[us]") - lines[1].get_xdata().astype("datetime64[us]")
    assert abs(apart).max() <= np.timedelta64(1, "us")


def test_what_cannot_be_drawn_is_said():
    forecast, truth = made()
    with pytest.raises(DataError, match="the truth has no channel 'temp'"):
        plot_forecast(forecast, replace(truth, channels=(Channel("co2"), Channel("other"))))
    with pytest.raises(DataError, match="nothing to draw"):
        plot_forecast(forecast, ids=[])


def test_few_points_noise_and_empty_series_are_drawn():
    forecast, truth = made(noise=True, num_queries=1)
    drawn(plot_forecast(forecast, truth))
    empty = SeriesSet((Series("s0", np.zeros(0), np.zeros((0, 2))),), forecast.channels)
    drawn(plot_forecast(Given(empty, forecast.times[:1], forecast.samples[:1])))


def test_calibration_of_a_good_forecast():
    forecast, truth = made(num_series=6)
    entries = score_entries(forecast, truth)
    figure = drawn(plot_calibration(entries))
    assert len(figure.axes) == 3
    covered = figure.axes[1].lines[1]
    assert np.abs(np.asarray(covered.get_ydata()) - np.asarray(covered.get_xdata())).max() < 0.5


def test_a_notebook_gets_a_picture():
    forecast, _ = made(num_series=1)
    assert plot_forecast(forecast)._repr_png_().startswith(b"\x89PNG")


def test_pyplot_is_left_alone():
    code = "import sys, ctdyn.plot; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
