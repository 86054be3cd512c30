"""The 3/8 rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .runge_kutta import RungeKutta, Tableau


__all__ = ["RK4ThreeEighths"]


@dataclass(frozen=True)
class RK4ThreeEighths(RungeKutta):
    r"""Kutta's 3/8 rule: four evaluations per step, order 4; what torchdiffeq calls rk4.

    .. math:: y_1 = y_0 + \tfrac h8 (k_1 + 3 k_2 + 3 k_3 + k_4)

    Reference:
        W. Kutta, Beitrag zur naeherungsweisen Integration totaler Differentialgleichungen, Z. Math. Phys. 46, 1901.

    Example:
        >>> RK4ThreeEighths().order
        4
    """

    order: ClassVar[int] = 4
    error_order: ClassVar[int] = 4
    tableau: ClassVar[Tableau] = Tableau(
        c=(0.0, 1 / 3, 2 / 3, 1.0),
        a=((1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
        b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    )
