"""The explicit midpoint method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .runge_kutta import RungeKutta, Tableau


__all__ = ["Midpoint"]


@dataclass(frozen=True)
class Midpoint(RungeKutta):
    r"""The explicit midpoint method: two evaluations per step, order 2, no error estimate.

    .. math:: y_1 = y_0 + h f\Big(t_0 + \tfrac h2,\; y_0 + \tfrac h2 f(t_0, y_0)\Big)


    Reference:
        C. Runge, Ueber die numerische Aufloesung von Differentialgleichungen, Math. Ann. 46, 1895.

    Example:
        >>> Midpoint().order
        2
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    tableau: ClassVar[Tableau] = Tableau(
        c=(0.0, 1 / 2),
        a=((1 / 2,),),
        b=(0.0, 1.0),
    )
