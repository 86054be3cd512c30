"""Solving differential equations for batches in which every series has a clock of its own.

`solve` and `evolve`; how long the steps are: `PIDController`, `ConstantStep`, `StepTo`; how gradients are computed:
`Direct`, `Checkpoint`, `Reversible`, `Backsolve`; other libraries behind the same call:
`TorchDiffEq`, `TorchSDE`, `TorchCDE`. A `Solution` is a path.
"""

from .adjoint import Adjoint, AdjointInstabilityWarning, Backsolve, Checkpoint, Direct, Reversible
from .controllers import AdaptiveController, ConstantStep, GridController, PIDController, StepController, StepTo
from .engines import Engine, TorchCDE, TorchDiffEq, TorchSDE
from .events import Event, Events
from .integrands import Divergence, KineticEnergy, PathKL
from .solution import Solution
from .solve import evolve, solve
from .status import Status


__all__ = [
    "AdaptiveController",
    "Adjoint",
    "AdjointInstabilityWarning",
    "Backsolve",
    "Checkpoint",
    "ConstantStep",
    "Direct",
    "Divergence",
    "Engine",
    "Event",
    "Events",
    "GridController",
    "KineticEnergy",
    "PIDController",
    "PathKL",
    "Reversible",
    "Solution",
    "Status",
    "StepController",
    "StepTo",
    "TorchCDE",
    "TorchDiffEq",
    "TorchSDE",
    "evolve",
    "solve",
]
