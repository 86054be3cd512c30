"""The exponential midpoint method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._types import State, Time
from ..linear.phi import phi1
from ..terms import Term
from .base import Step, StepState
from .exponential import ExponentialSolver, Frozen


__all__ = ["ExponentialMidpoint"]


@dataclass(frozen=True)
class ExponentialMidpoint(ExponentialSolver):
    r"""Two exponential Euler steps, the second with the rates and the drive of the middle: what decay fields get.

    .. math:: y_m = y_0 + \tfrac h2\,\varphi_1\!\left(-\tfrac h2 a_0\right)(b_0 - a_0 \odot y_0), \qquad
        y_1 = y_0 + h\,\varphi_1(-h a_m)\,(b_m - a_m \odot y_0)

    Order 2, two evaluations per step, stable for every rate. Each half is the exact answer for constant rates and
    drive, so a state never leaves the interval of the levels :math:`b / a` that pull it: for gated fields that is the
    range that their paper proves. The error estimate is the difference to `ExponentialEuler`.

    Reference:
        Exponential integrators, M. Hochbruck, A. Ostermann, Acta Numerica 19, 2010,
        https://doi.org/10.1017/S0962492910000048

    Example:
        >>> ExponentialMidpoint().order, ExponentialMidpoint().adaptive
        (2, True)
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    adaptive: ClassVar[bool] = True
    stages: ClassVar[int] = 2

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        dt = (t1 - t0).to(y0.dtype).unsqueeze(-1)
        start = Frozen(term, t0, y0)
        halfway = y0 + 0.5 * dt * phi1(-0.5 * dt * start.rate) * start.velocity
        rate, drive = start.decay(t0 + 0.5 * (t1 - t0), halfway)
        y1 = y0 + dt * phi1(-dt * rate) * (drive - rate * y0)
        error = y1 - (y0 + dt * phi1(-dt * start.rate) * start.velocity) if estimate else None
        return Step(y1, error, None, ())
