"""Gradients of a solve: ways to run a replay, `Direct` (the default), `Checkpoint`, `Reversible` and `Backsolve`."""

from ..._checks import AdjointInstabilityWarning
from .backsolve import Backsolve
from .base import Adjoint
from .checkpoint import Checkpoint
from .direct import Direct
from .parallel import ParallelInTime
from .reversible import Reversible


__all__ = ["Adjoint", "AdjointInstabilityWarning", "Backsolve", "Checkpoint", "Direct", "ParallelInTime", "Reversible"]
