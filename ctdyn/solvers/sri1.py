"""A stochastic Runge-Kutta method for diagonal and scalar noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .._types import State, Time
from ..structure import Calculus, Noise
from ..terms import Term
from .base import Step, StepState
from .stochastic import ELEMENTWISE, StochasticSolver, stochastic


__all__ = ["SRI1"]


@dataclass(frozen=True)
class SRI1(StochasticSolver):
    r"""Rossler's SRI1 for Ito equations with diagonal or scalar noise: strong order 1.5, weak order 2.

    Two evaluations of the drift and four of the diffusion per step, combined with

    .. math:: \Delta W, \quad \tfrac{1}{2 \sqrt h} (\Delta W^2 - h), \quad \tfrac12 \Delta W + H, \quad
              \tfrac1{6h} (\Delta W^3 - 3 h \Delta W)

    and the space-time Levy area :math:`H`. Its error estimate is what the terms of order 1.5 contribute, so that it can
    choose its steps.

    Reference:
        A. Rossler, Runge-Kutta methods for the strong approximation of solutions of stochastic differential equations,
        2010, https://doi.org/10.1137/09076636X; C. Rackauckas, Q. Nie, Adaptive methods for stochastic differential
        equations via natural embeddings and rejection sampling with memory, 2017,
        https://doi.org/10.3934/dcdsb.2017133

    Example:
        >>> SRI1().strong_order(Noise.DIAGONAL)
        1.5
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    stages: ClassVar[int] = 2
    adaptive: ClassVar[bool] = True
    needs_area: ClassVar[bool] = True
    calculus: ClassVar[Calculus | None] = Calculus.ITO
    noises: ClassVar[frozenset[Noise]] = ELEMENTWISE

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
        dt, dW = dt.to(y0.dtype), dW.to(y0.dtype)
        length = torch.where(dt != 0, dt, 1.0)
        root = length.sqrt()
        second = (dW.square() - dt) / (2.0 * root)
        mean = 0.5 * dW if area is None else torch.add(area.to(y0.dtype), dW, alpha=0.5)
        third = dW * (dW.square() - 3.0 * dt) / (6.0 * length)
        quarter = torch.lerp(t0, t1, 0.25)

        f1, g1 = sde.drift(t0, y0), sde.diffusion(t0, y0)
        rise = torch.addcmul(y0, f1, dt, value=0.25)
        g2 = sde.diffusion(quarter, torch.addcmul(rise, g1, root, value=0.5))
        f2 = sde.drift(
            torch.lerp(t0, t1, 0.75), torch.addcmul(torch.addcmul(y0, f1, dt, value=0.75), g1, mean, value=1.5)
        )
        g3 = sde.diffusion(t1, torch.addcmul(torch.addcmul(y0, f1, dt), g1, root, value=-1.0))
        g4 = sde.diffusion(quarter, torch.addcmul(rise, root, 3.0 * g2 + 0.5 * g3 - 5.0 * g1))

        fine = mean * (2.0 * g1 - 4 / 3 * g2 - 2 / 3 * g3) + third * (5 / 3 * g2 - 2.0 * g1 - 2 / 3 * g3 + g4)
        coarse = dW * (4 / 3 * g2 - g1 + 2 / 3 * g3) + second * (4 / 3 * g2 - g1 - 1 / 3 * g3)
        y1 = torch.addcmul(y0, dt, torch.add(f1, f2, alpha=2.0), value=1 / 3) + coarse + fine
        return Step(y1, torch.addcmul(fine, dt, f2 - f1, value=2 / 3) if estimate else None, None, ())
