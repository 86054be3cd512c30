"""Engines: other libraries that compute a whole trajectory behind `ctdyn.solve`."""

from .base import Engine
from .torchcde import TorchCDE
from .torchdiffeq import TorchDiffEq
from .torchsde import TorchSDE


__all__ = ["Engine", "TorchCDE", "TorchDiffEq", "TorchSDE"]
