# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your frame in ten lines: fill, forecast, look at the calibration
#
# You hold a frame with an id, a time and some values. The times are on no grid, a third of the values are missing, and
# no two series share their times. Here are sixty patients who settle over three days; to use your own series, put a
# `pandas.read_csv(...)` into the next cell.

# %%
import numpy as np
import pandas as pd

import ctdyn


def patient(name: int, rng: np.random.Generator) -> pd.DataFrame:
    hours = np.sort(rng.uniform(0, 72, size=rng.integers(30, 60)))
    swing = rng.uniform(0.5, 1.5) * np.exp(-hours / rng.uniform(30, 60))
    angle = 2 * np.pi * hours / 40 + rng.uniform(0, 2 * np.pi)
    rate = 75 + 20 * swing * np.cos(angle) + rng.normal(0, 1.5, len(hours))
    pressure = 110 - 25 * swing * np.sin(angle) + rng.normal(0, 3, len(hours))
    frame = pd.DataFrame({"patient": f"p{name:02d}", "hours": hours, "hr": rate, "bp": pressure})
    return frame.mask(rng.random(frame.shape) < [0, 0, 1 / 3, 1 / 3])


rng = np.random.default_rng(0)
df = pd.concat([patient(name, rng) for name in range(60)], ignore_index=True)
df.head()

# %% [markdown]
# ## The ten lines

# %%
series = ctdyn.data.from_pandas(
    df, id="patient", time="hours", values=["hr", "bp"], units={"hr": "1/min", "bp": "mmHg"}, time_unit="hour"
)
train, validation, test = series.split(0.6, 0.2, 0.2, seed=0)  # by patient: no patient is on both sides

model = ctdyn.models.LatentODE(series.channels, latent_size=6, hidden=(32,), encoder_size=32)
forecaster = ctdyn.Forecaster(model).fit(train, validation, max_steps=600, enable_progress_bar=False)

filled = forecaster.interpolate(test)  # where something is missing, and on a grid between
forecast = forecaster.forecast(test.before(48.0), horizon=24.0)  # the third day, from the first two
forecast.quantile([0.05, 0.5, 0.95])

# %% [markdown]
# `describe()` says what there is, and what looks odd, before you fit anything.

# %%
print(series.describe())

# %% [markdown]
# ## Fill
#
# The dark points are what was measured. Between them the band widens: where the model knows less, it says so.

# %%
filled.plot(ids=test.ids[:2])

# %% [markdown]
# ## Forecast
#
# The model sees the first two days; the open circles are what happened on the third.

# %%
forecast.plot(truth=test.after(48.0), ids=test.ids[:2])

# %% [markdown]
# Everything is also a tidy frame, in your units and on your clock.

# %%
forecast.to_frame().head()

# %% [markdown]
# ## Look at the calibration
#
# An interval of 90 % should hold nine of ten measurements. Ask for the times at which something was measured, and
# compare. The left panel is flat and the other two lie on the dashed lines if the intervals are honest; the right panel
# shows whether they stay honest far from any observation.

# %%
truth = test.after(48.0)
answered = forecaster.forecast(test.before(48.0), at=truth, num_samples=200)
ctdyn.plot.plot_calibration(ctdyn.metrics.score_entries(answered, truth))

# %% [markdown]
# The same figures as numbers, also by the distance to the nearest observation:

# %%
scores = ctdyn.metrics.evaluate(answered, truth, by_distance=3)
scores.query("protocol == 'pooled' and metric in ['mse', 'crps', 'coverage']").pivot_table(
    index=["metric", "level"], columns="distance", values="value", dropna=False
).dropna(how="all")

# %% [markdown]
# ## Is it worth it?
#
# A model that does not beat the trivial baselines has not learnt anything. They are fitted to the same patients and get
# their intervals from the residuals there. Errors are in units of each channel's standard deviation.
#
# If yours does not beat them, give it more steps or a larger `latent_size`. Series that swing many times need a clock
# on which one swing is a few units long: for a daily cycle in hours, `scaler=Standardize(time_scale=4.0)` in the
# Forecaster and `controller=ConstantStep(0.5)` in the model.

# %%
table = ctdyn.compare({"latent ODE": forecaster}, train, test, task=ctdyn.data.Extrapolate(cut=48.0, horizon=24.0))
table.iloc[:, :8].round(3)

# %% [markdown]
# Save it, and load it in another process. Nothing is pickled: the folder holds JSON and safetensors.

# %%
import tempfile
from pathlib import Path


with tempfile.TemporaryDirectory() as folder:
    again = ctdyn.load(forecaster.save(Path(folder) / "run"))

same = again.forecast(test.before(48.0), horizon=24.0).mean()
bool(np.allclose(same["mean"], forecast.mean()["mean"]))
