"""Terms: a field and what drives it. A term is all that a solver sees of an equation."""

from .base import Term
from .ode import ODETerm


__all__ = ["ODETerm", "Term"]
