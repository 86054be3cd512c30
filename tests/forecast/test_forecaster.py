"""From series to answers in the user's units and on the user's clock."""

from dataclasses import replace

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn._checks import DataError
from ctdyn.data import (
    Channel,
    Extrapolate,
    Interpolate,
    Reconstruct,
    Series,
    SeriesSet,
    Standardize,
    from_ragged,
    loader,
)
from ctdyn.forecast import Forecaster, load
from ctdyn.integrate import ConstantStep
from ctdyn.metrics import summarize
from ctdyn.models import (
    HoldLast,
    LatentODE,
    LinearGaussianSSM,
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
