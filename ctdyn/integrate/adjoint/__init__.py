"""Gradients of a solve: ways to run a replay, `Direct` (the default) and `Checkpoint`."""

from .base import Adjoint
from .checkpoint import Checkpoint
from .direct import Direct


__all__ = ["Adjoint", "Checkpoint", "Direct"]
