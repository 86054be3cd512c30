"""The exponential Runge-Kutta method of order 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._types import State, Time
from ..linear.phi import phi1, phi2, phi3
from ..terms import Term
from .base import Step, StepState
from .exponential import ExponentialSolver, Frozen


__all__ = ["ETDRK4"]


@dataclass(frozen=True)
class ETDRK4(ExponentialSolver):
    r"""Krogstad's exponential method of order 4 for decay fields: four evaluations per step, for accuracy.

    With :math:`\varphi_k = \varphi_k(-h a_0)`, :math:`\psi_k = \varphi_k(-h a_0 / 2)`,
    :math:`F = b_0 - a_0 \odot y_0` and :math:`\Delta_i = N(t_i, y_i) - N(t_0, y_0)`,

    .. math:: y_2 = y_0 + \tfrac h2 \psi_1 F, \quad y_3 = y_2 + h \psi_2 \Delta_2, \quad
              y_4 = y_0 + h \varphi_1 F + 2 h \varphi_2 \Delta_3

    .. math:: y_1 = y_0 + h \varphi_1 F + h (2 \varphi_2 - 4 \varphi_3) (\Delta_2 + \Delta_3)
              + h (4 \varphi_3 - \varphi_2) \Delta_4

    Where a rate is large and the drive depends on the state, the order falls to 3.

    Reference:
        S. Krogstad, Generalized integrating factor methods for stiff PDEs, J. Comput. Phys. 203, 2005,
        https://doi.org/10.1016/j.jcp.2004.08.006

    Example:
        >>> ETDRK4().order
        4
    """

    order: ClassVar[int] = 4
    error_order: ClassVar[int] = 4
    adaptive: ClassVar[bool] = False
    stages: ClassVar[int] = 4

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        span = t1 - t0
        dt, middle = span.to(y0.dtype).unsqueeze(-1), t0 + span / 2
        start = Frozen(term, t0, y0)
        half, whole = -dt / 2 * start.rate, -dt * start.rate
        one, two, three = phi1(whole), phi2(whole), phi3(whole)
        y2 = y0 + dt / 2 * phi1(half) * start.velocity
        second = start.change(middle, y2)
        third = start.change(middle, y2 + dt * phi2(half) * second)
        free = y0 + dt * one * start.velocity
        fourth = start.change(t1, free + 2 * dt * two * third)
        y1 = free + dt * ((2 * two - 4 * three) * (second + third) + (4 * three - two) * fourth)
        return Step(y1, None, None, ())
