"""Dormand and Prince's pair of order 5."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from .base import Solver
from .runge_kutta import RungeKutta, Tableau, is_fine


__all__ = ["Dopri5"]


@dataclass(frozen=True)
class Dopri5(RungeKutta):
    r"""Dormand and Prince's pair 5(4): six evaluations per step; what torchdiffeq, MATLAB's ode45 and SciPy's RK45 use.

    The dense output is Shampine's quartic, order 4 inside the step. From rtol 1e-5 on it has order 5 and
    takes two further evaluations, made only in steps that hold an output: the free one would err more than the steps.
    At looser tolerances it may err by a few times the tolerance where the equation damps the errors of the steps.

    Reference:
        J. R. Dormand, P. J. Prince, A family of embedded Runge-Kutta formulae, J. Comput. Appl. Math. 6(1), 1980;
        L. F. Shampine, Some practical Runge-Kutta formulas, Math. Comput. 46, 1986.

    Example:
        >>> Dopri5().order
        5
    """

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 5
    tableau: ClassVar[Tableau] = Tableau(
        c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
        a=(
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
        dense=(
            (1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
            (0.0, 0.0, 0.0, 0.0),
            (0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
            (0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
            (0.0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632),
            (0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
            (0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
        ),
    )

    def within(self, rtol: float | Tensor, atol: float | Tensor) -> Solver:
        """The same steps, with the dense output that these tolerances need."""
        return _FineDopri5() if is_fine(rtol) else self


@dataclass(frozen=True, repr=False)
class _FineDopri5(RungeKutta):
    """Dopri5 for tight tolerances: its interpolant has order 5."""

    order: ClassVar[int] = Dopri5.order
    error_order: ClassVar[int] = Dopri5.error_order
    # fmt: off
    tableau: ClassVar[Tableau] = replace(
        Dopri5.tableau,
        extra=(
            (0.55, (
                0.09476685615451569, 0.0, 0.4219378570230546, 0.027191882552137458, 0.028694406770267536,
                -0.03154193489430487, 0.008950932394329607,
            )),
            (0.21, (
                0.09504510742985638, 0.0, 0.20583660078656615, 0.10738981052270363, -0.03937864933353217,
                0.009483359192492906, -0.01663559614588727, -0.15174063245219963,
            )),
        ),
        dense=(
            (1.0, -4.1187184660996286, 6.740289273519908, -4.668693982074264, 1.138269007987318),
            (0.0, 0.0, 0.0, 0.0, 0.0),
            (0.0, 4.384799362211002, -22.15810586791187, 33.40799514065525, -15.185452336661477),
            (0.0, 6.354533450704225, -32.11194248826291, 48.41549295774648, -22.007042253521128),
            (0.0, -3.1465731298166357, 15.900864503056072, -23.97389051288865, 10.897222960403933),
            (0.0, 1.278169014084507, -6.459087860496311, 9.738430583501007, -4.426559356136821),
            (0.0, -1.3316099126403993, 6.837443790733147, -10.680057843545097, 5.174223965452349),
            (0.0, -6.853957972433531, 33.12327918790222, -45.684684458503845, 19.415363243035156),
            (0.0, 3.433357653990461, -1.8727405385402527, -6.554591884890877, 4.993974769440669),
        ),
    )
    # fmt: on

    def __repr__(self) -> str:
        return repr(Dopri5())
