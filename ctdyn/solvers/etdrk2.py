"""The exponential Runge-Kutta method of order 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._types import State, Time
from ..linear.phi import phi1, phi2
from ..terms import Term
from .base import Step, StepState
from .exponential import ExponentialSolver, Frozen


__all__ = ["ETDRK2"]


@dataclass(frozen=True)
class ETDRK2(ExponentialSolver):
    r"""Cox and Matthews' exponential method of order 2 for decay fields, with `ExponentialEuler` as error estimate.

    .. math:: z = y_0 + h\,\varphi_1(-h a_0)\,(b_0 - a_0 \odot y_0), \qquad
              y_1 = z + h\,\varphi_2(-h a_0)\,\big(N(t_1, z) - N(t_0, y_0)\big)

    Two evaluations per step; the exponential method that chooses its own steps.

    Reference:
        S. M. Cox, P. C. Matthews, Exponential time differencing for stiff systems, J. Comput. Phys. 176, 2002,
        https://doi.org/10.1006/jcph.2002.6995

    Example:
        >>> ETDRK2().order, ETDRK2().adaptive
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
        z = -dt * start.rate
        middle = y0 + dt * phi1(z) * start.velocity
        error = dt * phi2(z) * start.change(t1, middle)
        return Step(middle + error, error if estimate else None, None, ())
