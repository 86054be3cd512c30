"""The implicit Euler method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .esdirk import ESDIRK, ImplicitTableau


__all__ = ["ImplicitEuler"]


@dataclass(frozen=True)
class ImplicitEuler(ESDIRK):
    r"""The implicit Euler method: order 1, as robust as a method can be; for rough answers to very stiff equations.

    .. math:: y_1 = y_0 + h f(t_1, y_1)

    The error estimate is the difference to the trapezoidal rule; the dense output is the cubic Hermite polynomial.
    It damps whatever is faster than the step, oscillations too, and never overshoots.

    Args:
        newton_rtol: relative error that Newton's method keeps well below in each stage; None: that of the controller.
        newton_atol: absolute error, in the unit of the state; None: that of the controller.

    Reference:
        E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, 1996, IV.3,
        https://doi.org/10.1007/978-3-642-05221-7

    Example:
        >>> ImplicitEuler().order
        1
    """

    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 2
    tableau: ClassVar[ImplicitTableau] = ImplicitTableau(gamma=1.0, c=(1.0,), a=((0.0,),), error=(-1 / 2, 1 / 2))
