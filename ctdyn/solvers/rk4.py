"""The classical Runge-Kutta method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .runge_kutta import RungeKutta, Tableau


__all__ = ["RK4"]


@dataclass(frozen=True)
class RK4(RungeKutta):
    r"""The classical Runge-Kutta method: four evaluations per step, order 4; the usual choice for a fixed step.

    .. math:: y_1 = y_0 + \tfrac h6 (k_1 + 2 k_2 + 2 k_3 + k_4)


    Reference:
        W. Kutta, Beitrag zur naeherungsweisen Integration totaler Differentialgleichungen, Z. Math. Phys. 46, 1901.

    Example:
        >>> RK4().order
        4
    """

    order: ClassVar[int] = 4
    error_order: ClassVar[int] = 4
    tableau: ClassVar[Tableau] = Tableau(
        c=(0.0, 1 / 2, 1 / 2, 1.0),
        a=((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    )
