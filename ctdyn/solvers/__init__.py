"""Methods that step one state per series along a term; every method is one file, and one object without strings.

Explicit Runge-Kutta: `Euler` (order 1), `Midpoint`, `Heun` and `Ralston` (2), `Bosh3` (3), `RK4` and `RK4ThreeEighths`
(4), `Dopri5` and `Tsit5` (5). `Heun`, `Ralston`, `Bosh3`, `Dopri5` and `Tsit5` estimate their own error and so can
choose their steps.

For a `SecondOrderField`: `Leapfrog` (2).
"""

from .base import Solver, Step, StepState
from .bosh3 import Bosh3
from .dopri5 import Dopri5
from .euler import Euler
from .heun import Heun
from .leapfrog import Leapfrog
from .midpoint import Midpoint
from .ralston import Ralston
from .rk4 import RK4
from .rk4_38 import RK4ThreeEighths
from .runge_kutta import RungeKutta, Tableau
from .tsit5 import Tsit5


__all__ = [
    "RK4",
    "Bosh3",
    "Dopri5",
    "Euler",
    "Heun",
    "Leapfrog",
    "Midpoint",
    "RK4ThreeEighths",
    "Ralston",
    "RungeKutta",
    "Solver",
    "Step",
    "StepState",
    "Tableau",
    "Tsit5",
]
