from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

from ctdyn._checks import DataError
from ctdyn.compare import compare
from ctdyn.data import Channel, Extrapolate, Interpolate, Series, SeriesSet
from ctdyn.forecast import Forecaster
from ctdyn.models.baselines import HoldLast, LinearInterpolation, OwnMean


BASELINES = ["hold last", "linear interpolation", "own mean", "Matern GP"]


@pytest.fixture(scope="module", autouse=True)
def _few_sampled_windows():
    # Under pytest every dataclass is checked as it is made, which takes a millisecond; the scaler samples hundreds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctdyn.data.scaling._SAMPLED_WINDOWS", 4)
        # By its name in the package it would be the function, not the module.
        patch.setattr(import_module("ctdyn.compare.models"), "_WINDOWS", 8)
        yield


def walks(num_series, seed=0, channels=("x",), factor=1.0):
    """Random walks of two channels, half of the entries missing."""
    rng = np.random.default_rng(seed)
    series = []
    for id in range(num_series):
        times = np.sort(rng.uniform(0, 10, 40))
        values = np.cumsum(rng.normal(size=(40, len(channels))) * np.sqrt(np.diff(times, prepend=0))[:, None], axis=0)
        values = np.where(rng.random(values.shape) < 0.6, values, np.nan) * factor
        series.append(Series((seed, id), times, values))
    return SeriesSet(tuple(series), tuple(Channel(name) for name in channels))


@pytest.fixture(scope="module")
def table():
    train, test = walks(50), walks(15, seed=1)
    return compare({"mine": HoldLast(train.channels)}, train, test, task=Extrapolate(cut=6.0))


def test_every_baseline_has_a_row_and_every_score_a_column(table):
    assert table.index.tolist() == ["mine", *BASELINES]
    expected = ["mse", "mae", "crps", "nll", "interval_score 0.9", "coverage 0.5", "coverage 0.8", "coverage 0.9"]
    assert table.columns[:8].tolist() == expected
    assert {"mse per channel", "mse per series and channel", "worst coverage 0.9"} < set(table.columns)
    assert not table.drop(columns=[name for name in table if "worst" in name]).isna().to_numpy().any()


def test_the_same_model_has_the_same_scores_under_another_name(table):
    pd.testing.assert_series_equal(table.loc["mine"], table.loc["hold last"], check_names=False)


def test_point_error_is_that_of_numpy(table):
    errors = []
    for one in walks(15, seed=1):
        past, future = one.before(6.0), one.after(6.0)
        known = past.values[~np.isnan(past.values)]
        errors += list((future.values[~np.isnan(future.values)] - known[-1]) ** 2)
    assert table.loc["hold last", "mse"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_wider_intervals_cover_more(table):
    covered = table[[f"coverage {level:g}" for level in (0.5, 0.8, 0.9)]].to_numpy()
    assert (np.diff(covered, axis=1) > 0).all()


def test_walks_are_best_held(table):
    assert table["crps"].idxmin() in ("mine", "hold last", "linear interpolation", "Matern GP")
    assert table.loc["own mean", "crps"] == table["crps"].max()


def test_random_tasks_are_the_same_for_every_model_and_every_call():
    train, test = walks(8), walks(3, seed=1)
    fitted = Forecaster(LinearInterpolation(train.channels), windows=Interpolate(), seed=77).fit(train)
    arguments = {"task": Interpolate(), "seed": 3}
    first = compare({"mine": fitted}, train, test, **arguments)
    # The point does not depend on the seed of the Forecaster, so the same windows give the same error.
    assert first.loc["mine", "mse"] == pytest.approx(first.loc["linear interpolation", "mse"], rel=1e-6)
    pd.testing.assert_frame_equal(first, compare({"mine": fitted}, train, test, **arguments))


def test_a_forecaster_that_is_not_fitted_is_fitted_first():
    train, test = walks(8), walks(3, seed=1)
    forecaster = Forecaster(OwnMean(train.channels), windows=Extrapolate(cut=6.0))
    result = compare({"mine": forecaster}, train, test, task=Extrapolate(cut=6.0))
    assert forecaster.fitted
    assert result.loc["mine", "crps"] == pytest.approx(result.loc["own mean", "crps"], rel=0.05)


def test_several_channels_are_put_on_one_scale():
    scores = [
        compare({}, walks(8, channels="ab", factor=f), walks(3, 1, "ab", f), task=Extrapolate(cut=6.0))
        for f in (np.array([1.0, 1.0]), np.array([1.0, 1000.0]))
    ]
    pd.testing.assert_frame_equal(*scores, rtol=1e-3)
    assert scores[1].attrs["scale"]["b"] == pytest.approx(1000 * scores[0].attrs["scale"]["b"])


def test_few_series_give_residuals_from_many_windows():
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 100, 200))
    values = np.cumsum(rng.normal(size=200) * np.sqrt(np.diff(times, prepend=0)))[:, None]
    whole = SeriesSet((Series("only", times, values),), (Channel("x"),))
    result = compare({}, whole.before(80.0), whole, task=Extrapolate(cut=80.0), windows=Extrapolate(horizon=20.0))
    assert result["coverage 0.9"].between(0.0, 1.0).all()


def test_that_baselines_read_no_inputs_is_understood(recwarn):
    data = walks(4)
    driven = tuple(replace(one, inputs=one.times[:, None]) for one in data)
    data = replace(data, series=driven, input_names=("u",))
    compare({}, data, data, task=Extrapolate(cut=6.0))
    assert not [one for one in recwarn if "does not read" in str(one.message)]


def test_what_cannot_be_compared_is_said():
    train = walks(3)
    with pytest.raises(ValueError, match="name of a baseline"):
        compare({"own mean": OwnMean(train.channels)}, train, train, task=Extrapolate(cut=6.0))
    with pytest.raises(DataError, match="long enough"):
        compare({}, train, train, task=Extrapolate(cut=60.0))
