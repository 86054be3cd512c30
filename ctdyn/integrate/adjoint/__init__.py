"""Gradients of a solve: ways to run a replay, `Direct` (the default), `Checkpoint` and `Reversible`."""

from ..._checks import AdjointInstabilityWarning
from .base import Adjoint
from .checkpoint import Checkpoint
from .direct import Direct
from .reversible import Reversible


__all__ = ["Adjoint", "AdjointInstabilityWarning", "Checkpoint", "Direct", "Reversible"]
