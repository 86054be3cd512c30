"""Engines: other libraries that compute a whole trajectory behind `ctdyn.solve`."""

from .base import Engine
from .torchdiffeq import TorchDiffEq


__all__ = ["Engine", "TorchDiffEq"]
