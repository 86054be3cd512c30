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
# # Which solver? A neural field, a stiff one, and a stochastic one
#
# `ctdyn.compare_solvers` solves one problem in many ways and tabulates what you get and what you pay: the error against
# a tight reference, evaluations of the field, time, memory, and the same for gradients. Compare methods **at equal
# error**, not at equal tolerance: a tolerance is a wish, and methods keep it to different degrees.
#
# Times are those of the machine that ran this notebook; only their ratios mean anything.

# %%
import torch

import ctdyn
from ctdyn.compare import Setting
from ctdyn.integrate import Checkpoint, ConstantStep, PIDController, StepTo, TorchDiffEq
from ctdyn.plot import plot_work_precision
from ctdyn.solvers import RK4, SRA1, Bosh3, EulerMaruyama, Heun, Kvaerno5, Rodas5P, Tsit5


torch.manual_seed(0)
TOLERANCES = (1e-3, 1e-5, 1e-7)


def ladder(solver, tolerances=TOLERANCES):
    return [Setting(solver, PIDController(tol, tol)) for tol in tolerances]


# %% [markdown]
# ## A neural field
#
# Sixteen series with twenty times each, no two series on the same clock. Nothing has to be done for that: `ts` has a
# row per series. torchdiffeq stands behind the same call as an engine.

# %%
field = ctdyn.fields.MLPField(8, hidden=(32, 32)).double()
with torch.no_grad():
    for weight in field.parameters():
        weight.mul_(2.0)
y0 = torch.randn(16, 8, dtype=torch.float64)
ts = torch.rand(16, 20, dtype=torch.float64).sort(-1).values * 3.0

neural = ctdyn.compare_solvers(
    field,
    y0,
    ts,
    {
        "Bosh3": ladder(Bosh3()),
        "Tsit5": ladder(Tsit5()),
        "RK4": [Setting(RK4(), StepTo(n)) for n in (1, 4)],
        "Tsit5, checkpointed": [Setting(Tsit5(), PIDController(1e-5, 1e-5), Checkpoint())],
        "torchdiffeq dopri5": [Setting(TorchDiffEq("dopri5", rtol=tol, atol=tol)) for tol in TOLERANCES],
    },
    t0=0.0,
    repeats=1,
)
neural.round(8)

# %%
plot_work_precision(neural)

# %% [markdown]
# A gradient is as good as the solve that it comes from. `Checkpoint` gives the same gradient for less memory:

# %%
neural.loc[neural["method"].str.startswith("Tsit5"), ["method", "setting", "saved_mb", "both_ms", "gradient_error"]]

# %% [markdown]
# ## A stiff field
#
# Van der Pol's oscillator with a damping of 200: the state creeps, then jumps. An explicit method must take steps as
# small as the fastest decay however slowly the solution moves; an implicit one need not.


# %%
def van_der_pol(t, y):
    x, v = y.unbind(-1)
    return torch.stack([v, 200.0 * (1 - x**2) * v - x], -1)


stiff = ctdyn.compare_solvers(
    van_der_pol,
    torch.tensor([[2.0, 0.0]], dtype=torch.float64),
    torch.tensor([0.0, 10.0, 20.0], dtype=torch.float64),
    {
        "Tsit5": ladder(Tsit5(), (1e-3,)),
        "Kvaerno5": ladder(Kvaerno5()),
        "Rodas5P": ladder(Rodas5P()),
    },
    reference=Setting(Rodas5P(), PIDController(1e-9, 1e-9)),
    gradients=False,
    repeats=1,
    max_steps=20_000,
)
stiff.round(8)

# %%
plot_work_precision(stiff)

# %% [markdown]
# ## A stochastic equation
#
# Methods can be compared path by path only along the same noise. A `VirtualBrownianTree` is Brownian motion as a value:
# keyed by series, it answers the same whatever the steps. The process reverts to a moving mean; its noise is additive,
# which `SRA1` makes use of.


# %%
class Reverting(ctdyn.structure.SDEField):
    noise, calculus = ctdyn.structure.Noise.ADDITIVE, ctdyn.structure.Calculus.ITO

    def drift(self, t, y, u=None):
        return 2.0 * (torch.sin(t)[..., None] - y)

    def diffusion(self, t, y, u=None):
        return torch.full_like(y, 0.5)


paths = 256
brownian = ctdyn.paths.VirtualBrownianTree(torch.arange(paths), size=1)
steps = (0.2, 0.1, 0.05)
noisy = ctdyn.compare_solvers(
    ctdyn.terms.SDETerm(Reverting(), brownian),
    torch.ones(paths, 1, dtype=torch.float64),
    torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64),
    {
        "Euler-Maruyama": [Setting(EulerMaruyama(), ConstantStep(dt)) for dt in steps],
        "Heun": [Setting(Heun(), ConstantStep(dt)) for dt in steps],
        "SRA1": [Setting(SRA1(), ConstantStep(dt)) for dt in steps],
    },
    reference=Setting(SRA1(), ConstantStep(0.002)),
    gradients=False,
    repeats=1,
)
noisy.round(8)

# %%
plot_work_precision(noisy, error="rms_error")

# %% [markdown]
# What to take home:
#
# * smooth field, own clocks: `Tsit5` with a tolerance; `RK4` with `StepTo` where the gaps are short and the accuracy
#   asked for is modest;
# * stiff field: `Rodas5P` or `Kvaerno5`; an explicit method that creeps along says so in a warning;
# * additive noise: `SRA1`; otherwise `EulerMaruyama` or `Heun`, and halve the step until the answer stays.
#
# `solution.plan` says in a sentence how a solve was done, and `solution.stats` what each series cost.
