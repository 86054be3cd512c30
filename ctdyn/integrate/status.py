"""How the solve of each series ended, and the error that says so."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from .._checks import MaxStepsError, NonFiniteError, SolveError, StepSizeError
from .stiffness import CURE


__all__ = ["Status", "raise_failure"]


class Status(IntEnum):
    """How the solve of one series ended.

    Example:
        >>> Status(0).name
        'SUCCESS'
    """

    SUCCESS = 0
    MAX_STEPS = 1
    STEP_SIZE = 2
    NON_FINITE = 3


_ERRORS: dict[Status, type[SolveError]] = {
    Status.MAX_STEPS: MaxStepsError,
    Status.STEP_SIZE: StepSizeError,
    Status.NON_FINITE: NonFiniteError,
}

_REASONS = {
    Status.MAX_STEPS: "the solve used up max_steps={max_steps}. Raise max_steps, loosen rtol and atol, or take a "
    "larger dt",
    Status.STEP_SIZE: "the step size fell below what float64 times resolve: the solution blows up here, or the field "
    "is discontinuous or too stiff for an explicit method. Stop before this time, loosen rtol and atol, smooth the "
    "field, or take an implicit method such as solver=Rodas5P()",
    Status.NON_FINITE: "the vector field or the state became NaN or infinite just after this time. Check the field "
    "there (logarithms, square roots, divisions, exploding weights); with a fixed step, take a smaller step_size "
    "(ConstantStep(dt=...) or StepTo(num_steps=...))",
}


def raise_failure(
    status: Tensor,
    steps: Tensor,
    reached: Tensor,
    t0: Tensor,
    end: Tensor,
    y: Tensor,
    max_steps: int,
    stiff: Tensor | None = None,
) -> None:
    """Raise the error of the first series that failed; return where none did.

    Args:
        status: a `Status` per series, `(*batch,)`.
        steps: accepted steps, `(*batch,)`.
        reached: the last time that was reached, `(*batch,)`.
        t0: where the series began, `(*batch,)`.
        end: where it was to go, `(*batch,)`.
        y: the last finite state, `(*batch, state)`.
        max_steps: the limit that was given.
        stiff: whether the steps of a series were held back by the stability of the method, `(*batch,)`.

    Raises:
        SolveError: of the kind of the first failure; it names the series, the time, the progress and the remedies.

    Example:
        >>> none, times, y = torch.zeros(2, dtype=torch.int64), torch.zeros(2), torch.ones(2, 1)
        >>> raise_failure(none, none, times, times, times + 1, y, max_steps=10)
    """
    failed = torch.nonzero(status)
    if not len(failed):
        return
    where = tuple(failed[0].tolist())
    kind = Status(int(status[where]))
    start, last, goal = (float(value[where]) for value in (t0, reached, end))
    done = 100.0 * (last - start) / (goal - start) if goal != start else 100.0
    name = f"series {', '.join(map(str, where))}" if where else "the series"
    others = f" ({len(failed)} of {status.numel()} series failed)" if status.numel() > 1 else ""
    size = float(y[where].detach().abs().max()) if y[where].numel() else 0.0
    slow = " Its steps were as long as this method is stable: the equation is stiff; " + CURE + "."
    hint = slow if stiff is not None and bool(stiff[where]) else ""
    reason = _REASONS[kind].format(max_steps=max_steps)
    raise _ERRORS[kind](
        f"{name} stopped at t={last:.10g}, {done:.3g} % of the way from {start:.10g} to {goal:.10g}, after "
        f"{int(steps[where])} steps, with max |y| = {size:.4g}{others}: {reason}.{hint} "
        "Pass throw=False to keep the other series and read solution.status."
    )
