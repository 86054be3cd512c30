"""Solving differential equations for batches in which every series has a clock of its own.

`solve` and `evolve`; how long the steps are: `PIDController`, `ConstantStep`, `StepTo`; how gradients are computed:
`Direct`, `Checkpoint`; other libraries behind the same call: `TorchDiffEq`. A `Solution` is a path.
"""

from .adjoint import Adjoint, Checkpoint, Direct
from .controllers import AdaptiveController, ConstantStep, GridController, PIDController, StepController, StepTo
from .engines import Engine, TorchDiffEq
from .solution import Solution
from .solve import evolve, solve
from .status import Status


__all__ = [
    "AdaptiveController",
    "Adjoint",
    "Checkpoint",
    "ConstantStep",
    "Direct",
    "Engine",
    "GridController",
    "PIDController",
    "Solution",
    "Status",
    "StepController",
    "StepTo",
    "TorchDiffEq",
    "evolve",
    "solve",
]
