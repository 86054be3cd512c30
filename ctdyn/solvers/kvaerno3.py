"""Kvaerno's pair of order 3 for stiff equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .esdirk import ESDIRK, ImplicitTableau


__all__ = ["Kvaerno3"]

_G = 0.43586652150845899942
"""The root of 6 g^3 - 18 g^2 + 9 g - 1 for which the method is L-stable."""

_THIRD = ((-4 * _G**2 + 6 * _G - 1) / (4 * _G), (1 - 2 * _G) / (4 * _G))
_LAST = ((6 * _G - 1) / (12 * _G), -1 / ((24 * _G - 12) * _G), (-6 * _G**2 + 6 * _G - 1) / (6 * _G - 3))


@dataclass(frozen=True)
class Kvaerno3(ESDIRK):
    r"""Kvaerno's pair 3(2) for stiff equations: three implicit stages, L-stable; for loose tolerances.

    The dense output is the cubic Hermite polynomial of the step, order 3.

    Args:
        newton_rtol: relative error that Newton's method keeps well below in each stage; None: that of the controller.
        newton_atol: absolute error, in the unit of the state; None: that of the controller.

    Reference:
        A. Kvaerno, Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT 44, 2004,
        https://doi.org/10.1023/B:BITN.0000046811.70614.38

    Example:
        >>> Kvaerno3().order
        3
    """

    order: ClassVar[int] = 3
    error_order: ClassVar[int] = 3
    tableau: ClassVar[ImplicitTableau] = ImplicitTableau(
        gamma=_G,
        c=(2 * _G, 1.0, 1.0),
        a=((_G,), _THIRD, _LAST),
        error=(_LAST[0] - _THIRD[0], _LAST[1] - _THIRD[1], _LAST[2] - _G, _G),
    )
