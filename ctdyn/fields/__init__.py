"""Fields: the right-hand sides of differential equations. Bring your own by subclassing `VectorField`."""

from .base import VectorField
from .cde import LinearCDEField, MLPCDEField
from .linear import LinearField
from .mlp import MLPField


__all__ = ["LinearCDEField", "LinearField", "MLPCDEField", "MLPField", "VectorField"]
