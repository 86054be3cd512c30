"""From series to answers in the user's units and on the user's clock."""

import re
import warnings
from dataclasses import replace

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn._checks import DataError, DataWarning, UnknownIdError
from ctdyn.cells import GRUODEBayesCell
from ctdyn.data import (
    Channel,
    Extrapolate,
    Interpolate,
    Reconstruct,
    Series,
    SeriesSet,
    Standardize,
    TimeAxis,
    from_pandas,
    from_ragged,
    loader,
)
from ctdyn.forecast import Forecaster, load
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
    Refined,
)


QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def arrays(forecast):
    return np.concatenate([x.ravel() for x in forecast.samples])


# -- fitting


def test_fit_returns_itself_and_fills_the_names_with_underscores(series, model):
    forecaster = Forecaster(model)
    with pytest.raises(ValueError, match="not fitted"):
        forecaster.forecast(series, horizon=1.0)
    with pytest.raises(ValueError, match="not fitted"):
        forecaster.save("nowhere")
    train, validation = series.split(6)
    assert forecaster.fit(train, validation, max_steps=2, **QUIET) is forecaster
    assert {"step", "train_loss", "val_loss"} <= set(forecaster.history_)
    assert forecaster.scaler_.statistics is not None
    assert forecaster.scaler.statistics is None


def test_fitting_twice_starts_afresh(series, model):
    forecaster = Forecaster(model).fit(series, max_steps=4, **QUIET)
    first = {key: value.clone() for key, value in model.state_dict().items()}
    forecaster.fit(series, max_steps=4, **QUIET)
    assert all(torch.equal(first[key], value) for key, value in model.state_dict().items())


def test_a_fitted_model_can_be_wrapped(series, model, tmp_path, monkeypatch):
    # The types that the tests check at run time are not checked outside of them.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    forecaster = Forecaster(model).fit(series, max_steps=2, **QUIET)
    plain = forecaster.forecast(series, horizon=1.0)
    forecaster.model = Refined(forecaster.model, steps=3, lr=0.5)
    answer = forecaster.forecast(series, horizon=1.0)
    assert not np.allclose(arrays(answer), arrays(plain))
    again = load(forecaster.save(tmp_path / "run"))
    assert isinstance(again.model, Refined)
    assert np.allclose(arrays(again.forecast(series, horizon=1.0)), arrays(answer))
    # Training is that of the model, from the weights that the wrapper came with.
    forecaster.fit(series, max_steps=1, **QUIET)
    with pytest.raises(TypeError, match=r"got the class Refined: call it"):
        forecaster.model = Refined
    # What was wrapped can be unwrapped.
    again.model = again.model.model
    assert np.array_equal(arrays(again.forecast(series, horizon=1.0)), arrays(plain))
    # Another model has learnt nothing.
    forecaster.model = LatentODE(series.channels)
    with pytest.raises(ValueError, match="not fitted"):
        forecaster.forecast(series, horizon=1.0)


def test_training_sees_the_scale_of_the_training_series_only(series, model):
    train, test = series.split(4)
    louder = replace(test, series=tuple(replace(one, values=1e3 * one.values) for one in test))
    a = Forecaster(model).fit(train, test, max_steps=2, **QUIET).scaler_
    b = Forecaster(model).fit(train, louder, max_steps=2, **QUIET).scaler_
    assert a == b


def test_a_baseline_is_fitted_without_steps(series):
    forecaster = Forecaster(HoldLast(series.channels)).fit(series, max_steps=3)
    out = forecaster.forecast(series, at=[11.0])
    last = [one.values[~np.isnan(one.values[:, 0]), 0][-1] for one in series]
    pressure = out.quantile(0.5).query("channel == 'pressure'")["value"]
    assert np.abs(pressure.to_numpy() - last).mean() < 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": OwnMean}, "model must be an instance of Model, .*got the class OwnMean: call it"),
        ({"model": "latent-ode"}, "model must be an instance of Model, .*; got 'latent-ode'"),
        ({"scaler": Standardize}, "scaler must be an instance of Scaler, .*got the class Standardize"),
        ({"windows": "interpolate"}, "windows must be an instance of WindowMaker, .*; got 'interpolate'"),
        ({"window": Reconstruct()}, r"Forecaster\(\) has no option 'window'; did you mean windows"),
    ],
)
def test_what_a_forecaster_is_made_of(model, options, message, monkeypatch):
    # The types that the tests check at run time are not checked outside of them.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match=message):
        Forecaster(**{"model": model, **options})


