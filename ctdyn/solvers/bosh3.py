"""Bogacki and Shampine's pair of order 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .runge_kutta import RungeKutta, Tableau


__all__ = ["Bosh3"]


@dataclass(frozen=True)
class Bosh3(RungeKutta):
    r"""Bogacki and Shampine's pair 3(2): three evaluations per step; for loose tolerances.

    The dense output is the cubic Hermite polynomial of the step, order 3.


    Reference:
        P. Bogacki, L. F. Shampine, A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2(4), 1989.

    Example:
        >>> Bosh3().order
        3
    """

    order: ClassVar[int] = 3
    error_order: ClassVar[int] = 3
    tableau: ClassVar[Tableau] = Tableau(
        c=(0.0, 1 / 2, 3 / 4),
        a=((1 / 2,), (0.0, 3 / 4)),
        b=(2 / 9, 1 / 3, 4 / 9),
        error=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    )
