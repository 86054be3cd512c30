"""Stochastic equations by methods for smooth ones."""

from __future__ import annotations

from dataclasses import dataclass

from .._types import State, Time
from ..structure import Calculus, Noise
from ..terms import Term
from .base import Solver, Step, StepState
from .stochastic import StochasticSolver, stochastic


__all__ = ["OnChords"]


@dataclass(frozen=True)
class OnChords(StochasticSolver):
    r"""A Runge-Kutta method along the chords of the Brownian motion, which solves Stratonovich equations.

    .. math:: k_i = f(t_i, Y_i)\,h + g(t_i, Y_i)\,\Delta W

    `solve` wraps `Midpoint`, `Heun` and the other methods of order 2 and more by itself when the equation is
    stochastic: the strong order is then 1, or 0.5 for general noise.

    Args:
        method: the method for smooth equations.

    Reference:
        W. Rumelin, Numerical treatment of stochastic differential equations, 1982, https://doi.org/10.1137/0719041

    Example:
        >>> from ctdyn.solvers import Heun
        >>> OnChords(Heun()).adaptive
        True
    """

    method: Solver

    @property
    def order(self) -> int:  # type: ignore[override]
        """That of the method, on a smooth equation."""
        return self.method.order

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        """Whether the method estimates its own error, in a way that holds for noise.

        What a chord leaves out of the path is of order 1.5 in the step; only the estimate of a method of order 2 is as
        large. One of higher order compares two ways along the chord, which agree however long it is.
        """
        return self.method.adaptive and self.method.order == 2

    @property
    def error_order(self) -> int:  # type: ignore[override]
        """1: the estimate falls as the square of the chord, which is as long as the root of the step."""
        return 1

    @property
    def stages(self) -> int:  # type: ignore[override]
        """Evaluations of the field in one step."""
        return self.method.stages

    @property
    def calculus(self) -> Calculus | None:  # type: ignore[override]
        """That of the method."""
        return self.method.calculus

    @property
    def noises(self) -> frozenset[Noise]:  # type: ignore[override]
        """Those of the method."""
        return self.method.noises

    def __repr__(self) -> str:
        return repr(self.method)

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """The drift at the start."""
        return stochastic(term, self).drift(t0, y0)

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`; the next chord has a slope of its own and is told nothing."""
        chord = stochastic(term, self).chord(t0, t1)
        taken = self.method.step(chord, t0, t1, y0, None, dense=False, estimate=estimate)
        return Step(taken.y1, taken.error, None, ())