def test_a_misspelt_option_is_a_type_error(series, model):
    with pytest.raises(TypeError, match="max_step"):
        Forecaster(model).fit(series, max_step=3)


def test_series_that_are_too_short_for_the_windows_are_named(series, model):
    with pytest.raises(DataError, match="long enough"):
        Forecaster(model, windows=Extrapolate(context=1000.0)).fit(series, max_steps=1, **QUIET)


# -- determinism


def test_the_same_question_gives_the_same_answer(fitted, series):
    a, b = (fitted.forecast(series, horizon=2.0, num_samples=7) for _ in range(2))
    assert np.array_equal(arrays(a), arrays(b))


def test_an_answer_does_not_depend_on_the_other_series_or_their_order(fitted, series):
    together = fitted.forecast(series, at=[1.0, 12.0], num_samples=7)
    for place in (0, 5):
        alone = fitted.forecast(series[[place]], at=[1.0, 12.0], num_samples=7)
        assert np.array_equal(alone.samples[0], together.samples[place])
        assert np.array_equal(alone.means[0], together.means[place])
    backwards = fitted.forecast(series[::-1], at=[1.0, 12.0], num_samples=7)
    assert np.array_equal(backwards.samples[0], together.samples[-1])


def test_series_do_not_share_their_randomness(fitted, series):
    one = series[0]
    twins = replace(series, series=(replace(one, id="x"), replace(one, id="y")))
    out = fitted.forecast(twins, at=[11.0], num_samples=20)
    assert not np.array_equal(out.samples[0], out.samples[1])
    assert np.allclose(out.means[0], out.means[1], rtol=0.5)


def test_asking_for_more_times_does_not_move_the_mean(fitted, series):
    few, many = fitted.forecast(series, at=[12.0]), fitted.forecast(series, at=[11.0, 11.5, 12.0, 13.0])
    for a, b in zip(few.means, many.means, strict=True):
        np.testing.assert_allclose(a[0], b[2], rtol=1e-4, atol=1e-3)


def test_another_seed_gives_other_samples(series, model, build):
    answers = []
    for seed in (0, 1):
        forecaster = Forecaster(build(series.channels), seed=seed).fit(series, max_steps=1, **QUIET)
        answers.append(arrays(forecaster.forecast(series[[0]], at=[1.0], num_samples=5)))
    assert not np.array_equal(*answers)


# -- times


def test_a_horizon_runs_from_each_last_observation_at_its_own_gap(fitted, series):
    out = fitted.forecast(series, horizon=3.0, num_samples=2)
    for one, times in zip(series, out.times, strict=True):
        assert times[-1] == pytest.approx(one.times[-1] + 3.0)
        gap = np.median(np.diff(one.times))
        assert np.diff(times) == pytest.approx(times[0] - one.times[-1])
        assert 0.5 * gap < times[0] - one.times[-1] < 2 * gap


@pytest.mark.parametrize("horizon", [0, -1.0, float("nan"), float("inf"), "3D", np.timedelta64(3, "D")])
def test_a_horizon_that_is_no_length_on_this_clock_is_refused(fitted, series, horizon):
    with pytest.raises(DataError):
        fitted.forecast(series, horizon=horizon)


def test_a_horizon_out_of_all_proportion_is_a_slip_of_the_unit(fitted, series, dated, dated_fitted):
    with pytest.raises(DataError, match=r"horizon=1000000\.0 is .* times the usual gap.*numbers without a unit.*at="):
        fitted.forecast(series, horizon=1e6)
    with pytest.raises(DataError, match=r"datetimes \(days since"):
        dated_fitted.forecast(dated, horizon=3 * 86400.0)
    # A short past of long series is no measure of what is meant.
    assert len(fitted.forecast(series.before(1.5).observed(), horizon=8.0, num_samples=1))


def test_a_horizon_with_a_unit_is_converted_on_a_dated_clock(dated, dated_fitted):
    out = dated_fitted.forecast(dated, horizon="3D", num_samples=2)
    frame = out.to_frame()
    last = dated.axis.to_user(np.array([one.times[-1] for one in dated]))
    ends = frame.groupby("id")["time"].max()
    assert list(ends) == [stamp + pd.Timedelta("3D") for stamp in last]
    assert str(frame["time"].dt.tz) == "Europe/Vienna"
    same = dated_fitted.forecast(dated, horizon=dated.axis.duration("3D"), num_samples=2)
    assert np.array_equal(arrays(out), arrays(same))


