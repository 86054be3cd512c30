r"""Swap only the field: one set of swings, every field of the library, everything else equal.

    python recipes/swap_the_field.py --seed 0

A damped pendulum, :math:`\ddot q = -\sin q - 0.15 \dot q`, is let go from 64 starts and seen at 12 irregular times of
its own in (0, 6], with noise of 0.05. The start is lifted into 8 dimensions by an affine map, carried by
`ctdyn.solve(field, ...)`, and read by another affine map; 200 steps of Adam on the squared error. Only the field
changes, and with it the way that `solve` takes by itself, which the last column tells. Controlled equations are driven
by time and its square, stochastic ones are judged by the mean of 4 paths. The test swings are new, without noise, and
twice as long: what a field makes of the second half is what it has understood.

Expect, for seed 0 (squared error up to the length of the training swings, and beyond it; CPU seconds of one thread):

| field                   | within | beyond | parameters | seconds | way                   |
|-------------------------|--------|--------|------------|---------|-----------------------|
| hold the start          | 2.06   | 2.52   |            |         |                       |
| MLP                     | .56    | 3.8    | 552        | 1.5     | Tsit5()               |
| MLP that knows the time | .59    | 3.8    | 672        | 4.9     | Tsit5()               |
| MLP, scaled by the span | .27    | 4.9    | 552        | 2.6     | Tsit5()               |
| linear                  | 2.27   | 798    | 72         | 1.5     | Tsit5()               |
| second order            | .24    | 4.0    | 420        | 2.6     | Tsit5()               |
| force                   | .27    | 5.2    | 292        | 2.7     | Tsit5()               |
| Hamiltonian, damped     | .26    | 2.7    | 324        | 8.4     | Tsit5()               |
| separable Hamiltonian   | .33    | 3.0    | 384        | 12.4    | Tsit5()               |
| CT-RNN                  | .58    | 4.3    | 80         | 4.2     | ExponentialMidpoint() |
| GRU-ODE                 | .31    | 1.2    | 216        | 4.4     | ExponentialMidpoint() |
| LTC                     | .46    | 1.3    | 280        | 5.7     | ExponentialMidpoint() |
| CfC                     | .26    | .93    | 1,344      | .6      | in one piece          |
| CfC, wired              | .46    | 1.0    | 180        | .8      | in one piece          |
| SDE                     | .64    | 5.3    | 944        | 2.0     | EulerMaruyama()       |
| Langevin SDE            | .48    | 4.1    | 640        | 2.9     | SRA1()                |
| linear-noise SDE        | .69    | 7.1    | 640        | 1.6     | EulerMaruyama()       |
| geometric SDE           | .63    | 2.7    | 640        | 3.9     | SRA1()                |
| neural CDE              | .18    | 2.7    | 816        | 1.4     | Tsit5()               |
| linear CDE              | .87    | 8.2    | 144        | 2.5     | exact                 |
| Log-NCDE                | .19    | 2.9    | 816        | 37      | Tsit5()               |
| Lagrangian, damped      | 1e18   | 4e22   | 686        | 117     | Tsit5()               |

The Lagrangian runs away on new swings; as for all, its steps are as long as the gaps between the times. The budget is
a small one, at which none is done learning: the table shows that all of them go the same way, not which of them is
best. Among the fields that are driven by time alone nothing is known beyond the training; what is bounded (GRU-ODE,
LTC, CfC) goes wrong by least there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import ctdyn
from ctdyn import fields
from ctdyn.fields import CDEField, SDEField
from ctdyn.integrate import PIDController, StepTo, explain
from ctdyn.paths import LinearPath, LogSignaturePath, Path
from ctdyn.wirings import AutoNCP


STATE, WIDTH, SERIES, TIMES, SPAN, NOISE = 8, (32,), 64, 12, 6.0, 0.05

#: Every field of `ctdyn.fields` that can stand by itself.
FIELDS: dict[str, Callable[[], Any]] = {
    "MLP": lambda: fields.MLPField(STATE, WIDTH),
    "MLP that knows the time": lambda: fields.MLPField(STATE, WIDTH, layer=fields.ConcatSquashTime),
    "MLP, scaled by the span": lambda: fields.Scaled(fields.MLPField(STATE, WIDTH), SPAN),
    "linear": lambda: fields.LinearField(STATE),
    "second order": lambda: fields.AccelerationField(STATE, WIDTH),
    "force": lambda: fields.ForceField(STATE, WIDTH),
    "Hamiltonian, damped": lambda: fields.HamiltonianField(STATE, WIDTH, damped=True),
    "separable Hamiltonian": lambda: fields.SeparableHamiltonianField(STATE, WIDTH),
    "Lagrangian, damped": lambda: fields.LagrangianField(STATE, WIDTH, damped=True),
    "CT-RNN": lambda: fields.CTRNNField(STATE),
    "GRU-ODE": lambda: fields.GRUODEField(STATE),
    "LTC": lambda: fields.LTCField(STATE),
    "CfC": lambda: fields.CfCTransition(STATE, hidden=WIDTH),
    "CfC, wired": lambda: fields.WiredCfCTransition(AutoNCP(STATE, 3), 1),
    "SDE": lambda: fields.MLPSDEField(STATE, WIDTH),
    "Langevin SDE": lambda: fields.LangevinSDEField(STATE, WIDTH, sigma=0.1),
    "linear-noise SDE": lambda: fields.LinearNoiseSDEField(STATE, WIDTH, sigma=0.1),
    "geometric SDE": lambda: fields.GeometricSDEField(STATE, WIDTH, sigma=0.1),
    "neural CDE": lambda: fields.MLPCDEField(STATE, 2, WIDTH),
    "linear CDE": lambda: fields.LinearCDEField(STATE, 2, scale=0.5),
    "Log-NCDE": lambda: fields.LogODEField(fields.MLPCDEField(STATE, 2, WIDTH), 2),
}


@dataclass(frozen=True)
class Swings:
    """Pendulums on clocks of their own."""

    ts: Tensor
    xs: Tensor
    start: Tensor


def swings(count: int, span: float, seed: int, noise: float) -> Swings:
    """Let pendulums go and look at them at irregular times; the start is known."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(count, 2, generator=generator)
    shares = torch.rand(count, TIMES, generator=generator).sort(-1).values
    ts = torch.cat([torch.zeros(count, 1), 0.05 + (span - 0.05) * shares], -1)

    def pendulum(t: Tensor, y: Tensor) -> Tensor:
        q, v = y.unbind(-1)
        return torch.stack([v, -q.sin() - 0.15 * v], -1)

    xs = ctdyn.solve(pendulum, start, ts, controller=PIDController(1e-6, 1e-8)).ys
    return Swings(ts, xs + noise * torch.randn(xs.shape, generator=generator), start)


