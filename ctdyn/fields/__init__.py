"""Fields: the right-hand sides of differential equations. Bring your own by subclassing `VectorField`."""

from .base import VectorField
from .linear import LinearField
from .mlp import MLPField


__all__ = ["LinearField", "MLPField", "VectorField"]