def test_dates_can_be_asked_for(dated, dated_fitted):
    stamps = pd.DatetimeIndex(["2020-04-01 12:00", "2020-05-20"]).tz_localize("Europe/Vienna")
    frame = dated_fitted.forecast(dated, at=stamps, num_samples=2).mean()
    assert list(frame["time"].unique()) == list(stamps)
    by_id = dated_fitted.forecast(dated, at={"a": stamps, "b": stamps[:1], "c": []}, num_samples=2)
    assert [len(times) for times in by_id.times] == [2, 1, 0]
    assert len(by_id.quantile([0.1, 0.9])) == 6


def test_a_set_can_be_asked_for_its_times(fitted, series):
    out = fitted.forecast(series.before(5.0), at=series.after(5.0), num_samples=2)
    for one, times in zip(series.after(5.0), out.times, strict=True):
        assert np.array_equal(one.times, times)


def test_series_read_with_another_unit_and_origin_give_the_same_answer(dated, dated_fitted):
    frame = dated.to_wide()
    tail = frame[frame["time"] > "2020-04-05"]
    day = from_pandas(tail, id="id", time="time", values=["level"], time_unit="day")
    minute = from_pandas(tail, id="id", time="time", values=["level"], time_unit="minute")
    assert day.axis != minute.axis
    a, b = (dated_fitted.forecast(one, horizon="4D", num_samples=3) for one in (day, minute))
    np.testing.assert_allclose(arrays(a), arrays(b), rtol=1e-3, atol=1e-3)
    assert list(a.mean()["time"].dt.round("s")) == list(b.mean()["time"].dt.round("s"))


def test_numbers_said_of_the_training_are_meant_on_its_clock(dated, build):
    columns = {"id": "id", "time": "time", "values": ["level"]}
    hours = from_pandas(dated.to_wide(), **columns, time_unit="hour")
    windows = Extrapolate(context=240.0, horizon=48.0)
    found = []
    for other in (hours, dated):
        torch.manual_seed(0)
        forecaster = Forecaster(build(dated.channels), windows=windows)
        forecaster.fit(hours, validation=other, max_steps=2, **QUIET)
        scores = forecaster.score(other, num_samples=3)
        found.append((forecaster.history_["val_loss"].dropna().tolist(), scores["count"].tolist()))
    assert dated.axis.unit == "day"
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3)
    assert found[1][1] == found[0][1]


def test_clocks_that_do_not_match_are_refused(fitted, series, dated, dated_fitted, build):
    with pytest.raises(DataError, match="convert"):
        dated_fitted.forecast(replace(dated, axis=TimeAxis()), at=[1.0])
    hours = replace(series, axis=TimeAxis("hour"))
    model = Forecaster(build(series.channels)).fit(hours, max_steps=1, **QUIET)
    with pytest.raises(DataError, match=r"in day.*in hour"):
        model.forecast(replace(series, axis=TimeAxis("day")), at=[1.0])


def test_training_and_scoring_take_the_calendar_of_the_user(dated, dated_fitted, tmp_path):
    scores = dated_fitted.score(dated, Extrapolate(cut="2020-04-20", horizon="5D"), num_samples=2)
    cut = dated.axis.instant("2020-04-20")
    same = dated_fitted.score(dated, Extrapolate(cut=cut, horizon=5.0), num_samples=2)
    pd.testing.assert_frame_equal(scores, same)
    windows = Extrapolate(context="8D", horizon=pd.Timedelta("2D"))
    forecaster = Forecaster(OwnMean(dated.channels), scaler=Standardize(time_scale="1D"), windows=windows).fit(dated)
    assert forecaster.scaler_.statistics.time_scale == 1.0
    again = load(forecaster.save(tmp_path / "run"))
    assert again.windows == windows
    pd.testing.assert_frame_equal(again.score(dated), forecaster.score(dated))


def test_both_or_neither_of_horizon_and_at_is_an_error(fitted, series):
    for arguments in ({}, {"horizon": 1.0, "at": [1.0]}):
        with pytest.raises(ValueError, match="either horizon"):
            fitted.forecast(series, **arguments)


