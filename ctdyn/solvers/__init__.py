"""Methods that step one state per series along a term; every method is one file, and one object without strings.

Explicit Runge-Kutta: `Euler` (order 1), `Midpoint`, `Heun` and `Ralston` (2), `Bosh3` (3), `RK4` and `RK4ThreeEighths`
(4), `Dopri5` and `Tsit5` (5), `Dopri8` (8). `Heun`, `Ralston`, `Bosh3`, `Dopri5`, `Tsit5` and `Dopri8` estimate their
own error and so can choose their steps.

Stiff equations: `Rodas5P` (5), the first choice; `Kvaerno5` (5) and `Kvaerno3` (3), which need no second derivatives of
the field; `ImplicitEuler` (1). All choose their steps.

For fields that say more of themselves: `ExponentialMidpoint` (2, chooses its steps), which `solve` takes by itself for
a `DecayField`; `ExponentialEuler` (1), `ETDRK2` (2, chooses its steps) and `ETDRK4` (4) for the same, and `FusedEuler`
(1) for weights that were trained with it; `Leapfrog` (2) for a `SecondOrderField`.

Stochastic, Ito: `EulerMaruyama` (any noise), `Milstein` and `SRI1` (scalar, diagonal), `SRA1` (additive); Stratonovich:
`Midpoint`, `Heun`, `ReversibleHeun` and `EulerHeun` (any noise), `StratonovichMilstein` (scalar, diagonal). `SRA1` and
`SRI1` have strong order 1.5 and estimate their own error.
"""

from .base import Solver, Step, StepState
from .bosh3 import Bosh3
from .chords import OnChords
from .dopri5 import Dopri5
from .dopri8 import Dopri8
from .esdirk import ESDIRK, ImplicitTableau
from .etdrk2 import ETDRK2
from .etdrk4 import ETDRK4
from .euler import Euler
from .euler_heun import EulerHeun
from .euler_maruyama import EulerMaruyama
from .exponential import ExponentialSolver
from .exponential_euler import ExponentialEuler
from .exponential_midpoint import ExponentialMidpoint
from .fused_euler import FusedEuler
from .heun import Heun
from .implicit_euler import ImplicitEuler
from .kvaerno3 import Kvaerno3
from .kvaerno5 import Kvaerno5
from .leapfrog import Leapfrog
from .midpoint import Midpoint
from .milstein import Milstein, StratonovichMilstein
from .ralston import Ralston
from .reversible import ReversibleMethod, ReversibleSolver
from .reversible_heun import ReversibleHeun
from .rk4 import RK4
from .rk4_38 import RK4ThreeEighths
from .rodas5p import Rodas5P
from .rosenbrock import Rosenbrock, RosenbrockTableau
from .runge_kutta import RungeKutta, Tableau
from .sra1 import SRA1
from .sri1 import SRI1
from .stochastic import StochasticSolver
from .tsit5 import Tsit5


__all__ = [
    "ESDIRK",
    "ETDRK2",
    "ETDRK4",
    "RK4",
    "SRA1",
    "SRI1",
    "Bosh3",
    "Dopri5",
    "Dopri8",
    "Euler",
    "EulerHeun",
    "EulerMaruyama",
    "ExponentialEuler",
    "ExponentialMidpoint",
    "ExponentialSolver",
    "FusedEuler",
    "Heun",
    "ImplicitEuler",
    "ImplicitTableau",
    "Kvaerno3",
    "Kvaerno5",
    "Leapfrog",
    "Midpoint",
    "Milstein",
    "OnChords",
    "RK4ThreeEighths",
    "Ralston",
    "ReversibleHeun",
    "ReversibleMethod",
    "ReversibleSolver",
    "Rodas5P",
    "Rosenbrock",
    "RosenbrockTableau",
    "RungeKutta",
    "Solver",
    "Step",
    "StepState",
    "StochasticSolver",
    "StratonovichMilstein",
    "Tableau",
    "Tsit5",
]
