"""Implicit Runge-Kutta methods with one factorisation per step: one step, written once for every tableau."""

from __future__ import annotations

import functools
import math
from abc import ABC
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .._types import State, Time
from ..terms import Term
from ._jacobian import inside, larger
from ._newton import Newton, Tolerance
from .base import Solver, Step, StepState, shared
from .runge_kutta import _column, _combine, _matrix


__all__ = ["ESDIRK", "ImplicitTableau"]


@dataclass(frozen=True)
class ImplicitTableau:
    r"""The coefficients of an ESDIRK method: an explicit first stage, one diagonal coefficient, and the result last.

    .. math:: k_1 = f(t_0, y_0), \qquad
              k_i = f\Big(t_0 + c_i h,\; y_0 + h \sum_{j<i} a_{ij} k_j + h \gamma k_i\Big), \qquad y_1 = Y_s

    The last stage is the result (the method is stiffly accurate), so that its velocity is the first of the next step.

    Args:
        gamma: the diagonal coefficient.
        c: nodes of the stages but the first, `(stage - 1,)`.
        a: rows below the diagonal, one for every stage but the first.
        error: weights of the error estimate, one per stage.
        dense: for each stage its coefficients of :math:`\theta, \theta^2, \dots`; None for the cubic Hermite polynomial
            through both ends.
        probe: where in the step, as a share of it, the dense output is tried out; where it is worst if that is known.

    Example:
        >>> ImplicitTableau(gamma=0.5, c=(1.0,), a=((0.5,),), error=(0.5, -0.5)).b  # trapezoidal rule
        (0.5, 0.5)
    """

    gamma: float
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    dense: tuple[tuple[float, ...], ...] | None = None
    probe: float = 0.5

    @property
    def b(self) -> tuple[float, ...]:
        """Weights of the result, one per stage."""
        return (*self.a[-1], self.gamma)

    @functools.cached_property
    def guess(self) -> tuple[tuple[float, ...], ...]:
        """Where each stage but the first starts: weights of the velocities before it, one row per stage.

        A polynomial through the velocities before; a stage at the node of the one before starts from that one's.
        """
        nodes = (0.0, *self.c)
        return tuple(_extrapolation(nodes[:stage], nodes[stage]) for stage in range(1, len(nodes)))

    @functools.cached_property
    def probed(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Weights of the dense output at the probe, and of its slope."""
        return inside(self.polynomial, self.probe)

    @property
    def polynomial(self) -> tuple[tuple[float, ...], ...]:
        """The dense output, one row per stage."""
        if self.dense is not None:
            return self.dense
        rows = [[0.0, 3.0 * weight, -2.0 * weight] for weight in self.b]
        for stage, slope in ((0, (1.0, -2.0, 1.0)), (-1, (0.0, -1.0, 1.0))):
            rows[stage] = [entry + more for entry, more in zip(rows[stage], slope, strict=True)]
        return tuple(map(tuple, rows))


@dataclass(frozen=True)
class ESDIRK(Solver, ABC):
    r"""An implicit method for stiff equations: a subclass names its `tableau` and its orders, and nothing else.

    Each stage is solved by Newton's method, for every series on its own, with one Jacobian and one factorisation per
    step. The error of a step is the larger of two: that of its end, told by the embedded method, and that inside, told
    by how far the dense output is from solving the equation at one place. Where something near the solution grows
    faster than the step resolves, neither tells anything: such a step is never taken, and a solve that met one is
    repeated with tighter tolerances. A step on which the iteration of a series fails is rejected; with fixed steps its
    state becomes NaN, so that `solve` says so. Gradients are those of the exact root of each stage, by the implicit
    function theorem: neither their cost nor their memory grows with the iterations.
    Second derivatives raise NotImplementedError; `Rodas5P` has them.

    Args:
        newton_rtol: relative error that Newton's method keeps well below in each stage; None: the tolerance of the
            controller, or close to rounding where the steps are fixed.
        newton_atol: absolute error, in the unit of the state; None as for `newton_rtol`.

    Raises:
        ValueError: one of the two is negative or NaN, or given without the other.

    Example:
        >>> import torch
        >>> from ctdyn.solvers import ImplicitEuler
        >>> from ctdyn.terms import ODETerm
        >>> t0 = torch.zeros(1, dtype=torch.float64)
        >>> ImplicitEuler().step(ODETerm(lambda t, y: -999 * y), t0, t0 + 1, torch.ones(1, 1), None).y1
        tensor([[0.0010]])
    """

    tableau: ClassVar[ImplicitTableau]
    adaptive: ClassVar[bool] = True
    implicit: ClassVar[bool] = True

    newton_rtol: float | Tensor | None = None
    newton_atol: float | Tensor | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.newton_rtol, self.newton_atol) if x is not None]
        if len(given) == 1 or any(not isinstance(x, Tensor) and not 0.0 <= x < float("inf") for x in given):
            raise ValueError(
                "newton_rtol and newton_atol must both be None or both non-negative numbers; got "
                f"newton_rtol={self.newton_rtol}, newton_atol={self.newton_atol}. What bounds the error of the answer "
                "is the controller, for example PIDController(rtol=1e-6, atol=1e-8)."
            )

    def __init_subclass__(cls) -> None:
        # Two iterations are usual for each stage; the Jacobian costs about as much as three evaluations more.
        cls.stages = 2 * len(cls.tableau.c) + 4

    def within(self, rtol: float | Tensor, atol: float | Tensor) -> Solver:
        """The method with Newton's method as exact as the controller's tolerances ask, unless it was told otherwise."""
        return self if self.newton_rtol is not None else replace(self, newton_rtol=rtol, newton_atol=atol)

    def tightened(self, share: Tensor) -> Solver:
        """The method with Newton's method as much more exact."""
        if self.newton_rtol is None or self.newton_atol is None:
            return self
        return replace(self, newton_rtol=shared(self.newton_rtol, share), newton_atol=shared(self.newton_atol, share))

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """The velocity at the start."""
        return term.derivative(t0, y0)

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        tableau = self.tableau
        span = t1 - t0
        dt = span.to(y0.dtype).unsqueeze(-1)
        diagonal = tableau.gamma * dt
        velocities = [state if isinstance(state, Tensor) else term.derivative(t0, y0)]
        newton = Newton(term, t0, y0, diagonal, self._tolerance())
        nodes = _column(tableau.c, span.dim(), span.dtype, span.device)
        base = y0
        for time, row, weights in zip(torch.addcmul(t0, nodes, span).unbind(0), tableau.a, tableau.guess, strict=True):
            base = _combine(y0, dt, row, velocities)
            velocities.append(newton.solve(time, base, _mix(weights, velocities)))
        y1 = torch.addcmul(base, diagonal, velocities[-1])
        error = outgrown = None
        failed = newton.failed.unsqueeze(-1)
        if estimate:
            outgrown = newton.systems.outgrown()
            # Finite: the cure is a shorter step, and not, as for a field that is NaN, another field.
            error = _combine(None, dt, tableau.error, velocities)
            value, slope = tableau.probed
            velocity = term.derivative(t0 + tableau.probe * span, _combine(y0, dt, value, velocities))
            error = larger(error, newton.systems.solve(diagonal * (velocity - _mix(slope, velocities))))
            error, y1 = torch.where(failed, 1e9, error), torch.where(failed, y0, y1)
        else:
            y1 = torch.where(failed, torch.nan, y1)
        return Step(y1, error, velocities[-1], tuple(velocities) if dense else (), outgrown)

    def coefficients(self, term: Term, t0: Time, t1: Time, y0: State, interpolants: Tensor) -> Tensor:
        """The dense output of many steps, `(step, degree + 1, *batch, state)`."""
        dt = (t1 - t0).to(y0.dtype).unsqueeze(-1)
        weights = _matrix(self.tableau.polynomial, y0.dtype, y0.device)
        stages = interpolants.transpose(0, 1).reshape(interpolants.shape[1], y0.numel())
        powers = (weights @ stages).reshape(len(weights), *y0.shape) * dt
        return torch.cat([y0.unsqueeze(0), powers]).transpose(0, 1)

    def _tolerance(self) -> Tolerance:
        if self.newton_rtol is None or self.newton_atol is None:
            return Tolerance(1e-14, 0.0, 1.0, patient=True)
        return Tolerance(self.newton_rtol, self.newton_atol, 0.02)


def _mix(weights: tuple[float, ...], velocities: list[Tensor]) -> Tensor:
    mixed = weights[0] * velocities[0]
    for weight, velocity in zip(weights[1:], velocities[1:], strict=True):
        mixed = torch.add(mixed, velocity, alpha=weight)
    return mixed


def _extrapolation(nodes: tuple[float, ...], node: float) -> tuple[float, ...]:
    """Lagrange's weights of the values at `nodes` for the value at `node`."""
    if node == nodes[-1]:
        return (*[0.0] * (len(nodes) - 1), 1.0)
    return tuple(
        math.prod([(node - other) / (own - other) for other in nodes if other != own], start=1.0) for own in nodes
    )
