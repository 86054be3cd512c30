"""The Euler-Maruyama method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .._types import State, Time
from ..structure import Calculus, Noise
from ..terms import Term
from .base import Step, StepState
from .stochastic import StochasticSolver, stochastic


__all__ = ["EulerMaruyama"]


@dataclass(frozen=True)
class EulerMaruyama(StochasticSolver):
    r"""The Euler-Maruyama method for Ito equations with any noise: strong order 0.5 (1 if additive), weak order 1.

    .. math:: y_1 = y_0 + f(t_0, y_0)\,h + g(t_0, y_0)\,\Delta W

    The cheapest step there is, and the usual one for latent equations with learned drift and diffusion.

    Reference:
        G. Maruyama, Continuous Markov processes and stochastic equations, 1955, https://doi.org/10.1007/BF02846028

    Example:
        >>> from ctdyn.integrate import ConstantStep, solve
        >>> from ctdyn.systems import OrnsteinUhlenbeck
        >>> ts, rng = torch.tensor([0.0, 0.5, 1.0]), torch.Generator().manual_seed(0)
        >>> walk = OrnsteinUhlenbeck(theta=1.0, mean=0.0, sigma=0.5)
        >>> control = ConstantStep(0.1)
        >>> solve(walk, torch.ones(4, 1), ts, solver=EulerMaruyama(), controller=control, generator=rng).ys.shape
        torch.Size([4, 3, 1])
    """

    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 1
    stages: ClassVar[int] = 1
    calculus: ClassVar[Calculus | None] = Calculus.ITO

    def strong_order(self, noise: Noise) -> float:
        """1 for additive noise, otherwise 0.5."""
        return 1.0 if noise is Noise.ADDITIVE else 0.5

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        sde = stochastic(term, self)
        dt, dW, _ = sde.increment(t0, t1)
        f, g = sde.drift(t0, y0), sde.diffusion(t0, y0)
        y1 = torch.addcmul(y0, f, dt.to(f.dtype))
        return Step(
            torch.addcmul(y1, g, dW.to(g.dtype)) if g.dim() == y0.dim() else y1 + sde.applied(g, dW), None, None, ()
        )
