"""Terms: a field and what drives it. A term is all that a solver sees of an equation."""

from .augmented import AugmentedTerm
from .augmented_sde import augmented_sde
from .base import Term
from .build import as_term
from .cde import CDETerm
from .ode import ODETerm
from .sde import ChordTerm, SDETerm, StochasticIncrement, brownian_size


__all__ = [
    "AugmentedTerm",
    "CDETerm",
    "ChordTerm",
    "ODETerm",
    "SDETerm",
    "StochasticIncrement",
    "Term",
    "as_term",
    "augmented_sde",
    "brownian_size",
]
