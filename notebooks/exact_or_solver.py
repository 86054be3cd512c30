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
# # Exact, or by a solver? One process, three ways
#
# An Ornstein-Uhlenbeck process reverts to zero and is kicked by noise,
#
# $$dy = -\theta\,y\,dt + \sigma\,dW.$$
#
# It is linear, so between any two times its law is known: no solver is needed, and none is as fast or as right. Here
# the same process is simulated and fitted **exactly** (`ctdyn.linear`), by **Euler-Maruyama** and by a **stochastic
# Runge-Kutta** method, so that you see what a step costs and what it does to an answer.
#
# Times are those of the machine that ran this notebook; only their ratios mean anything.

# %%
import statistics
import time

import matplotlib.pyplot as plt
import pandas as pd
import torch

import ctdyn
from ctdyn.data import IrregularBatch
from ctdyn.integrate import ConstantStep, PIDController
from ctdyn.linear import OU, Gaussian, LinearGaussian, Rotations, maximum_likelihood
from ctdyn.solvers import SRA1, EulerMaruyama, Tsit5
from ctdyn.systems import OrnsteinUhlenbeck


torch.set_default_dtype(torch.float64)
theta, sigma = 2.0, 1.0


def milliseconds(call, repeats=3):
    spent = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(spent)


# %% [markdown]
# ## Simulating it
#
# Twenty thousand paths from $y(0) = 2$, wanted at eight irregular times. The exact simulation draws each value from its
# law given the one before; a solver walks there in steps. The errors below are those of the mean and of the standard
# deviation over the paths, the worst of the eight times; with this many paths chance alone makes about 0.01.

# %%
ts = torch.tensor([0.0, 0.1, 0.13, 0.5, 0.9, 1.0, 2.2, 3.0])
paths = 20_000
process = OrnsteinUhlenbeck(theta=theta, sigma=sigma).double()
mean, variance = process.law(ts, torch.full((1,), 2.0))


def exact(seed=0):
    start = Gaussian(torch.full((1,), 2.0), torch.zeros(1, 1))
    model = LinearGaussian(OU(theta, sigma), R=1.0, initial=start)
    with torch.no_grad():
        return model.sample(ts, paths, generator=torch.Generator().manual_seed(seed))


