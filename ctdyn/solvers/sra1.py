"""A stochastic Runge-Kutta method for additive noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .._types import State, Time
from ..structure import Calculus, Noise
from ..terms import Term
from .base import Step, StepState
from .stochastic import StochasticSolver, stochastic


__all__ = ["SRA1"]


@dataclass(frozen=True)
class SRA1(StochasticSolver):
    r"""Rossler's SRA1 for additive noise, scalar to matrix: strong order 1.5, weak order 2, two drifts per step.

    .. math:: z = \tfrac12 \Delta W + H, \qquad Y = y_0 + \tfrac34 h f_1 + \tfrac32 g(t_1)\,z, \qquad
              y_1 = y_0 + \tfrac h3 f_1 + \tfrac{2h}3 f(t_0 + \tfrac34 h, Y) + g(t_1)\,\Delta W + (g(t_0) - g(t_1))\,z

    with the space-time Levy area :math:`H`. Its error estimate is what the stages add to an Euler step, so that it can
    choose its steps.

    Reference:
        A. Rossler, Runge-Kutta methods for the strong approximation of solutions of stochastic differential equations,
        2010, https://doi.org/10.1137/09076636X; C. Rackauckas, Q. Nie, Adaptive methods for stochastic differential
        equations via natural embeddings and rejection sampling with memory, 2017,
        https://doi.org/10.3934/dcdsb.2017133

    Example:
        >>> SRA1().strong_order(Noise.ADDITIVE)
        1.5
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    stages: ClassVar[int] = 2
    adaptive: ClassVar[bool] = True
    needs_area: ClassVar[bool] = True
    calculus: ClassVar[Calculus | None] = Calculus.ITO
    noises: ClassVar[frozenset[Noise]] = frozenset({Noise.ADDITIVE})

    def strong_order(self, noise: Noise) -> float:
        """1.5."""
        return 1.5

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """The drift at the start."""
        return stochastic(term, self).drift(t0, y0)

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        sde = stochastic(term, self)
        dt, dW, area = sde.increment_and_area(t0, t1)
        dt = dt.to(y0.dtype)
        z = 0.5 * dW if area is None else torch.add(area, dW, alpha=0.5)
        early, late = sde.diffusion(t0, y0), sde.diffusion(t1, y0)
        shift = sde.applied(late, z)
        f1 = sde.drift(t0, y0)
        f2 = sde.drift(torch.lerp(t0, t1, 0.75), torch.addcmul(y0, f1, dt, value=0.75) + 1.5 * shift)
        turn = sde.applied(early, z) - shift
        y1 = torch.addcmul(y0, dt, torch.add(f1, f2, alpha=2.0), value=1 / 3) + sde.applied(late, dW) + turn
        return Step(y1, torch.addcmul(turn, dt, f2 - f1, value=2 / 3) if estimate else None, None, ())