class Model(nn.Module):
    """Lift, solve, read: the same for every field."""

    def __init__(self, field: Any) -> None:
        super().__init__()
        self.lift, self.field, self.read = nn.Linear(2, STATE), field, nn.Linear(STATE, 2)

    def forward(self, start: Tensor, ts: Tensor, seed: int = 0) -> Tensor:
        """What is expected at the times."""
        y0 = self.lift(start)
        options: dict[str, Any] = {"inputs": driver(self.field, ts)}
        if not explain(self.field, inputs=driver(self.field, ts[:1])).startswith(("exact", "in one piece")):
            options["controller"] = StepTo(1)
        if isinstance(self.field, SDEField):
            y0, options["generator"] = y0.expand(4, *y0.shape), torch.Generator().manual_seed(seed)
        ys = self.read(ctdyn.solve(self.field, y0, ts, **options).ys)
        return ys.mean(0) if ys.dim() == 4 else ys


def driver(field: Any, ts: Tensor) -> Path | None:
    """Time and its square, for the fields that a control drives; a constant for those that read an input."""
    if isinstance(field, fields.WiredCfCTransition):
        return ctdyn.paths.ConstantPath(torch.ones(*ts.shape[:-1], 1))
    if not isinstance(field, CDEField):
        return None
    control = torch.stack([ts / SPAN, (ts / SPAN) ** 2], -1)
    if isinstance(field, fields.LogODEField):
        return LogSignaturePath(ts, control, ts[..., ::2])
    return LinearPath(ts, control)


def error(model: Model, truth: Swings) -> tuple[float, float]:
    """Mean squared error at the times that training saw the like of, and beyond them."""
    with torch.no_grad():
        square = (model(truth.start, truth.ts) - truth.xs).square().mean(-1)[:, 1:]
    seen = truth.ts[:, 1:] <= SPAN
    return float(square[seen].mean()), float(square[~seen].mean())


def fit(name: str, train: Swings, test: Swings, seed: int, steps: int) -> dict[str, Any]:
    """Fit one field and judge it."""
    torch.manual_seed(seed)
    model = Model(FIELDS[name]())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    begun = time.process_time()
    for step in range(steps):
        loss = (model(train.start, train.ts, step) - train.xs).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    seconds = time.process_time() - begun
    within, beyond = error(model, test)
    count = sum(parameter.numel() for parameter in model.field.parameters())
    way = explain(model.field, inputs=driver(model.field, test.ts[:1])).split(":")[0]
    return {"within": within, "beyond": beyond, "parameters": count, "seconds": round(seconds, 1), "way": way}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200, help="training steps of every field")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--field", choices=list(FIELDS), action="append", help="only this one; may be repeated")
    options = parser.parse_args()
    steps = options.steps // 10 if options.quick else options.steps
    train = swings(SERIES, SPAN, options.seed, NOISE)
    test = swings(128, 2 * SPAN, options.seed + 1000, 0.0)
    seen = test.ts[:, 1:] <= SPAN
    held = (test.xs[:, 1:] - test.start[:, None]).square().mean(-1)
    rows: dict[str, dict[str, Any]] = {
        "hold the start": {"within": float(held[seen].mean()), "beyond": float(held[~seen].mean())}
    }
    print(f"{'field':26}{'within':>9}{'beyond':>9}{'parameters':>12}{'seconds':>9}  way")
    for name in options.field or FIELDS:
        rows[name] = fit(name, train, test, options.seed, steps)
    for name, row in rows.items():
        rest = f"{row['parameters']:>12}{row['seconds']:>9}  {row['way']}" if "way" in row else ""
        print(f"{name:26}{row['within']:9.4f}{row['beyond']:9.4f}{rest}")
    print(json.dumps({"seed": options.seed, "steps": steps, "rows": rows}))


if __name__ == "__main__":
    main()
