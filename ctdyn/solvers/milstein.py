"""The Milstein method, in both calculi."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._types import State, Time
from ..structure import Calculus, Noise
from ..terms import SDETerm, Term
from .base import Step, StepState
from .stochastic import StochasticSolver, stochastic


__all__ = ["Milstein", "StratonovichMilstein"]


@dataclass(frozen=True)
class _Milstein(StochasticSolver, ABC):
    gradient_free: bool = False

    order: ClassVar[int] = 1
    error_order: ClassVar[int] = 1
    stages: ClassVar[int] = 1
    noises: ClassVar[frozenset[Noise]] = frozenset({Noise.SCALAR, Noise.DIAGONAL, Noise.ADDITIVE})

    def strong_order(self, noise: Noise) -> float:
        """1."""
        return 1.0

    @abstractmethod
    def _square(self, dt: Tensor, dW: Tensor) -> Tensor:
        """Twice the iterated integral of the motion with itself."""

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        sde = stochastic(term, self)
        dt, dW, _ = sde.increment(t0, t1)
        f, g = sde.drift(t0, y0), sde.diffusion(t0, y0)
        dt, dW = dt.to(y0.dtype), dW.to(y0.dtype)
        y1 = torch.addcmul(y0, f, dt) + sde.applied(g, dW)
        if sde.noise is not Noise.ADDITIVE:
            y1 = torch.addcmul(y1, self._bend(sde, t0, y0, g, dt), self._square(dt, dW), value=0.5)
        return Step(y1, None, None, ())

    def _bend(self, sde: SDETerm, t0: Time, y0: State, g: Tensor, dt: Tensor) -> Tensor:
        r"""The derivative of the diffusion along itself, :math:`(\partial_y g)\,g`."""
        if self.gradient_free:
            root = torch.where(dt != 0, dt.abs(), 1.0).sqrt()
            return (sde.diffusion(t0, torch.addcmul(y0, g, root)) - g) / root
        # An expanded state would have one tangent for several entries.
        return torch.func.jvp(lambda y: sde.diffusion(t0, y), (y0.contiguous(),), (g.contiguous(),))[1]


@dataclass(frozen=True)
class Milstein(_Milstein):
    r"""Milstein's method for Ito equations with scalar or diagonal noise: strong order 1.

    .. math:: y_1 = y_0 + f h + g\,\Delta W + \tfrac12 (\partial_y g)\,g\,(\Delta W^2 - h)

    Args:
        gradient_free: take the derivative from a second evaluation of the diffusion at :math:`y_0 + g \sqrt h` instead
            of differentiating it; the order is the same.

    Reference:
        G. N. Milstein, Approximate integration of stochastic differential equations, 1975,
        https://doi.org/10.1137/1119062; P. E. Kloeden, E. Platen, Numerical Solution of Stochastic Differential
        Equations, 1992, 10.3 and 11.1

    Example:
        >>> Milstein().calculus
        <Calculus.ITO: 'Ito'>
    """

    calculus: ClassVar[Calculus | None] = Calculus.ITO

    def _square(self, dt: Tensor, dW: Tensor) -> Tensor:
        return dW.square() - dt


@dataclass(frozen=True)
class StratonovichMilstein(_Milstein):
    r"""Milstein's method for Stratonovich equations with scalar or diagonal noise: strong order 1.

    .. math:: y_1 = y_0 + f h + g\,\Delta W + \tfrac12 (\partial_y g)\,g\,\Delta W^2

    Args:
        gradient_free: take the derivative from a second evaluation of the diffusion at :math:`y_0 + g \sqrt h` instead
            of differentiating it; the order is the same.

    Reference:
        P. E. Kloeden, E. Platen, Numerical Solution of Stochastic Differential Equations, 1992, 10.3,
        https://doi.org/10.1007/978-3-662-12616-5

    Example:
        >>> StratonovichMilstein(gradient_free=True)
        StratonovichMilstein(gradient_free=True)
    """

    calculus: ClassVar[Calculus | None] = Calculus.STRATONOVICH

    def _square(self, dt: Tensor, dW: Tensor) -> Tensor:
        return dW.square()
