from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ctdyn._checks import DataError
from ctdyn.data import Channel, Series, SeriesSet, TimeAxis
from ctdyn.metrics import crps, evaluate, score_entries, summarize


CHANNELS = (Channel("hr"), Channel("dead", kind="binary"))


@dataclass(frozen=True)
class Given:
    """A forecast made by hand."""

    context: SeriesSet
    times: tuple[np.ndarray, ...]
    samples: tuple[np.ndarray, ...]

    @property
    def ids(self) -> tuple[Any, ...]:
        return self.context.ids

    @property
    def channels(self) -> tuple[Channel, ...]:
        return self.context.channels


def one_series(times, values, context_times=(0.0,), channels=("x",), samples=None):
    """One series, a forecast at all of its times and the truth."""
    values = np.asarray(values, dtype=np.float64).reshape(len(times), -1)
    known = np.zeros((len(context_times), values.shape[1]))
    kinds = tuple(Channel(name) for name in channels)
    context = SeriesSet((Series("a", np.asarray(context_times, dtype=np.float64), known),), kinds)
    truth = SeriesSet((Series("a", np.asarray(times, dtype=np.float64), values),), kinds)
    return Given(context, (truth[0].times,), (samples,)), truth


def gaussian(num_series=40, num_times=25, scale=1.0, seed=0):
    """A calibrated forecast of two channels, half of the entries observed, with its exact log density."""
    rng = np.random.default_rng(seed)
    channels = (Channel("a"), Channel("b"))
    contexts, truths, samples, densities = [], [], [], []
    for id in range(num_series):
        times = np.sort(rng.uniform(1.0, 5.0, num_times))
        values = np.where(rng.random((num_times, 2)) < 0.5, rng.normal(size=(num_times, 2)), np.nan)
        contexts.append(Series(id, np.array([0.0, 0.5]), np.array([[1.0, np.nan], [np.nan, np.nan]])))
        truths.append(Series(id, times, values))
        samples.append(rng.normal(scale=scale, size=(200, num_times, 2)))
        densities.append(stats.norm.logpdf(values, scale=scale))
    forecast = Given(SeriesSet(tuple(contexts), channels), tuple(one.times for one in truths), tuple(samples))
    return forecast, SeriesSet(tuple(truths), channels), densities


def value(table, metric, level=None, protocol="pooled", channel="all", distance="all"):
    rows = table[
        (table.metric == metric)
        & (table.protocol == protocol)
        & (table.channel == channel)
        & (table.distance == distance)
        & (table.level.isna() if level is None else table.level == level)
    ]
    assert len(rows) == 1
    return rows["value"].iloc[0]


def test_a_calibrated_gaussian_has_the_figures_of_theory():
    forecast, truth, densities = gaussian()
    table = evaluate(forecast, truth, log_density=densities, means=[np.zeros((25, 2))] * 40)
    assert value(table, "mse") == pytest.approx(1.0, abs=0.15)
    assert value(table, "mae") == pytest.approx(np.sqrt(2 / np.pi), abs=0.06)
    assert value(table, "crps") == pytest.approx(1 / np.sqrt(np.pi), abs=0.05)
    assert value(table, "nll") == pytest.approx(0.5 * np.log(2 * np.pi * np.e), abs=0.08)
    for level in (0.5, 0.8, 0.9):
        assert value(table, "coverage", level) == pytest.approx(level, abs=0.05)
    assert value(table, "pit_mean") == pytest.approx(0.5, abs=0.03)
    assert value(table, "pit_distance") < 0.05


def test_an_overconfident_forecast_is_found_out():
    forecast, truth, _ = gaussian(scale=0.4)
    table = evaluate(forecast, truth)
    assert value(table, "coverage", 0.9) < 0.6
    assert value(table, "pit_distance") > 0.1
    assert "nll" not in set(table.metric)


