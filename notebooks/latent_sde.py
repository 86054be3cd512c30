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
# # Which way will it fall? A latent SDE, with a solver and without
#
# A ball in a double well is kicked by noise. It stays in one of the wells for a while, and is then kicked into the
# other,
#
# $$dx = 4\,(x - x^3)\,dt + 0.9\,dW.$$
#
# What it will do next is uncertain however well its state is known, and the uncertainty has two humps. A latent ODE
# cannot say that: all its uncertainty sits in the initial state. A latent SDE can. Here one learns the wells from
# sparse, noisy observations, and says what it believes between them, behind them, and at what price.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import ctdyn
from ctdyn.data import AnyOf, Reconstruct, Standardize, pad
from ctdyn.encoders import start_time
from ctdyn.fields import MLPSDEField
from ctdyn.integrate import ConstantStep
from ctdyn.likelihoods import Gaussian, LearnedScale
from ctdyn.models import ELBO, Anneal, LatentSDE
from ctdyn.solvers import EulerMaruyama
from ctdyn.structure import Calculus, Noise, SDEField


class DoubleWell(SDEField):
    noise, calculus = Noise.ADDITIVE, Calculus.ITO

    def drift(self, t, y, u=None):
        return 4.0 * (y - y**3)

    def diffusion(self, t, y, u=None):
        return torch.full_like(y, 0.9)


def paths(start, ts, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return ctdyn.solve(
            DoubleWell(), start, ts, solver=EulerMaruyama(), controller=ConstantStep(0.01), generator=generator
        ).ys


generator = torch.Generator().manual_seed(0)
balls, looks, length = 80, 24, 6.0
ts = length * torch.rand(balls, looks, generator=generator).sort(-1).values
start = torch.randn(balls, 1, generator=generator)
hidden = paths(start, torch.cat([torch.zeros(balls, 1), ts], -1), seed=1)[:, 1:]
values = hidden + 0.1 * torch.randn(hidden.shape, generator=generator)
frame = pd.DataFrame(
    {"ball": np.repeat(np.arange(balls), looks), "time": ts.flatten().numpy(), "x": values.flatten().numpy()}
)
series = ctdyn.data.from_pandas(frame, id="ball", time="time", values=["x"])
series

# %% [markdown]
# ## Fitting it, twice
#
# Prior and posterior are two equations with one noise,
#
# $$\text{prior:}\quad dz = f(z)\,dt + g(z)\,dW, \qquad
#   \text{posterior:}\quad dz = \big(f(z) + g(z)\,v(z, c(t))\big)\,dt + g(z)\,dW,$$
#
# where $c(t)$ is what an encoder says of the observations to come. The posterior pays for its correction
# $\tfrac12\int \lVert v \rVert^2 dt$ nats (Girsanov). Training by the **solver** draws posterior paths and adds this up
# along them. Training by **matching** turns it around: networks give the posterior's mean and spread at any time, the
# drift that moves them is known in closed form, and what it costs is averaged over random times. No step waits for
# another, and there is no solver. Both ways are given about as much time here.

# %%
forecasters, rows = {}, []
for way, steps in {"solver": 200, "matching": 600}.items():
    torch.manual_seed(0)
    model = LatentSDE(
        series.channels,
        latent_size=1,
        context_size=8,
        encoder_size=32,
        field=MLPSDEField(1, (32,), noise=Noise.ADDITIVE),
        likelihood=Gaussian(1, 1, scale=LearnedScale(initial=0.3)),
        objective=ELBO(beta=Anneal(50)),
        matching=way == "matching",
        dt=0.1,
    )
    # Whole series, and short ones: a context may be short, too.
    windows = AnyOf(Reconstruct(), Reconstruct(length=1.5))
    forecasters[way] = ctdyn.Forecaster(model, scaler=Standardize(time_scale=1.0), windows=windows)
    began = time.process_time()
    forecasters[way].fit(series, max_steps=steps, batch_size=40, lr=2e-2, enable_progress_bar=False)
    spent = time.process_time() - began
    rows.append({"way": way, "steps": steps, "seconds": spent, "ms per step": 1e3 * spent / steps})
    rows[-1] |= forecasters[way].history_.iloc[-3:][["train_bound", "train_kl"]].mean().to_dict()
costs = pd.DataFrame(rows).set_index("way")
costs.round(2)

# %%
assert costs.loc["matching", "ms per step"] < 0.6 * costs.loc["solver", "ms per step"]

# %% [markdown]
# A step of matching costs a fraction of one by the solver, and the more so the longer the series and the shorter the
# steps: the solver's cost grows with its steps, that of matching with the observations alone. The price is a posterior
# that knows one normal distribution per time, where that of the solver can have two humps. Both bounds are of the same
# quantity, in nats per series, on training windows.
#
# ## What it has learnt
#
# The state of a latent SDE is not the observation, but with an affine decoder the two differ by a scale and an offset
# alone. So the drift can be read in the units of the data, beside the one that made them.

# %%
z = torch.linspace(-5.0, 5.0, 401)[:, None]
where = torch.tensor([-1.3, -0.5, 0.5, 1.3])
learnt = {}
figure, axis = plt.subplots(figsize=(6, 3.2))
for way, forecaster in forecasters.items():
    model = forecaster.model
    units = forecaster.scaler_.units(pad(series.series[:1]))
    with torch.no_grad():
        x = units.values_to_data(model.likelihood.location(z)[None])[0, :, 0]
        scale = (x[1] - x[0]) / (z[1, 0] - z[0, 0])
        drift = scale * model.process.field.drift(torch.zeros(len(z)), z)[:, 0]
        noise = scale.abs() * model.process.field.diffusion(torch.zeros(1), z[:1])[0, 0]
    learnt[way] = {f"at {float(v):.1f}": float(drift[(x - v).abs().argmin()]) for v in where} | {"noise": float(noise)}
    shown = x.abs() < 1.4
    axis.plot(x[shown], drift[shown], label=way)
x = torch.linspace(-1.4, 1.4, 121)
axis.plot(x, 4.0 * (x - x**3), "k--", label="truth")
axis.axhline(0.0, color="grey", lw=0.5)
axis.set(xlabel="x", ylabel="drift")
axis.legend()
learnt["truth"] = {f"at {float(v):.1f}": float(4.0 * (v - v**3)) for v in where} | {"noise": 0.9}
learnt = pd.DataFrame(learnt).T
learnt.round(2)

# %%
# Pushed inwards outside of the wells, and outwards between them: two wells.
signs = np.sign(learnt.drop(columns="noise"))
assert (signs == signs.loc["truth"]).all().all()

# %% [markdown]
# ## Prior, posterior, and beyond
#
# One ball that no model has seen. Each posterior path is pinned where the ball was seen, wanders between the
# observations, and is a path of the prior behind the last of them.

# %%
unseen = torch.linspace(0.0, 6.0, 601)
track = paths(torch.tensor([[-1.0]]), unseen[None], seed=31)[0, :, 0]
looked = torch.tensor([0, 40, 60, 130, 150, 230, 250, 330, 400])
rng = torch.Generator().manual_seed(5)
seen = track[looked] + 0.1 * torch.randn(len(looked), generator=rng)
one = ctdyn.data.from_ragged([(unseen[looked].numpy(), seen.numpy())], channels=["x"])
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True)
widths = {}
for axis, (way, forecaster) in zip(axes, forecasters.items(), strict=True):
    answer = forecaster.forecast(one, at=unseen[::5].numpy(), num_samples=300)
    low, middle, high = (answer.quantile([q])["value"].to_numpy() for q in (0.05, 0.5, 0.95))
    widths[way] = high - low
    axis.fill_between(unseen[::5], low, high, alpha=0.3, label="90 % interval")
    axis.plot(unseen[::5], middle, label="median")
    axis.plot(unseen, track, color="grey", lw=0.7, label="the path itself")
    axis.plot(unseen[looked], seen, "k.", label="observed")
    axis.set(title=way, xlabel="time")