def test_wrong_ids_in_at_are_named(fitted, series):
    with pytest.raises(UnknownIdError, match="unseen"):
        fitted.forecast(series[:1], at={series.ids[0]: [1.0], "ghost": [2.0]})
    with pytest.raises(UnknownIdError, match="no times for"):
        fitted.forecast(series, at={series.ids[0]: [1.0]})


@pytest.mark.parametrize("at", [[], [float("nan")], [np.inf]])
def test_times_that_are_none_are_refused(fitted, series, at):
    with pytest.raises(DataError):
        fitted.forecast(series, at=at)


def test_times_before_the_first_observation_are_answered_and_marked(fitted, series):
    frame = fitted.forecast(series[:1], at=[-2.0, 5.0, 40.0], num_samples=5).to_frame()
    assert frame["extrapolation"].tolist() == [True, True, False, False, True, True]
    assert np.isfinite(frame["mean"]).all()


def test_unsorted_and_repeated_times_are_answered_in_the_order_asked(fitted, series):
    out = fitted.forecast(series[:1], at=[5.0, 1.0, 5.0], num_samples=5)
    assert out.times[0].tolist() == [5.0, 1.0, 5.0]
    np.testing.assert_allclose(out.means[0][0], out.means[0][2], rtol=1e-5)


def test_interpolate_asks_unasked_for_holes_and_a_regular_grid(fitted, series):
    out = fitted.interpolate(series, num_samples=2)
    for one, times in zip(series, out.times, strict=True):
        assert np.isin(one.times[np.isnan(one.values).any(1)], times).all()
        assert times[0] == one.times[0]
        assert times[-1] == one.times[-1]
        assert (np.diff(times) > 0).all()
    assert not out.to_frame()["extrapolation"].any()


def test_series_with_one_observation_or_none_are_answered(fitted, series):
    single = replace(series, series=(series[0].take(slice(0, 1)),))
    assert np.isfinite(arrays(fitted.forecast(single, horizon=2.0, num_samples=3))).all()
    assert np.isfinite(arrays(fitted.interpolate(single, at=[3.0], num_samples=3))).all()
    nothing = replace(series, series=(series[0].take(slice(0, 0)),))
    assert np.isfinite(arrays(fitted.forecast(nothing, at=[3.0], num_samples=3))).all()
    with pytest.raises(DataError, match="no observations"):
        fitted.forecast(nothing, horizon=2.0)
    with pytest.raises(DataError, match="empty"):
        fitted.forecast(series[[]], horizon=2.0)


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


@pytest.mark.parametrize("count", [0, -1, True])
def test_a_number_of_samples_that_is_none_is_refused(fitted, series, count):
    with pytest.raises(ValueError, match="num_samples"):
        fitted.forecast(series, at=[1.0], num_samples=count)


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


# -- what only some models can do


def test_new_series_are_drawn_in_the_units_of_the_data(fitted, series, dated_fitted):
    frame = fitted.sample([0.0, 5.0, 10.0], num_samples=4)
    assert list(frame) == ["id", "time", "channel", "value"]
    assert len(frame) == 4 * 3 * 2
    assert frame.query("channel == 'pressure'")["value"].between(20, 180).all()
    assert frame["time"].tolist()[:6] == [0.0, 0.0, 5.0, 5.0, 10.0, 10.0]
    assert fitted.sample([0.0], num_samples=4).equals(fitted.sample([0.0], num_samples=4))
    dated = dated_fitted.sample(["2020-04-01"], num_samples=2)
    assert str(dated["time"].dt.tz) == "Europe/Vienna"


def test_series_become_vectors(fitted, series):
    frame = fitted.encode(series)
    assert list(frame) == ["id", "z0", "z1", "z2"]
    assert frame["id"].tolist() == list(series.ids)
    pd.testing.assert_frame_equal(fitted.encode(series[2:3]).reset_index(drop=True), frame[2:3].reset_index(drop=True))


def test_a_model_says_what_it_cannot_do(series):
    forecaster = Forecaster(OwnMean(series.channels)).fit(series)
    with pytest.raises(TypeError, match="OwnMean does not generate"):
        forecaster.sample([0.0])
    with pytest.raises(TypeError, match="OwnMean does not encode"):
        forecaster.encode(series)


# -- scores


