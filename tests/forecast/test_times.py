"""Times that are asked for, and answers on the user's clock."""

from dataclasses import replace

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn._checks import DataError, UnknownIdError
from ctdyn.data import (
    Extrapolate,
    Standardize,
    TimeAxis,
    from_pandas,
)
from ctdyn.forecast import Forecaster, load
from ctdyn.models import (
    OwnMean,
)


QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def arrays(forecast):
    return np.concatenate([x.ravel() for x in forecast.samples])


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


def test_a_frame_in_place_of_times_is_refused(fitted, series):
    with pytest.raises(DataError, match=r"at= is a DataFrame.*df\['time'\]"):
        fitted.forecast(series, at=pd.DataFrame({"time": [8.0, 9.0]}))


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
    with pytest.raises(DataError, match=r"\(day\).*\(hour\)"):
        model.forecast(replace(series, axis=TimeAxis("day")), at=[1.0])
    with pytest.raises(DataError, match=r"\(day\).*\(hour\)"):
        model.forecast(hours, at=replace(series, axis=TimeAxis("day")))


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


def test_a_frame_is_answered_with_what_makes_a_set_of_it(fitted, model, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    frame = pd.DataFrame({"id": ["a"], "time": [0.0], "x": [1.0]})
    for ask in (fitted.forecast, fitted.interpolate, fitted.score, Forecaster(model).fit):
        with pytest.raises(TypeError, match=r"a SeriesSet; got DataFrame. ctdyn.data.from_pandas"):
            ask(frame)
