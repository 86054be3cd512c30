"""Answers in the user's units; channels, inputs and covariates by their names; means over intervals."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn._checks import DataError, DataWarning
from ctdyn.cells import GRUODEBayesCell
from ctdyn.data import (
    Channel,
    Extrapolate,
    Reconstruct,
    Series,
    SeriesSet,
    from_pandas,
    from_ragged,
)
from ctdyn.forecast import Forecaster
from ctdyn.integrate import ConstantStep
from ctdyn.metrics import summarize
from ctdyn.models import (
    FilteringModel,
    HoldLast,
    KoopmanVAE,
    LatentODE,
    LinearGaussianSSM,
    MaternGP,
    MaximumLikelihood,
    OwnMean,
)


QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def arrays(forecast):
    return np.concatenate([x.ravel() for x in forecast.samples])


# -- channels and units


def test_permuted_channels_are_put_in_order(fitted, series):
    flipped = series.with_channels(["flow", "pressure"])
    a, b = (fitted.forecast(one, at=[11.0], num_samples=3) for one in (series, flipped))
    assert np.array_equal(arrays(a), arrays(b))
    assert a.mean()["channel"].tolist()[:2] == ["pressure", "flow"]


def test_other_channels_are_refused_by_name(fitted, series):
    renamed = replace(series, channels=(series.channels[0], Channel("volume")))
    with pytest.raises(DataError, match=r"misses channel 'flow'.*unknown channel 'volume'"):
        fitted.forecast(renamed, horizon=1.0)


def test_answers_are_in_the_units_of_the_data(series):
    one_channel = replace(
        series,
        channels=(Channel("x"),),
        series=tuple(replace(one, values=1e6 + 50 * one.values[:, 1:]) for one in series),
    )
    forecaster = Forecaster(OwnMean(one_channel.channels)).fit(one_channel)
    out = forecaster.forecast(one_channel, at=[11.0], num_samples=50)
    own = [np.nanmean(one.values) for one in one_channel]
    np.testing.assert_allclose([float(x[0, 0]) for x in out.means], own, atol=30)
    assert 30 < np.std(arrays(out)) < 300


def test_another_unit_of_time_or_value_gives_the_same_answer_in_that_unit(series, build):
    scaled = replace(
        series, series=tuple(replace(one, times=60 * one.times, values=1000 * one.values) for one in series)
    )
    answers = []
    for data, at in ((series, [11.0]), (scaled, [660.0])):
        forecaster = Forecaster(build(data.channels)).fit(data, max_steps=1, **QUIET)
        answers.append(forecaster.forecast(data, at=at, num_samples=5))
    np.testing.assert_allclose(arrays(answers[1]), 1000 * arrays(answers[0]), rtol=1e-3)


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError)])
def test_a_number_of_samples_that_is_none_is_refused(fitted, series, count, error):
    with pytest.raises(error, match="num_samples must be"):
        fitted.forecast(series, at=[1.0], num_samples=count)
    with pytest.raises(error, match="num_samples must be"):
        fitted.sample([1.0], num_samples=count)


def test_rain_is_often_none_and_its_score_has_a_unit():
    """Zeros come back as zeros; in millimetres the density of an amount is a thousandth of that in metres, and the
    probability of none is the same."""
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 20, 30)) for _ in range(12)]
    metres = [np.where(rng.random(30) < 0.4, rng.lognormal(-7.0, 0.5, 30), 0.0) for _ in times]
    scores = []
    for unit in (1.0, 1000.0):
        rows = [(t, unit * x) for t, x in zip(times, metres, strict=True)]
        data = from_ragged(rows, channels=[Channel("rain", kind="nonnegative")])
        torch.manual_seed(0)
        model = LatentODE(data.channels, latent_size=2, hidden=(4,), encoder_size=4, controller=ConstantStep(0.5))
        forecaster = Forecaster(model, windows=Reconstruct()).fit(data, max_steps=40, lr=5e-2, **QUIET)
        task = Extrapolate(cut=10.0)
        scores.append(forecaster.score(data, task, num_samples=20))
    context, truth = forecaster.cut(data, task)
    drawn = arrays(forecaster.forecast(context, at=truth, num_samples=100))
    assert drawn.min() == 0.0
    assert np.mean(drawn == 0.0) == pytest.approx(0.6, abs=0.1)
    rainy = np.mean(np.concatenate([one.values.ravel() for one in truth]) > 0)
    first, second = (summarize(table)["nll"] for table in scores)
    assert second - first == pytest.approx(rainy * np.log(1000.0), abs=1e-2)


# -- inputs


def test_inputs_may_be_all_that_is_known_ahead(build):
    """A frame of the future has no channels, and its clock starts where it does."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-04-01", periods=30, tz="Europe/Vienna")
    rows = {"id": np.repeat(["a", "b"], 30), "time": [*days, *days], "dose": rng.normal(size=60)}
    frame = pd.DataFrame(rows).assign(x=rng.normal(size=60), y=rng.normal(size=60))
    data = from_pandas(frame, id="id", inputs=["dose"])
    forecaster = Forecaster(build(data.channels, input_size=1)).fit(data, max_steps=2, **QUIET)
    past, future = data.split_time("2024-04-20")
    whole = forecaster.forecast(past, at=future, num_samples=5)
    late = frame[frame["time"] >= "2024-04-20"].drop(columns=["x", "y"])
    alone = from_pandas(late, id="id", inputs=["dose"], time_unit="hour")
    for known in (alone, from_pandas(late, id="id", values=[], inputs=["dose"])):
        assert known.channels == ()
        assert np.allclose(arrays(forecaster.forecast(past, at=known, num_samples=5)), arrays(whole), atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecaster.forecast(past, horizon="10D", inputs=alone, num_samples=1)
    with pytest.warns(
        DataWarning, match=r"series 'a': the inputs 'dose' are known until 2024-04-19 .*until 2024-04-29"
    ):
        forecaster.forecast(past, horizon="10D", num_samples=1)
    with pytest.warns(DataWarning, match=r"known until 2024-04-22 .*\(2 such series\); their last values are held"):
        forecaster.forecast(past, horizon="10D", inputs=alone.before("2024-04-23"), num_samples=1)


def test_inputs_known_ahead_change_the_forecast(build):
    rng = np.random.default_rng(0)
    rows = []
    for name in range(4):
        times = np.sort(rng.uniform(0, 10, 15))
        push = np.sin(times)[:, None]
        rows.append(Series(name, times, rng.normal(size=(15, 1)), inputs=push))
    data = SeriesSet(tuple(rows), (Channel("x"),), input_names=("push",))
    forecaster = Forecaster(build(data.channels, input_size=1)).fit(data, max_steps=2, **QUIET)
    past, future = data.split_time(6.0)
    stronger = replace(future, series=tuple(replace(one, inputs=50 * one.inputs) for one in future))
    known = forecaster.forecast(past, at=future, num_samples=5)
    given = forecaster.forecast(past, at={one.id: one.times for one in future}, inputs=future, num_samples=5)
    other = forecaster.forecast(past, at=future, inputs=stronger, num_samples=5)
    assert np.array_equal(arrays(known), arrays(given))
    assert not np.allclose(arrays(known), arrays(other))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (
            lambda c: KoopmanVAE(c, 1),
            r"KoopmanVAE does not read the inputs 'u' and the static covariates 'age', 'height'",
        ),
        (lambda c: LatentODE(c, 2, (4,), input_size=1), r"static covariates 'age', 'height' .*, static_size=2\)"),
        (
            MaternGP,
            r"MaternGP does not read .* such as LatentODE\(channels, input_size=1, static_size=2\), or leave them",
        ),
        (HoldLast, None),
        (lambda c: LatentODE(c, 2, (4,), input_size=1, static_size=2), None),
    ],
)
def test_covariates_that_reach_no_part_of_a_model_are_named(build, told):
    rng = np.random.default_rng(0)
    times = np.arange(8.0)
    series = tuple(
        Series(i, times, rng.normal(size=(8, 1)), static=rng.normal(size=2), inputs=rng.normal(size=(8, 1)))
        for i in "abcd"
    )
    data = SeriesSet(series, (Channel("x"),), input_names=("u",), static_names=("age", "height"))
    forecaster = Forecaster(build(data.channels), windows=Extrapolate(cut=5.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forecaster.fit(data, max_steps=1, **QUIET)
        forecaster.forecast(data.before(5.0), at=[6.0], num_samples=2)
    found = [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
    unread = [one for one in found if "does not read" in one]
    assert len(unread) == (told is not None)
    assert told is None or re.search(told, unread[0])
    # Python prints the name of the class in front of the words.
    assert not [one.category for one in caught if one.category.__name__.startswith("_")]
    # Inputs that are not read need not be known ahead.
    assert any("are known until" in one for one in found) == ("inputs" in forecaster.model.reads)


def test_covariates_are_matched_by_name(series):
    rng = np.random.default_rng(0)

    def made(static, order):
        ids = "abcdef"
        ages = {i: rng.standard_normal(2) for i in ids}
        ones = tuple(
            Series(i, np.arange(6.0), np.ones((6, 1)), static=ages[i][order], inputs=np.outer(np.arange(6.0), [1, -1]))
            for i in ids
        )
        return SeriesSet(ones, (Channel("x"),), input_names=("u", "v"), static_names=static)

    plain = made(("age", "height"), [0, 1])
    flipped = replace(
        plain,
        series=tuple(replace(one, static=one.static[::-1], inputs=one.inputs[:, ::-1]) for one in plain),
        input_names=("v", "u"),
        static_names=("height", "age"),
    )
    model = LatentODE(plain.channels, 2, (4,), encoder_size=4, input_size=2, static_size=2)
    fitted = Forecaster(model, windows=Extrapolate(cut=3.0)).fit(plain, max_steps=2, **QUIET)
    at = [4.0, 5.0]
    first, second = (fitted.forecast(each.before(3.0), at=at, inputs=each).means for each in (plain, flipped))
    np.testing.assert_allclose(first, second)
    with pytest.raises(DataError, match="static covariates 'age', 'weight', and those of the training had 'age', 'hei"):
        fitted.forecast(replace(plain, static_names=("age", "weight")), at=at)
    with pytest.raises(DataError, match="the inputs 'u', 'w'"):
        fitted.forecast(plain.before(3.0), at=at, inputs=replace(plain, input_names=("u", "w")))
    with pytest.raises(DataError, match="the inputs 'u', 'w'"):
        fitted.fit(plain, replace(plain, input_names=("u", "w")), max_steps=1, **QUIET)


def _mixed(level: float = 0.0) -> SeriesSet:
    """A month of daily values and of weekly means, which end where a day is observed as well."""
    days = np.arange(28.0)
    curve = level + np.sin(days / 5.0)
    daily = pd.DataFrame({"day": days, "begin": days, "x": curve})
    weeks = np.arange(6.0, 28.0, 7.0)
    means = [curve[int(end) - 6 : int(end) + 1].mean() for end in weeks]
    weekly = pd.DataFrame({"day": weeks, "begin": weeks - 6.5, "x": means})
    return from_pandas(pd.concat([daily, weekly]), time="day", start="begin")


def test_a_mean_and_a_value_at_one_time_are_two_rows() -> None:
    series = _mixed()
    assert len(series[0]) == 32
    row = np.flatnonzero(series[0].times == 6.0)
    assert series[0].start is not None
    assert series[0].start[row].tolist() == [-0.5, 6.0]


def test_means_are_asked_for_by_their_intervals() -> None:
    series = _mixed()
    model = LinearGaussianSSM(series.channels, 1, fitting=MaximumLikelihood(max_steps=3))
    fitted = Forecaster(model, windows=Reconstruct()).fit(series)
    weekly = replace(series, series=tuple(one.take(one.start < one.times) for one in series))
    found = fitted.forecast(series.before(14.0), at=weekly).mean()["mean"].to_numpy()
    points = fitted.forecast(series.before(14.0), at=list(weekly[0].times)).mean()["mean"].to_numpy()
    # The first two weeks are known, as means.
    np.testing.assert_allclose(found[:2], weekly[0].values[:2, 0], atol=0.1)
    assert abs(points[1] - weekly[0].values[1, 0]) > 0.2
    table = fitted.score(series, Extrapolate(cut=14.0))
    assert table.loc[table["metric"] == "mse", "value"].notna().all()


def test_a_model_that_knows_no_intervals_says_so() -> None:
    series = _mixed()
    model = FilteringModel(series.channels, GRUODEBayesCell(1, 4))
    with pytest.raises(TypeError, match="FilteringModel knows observations at one instant only; use LinearGaussianSSM"):
        Forecaster(model).fit(series, max_steps=1)
    daily = replace(series, series=tuple(one.take(one.start == one.times) for one in series))
    fitted = Forecaster(model).fit(daily, max_steps=1)
    with pytest.raises(TypeError, match="means over intervals"):
        fitted.forecast(daily, at=series)
    held = Forecaster(HoldLast(series.channels)).fit(series).score(series)
    assert held.loc[held["metric"] == "mse", "value"].notna().all()
