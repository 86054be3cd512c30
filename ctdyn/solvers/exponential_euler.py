"""The exponential Euler method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._types import State, Time
from ..linear.phi import phi1
from ..terms import Term
from .base import Step, StepState
from .exponential import ExponentialSolver, Frozen


__all__ = ["ExponentialEuler"]


@dataclass(frozen=True)
class ExponentialEuler(ExponentialSolver):
    r"""The exponential Euler method for decay fields: one evaluation per step, order 1, stable for every rate.

    .. math:: y_1 = y_0 + h\,\varphi_1(-h a_0)\,(b_0 - a_0 \odot y_0) = e^{-h a_0} y_0 + (1 - e^{-h a_0})\,b_0 / a_0

    The step of a cell that decays between observations: exact where rates and drive stand still.

    Reference:
        Exponential integrators, M. Hochbruck, A. Ostermann, Acta Numerica 19, 2010,
        https://doi.org/10.1017/S0962492910000048

    Example:
        >>> import torch
        >>> from ctdyn.integrate import StepTo, solve
        >>> from ctdyn.structure import DecayField
        >>> class Leak(DecayField):
        ...     def decay(self, t, y, u=None):
        ...         return torch.full_like(y, 1e6), torch.full_like(y, 3e6)
        >>> ts = torch.tensor([0.0, 1.0])
        >>> solve(Leak(), torch.ones(1), ts, solver=ExponentialEuler(), controller=StepTo()).ys[-1]
        tensor([3.])
    """

    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 1
    adaptive: ClassVar[bool] = False
    stages: ClassVar[int] = 1

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        dt = (t1 - t0).to(y0.dtype).unsqueeze(-1)
        start = Frozen(term, t0, y0)
        return Step(y0 + dt * phi1(-dt * start.rate) * start.velocity, None, None, ())