def test_only_observed_entries_at_forecast_times_count():
    samples = np.zeros((3, 3, 2)) + np.array([-1.0, 0.0, 1.0])[:, None, None]
    forecast, _ = one_series([1.0, 2.0, 3.0], np.zeros((3, 2)), channels=("x", "y"), samples=samples)
    values = np.array([[3.0, np.nan], [np.nan, 2.0], [7.0, 7.0]])
    truth = SeriesSet((Series("a", np.array([1.0, 2.5, 3.0]), values),), forecast.channels)
    entries = score_entries(forecast, truth)
    assert entries[["time", "channel", "truth"]].to_numpy().tolist() == [
        [1.0, "x", 3.0],
        [3.0, "x", 7.0],
        [3.0, "y", 7.0],
    ]
    assert entries["squared_error"].tolist() == [9.0, 49.0, 49.0]
    np.testing.assert_allclose(entries["crps"], crps(samples[:, :, 0], np.array([3.0, 7.0, 7.0])))


def test_three_protocols_by_hand():
    context = SeriesSet(tuple(Series(id, np.zeros(1), np.zeros((1, 2))) for id in "ab"), (Channel("x"), Channel("y")))
    times = (np.array([1.0, 2.0]), np.array([1.0]))
    truths = (np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([[np.nan, 4.0]]))
    truth = replace(context, series=tuple(Series(i, t, x) for i, t, x in zip("ab", times, truths, strict=True)))
    table = evaluate(Given(context, times, tuple(np.zeros((2, len(t), 2)) for t in times)), truth)
    assert value(table, "mse") == pytest.approx((1 + 9 + 4 + 16) / 4)
    assert value(table, "mse", protocol="per series and channel") == pytest.approx((5 + 4 + 16) / 3)
    assert value(table, "mse", protocol="per channel") == pytest.approx((5 + 10) / 2)
    assert value(table, "mae", protocol="channel", channel="y") == pytest.approx(3.0)


def test_distance_is_to_the_channels_own_observations():
    forecast, truth, _ = gaussian(num_series=2)
    entries = score_entries(forecast, truth)
    a, b = entries[entries.channel == "a"], entries[entries.channel == "b"]
    np.testing.assert_allclose(a["distance"], a["time"])
    assert np.isinf(b["distance"]).all()


def test_breakdown_by_distance_partitions_the_entries():
    forecast, truth, _ = gaussian()
    table = evaluate(forecast, truth, by_distance=3)
    bins = table[(table.metric == "crps") & (table.protocol == "pooled") & (table.distance != "all")]
    total = table[(table.metric == "crps") & (table.protocol == "pooled") & (table.distance == "all")]
    assert len(bins) == 4
    assert bins["distance"].iloc[-1] == "unobserved"
    assert bins["count"].sum() == total["count"].iloc[0]
    assert (bins["value"] * bins["count"]).sum() / bins["count"].sum() == pytest.approx(total["value"].iloc[0])
    given = evaluate(forecast, truth, by_distance=[1.0, 3.0])
    assert set(given["distance"]) == {"all", "[1, 3)", "unobserved"}


@pytest.mark.parametrize("bins", [0, [1.0], [2.0, 1.0]])
def test_bad_bins_are_refused(bins):
    forecast, truth, _ = gaussian(num_series=2)
    with pytest.raises(ValueError, match="by_distance"):
        evaluate(forecast, truth, by_distance=bins)


def test_scale_makes_channels_comparable():
    forecast, truth, densities = gaussian()
    factor = np.array([1.0, 1000.0])
    big = replace(forecast, samples=tuple(samples * factor for samples in forecast.samples))
    large = replace(truth, series=tuple(replace(one, values=one.values * factor) for one in truth))
    shifted = [density - np.log(factor) for density in densities]
    expected = evaluate(forecast, truth, log_density=densities)
    actual = evaluate(big, large, log_density=shifted, scale={"a": 1.0, "b": 1000.0})
    np.testing.assert_allclose(actual["value"], expected["value"], rtol=1e-9)
    assert value(evaluate(big, large), "mse") > 1e4
    with pytest.raises(ValueError, match="'b'"):
        evaluate(forecast, truth, scale={"a": 1.0})
    with pytest.raises(ValueError, match="positive"):
        evaluate(forecast, truth, scale={"a": 1.0, "b": 0.0})


