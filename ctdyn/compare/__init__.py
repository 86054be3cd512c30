"""Tables that compare: models with the trivial baselines, and methods of solving with each other."""

from .models import compare
from .solvers import Setting, compare_solvers


__all__ = ["Setting", "compare", "compare_solvers"]
