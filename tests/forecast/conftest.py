"""A small forecaster, fitted once for all tests that only ask it."""

import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn.data import from_pandas, from_ragged
from ctdyn.forecast import Forecaster
from ctdyn.integrate import ConstantStep
from ctdyn.models import LatentODE


QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def make_series(count=8, seed=0):
    """Two channels with gaps, on times of their own."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        times = np.sort(rng.uniform(0, 10, 12 + number))
        phase = rng.uniform(0, 6)
        values = np.stack([100 + 10 * np.sin(times + phase), 3 * np.cos(times + phase)], -1)
        values[rng.random(values.shape) < 0.2] = np.nan
        values[0] = [100.0, 0.0]
        rows.append((times, values))
    return from_ragged(rows, channels=["pressure", "flow"])


def make_model(channels, **options):
    torch.manual_seed(0)
    return LatentODE(channels, latent_size=3, hidden=(8,), encoder_size=8, controller=ConstantStep(0.5), **options)


@pytest.fixture(scope="session")
def series():
    return make_series()


@pytest.fixture(scope="session")
def build():
    """Makes a small latent ODE, always the same one."""
    return make_model


@pytest.fixture
def model(series):
    return make_model(series.channels)


@pytest.fixture(scope="session")
def fitted(series):
    return Forecaster(make_model(series.channels), seed=3).fit(series, max_steps=5, **QUIET)


@pytest.fixture(scope="session")
def dated():
    """The same shape of data with time stamps in a zone, one channel."""
    rng = np.random.default_rng(1)
    frames = []
    for name in ("a", "b", "c"):
        days = np.sort(rng.uniform(0, 40, 20))
        stamps = pd.Timestamp("2020-03-20", tz="Europe/Vienna") + pd.to_timedelta(np.round(days * 86400), unit="s")
        frames.append(pd.DataFrame({"who": name, "when": stamps, "level": np.sin(days) + rng.normal(0, 0.1, 20)}))
    return from_pandas(pd.concat(frames), id="who", time="when", values=["level"])


@pytest.fixture(scope="session")
def dated_fitted(dated):
    return Forecaster(make_model(dated.channels)).fit(dated, max_steps=3, **QUIET)
