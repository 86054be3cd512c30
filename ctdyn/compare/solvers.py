"""One table: methods of solving one equation, their errors, and what they cost."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import pandas as pd
import torch
from torch import Tensor, nn

from .._checks import check_count, check_instance, check_list
from ..integrate import Adjoint, Engine, PIDController, Solution, StepController, solve
from ..paths import Path
from ..solvers import Dopri5, Solver
from ..structure import SDEField
from ..terms import SDETerm, Term


__all__ = ["Setting", "compare_solvers"]


@dataclass(frozen=True)
class Setting:
    """One way to solve: what `solve` is given besides the problem.

    Args:
        solver: a method or an engine; None for the default.
        controller: its steps; None for the default, and for an engine.
        adjoint: how gradients are computed; None for the default, and for an engine.

    Example:
        >>> from ctdyn.solvers import Tsit5
        >>> Setting(Tsit5(), PIDController(1e-6, 1e-8)).label
        'PIDController(rtol=1e-06, atol=1e-08)'
    """

    solver: Solver | Engine | None = None
    controller: StepController | None = None
    adjoint: Adjoint | None = None

    @property
    def label(self) -> str:
        """What tells it from others with the same solver."""
        if isinstance(self.controller, PIDController):
            rtol, atol = self.controller.rtol, self.controller.atol
            if not isinstance(rtol, Tensor) and not isinstance(atol, Tensor):
                return f"PIDController(rtol={rtol:g}, atol={atol:g})"
        return repr(self.solver if isinstance(self.solver, Engine) else self.controller)


@dataclass(frozen=True)
class _Task:
    """What is to be solved."""

    equation: Term | Callable[..., Tensor]
    y0: Tensor
    ts: Tensor
    t0: Tensor | float | None
    inputs: Path | None
    max_steps: int

    def solve(self, setting: Setting, y0: Tensor | None = None) -> Solution:
        return solve(
            self.equation,
            self.y0 if y0 is None else y0,
            self.ts,
            t0=self.t0,
            inputs=self.inputs,
            solver=setting.solver,
            controller=setting.controller,
            adjoint=setting.adjoint,
            max_steps=self.max_steps,
            throw=False,
        )

    def parameters(self) -> list[Tensor]:
        owner = self.equation.field if isinstance(self.equation, Term) else self.equation
        return [p for p in owner.parameters() if p.requires_grad] if isinstance(owner, nn.Module) else []

    def gradient(self, setting: Setting) -> Tensor:
        """Of the mean square of the states, by the initial state and the parameters, as one vector."""
        y0 = self.y0.detach().requires_grad_()
        ys = self.solve(setting, y0).ys
        given = [y0, *self.parameters()]
        grads = torch.autograd.grad(torch.nan_to_num(ys).square().mean(), given, materialize_grads=True)
        return torch.cat([g.reshape(-1).to(torch.float64) for g in grads])

    def double(self) -> _Task:
        """The same task in float64, where the equation is a module that can be copied."""
        if not isinstance(self.equation, nn.Module) or self.y0.dtype == torch.float64:
            return self
        inputs = self.inputs
        if inputs is not None:
            inputs = inputs.replace(tuple(x.double() if x.is_floating_point() else x for x in inputs.tensors()))
        equation = copy.deepcopy(self.equation).double()
        return _Task(equation, self.y0.double(), self.ts.double(), self.t0, inputs, self.max_steps)


def compare_solvers(
    equation: Term | Callable[..., Tensor],
    y0: Tensor,
    ts: Tensor,
    settings: Mapping[str, Setting | Sequence[Setting]],
    *,
    t0: Tensor | float | None = None,
    inputs: Path | None = None,
    reference: Setting | Tensor | None = None,
    gradients: bool = True,
    repeats: int = 3,
    max_steps: int = 100_000,
) -> pd.DataFrame:
    r"""Solve one problem in many ways and tabulate errors, evaluations, times, memory and gradients, and print nothing.

    The error is against a tight reference, :math:`|y - y_{ref}| / (1 + |y_{ref}|)` over all series, times and entries;
    that of the gradient is :math:`\lVert g - g_{ref} \rVert / \lVert g_{ref} \rVert` for the mean square of the states.
    Compare methods at equal error, not at equal tolerance: `ctdyn.plot.plot_work_precision(table)` draws just that.

    Times are medians on this machine, and only their ratios mean anything.

    Args:
        equation: the field or term; a stochastic one as an `SDETerm`, so that all methods see the same noise.
        y0: states at the start, `(*batch, state)`.
        ts: output times, `(*batch, time)` or `(time,)`.
        settings: by name, one setting or a ladder of them from loose to tight: a line of the plot.
        t0: time of `y0`; None: the first output time.
        inputs: what drives the field.
        reference: the true states, `(*batch, time, state)`, or a setting that is tight enough to count as true. None:
            `Dopri5` at a tolerance of 1e-10 (1e-6 where the problem is float32 and cannot be copied to float64), which
            suits smooth problems that are not stiff.
        gradients: also measure gradients; they are compared where the reference is a setting.
        repeats: how often each is timed.
        max_steps: the most steps of one series.

    Returns:
        One row per setting: `method`, `setting`, `max_error`, `rms_error`, `evaluations` and `steps` (mean per series),
        `forward_ms`, and with gradients `both_ms` (forward and backward), `saved_mb` (what the graph holds),
        `gradient_error`; `failed` counts series that were not solved, which the errors leave out.

    Raises:
        TypeError: what is to be compared is no mapping to settings.
        ValueError: a stochastic equation without its noise or without a reference, a reference of another shape, or
            nothing to compare.

    Example:
        >>> from ctdyn.integrate import ConstantStep
        >>> from ctdyn.solvers import RK4, Tsit5
        >>> ts = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
        >>> table = compare_solvers(
        ...     lambda t, y: -y,
        ...     torch.ones(3, 1, dtype=torch.float64),
        ...     ts,
        ...     {"Tsit5": [Setting(Tsit5(), PIDController(tol, tol)) for tol in (1e-3, 1e-6)],
        ...      "RK4": Setting(RK4(), ConstantStep(0.1))},
        ... )
        >>> table["method"].tolist(), bool((table["max_error"] < 1e-2).all())
        (['Tsit5', 'Tsit5', 'RK4'], True)
    """
    such = '{"Tsit5": Setting(Tsit5())}'
    check_instance("settings", settings, Mapping, such)
    ladders = {name: [rungs] if isinstance(rungs, Setting) else rungs for name, rungs in settings.items()}
    for name, rungs in ladders.items():
        check_list(f"settings[{name!r}]", rungs, Setting, "[Setting(Tsit5())]")
    if not settings:
        raise ValueError(f"there is nothing to compare: give settings, for example {such}.")
    check_count("repeats", repeats)
    _check_stochastic(equation, reference)
    task = _Task(equation, y0, ts, t0, inputs, max_steps)
    _check_shape(task, reference)
    truth, slope = _reference(task, reference, gradients)
    rows = []
    for name, rungs in ladders.items():
        for setting in rungs:
            row = {"method": name, "setting": setting.label, **_forward(task, setting, truth, repeats)}
            rows.append(row | (_backward(task, setting, slope, repeats) if gradients else {}))
    return pd.DataFrame(rows)


def _check_stochastic(equation: Term | Callable[..., Tensor], reference: Setting | Tensor | None) -> None:
    if isinstance(equation, SDEField):
        raise ValueError(
            "methods for a stochastic equation must see the same noise: give SDETerm(field, brownian), for example "
            "with brownian=ctdyn.paths.VirtualBrownianTree(seeds, size)."
        )
    if isinstance(equation, SDETerm) and reference is None:
        raise ValueError(
            "a stochastic equation needs a reference=: the same noise with much smaller steps, for example "
            "Setting(SRA1(), ConstantStep(dt=1e-4)), or the exact states."
        )


def _check_shape(task: _Task, reference: Setting | Tensor | None) -> None:
    """Refuse states that would only broadcast against the answers by mistake."""
    start = task.t0.shape if isinstance(task.t0, Tensor) else ()
    batch = torch.broadcast_shapes(task.y0.shape[:-1], task.ts.shape[:-1], start)
    shape = (*batch, task.ts.shape[-1], task.y0.shape[-1])
    if isinstance(reference, Tensor) and reference.shape != shape:
        raise ValueError(
            f"reference must be the true states (*batch, time, state), here {shape}; got {tuple(reference.shape)}."
        )


def _reference(task: _Task, reference: Setting | Tensor | None, gradients: bool) -> tuple[Tensor, Tensor | None]:
    if isinstance(reference, Tensor):
        return reference.to(torch.float64), None
    exact = task.double()
    if reference is None:
        tolerance = 1e-10 if exact.y0.dtype == torch.float64 else 1e-6
        reference = Setting(Dopri5(), PIDController(tolerance, tolerance))
    with torch.no_grad():
        truth = exact.solve(reference).ys.to(torch.float64)
    if not bool(torch.isfinite(truth).all()):
        raise ValueError(
            f"the reference could not be solved with {reference.solver!r} and {reference.label}; give another "
            "reference=, for a stiff problem for example Setting(Kvaerno5(), PIDController(1e-9, 1e-9))."
        )
    return truth, exact.gradient(reference) if gradients else None


def _forward(task: _Task, setting: Setting, truth: Tensor, repeats: int) -> dict[str, float]:
    with torch.no_grad():
        solution = task.solve(setting)
        elapsed = _time(lambda: task.solve(setting), repeats, task.y0.device)
    error = (solution.ys.to(torch.float64) - truth).abs() / (1.0 + truth.abs())
    solved = error[solution.status == 0]
    counts = {
        name: float(solution.stats[name].double().mean()) for name in ("evaluations", "steps") if name in solution.stats
    }
    return {
        "max_error": float(solved.max()) if solved.numel() else float("nan"),
        "rms_error": float(solved.square().mean().sqrt()),
        **counts,
        "forward_ms": elapsed,
        "failed": int((solution.status != 0).sum()),
    }


def _backward(task: _Task, setting: Setting, slope: Tensor | None, repeats: int) -> dict[str, float]:
    gradient = task.gradient(setting)
    row = {
        "both_ms": _time(lambda: task.gradient(setting), repeats, task.y0.device),
        "saved_mb": _saved(task, setting),
    }
    if slope is not None:
        row["gradient_error"] = float((gradient - slope).norm() / slope.norm().clamp(min=torch.finfo(slope.dtype).tiny))
    return row


def _time(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median wall time in milliseconds."""
    times = []
    for _ in range(repeats):
        _settle(device)
        start = time.perf_counter()
        call()
        _settle(device)
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _saved(task: _Task, setting: Setting) -> float:
    """Memory that the graph of a solve holds for the backward pass, in MB."""
    held: dict[int, int] = {}
    kept: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        # Kept alive, so that no storage is counted for another one at its address.
        kept.append(x)
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        task.solve(setting, task.y0.detach().requires_grad_())
    return sum(held.values()) / 1e6
