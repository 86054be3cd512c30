"""Euler's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..structure import Calculus
from .runge_kutta import RungeKutta, Tableau


__all__ = ["Euler"]


@dataclass(frozen=True)
class Euler(RungeKutta):
    r"""Euler's method: one evaluation per step, order 1; for a cheap step inside a cell, never for accuracy.

    .. math:: y_1 = y_0 + h f(t_0, y_0)


    Reference:
        L. Euler, Institutionum calculi integralis, 1768.

    Example:
        >>> Euler().order
        1
    """

    calculus: ClassVar[Calculus | None] = None
    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 1
    tableau: ClassVar[Tableau] = Tableau(
        c=(0.0,),
        a=(),
        b=(1.0,),
    )