def test_binary_channels_have_no_intervals():
    samples = np.zeros((4, 2, 2))
    context = SeriesSet((Series("a", np.zeros(1), np.zeros((1, 2))),), CHANNELS)
    truth = replace(context, series=(Series("a", np.array([1.0, 2.0]), np.array([[0.0, 1.0], [np.nan, 0.0]])),))
    table = evaluate(Given(context, (truth[0].times,), (samples,)), truth)
    assert value(table, "mse", protocol="channel", channel="dead") == 0.5
    assert np.isnan(value(table, "coverage", 0.9, protocol="channel", channel="dead"))
    assert table[(table.metric == "coverage") & (table.protocol == "pooled")]["count"].tolist() == [1, 1, 1]


def test_worst_channel_is_named():
    forecast, truth, _ = gaussian()
    narrow = replace(forecast, samples=tuple(samples * np.array([1.0, 0.3]) for samples in forecast.samples))
    table = evaluate(narrow, truth)
    assert value(table, "coverage", 0.9, protocol="worst channel", channel="b") < 0.6


def test_truth_channels_are_matched_by_name():
    forecast, truth, _ = gaussian(num_series=3)
    expected = evaluate(forecast, truth)
    other = truth.with_channels([truth.channels[1], truth.channels[0]])
    np.testing.assert_array_equal(evaluate(forecast, other)["value"], expected["value"])


def test_a_truth_that_was_read_by_itself_is_scored_on_the_clock_of_the_forecast():
    # The days 10 to 29 of a record, of which the forecast saw those before; both read with an origin of their own.
    samples = np.random.default_rng(0).normal(size=(20, 20, 1))
    days, values = np.arange(10.0, 30.0), np.arange(20.0)
    forecast, truth = one_series(days, values, samples=samples)
    forecast = replace(forecast, context=replace(forecast.context, axis=TimeAxis("day", "2020-01-01")))
    expected = score_entries(forecast, replace(truth, axis=forecast.context.axis))
    own = Series("a", (days - 10.0) * 24.0, values[:, None])
    found = score_entries(forecast, replace(truth, series=(own,), axis=TimeAxis("hour", "2020-01-11")))
    assert len(found) == 20
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(DataError, match="were expected"):
        score_entries(forecast, truth)


def test_rows_that_share_a_time_are_told_apart_on_another_clock():
    # A value and a mean of the interval that ends with it; a third of a day has no float of its own.
    times, values, samples = np.array([1.0, 1.0, 2.0]) / 3, np.array([1.0, 5.0, 3.0]), np.zeros((3, 3, 1))
    forecast, truth = one_series(times, values, samples=samples)
    forecast = replace(forecast, context=replace(forecast.context, axis=TimeAxis("day", "2020-01-01")))
    own = Series("a", np.array([8.0, 8.0, 16.0]) + 24.0 * 366, values[:, None])
    entries = score_entries(forecast, replace(truth, series=(own,), axis=TimeAxis("hour", "2018-12-31")))
    assert entries["truth"].tolist() == [1.0, 5.0, 3.0]


def test_what_cannot_be_scored_is_said():
    forecast, truth, _ = gaussian(num_series=3)
    with pytest.raises(DataError, match="no series 2"):
        evaluate(forecast, truth[:2])
    with pytest.raises(DataError, match="no channel 'b'"):
        evaluate(forecast, replace(truth, channels=(Channel("a"), Channel("c"))))
    with pytest.raises(DataError, match="nothing to score"):
        evaluate(forecast, truth.after(100.0))
    kelvin, celsius = (
        replace(one, channels=(Channel("a"), Channel("b", unit)))
        for one, unit in ((truth, "K"), (forecast.context, "C"))
    )
    with pytest.raises(DataError, match="'b' of the truth is in K, but C was expected"):
        evaluate(replace(forecast, context=celsius), kelvin)


def test_summary_is_one_row():
    forecast, truth, densities = gaussian()
    table = evaluate(forecast, truth, log_density=densities, by_distance=2)
    row = summarize(table)
    assert row["mse"] == value(table, "mse")
    assert row["mse per channel"] == value(table, "mse", protocol="per channel")
    assert row["coverage 0.9"] == value(table, "coverage", 0.9)
    assert 0.7 < row["worst coverage 0.8"] < 0.9
    assert "nll" in row


def test_blocks_change_nothing(monkeypatch):
    forecast, truth, _ = gaussian()
    expected = score_entries(forecast, truth)
    monkeypatch.setattr("ctdyn.metrics.evaluation._BLOCK", 1)
    assert score_entries(forecast, truth).equals(expected)
