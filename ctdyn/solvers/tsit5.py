"""Tsitouras' pair of order 5."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from .base import Solver
from .runge_kutta import RungeKutta, Tableau, is_fine


__all__ = ["Tsit5"]


@dataclass(frozen=True)
class Tsit5(RungeKutta):
    r"""Tsitouras' pair 5(4): six evaluations per step, a little more accurate than `Dopri5`; the default of `solve`.

    The dense output is the free quartic of the paper, order 4 inside the step. From rtol 1e-5 on it has order 5 and
    takes two further evaluations, made only in steps that hold an output: the free one would err more than the steps.
    At looser tolerances it may err by a few times the tolerance where the equation damps the errors of the steps.

    Reference:
        Ch. Tsitouras, Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption,
        Comput. Math. Appl. 62(2), 2011.

    Example:
        >>> Tsit5().order
        5
    """

    order: ClassVar[int] = 5
    error_order: ClassVar[int] = 5
    tableau: ClassVar[Tableau] = Tableau(
        c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0),
        a=(
            (0.161,),
            (-0.008480655492356989, 0.335480655492357),
            (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
            (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
            (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        ),
        b=(0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
        error=(
            0.00178001105222577714,
            0.0008164344596567469,
            -0.007880878010261995,
            0.1447110071732629,
            -0.5823571654525552,
            0.45808210592918697,
            -1 / 66,
        ),
        dense=(
            (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
            (0.0, 0.13169999999999998, -0.2234, 0.1017),
            (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
            (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
            (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
            (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
            (0.0, 1.5, -4.0, 2.5),
        ),
    )

    def within(self, rtol: float | Tensor, atol: float | Tensor) -> Solver:
        """The same steps, with the dense output that these tolerances need."""
        return _FineTsit5() if is_fine(rtol) else self


@dataclass(frozen=True, repr=False)
class _FineTsit5(RungeKutta):
    """Tsit5 for tight tolerances: its interpolant has order 5."""

    order: ClassVar[int] = Tsit5.order
    error_order: ClassVar[int] = Tsit5.error_order
    # fmt: off
    tableau: ClassVar[Tableau] = replace(
        Tsit5.tableau,
        extra=(
            (0.51, (
                0.10635916909564092, 0.011499519726224997, 0.4026976073371664, -0.3235307893082984,
                1.2656324221906854, -0.9813641349920277, 0.028706205950608313,
            )),
            (0.19, (
                0.09568595269713316, 0.005119180725447735, 0.19180705122437852, 0.020480589175072405,
                0.12696126743237338, -0.12069136919806298, -0.003441993769939706, -0.12592067828640252,
            )),
        ),
        dense=(
            (1.0, -4.481029848066518, 7.8713650702558, -5.817336762221724, 1.523462306850506),
            (0.0, 0.061982942432424235, -0.3398294243197023, 0.5437100213421282, -0.25586353945485085),
            (0.0, 2.974497257493018, -16.30806236327575, 26.092081206144936, -12.278626449947707),
            (0.0, 8.547500906007377, -46.862768985179684, 74.97807812285595, -35.2838014695799),
            (0.0, -20.39281893679931, 111.80624293585335, -178.8843766384892, 84.18088312399905),
            (0.0, 14.409239858308624, -79.0005039083503, 126.39684086227358, -59.48086628813214),
            (0.0, -0.8948406654769058, 4.9874593128702776, -8.290396629309821, 4.197777981916453),
            (0.0, -5.19264208882797, 26.916416886655757, -38.25490750682761, 16.53113270899982),
            (0.0, 4.96811057492926, -9.070319524509763, 3.23630732423174, 0.8659016253487615),
        ),
    )
    # fmt: on

    def __repr__(self) -> str:
        return repr(Tsit5())
