"""Terms: a field and what drives it. A term is all that a solver sees of an equation."""

from .base import Term
from .build import as_term
from .cde import CDETerm
from .ode import ODETerm


__all__ = ["CDETerm", "ODETerm", "Term", "as_term"]