def test_scores_are_in_data_units_and_repeat(fitted, series):
    table = fitted.score(series, Extrapolate(cut=5.0), num_samples=20)
    again = fitted.score(series, Extrapolate(cut=5.0), num_samples=20)
    pd.testing.assert_frame_equal(table, again)
    assert {"mse", "nll", "crps", "coverage"} <= set(table["metric"])


def test_the_log_density_is_that_of_the_data_units(series, build):
    """A change of unit by 1000 costs log(1000) nats per observation."""
    small = replace(
        series, channels=series.channels[1:], series=tuple(replace(one, values=one.values[:, 1:]) for one in series)
    )
    large = replace(small, series=tuple(replace(one, values=1000 * one.values) for one in small))
    nll = []
    for data in (small, large):
        forecaster = Forecaster(build(data.channels)).fit(data, max_steps=1, **QUIET)
        table = forecaster.score(data, Extrapolate(cut=5.0), num_samples=10)
        nll.append(table.query("metric == 'nll'")["value"].iloc[0])
    assert nll[1] - nll[0] == pytest.approx(np.log(1000), abs=1e-3)


def test_a_task_never_scores_what_it_shows(fitted, series):
    context, truth = fitted.cut(series, Interpolate(keep=0.5, include_context=True))
    for shown, hidden in zip(context, truth, strict=True):
        assert not np.isin(hidden.times, shown.times).any()
    with pytest.raises(DataError, match="long enough"):
        fitted.cut(series, Extrapolate(cut=1000.0))


def test_a_model_of_ones_own_fits_and_answers(series):
    class Mine(LatentODE):
        def __init__(self, channels):
            super().__init__(channels, latent_size=2, hidden=(4,), encoder_size=4, controller=ConstantStep(0.5))

    forecaster = Forecaster(Mine(series.channels), scaler=Standardize(center="context")).fit(
        series, max_steps=2, **QUIET
    )
    assert np.isfinite(arrays(forecaster.forecast(series, horizon=1.0, num_samples=3))).all()


class _Counted(OwnMean):
    """Counts the windows that it is fitted to."""

    def fit_exact(self, windows):
        self.count = sum(len(window.target.times) for window in windows)
        super().fit_exact(windows)


@pytest.mark.parametrize(("windows", "expected"), [(Extrapolate(), 8), (Extrapolate(cut=20.0), 1)])
def test_one_series_gives_a_batch_of_windows_where_they_differ(windows, expected):
    times = np.arange(40.0)
    series = from_ragged([(times, np.sin(times))], channels=["x"])
    model = _Counted(series.channels)
    Forecaster(model, windows=windows).fit(series, batch_size=8)
    assert model.count == expected


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


def test_scores_are_for_observations_with_their_known_errors():
    rng = np.random.default_rng(0)
    error = np.where(rng.random((8, 30, 1)) < 0.5, 0.05, 3.0)
    values = np.sin(np.arange(30.0))[:, None] + error * rng.standard_normal((8, 30, 1))
    ids = list("abcdefgh")
    made = [Series(i, np.arange(30.0), y, noise=s) for i, y, s in zip(ids, values, error, strict=True)]
    series = SeriesSet(tuple(made), (Channel("x"),))
    task = Extrapolate(cut=20.0)
    model = LinearGaussianSSM(series.channels, 1, fitting=MaximumLikelihood(max_steps=20))
    forecaster = Forecaster(model, windows=Reconstruct()).fit(series)
    table = summarize(forecaster.score(series, task))
    (window,) = loader(series, task, forecaster.scaler_, batch_size=8, shuffle=False, dtype=torch.float64)
    predictive = model.predict(window.context, window.target.times, noise=window.target.noise, num_samples=1)
    expected = -predictive.log_prob(window.target.values, window.target.mask).mean() + np.log(
        forecaster.scaler_.units(window.context).scale[0]
    )
    assert table["nll"] == pytest.approx(float(expected), rel=1e-3)
    assert 0.8 < table["coverage 0.9"] < 0.97


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


def test_a_frame_is_answered_with_what_makes_a_set_of_it(fitted, model, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    frame = pd.DataFrame({"id": ["a"], "time": [0.0], "x": [1.0]})
    for ask in (fitted.forecast, fitted.interpolate, fitted.score, Forecaster(model).fit):
        with pytest.raises(TypeError, match=r"a SeriesSet; got DataFrame. ctdyn.data.from_pandas"):
            ask(frame)