def solved(solver, dt, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = torch.full((paths, 1), 2.0)
    return ctdyn.solve(process, start, ts, solver=solver, controller=ConstantStep(dt), generator=generator).ys


ways = {"exact": exact}
for dt in (0.5, 0.1, 0.02):
    ways[f"Euler-Maruyama, step {dt}"] = lambda dt=dt: solved(EulerMaruyama(), dt)
    ways[f"SRA1, step {dt}"] = lambda dt=dt: solved(SRA1(), dt)

rows = []
for name, way in ways.items():
    ys = way()
    rows.append(
        {
            "method": name,
            "error of the mean": float((ys.mean(0) - mean).abs().max()),
            "error of the deviation": float((ys.std(0) - variance.sqrt()).abs().max()),
            "ms": milliseconds(way),
        }
    )
simulation = pd.DataFrame(rows).set_index("method")
simulation.round({"error of the mean": 4, "error of the deviation": 4, "ms": 1})

# %%
assert simulation.loc["exact", "error of the mean"] < 0.03
assert simulation.loc["exact", "error of the deviation"] < 0.03
assert simulation.loc["Euler-Maruyama, step 0.5", "error of the mean"] > 0.1

# %% [markdown]
# Euler-Maruyama with a step of 0.5 is not noisy, it is wrong: a step multiplies the state by $1 - \theta\,dt = 0$. SRA1
# makes use of the additive noise and is right at steps five times as long. The exact simulation has no step at all.
#
# ## Fitting it
#
# What a coarse step does to a simulation, it does to a fit. Twenty series are observed without noise every `gap` units
# of time. Taking one Euler step per gap, the transition is $N(y - \theta y\,gap,\ \sigma^2 gap)$, and the most likely
# $\theta$ is a ratio of two sums; the exact likelihood is one scan.

# %%
found = []
for gap in (0.05, 0.25, 0.5, 1.0):
    clock = gap * torch.arange(400.0)
    truth = LinearGaussian(OU(theta, sigma), R=1e-8)
    with torch.no_grad():
        ys = truth.sample(clock.expand(20, -1), generator=torch.Generator().manual_seed(1))[0]
    change, before = ys.diff(dim=-2), ys[:, :-1]
    euler = -float((before * change).sum() / (gap * before.square().sum()))
    batch = IrregularBatch(clock.expand(20, -1), ys, torch.ones_like(ys, dtype=torch.bool))
    model = LinearGaussian(OU(0.5, 0.5), R=1e-8)
    model.log_noise.requires_grad_(False)
    maximum_likelihood(model, batch)
    found.append(
        {"gap": gap, "theta, one Euler step": euler, "theta, exact": float(model.dynamics.log_rate.detach().exp())}
    )
fits = pd.DataFrame(found).set_index("gap")
fits.round(3)

# %%
assert (fits["theta, exact"] - theta).abs().max() < 0.25
assert (fits.loc[1.0] - theta).abs()["theta, one Euler step"] > 0.9

# %% [markdown]
# The truth is 2. Euler's answer tends to $(1 - e^{-\theta\,gap}) / gap$: the more data, the surer of the wrong number.
#
# ## Where nothing is random
#
# The same holds without noise. Five hundred series of four damped rotations, a hundred own times each: one scan against
# an adaptive solve, forward and backward.

# %%
rotations = Rotations(decay=[0.05, 0.1, 0.2, 0.4], frequency=[12.0, 6.0, 3.0, 1.0])
clocks = torch.rand(500, 100, generator=torch.Generator().manual_seed(2)).cumsum(-1) * 0.1
start = torch.ones(500, 8)


def velocity(t, y):
    return y @ rotations.A.mT


def scanned():
    return rotations.scan(clocks, y0=start)


def integrated(tol):
    return ctdyn.solve(velocity, start, clocks, solver=Tsit5(), controller=PIDController(tol, tol)).ys


def both_ways(way):
    def run():
        rotations.zero_grad()
        way().square().mean().backward()

    return run


truth = scanned().detach()
rows = [{"method": "scan", "error": 0.0, "ms": milliseconds(both_ways(scanned))}]
for tol in (1e-3, 1e-6):
    error = float((integrated(tol).detach() - truth).abs().max())
    rows.append(
        {"method": f"Tsit5, {tol:g}", "error": error, "ms": milliseconds(both_ways(lambda tol=tol: integrated(tol)))}
    )
speed = pd.DataFrame(rows).set_index("method")
speed["times the scan"] = speed["ms"] / speed.loc["scan", "ms"]
speed

# %%
assert speed.loc["Tsit5, 1e-06", "error"] < 1e-4

# %% [markdown]
# ## Answers, with their uncertainty
#
# The exact path also gives what a solver cannot: the law of the process between and beyond its observations. Three
# hundred paths are observed eight times each, with noise; the smoother says what lies in between.

# %%
truth = LinearGaussian(OU(theta, sigma), R=0.01)
grid = torch.linspace(0.0, 5.0, 301)
seen = torch.tensor([10, 20, 60, 70, 75, 150, 160, 220])
generator = torch.Generator().manual_seed(3)
with torch.no_grad():
    hidden = truth.sample(grid, 300, generator=generator)
    values = hidden[:, seen] + 0.1 * torch.randn(300, len(seen), 1, generator=generator)
    batch = IrregularBatch(grid[seen].expand(300, -1), values, torch.ones_like(values, dtype=torch.bool))
    state = truth.predict(batch, at=grid.expand(300, -1))
middle, spread = state.mean[..., 0], 1.645 * state.variance[..., 0].sqrt()

figure, axes = plt.subplots(figsize=(8, 3))
axes.fill_between(grid, (middle - spread)[0], (middle + spread)[0], alpha=0.3, label="90 % interval")
axes.plot(grid, middle[0], label="mean")
axes.plot(grid, hidden[0], lw=0.7, color="grey", label="the path itself")
axes.plot(grid[seen], values[0], "k.", label="observed")
axes.set(xlabel="time", ylabel="y")
axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.2))

# %%
inside = float(((hidden[..., 0] - middle).abs() <= spread).double().mean())
assert 0.88 < inside < 0.92
f"{inside:.1%} of all paths and times lie inside"

# %% [markdown]
# What to take home: where the dynamics are linear, say so (`ctdyn.linear`), and nothing has a step. Where they are not,
# `compare_solvers` (the other notebook) tells what a step costs on your problem; for additive noise, `SRA1` first.
