"""The linearly implicit Euler method of liquid time-constant cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._types import State, Time
from ..terms import Term
from .base import Step, StepState
from .exponential import ExponentialSolver, Frozen


__all__ = ["FusedEuler"]


@dataclass(frozen=True)
class FusedEuler(ExponentialSolver):
    r"""Linearly implicit Euler for decay fields: the "fused" step of liquid time-constant networks.

    .. math:: y_1 = \frac{y_0 + h\,b_0}{1 + h\,a_0}

    One evaluation per step, order 1, stable for every rate. It is here for parity with weights that were trained with
    it; at equal evaluations `ExponentialMidpoint` is closer to the equation.

    Reference:
        Liquid Time-constant Networks, R. Hasani, M. Lechner, A. Amini, D. Rus, R. Grosu, 2021,
        https://arxiv.org/abs/2006.04439

    Example:
        >>> FusedEuler().order, FusedEuler().adaptive
        (1, False)
    """

    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 1
    adaptive: ClassVar[bool] = False
    stages: ClassVar[int] = 1

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        dt = (t1 - t0).to(y0.dtype).unsqueeze(-1)
        start = Frozen(term, t0, y0)
        return Step((y0 + dt * start.drive) / (1.0 + dt * start.rate), None, None, ())
