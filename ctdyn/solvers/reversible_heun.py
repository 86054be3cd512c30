"""The reversible Heun method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._types import State, Time
from ..structure import Calculus
from ..terms import SDETerm, StochasticIncrement, Term
from .base import Step, StepState
from .reversible import ReversibleSolver
from .stochastic import StochasticSolver


__all__ = ["ReversibleHeun"]


@dataclass(frozen=True)
class ReversibleHeun(StochasticSolver, ReversibleSolver):
    r"""The reversible Heun method: a step that can be undone exactly, for one evaluation of the field.

    .. math:: z_1 = 2 y_0 - z_0 + f(t_0, z_0)\,h + g(t_0, z_0)\,\Delta W, \qquad
              y_1 = y_0 + \tfrac12 \big(f(t_0, z_0) + f(t_1, z_1)\big)\,h
                    + \tfrac12 \big(g(t_0, z_0) + g(t_1, z_1)\big)\,\Delta W

    For Stratonovich equations: strong order 1, or 0.5 for general noise; for ordinary ones order 2.
    It carries :math:`z`, and drift and diffusion there, from step to step; both states in double precision, so that
    `Reversible` finds its way back over many steps.

    Reference:
        P. Kidger, J. Foster, X. Li, T. Lyons, Efficient and accurate gradients for neural SDEs, 2021,
        https://arxiv.org/abs/2105.13493

    Example:
        >>> from ctdyn.integrate import ConstantStep, solve
        >>> ts = torch.tensor([0.0, 1.0])
        >>> solve(lambda t, y: -y, torch.ones(1), ts, solver=ReversibleHeun(), controller=ConstantStep(0.01)).ys[..., 0]
        tensor([1.0000, 0.3679])
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    stages: ClassVar[int] = 1
    calculus: ClassVar[Calculus | None] = Calculus.STRATONOVICH

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """Both states, equal, and the field there: `(y, z, f)`, or `(y, z, f, g)` with noise."""
        return _start(term, t0, y0)

    def across(self, state: StepState) -> StepState:
        """Both states; the field is evaluated anew."""
        return state[:2] if isinstance(state, tuple) else None

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        y, z, *before = state if isinstance(state, tuple) else _start(term, t0, y0)
        before = before or _field(term, t0, z.to(y0.dtype))
        dx = term.increment(t0, t1)
        moved = _applied(term, before, dx)
        z = 2.0 * y - z + moved
        after = _field(term, t1, z.to(y0.dtype))
        y = y + 0.5 * (moved.to(y.dtype) + _applied(term, after, dx))
        return Step(y.to(y0.dtype), None, (y, z, *after), ())

    def undo(self, term: Term, t0: Time, t1: Time, y1: State, state: StepState) -> tuple[State, StepState]:
        """The states before a step: what a step of the same length backwards leads to."""
        if not isinstance(state, tuple):
            raise TypeError("a step can only be undone with the second state that it returned.")
        y, z, *after = state
        after = after or _field(term, t1, z.to(y1.dtype))
        dx = term.increment(t0, t1)
        moved = _applied(term, after, dx)
        z = 2.0 * y - z - moved
        before = _field(term, t0, z.to(y1.dtype))
        y = y - 0.5 * (moved.to(y.dtype) + _applied(term, before, dx))
        return y.to(y1.dtype), (y, z, *before)


def _start(term: Term, t0: Time, y0: State) -> tuple[Tensor, ...]:
    wide = y0.to(torch.promote_types(y0.dtype, torch.float64))
    return (wide, wide, *_field(term, t0, y0))


def _field(term: Term, t: Time, z: State) -> tuple[Tensor, ...]:
    return (term.drift(t, z), term.diffusion(t, z)) if isinstance(term, SDETerm) else (term.derivative(t, z),)


def _applied(term: Term, at: Sequence[Tensor], dx: Tensor | StochasticIncrement) -> State:
    drift, *diffusion = at
    if isinstance(term, SDETerm) and isinstance(dx, StochasticIncrement):
        return torch.addcmul(term.applied(diffusion[0], dx.dW), drift, dx.dt.to(drift.dtype))
    if isinstance(dx, StochasticIncrement):
        raise TypeError("a smooth equation is driven by time alone.")
    return drift * dx.to(drift.dtype).unsqueeze(-1)
