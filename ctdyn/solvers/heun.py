"""Heun's method, with Euler's embedded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .runge_kutta import RungeKutta, Tableau


__all__ = ["Heun"]


@dataclass(frozen=True)
class Heun(RungeKutta):
    r"""Heun's method: two evaluations per step, order 2, with Euler's step as its error estimate.

    .. math:: y_1 = y_0 + \tfrac h2 \big(f(t_0, y_0) + f(t_1, y_0 + h f(t_0, y_0))\big)


    Reference:
        K. Heun, Neue Methoden zur approximativen Integration der Differentialgleichungen, Z. Math. Phys. 45, 1900.

    Example:
        >>> Heun().order
        2
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    tableau: ClassVar[Tableau] = Tableau(
        c=(0.0, 1.0),
        a=((1.0,),),
        b=(1 / 2, 1 / 2),
        error=(-1 / 2, 1 / 2, 0.0),
    )
