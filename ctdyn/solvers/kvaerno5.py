"""Kvaerno's pair of order 5 for stiff equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .esdirk import ESDIRK, ImplicitTableau


__all__ = ["Kvaerno5"]

_SIXTH = (0.13855640231268224, 0.0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676)
_LAST = (
    0.13659751177640291,
    0.0,
    -0.05496908796538376,
    -0.04118626728321046,
    0.62993304899016403,
    0.06962479448202728,
)

_CAUTION = 6.0
"""The difference to the embedded method, as it stands, lets the error grow to tens of tolerances."""


@dataclass(frozen=True)
class Kvaerno5(ESDIRK):
    r"""Kvaerno's pair 5(4) for stiff equations: six implicit stages, L-stable; no second derivatives.

    For a field whose second derivatives do not exist or are dear; otherwise `Rodas5P` is more accurate for less. One
    stage lies beyond the end of the step, by 0.23 of its length. The error estimate is six times the difference to the
    embedded method, which alone lets the error of the answer grow to tens of tolerances. The dense output is of order
    4: of the polynomials of degree 5 that join smoothly, one with small errors of order 5 that damps what is stiff.

    Args:
        newton_rtol: relative error that Newton's method keeps well below in each stage; None: that of the controller.
        newton_atol: absolute error, in the unit of the state; None: that of the controller.

    Reference:
        A. Kvaerno, Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT 44, 2004,
        https://doi.org/10.1023/B:BITN.0000046811.70614.38

    Example:
        >>> Kvaerno5().order
        5
    """

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 5
    tableau: ClassVar[ImplicitTableau] = ImplicitTableau(
        gamma=0.26,
        c=(0.52, 1.2303332099679081, 0.89576598435007593, 0.43639360985864757, 1.0, 1.0),
        a=(
            (0.26,),
            (0.13, 0.84033320996790809),
            (0.22371961478320505, 0.47675532319799699, -0.06470895363112615),
            (0.16648564323248321, 0.10450018841591720, 0.03631482272098715, -0.13090704451073998),
            _SIXTH,
            _LAST,
        ),
        error=tuple(
            _CAUTION * (own - embedded) for own, embedded in zip((*_LAST, 0.26), (*_SIXTH, 0.26, 0.0), strict=True)
        ),
        dense=(
            (1.0, -2.181448747227356, 1.9314142662585312, -0.6354947319529813, 0.02212672469820902),
            (0.0, 0.0, 0.0, 0.0, 0.0),
            (0.0, 0.14367607971568436, -0.3658567521004144, 0.025839825226854605, 0.14137175919249134),
            (0.0, -4.333535872910236, 9.24391097045816, -5.693145658601658, 0.741584293770524),
            (0.0, 3.8435404632602084, -5.285981917934444, 2.1910076910390797, -0.11863318737468091),
            (0.0, -2.0491891665830164, 0.2872090192570611, 5.921273433645063, -4.089668491837081),
            (0.0, 4.576957243744715, -5.810695585938895, -1.8094805593563585, 3.3032189015505375),
        ),
        probe=0.75,
    )
