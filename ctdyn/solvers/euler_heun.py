"""The Euler-Heun method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .._types import State, Time
from ..structure import Calculus
from ..terms import Term
from .base import Step, StepState
from .stochastic import StochasticSolver, stochastic


__all__ = ["EulerHeun"]


@dataclass(frozen=True)
class EulerHeun(StochasticSolver):
    r"""The Euler-Heun method for Stratonovich equations: the drift is evaluated once, the diffusion twice.

    .. math:: \bar y = y_0 + g(t_0, y_0)\,\Delta W, \qquad
              y_1 = y_0 + f(t_0, y_0)\,h + \tfrac12 \big(g(t_0, y_0) + g(t_1, \bar y)\big)\,\Delta W

    Strong order 1, or 0.5 for general noise; weak order 1. For a drift that is dear to evaluate; otherwise `Heun`.

    Reference:
        A. J. Roberts, Modify the improved Euler scheme to integrate stochastic differential equations, 2012,
        https://arxiv.org/abs/1210.0933; P. E. Kloeden, E. Platen, Numerical Solution of Stochastic Differential
        Equations, 1992, https://doi.org/10.1007/978-3-662-12616-5

    Example:
        >>> EulerHeun().calculus
        <Calculus.STRATONOVICH: 'Stratonovich'>
    """

    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 1
    stages: ClassVar[int] = 1
    calculus: ClassVar[Calculus | None] = Calculus.STRATONOVICH

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        sde = stochastic(term, self)
        dt, dW, _ = sde.increment(t0, t1)
        f, moved = sde.drift(t0, y0), sde.applied(sde.diffusion(t0, y0), dW)
        again = sde.applied(sde.diffusion(t1, y0 + moved), dW)
        return Step(torch.addcmul(y0, f, dt.to(f.dtype)) + 0.5 * (moved + again), None, None, ())
