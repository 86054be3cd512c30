"""Solving differential equations for batches in which every series has a clock of its own.

`solve` and `evolve`, and what they will do, `explain`; how long the steps are: `PIDController`, `ConstantStep`,
`StepTo`; how gradients are computed: `Direct`, `Checkpoint`, `Reversible`, `Backsolve`, or all fixed steps at once,
`ParallelInTime`; what ends a series or makes it jump: `Event`; what is integrated along the way: `Divergence`,
`JacobianNorm`, `KineticEnergy`, `PathKL`; other libraries behind the same call: `TorchDiffEq`, `TorchSDE`, `TorchCDE`.
A `Solution` is a path.
"""

from .adjoint import Adjoint, AdjointInstabilityWarning, Backsolve, Checkpoint, Direct, ParallelInTime, Reversible
from .choice import explain
from .controllers import AdaptiveController, ConstantStep, GridController, PIDController, StepController, StepTo
from .engines import Engine, TorchCDE, TorchDiffEq, TorchSDE
from .events import Event, Events
from .integrands import Divergence, JacobianNorm, KineticEnergy, PathKL
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
    "JacobianNorm",
    "KineticEnergy",
    "PIDController",
    "ParallelInTime",
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
    "explain",
    "solve",
]
