"""What the methods for stochastic equations share."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from .._types import State, Time
from ..structure import Noise
from ..terms import SDETerm, Term
from .base import Solver, StepState


__all__ = ["StochasticSolver", "stochastic"]


class StochasticSolver(Solver, ABC):
    """A method that steps with the increments of a Brownian motion; it has no dense output.

    A time inside a step is read by a shorter step from its start, with the increment of the same Brownian motion.

    Example:
        >>> from ctdyn.solvers import EulerMaruyama
        >>> from ctdyn.structure import Noise
        >>> EulerMaruyama().strong_order(Noise.DIAGONAL), EulerMaruyama().strong_order(Noise.ADDITIVE)
        (0.5, 1.0)
    """

    adaptive: ClassVar[bool] = False
    interpolates: ClassVar[bool] = False
    needs_area: ClassVar[bool] = False
    """Whether a step uses the space-time Levy area."""

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """Nothing is carried from step to step."""
        return None

    def pieces(self, term: Term, ends: Sequence[Time], dtype: torch.dtype) -> Iterator[Term]:
        """The term on each of consecutive steps, its Brownian increments found all at once."""
        if not isinstance(term, SDETerm):
            return super().pieces(term, ends, dtype)
        return term.along(ends, dtype, area=self.needs_area)

    def prepared(self, term: Term, grid: Tensor, dtype: torch.dtype) -> Term:
        """The term with the Brownian increments of consecutive steps at hand."""
        return term.drawn(grid, dtype, area=self.needs_area) if isinstance(term, SDETerm) else term

    def coefficients(self, term: Term, t0: Time, t1: Time, y0: State, interpolants: Tensor) -> Tensor:
        """There is no dense output: between two times a Brownian motion is no polynomial."""
        raise TypeError(f"{type(self).__name__} has no dense output; ask for the times in ts.")


def stochastic(term: Term, solver: Solver) -> SDETerm:
    """The term as a stochastic one, which is what the method steps.

    Raises:
        TypeError: the term is of another kind.

    Example:
        >>> from ctdyn.solvers import EulerMaruyama
        >>> from ctdyn.terms import ODETerm
        >>> stochastic(ODETerm(lambda t, y: -y), EulerMaruyama())
        Traceback (most recent call last):
        TypeError: EulerMaruyama steps stochastic equations; give it an SDEField, or use an ordinary one such as Heun().
    """
    if not isinstance(term, SDETerm):
        raise TypeError(
            f"{type(solver).__name__} steps stochastic equations; give it an SDEField, or use an ordinary one such as "
            "Heun()."
        )
    return term


ELEMENTWISE = frozenset({Noise.SCALAR, Noise.DIAGONAL})
