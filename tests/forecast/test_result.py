"""The frames of a forecast: tidy, on the user's clock, and right."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn._checks import UnknownIdError
from ctdyn.data import Channel, Extrapolate, Reconstruct, from_pandas, from_ragged
from ctdyn.forecast import Forecast, Forecaster
from ctdyn.integrate import ConstantStep
from ctdyn.likelihoods import Bernoulli, Categorical, PerKind
from ctdyn.models import LatentODE


@pytest.fixture
def forecast():
    rng = np.random.default_rng(0)
    context = from_ragged(
        [([0.0, 1.0], [[1.0, 2.0], [3.0, np.nan]]), ([0.5], [[0.0, 0.0]])], channels=["x", "y"], ids=["a", "b"]
    )
    times = (np.array([0.5, 2.0]), np.array([0.0, 0.7, 3.0]))
    samples = tuple(rng.normal(size=(99, len(each), 2)).astype(np.float32) for each in times)
    return Forecast(context, times, samples, tuple(x.mean(0) for x in samples))


def test_frames_have_one_row_per_series_time_and_channel(forecast):
    frame = forecast.mean()
    assert list(frame) == ["id", "time", "channel", "mean"]
    assert frame["id"].tolist() == ["a"] * 4 + ["b"] * 6
    assert frame["time"].tolist() == [0.5, 0.5, 2.0, 2.0, 0.0, 0.0, 0.7, 0.7, 3.0, 3.0]
    assert frame["channel"].tolist() == ["x", "y"] * 5
    assert frame["mean"].to_numpy() == pytest.approx(np.concatenate([m.ravel() for m in forecast.means]))


def test_quantiles_are_long_and_those_of_the_samples(forecast):
    frame = forecast.quantile([0.9, 0.1])
    assert list(frame) == ["id", "time", "channel", "quantile", "value"]
    assert frame["quantile"].tolist() == [0.9, 0.1] * 10
    row = frame.query("id == 'b' and time == 0.7 and channel == 'y' and quantile == 0.1")
    ordered = np.sort(forecast.samples[1][:, 1, 1])
    assert row["value"].item() == pytest.approx(ordered[9])
    assert len(forecast.quantile(0.5)) == 10


def test_intervals_are_central(forecast):
    frame = forecast.interval(0.8)
    assert list(frame) == ["id", "time", "channel", "lower", "upper"]
    long = forecast.quantile([0.1, 0.9])
    assert frame["lower"].to_numpy() == pytest.approx(long["value"].to_numpy()[::2])
    assert frame["upper"].to_numpy() == pytest.approx(long["value"].to_numpy()[1::2])


def test_one_frame_holds_everything(forecast):
    frame = forecast.to_frame([0.05, 0.5])
    assert list(frame) == ["id", "time", "channel", "mean", "sd", "q0.05", "q0.5", "extrapolation"]
    assert frame["extrapolation"].tolist() == [False, False, True, True, True, True, True, True, True, True]
    assert (frame["q0.05"] < frame["q0.5"]).all()
    assert {"q0.9999999", "q0.3", "q1"} < set(forecast.to_frame([0.9999999, 0.1 + 0.2, 1.0]))
    assert frame["sd"].iloc[0] == pytest.approx(forecast.samples[0][:, 0, 0].std(ddof=1), rel=1e-5)


@pytest.mark.parametrize("levels", [[], 1.5, [-0.1], [float("nan")]])
def test_levels_outside_of_zero_and_one_are_refused(forecast, levels):
    with pytest.raises(ValueError, match="between 0 and 1"):
        forecast.quantile(levels)


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0])
def test_an_interval_needs_a_probability(forecast, level):
    with pytest.raises(ValueError, match="level"):
        forecast.interval(level)


def test_series_can_be_picked(forecast):
    only = forecast.select(["b"])
    assert only.ids == ("b",)
    assert np.array_equal(only.samples[0], forecast.samples[1])
    with pytest.raises(UnknownIdError):
        forecast.select(["c"])


def test_parts_that_do_not_belong_together_are_refused(forecast):
    with pytest.raises(ValueError, match="2 series"):
        Forecast(forecast.context, forecast.times[:1], forecast.samples, forecast.means)


@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_dates_come_back_as_they_came(zone):
    stamps = pd.date_range("2021-03-13 20:00", periods=3, freq="6h", tz=zone)
    context = from_pandas(pd.DataFrame({"t": stamps, "x": [1.0, 2.0, 3.0]}), time="t", values=["x"])
    times = (context[0].times,)
    samples = (np.zeros((5, 3, 1)),)
    frame = Forecast(context, times, samples, (np.zeros((3, 1)),)).to_frame()
    assert list(frame["time"]) == list(stamps)


def test_ids_keep_their_type():
    context = from_ragged([([0.0], [1.0]), ([0.0], [1.0])], channels=["x"], ids=[7, 3])
    parts = tuple(np.array([1.0]) for _ in range(2)), (np.zeros((3, 1, 1)),) * 2, (np.zeros((1, 1)),) * 2
    frame = Forecast(context, *parts).mean()
    assert frame["id"].tolist() == [7, 3]
    assert pd.api.types.is_integer_dtype(frame["id"])


def test_the_plot_is_drawn(forecast):
    assert forecast.plot() is not None


def test_probabilities_of_classes_are_shares_of_the_samples(forecast):
    with pytest.raises(ValueError, match=r"only channels of classes.*'x' is real"):
        forecast.probabilities()
    channels = [Channel("alive", kind="binary"), Channel("x"), Channel("stage", kind="categorical")]
    context = from_ragged([([0.0], [[1.0, 0.3, 3.0]])], channels=channels, ids=["a"])
    drawn = np.array([[[1, 0.5, 0], [1, 0.1, 2]], [[0, 0.2, 0], [1, 0.2, 1]]], dtype=np.float32)
    out = Forecast(context, (np.array([1.0, 2.0]),), (drawn,), (drawn.mean(0),))
    frame = out.probabilities()
    assert list(frame) == ["id", "time", "channel", "class", "probability"]
    assert frame["time"].tolist() == [1.0] * 6 + [2.0] * 6
    assert frame["channel"].tolist() == (["alive"] * 2 + ["stage"] * 4) * 2
    assert frame["class"].tolist() == [0, 1, 0, 1, 2, 3] * 2
    assert frame["probability"].tolist() == [0.5, 0.5, 1, 0, 0, 0, 0, 1, 0, 0.5, 0.5, 0]
    assert len(Forecast(context, (np.zeros(0),), (drawn[:, :0],), (drawn[0, :0],)).probabilities()) == 0
    with pytest.raises(ValueError, match="'alive' holds classes, and the model draws other numbers"):
        replace(out, samples=(drawn + 0.25,)).probabilities()


def test_a_model_of_classes_is_asked_for_their_probabilities():
    """Two thirds of what is seen are of class 2, whatever came before."""
    rng = np.random.default_rng(0)
    channels = [Channel("stage", kind="categorical"), Channel("alive", kind="binary")]
    rows = [(np.arange(12.0), np.stack([rng.choice([0, 2, 2], 12), np.ones(12)], -1)) for _ in range(20)]
    data = from_ragged(rows, channels=channels)
    torch.manual_seed(0)
    likelihood = PerKind(channels, {"categorical": Categorical(1, 1, num_classes=3), "binary": Bernoulli(1, 1)})
    sizes = {"latent_size": 1, "hidden": (4,), "encoder_size": 4, "controller": ConstantStep(0.5)}
    forecaster = Forecaster(LatentODE(channels, likelihood=likelihood, **sizes), windows=Reconstruct())
    forecaster.fit(data, max_steps=40, lr=5e-2, enable_progress_bar=False, accelerator="cpu")
    found = forecaster.forecast(data[:8], at=[12.0], num_samples=100).probabilities()
    assert found.groupby(["id", "channel"])["probability"].sum().to_numpy() == pytest.approx(np.ones(16))
    stage = found.query("channel == 'stage'").groupby("class")["probability"].mean()
    assert stage.to_numpy() == pytest.approx([1 / 3, 0.0, 2 / 3], abs=0.1)
    # Data that are read without kinds, as in a later session, are of those that the model has learnt.
    bare = replace(data[:8], channels=(Channel("stage"), Channel("alive")))
    pd.testing.assert_frame_equal(forecaster.forecast(bare, at=[12.0], num_samples=100).probabilities(), found)
    scores = [forecaster.score(one, Extrapolate(cut=6.0), num_samples=5) for one in (data[:8], bare)]
    pd.testing.assert_frame_equal(*scores)
