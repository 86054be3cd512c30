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
# # Cells: what happens between two observations
#
# A recurrent network knows that another row has come, not how long it took. A cell of `ctdyn.cells` is two things: how
# its state moves over a gap of any length (`evolve`), and how it jumps at an observation (`update`). Liquid and
# closed-form networks, GRU-D and ODE-RNN are all of this kind, so that they can be exchanged.
#
# The series are swings of a damped pendulum, seen at times of their own: dense here, sparse there.

# %%
import numpy as np
import pandas as pd
import torch

import ctdyn
from ctdyn.cells import CfCCell, GRUDCell, LTCCell, ODERNNCell
from ctdyn.data import Extrapolate
from ctdyn.fields import CfCTransition
from ctdyn.models import FilteringModel
from ctdyn.solvers import Dopri5


def swing(name, rng):
    gaps = np.exp(rng.uniform(np.log(0.05), np.log(1.5), size=30))
    ts = gaps.cumsum()
    level = rng.uniform(0.5, 1.5) * np.exp(-0.05 * ts) * np.cos(2 * ts + rng.uniform(0, 6.3))
    return pd.DataFrame({"id": f"s{name:02d}", "t": ts, "q": level + rng.normal(0, 0.03, len(ts))})


rng = np.random.default_rng(0)
frame = pd.concat([swing(name, rng) for name in range(40)], ignore_index=True)
series = ctdyn.data.from_pandas(frame, id="id", time="t", values=["q"])
train, test = series.split(0.7, seed=0)

# %% [markdown]
# ## One loop, four cells
#
# `FilteringModel` reads a series forwards and says what comes next, with a spread that grows with the gap. Everything
# but the cell is the same.

# %%
cells = {
    "CfC": lambda: CfCCell(1, 16, hidden=(16,)),
    "LTC": lambda: LTCCell(1, 16),
    "GRU-D": lambda: GRUDCell(1, 16),
    "ODE-RNN": lambda: ODERNNCell(1, 16),
}
rows, fitted = [], {}
for name, build in cells.items():
    torch.manual_seed(0)
    model = FilteringModel(series.channels, build())
    fitted[name] = ctdyn.Forecaster(model).fit(train, max_steps=150, lr=1e-2, enable_progress_bar=False)
    table = fitted[name].score(test, Extrapolate(cut=12.0, horizon=5.0)).query("protocol == 'pooled'")
    score = table.groupby("metric")["value"].first()
    rows.append({"cell": name, "parameters": sum(p.numel() for p in model.parameters()), **score[["mse", "nll"]]})
pd.DataFrame(rows).set_index("cell")

# %% [markdown]
# ## A state can be asked for at any time, and a gap of nothing is nothing
#
# Sparse stretches, padding and several rows at one time need no care: where no time passes and nothing is seen, the
# state stays what it is, to the last bit.

# %%
cell = cells["CfC"]()
h = cell.update(torch.zeros(3, cell.hidden_size), torch.ones(3, 1), torch.ones(3, 1, dtype=torch.bool))
later = cell.evolve(h, t0=torch.zeros(3), t1=torch.tensor([0.0, 0.5, 9.0]))
assert torch.equal(later[0], h[0])
(later - h).norm(dim=-1)

# %% [markdown]
# ## Closed forms are not flows
#
# Two steps of half the length are not one step: a closed-form network is to be reached from the last observation in one
# piece. The library knows that, and a solver refuses it with the reason.

# %%
step = CfCTransition(4)
y = torch.randn(1, 4)
twice = step.transition(step.transition(y, torch.zeros(1), torch.ones(1)), torch.ones(1), 2 * torch.ones(1))
whole = step.transition(y, torch.zeros(1), 2 * torch.ones(1))
print(f"two steps and one differ by {float((twice - whole).norm().detach()):.2f}")
try:
    ctdyn.solve(step, y, torch.tensor([0.0, 2.0]), solver=Dopri5())
except TypeError as error:
    print(error)

# %% [markdown]
# ## What it looks like
#
# The forecast of one test series, from its first half.

# %%
half = 12.0
out = fitted["CfC"].forecast(test.before(half), horizon=5.0)
out.plot(truth=test.after(half), ids=test.ids[:2])
