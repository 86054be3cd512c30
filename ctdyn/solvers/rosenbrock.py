"""Rosenbrock methods: implicit, without iterations; one step, written once for every tableau."""

from __future__ import annotations

import functools
from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._types import State, Time
from ..terms import Term
from ._jacobian import Systems, inside, larger, linearise
from .base import Solver, Step, StepState
from .runge_kutta import _matrix


__all__ = ["Rosenbrock", "RosenbrockTableau"]


@dataclass(frozen=True)
class RosenbrockTableau:
    r"""The coefficients of a Rosenbrock method, in the form that needs no product with the Jacobian.

    .. math:: (I - h \gamma J)\, u_i = h \gamma \Big( f\big(t_0 + c_i h,\; y_0 + \sum_{j<i} a_{ij} u_j\big)
              + h d_i\, \partial_t f \Big) + \gamma \sum_{j<i} e_{ij} u_j, \qquad y_1 = y_0 + \sum_j m_j u_j

    J and the derivative by time are those at the start of the step.

    Args:
        gamma: the diagonal coefficient.
        c: nodes of the stages, `(stage,)`.
        d: weights of the derivative by time, one per stage.
        a: rows below the diagonal, the first stage's empty row left out.
        e: rows below the diagonal of what couples the systems (often named C), the first stage's left out.
        m: weights of the result, one per stage.
        error: weights of the error estimate.
        dense: for each stage its coefficients of :math:`\theta, \theta^2, \dots`.

    Example:
        >>> half = 0.5  # the linearly implicit midpoint rule
        >>> RosenbrockTableau(half, (0.0,), (half,), (), (), (1 / half,), (0.0,), ((1 / half,),)).m
        (2.0,)
    """

    gamma: float
    c: tuple[float, ...]
    d: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    e: tuple[tuple[float, ...], ...]
    m: tuple[float, ...]
    error: tuple[float, ...]
    dense: tuple[tuple[float, ...], ...]

    @functools.cached_property
    def middle(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Weights of the dense output in the middle of the step, and of its slope."""
        return inside(self.dense, 0.5)


class Rosenbrock(Solver, ABC):
    r"""A method for stiff equations that solves one linear system per stage, all with the same matrix of each series.

    A subclass names its `tableau` and its orders, and nothing else. There is no iteration, hence nothing to fail and no
    tolerance to choose, but the Jacobian is part of the method: the field must be differentiable in state and time, and
    gradients of the solution take second derivatives of it. They are exact, and so are second derivatives.

    The error of a step is the larger of two: that of its end, told by the embedded method, and that of its middle, told
    by how far the dense output is from solving the equation there. Where a stiff solution follows a slow driver its
    ends stay right however long the steps are, and only the second notices that nothing is known in between. Beyond the
    pole of the method, where something near the solution grows faster than the step resolves, neither tells anything:
    such a step is never taken, and a solve that met one is repeated with tighter tolerances.

    Example:
        >>> import torch
        >>> from ctdyn.solvers import Rodas5P
        >>> from ctdyn.terms import ODETerm
        >>> t0 = torch.zeros(1, dtype=torch.float64)
        >>> Rodas5P().step(ODETerm(lambda t, y: -y), t0, t0 + 1, torch.ones(1, 1), None).y1
        tensor([[0.3679]])
    """

    tableau: ClassVar[RosenbrockTableau]
    implicit: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        cls.adaptive = any(cls.tableau.error)
        cls.stages = len(cls.tableau.c) + cls.adaptive

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """Nothing: every step starts with a Jacobian of its own."""
        return None

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        tableau = self.tableau
        gamma, span = tableau.gamma, t1 - t0
        dt = span.to(y0.dtype).unsqueeze(-1)
        start = linearise(term, t0, y0, timed=True)
        systems = Systems(start.by_state, gamma * dt)
        drift = None if start.by_time is None else dt * start.by_time
        increments: list[Tensor] = []
        for c, d, a, e in zip(tableau.c, tableau.d, ((), *tableau.a), ((), *tableau.e), strict=True):
            velocity = term.derivative(t0 + c * span, _sum(y0, a, increments)) if increments else start.velocity
            if d and drift is not None:
                velocity = torch.add(velocity, drift, alpha=d)
            right = _sum(gamma * dt * velocity, [gamma * weight for weight in e], increments)
            increments.append(systems.solve(right))
        y1 = _sum(y0, tableau.m, increments)
        error = None
        if estimate and self.adaptive:
            error = _sum(None, tableau.error, increments)
            value, slope = (_sum(start, row, increments) for start, row in zip((y0, None), tableau.middle, strict=True))
            defect = dt * term.derivative(t0 + 0.5 * span, value) - slope
            error = larger(error, systems.solve(gamma * defect))
        outgrown = systems.outgrown() if estimate else None
        return Step(y1, error, None, tuple(increments) if dense else (), outgrown)

    def coefficients(self, term: Term, t0: Time, t1: Time, y0: State, interpolants: Tensor) -> Tensor:
        """The dense output of many steps, `(step, degree + 1, *batch, state)`."""
        weights = _matrix(self.tableau.dense, y0.dtype, y0.device)
        stages = interpolants.transpose(0, 1).reshape(interpolants.shape[1], y0.numel())
        powers = (weights @ stages).reshape(len(weights), *y0.shape)
        return torch.cat([y0.unsqueeze(0), powers]).transpose(0, 1)


def _sum(start: Tensor | None, weights: tuple[float, ...] | list[float], increments: list[Tensor]) -> Tensor:
    total = start
    for weight, increment in zip(weights, increments, strict=True):
        if weight != 0.0:
            total = weight * increment if total is None else torch.add(total, increment, alpha=weight)
    if total is None:
        raise ValueError("a tableau needs a weight that is not zero.")
    return total
