"""Ralston's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .runge_kutta import RungeKutta, Tableau


__all__ = ["Ralston"]


@dataclass(frozen=True)
class Ralston(RungeKutta):
    r"""Ralston's method: two evaluations per step, order 2, with the smallest error bound; Euler's step is embedded.

    .. math:: y_1 = y_0 + \tfrac h4 (k_1 + 3 k_2), \qquad k_2 = f\big(t_0 + \tfrac{2h}3, y_0 + \tfrac{2h}3 k_1\big)

    Reference:
        A. Ralston, Runge-Kutta methods with minimum error bounds, Math. Comput. 16, 1962,
        https://doi.org/10.1090/S0025-5718-1962-0150954-0

    Example:
        >>> Ralston().order
        2
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    tableau: ClassVar[Tableau] = Tableau(
        c=(0.0, 2 / 3),
        a=((2 / 3,),),
        b=(1 / 4, 3 / 4),
        error=(-3 / 4, 3 / 4, 0.0),
    )