axes[0].legend(fontsize=8)

# %%
# Behind the last observation the interval opens: two units later it is wider than at any time before.
for width in widths.values():
    assert width[-1] > width[unseen[::5].numpy() <= 4.0].max()

# %% [markdown]
# ## What the posterior pays, and when
#
# The divergence from prior to posterior is an integral along the path, and matching gives its rate at any time:
# $\tfrac12 \lVert (f_q - f) / g \rVert^2$ in nats per unit of time, averaged over the marginal. What follows from the
# drift is free; it is expensive to be pulled over the barrier, against the drift.

# %%
model, scaler = forecasters["matching"].model, forecasters["matching"].scaler_
raw = pad(one.series)
context = scaler.units(raw).to_model(raw).to(torch.float32)
inner = torch.linspace(0.01, 3.99, 200)[None]
with torch.no_grad():
    encoding = model.encode_context(context)
    epsilon = torch.randn(200, 1, 200, 1, generator=rng)
    rate = model.process.divergence_rate(encoding, start_time(context), inner, epsilon).mean(0)[0]
figure, axis = plt.subplots(figsize=(8, 2.6))
axis.plot(inner[0], rate)
axis.set(xlabel="time", ylabel="nats per unit of time")
twin = axis.twinx()
twin.plot(unseen[unseen < 4.0], track[unseen < 4.0], color="grey", lw=0.7)
twin.plot(unseen[looked], seen, "k.")
f"{float(rate.mean() * 4.0):.1f} nats in all"

# %% [markdown]
# ## Two humps
#
# Where will a ball be that was last seen at the barrier? A mean and a spread would say: at the barrier. Samples know
# better. Here the truth is simulated from the equation itself.

# %%
clock = np.arange(0.0, 1.01, 0.1)
edge = ctdyn.data.from_ragged([(clock, np.linspace(-0.9, 0.0, len(clock)))], channels=["x"])
truth = paths(torch.zeros(4000, 1), torch.tensor([0.0, 2.0]).expand(4000, 2), seed=7)[:, 1, 0]
figure, axis = plt.subplots(figsize=(6, 3))
bins = np.linspace(-2.0, 2.0, 33)
middle = {"truth": float((truth.abs() < 0.4).double().mean())}
axis.hist(truth + 0.1 * torch.randn(4000, generator=rng), bins, density=True, color="lightgrey", label="truth")
for way, forecaster in forecasters.items():
    drawn = forecaster.forecast(edge, at=[3.0], num_samples=1000).samples[0][..., 0, 0].ravel()
    axis.hist(drawn, bins, density=True, histtype="step", label=way)
    middle[way] = float((np.abs(drawn) < 0.4).mean())
axis.set(xlabel="x, two units later")
axis.legend()
middle

# %%
assert middle["matching"] < 0.25

# %% [markdown]
# Matching has found the humps in this time; the solver, with a third of the steps, is on its way.
#
# What to take home: `LatentSDE` where what comes is uncertain by itself and not only for lack of knowledge of the
# present; `matching=True` for long or many series, and while you search for a model; the solver where the posterior
# must be more than one normal distribution per time, or observation times tell something.
