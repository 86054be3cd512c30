"""Explicit Runge-Kutta methods: one step, written once for every tableau."""

from __future__ import annotations

import functools
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._types import State, Time
from ..structure import Calculus, VectorField
from ..terms import AugmentedTerm, ODETerm, Term
from .base import Solver, Step, StepState


__all__ = ["RungeKutta", "Tableau", "is_fine"]


@dataclass(frozen=True)
class Tableau:
    r"""The coefficients of an explicit Runge-Kutta method; the last stage is always the velocity at the step's end.

    .. math:: k_i = f\Big(t_0 + c_i h,\; y_0 + h \sum_{j<i} a_{ij} k_j\Big), \qquad y_1 = y_0 + h \sum_j b_j k_j

    With :math:`k_{s+1} = f(t_1, y_1)` as one more stage every method reads the same: that stage is the first one of the
    next step, it closes the dense output, and it is skipped where neither is wanted.

    Args:
        c: nodes of the stages but the last, `(stage,)`.
        a: rows of the strictly lower triangle, the first stage's empty row left out.
        b: weights of the result, one per stage but the last.
        error: weights of the error estimate, `b` minus the embedded method's, the last stage too; None without one.
        dense: for each stage, the last and the extra ones too, its coefficients of :math:`\theta, \theta^2, \dots`;
            None for the cubic Hermite polynomial through both ends.
        extra: further stages that only the dense output needs: the node of each, and its weights of all before it.

    Example:
        >>> Tableau(c=(0.0, 2 / 3), a=((2 / 3,),), b=(1 / 4, 3 / 4)).b  # Ralston's method
        (0.25, 0.75)
    """

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] | None = None
    dense: tuple[tuple[float, ...], ...] | None = None
    extra: tuple[tuple[float, tuple[float, ...]], ...] = ()

    @functools.cached_property
    def polynomial(self) -> tuple[tuple[float, ...], ...]:
        """The dense output, one row per stage."""
        if self.dense is not None:
            return self.dense
        rows = [[0.0, 3.0 * weight, -2.0 * weight] for weight in (*self.b, 0.0)]
        for stage, slope in ((0, (1.0, -2.0, 1.0)), (-1, (0.0, -1.0, 1.0))):
            rows[stage] = [entry + more for entry, more in zip(rows[stage], slope, strict=True)]
        return tuple(map(tuple, rows))

    @functools.cached_property
    def stability(self) -> float:
        """How far the method is stable on the negative real axis, to two digits."""
        powers, stages = [1.0], [1.0] * len(self.b)
        while any(stages):
            powers.append(sum(b * stage for b, stage in zip(self.b, stages, strict=True)))
            stages = [sum(a * stage for a, stage in zip(row, stages, strict=False)) for row in ((), *self.a)]
        for tick in range(1, 10_000):
            if abs(sum(power * (-0.01 * tick) ** k for k, power in enumerate(powers))) > 1.0:
                return 0.01 * (tick - 1)
        return float("inf")


class RungeKutta(Solver, ABC):
    """An explicit Runge-Kutta method: a subclass names its `tableau` and its `order`, and nothing else.

    Example:
        >>> import torch
        >>> from ctdyn.solvers import RK4
        >>> from ctdyn.terms import ODETerm
        >>> t0 = torch.zeros(1, dtype=torch.float64)
        >>> RK4().step(ODETerm(lambda t, y: y), t0, t0 + 1, torch.ones(1, 1), None).y1
        tensor([[2.7083]])
    """

    tableau: ClassVar[Tableau]
    calculus: ClassVar[Calculus | None] = Calculus.STRATONOVICH

    def __init_subclass__(cls) -> None:
        cls.adaptive = cls.tableau.error is not None
        cls.stages = len(cls.tableau.b)
        cls.extra_stages = len(cls.tableau.extra)

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
        velocities = [state if isinstance(state, Tensor) else term.derivative(t0, y0)]
        for time, row in zip(_times(t0, span, tableau.c[1:]), tableau.a, strict=True):
            velocities.append(term.derivative(time, _combine(y0, dt, row, velocities)))
        y1 = _combine(y0, dt, tableau.b, velocities)
        if not dense and not estimate:
            return Step(y1, None, None, ())
        velocities.append(term.derivative(t1, y1))
        error = None if tableau.error is None or not estimate else _combine(None, dt, tableau.error, velocities)
        return Step(y1, error, velocities[-1], tuple(velocities))

    def coefficients(self, term: Term, t0: Time, t1: Time, y0: State, interpolants: Tensor) -> Tensor:
        """The dense output of many steps, `(step, degree + 1, *batch, state)`."""
        dt = (t1 - t0).to(y0.dtype).unsqueeze(-1)
        weights = _matrix(self.tableau.polynomial, y0.dtype, y0.device)
        velocities = interpolants.transpose(0, 1)
        if self.tableau.extra:
            velocities = torch.stack(self._with_extra_stages(term, t0, t1, y0, velocities.unbind(0)))
            # Large weights that add up to 0: only of differences are their products as exact as the velocities.
            velocities = torch.cat([velocities[:1], velocities[1:] - velocities[:1]])
            weights = weights.clone()
            weights[:, 0] = 0.0
            weights[0, 0] = 1.0
        stages = velocities.reshape(len(velocities), y0.numel())
        powers = (weights @ stages).reshape(len(weights), *y0.shape) * dt
        return torch.cat([y0.unsqueeze(0), powers]).transpose(0, 1)

    def _with_extra_stages(
        self, term: Term, t0: Time, t1: Time, y0: State, velocities: Sequence[Tensor]
    ) -> list[Tensor]:
        """The stages of many steps, and those that only their dense output needs."""
        span = t1 - t0
        dt = span.to(y0.dtype).unsqueeze(-1)
        stages = list(velocities)
        for node, row in self.tableau.extra:
            stages.append(_velocities(term, t0 + node * span, _combine(y0, dt, row, stages)))
        return stages

    def pressure(self, interpolants: Tensor) -> Tensor | None:
        """How near each step came to the limit of stability, told by two velocities at its end, `(step, *batch)`."""
        tableau = self.tableau
        if len(tableau.c) < 2 or tableau.c[-1] != 1.0 or interpolants.shape[1] != len(tableau.b) + 1:
            return None
        # The two states at the end differ by this; the step itself drops out of the product with the rate.
        apart = sum(
            (b - a) * interpolants[:, stage]
            for stage, (b, a) in enumerate(zip(tableau.b, (*tableau.a[-1], 0.0), strict=True))
        )
        size = torch.linalg.vector_norm(torch.as_tensor(apart), dim=-1)
        change = torch.linalg.vector_norm(interpolants[:, -1] - interpolants[:, -2], dim=-1)
        return change / (size * tableau.stability).clamp(min=torch.finfo(size.dtype).tiny)


def is_fine(rtol: float | Tensor) -> bool:
    """Whether a solve is so accurate that an interpolant of less than the method's order would spoil its outputs.

    Tolerances per series count as accurate whatever they are: no series may depend on those beside it.

    Example:
        >>> is_fine(1e-3), is_fine(torch.tensor([1e-3, 1e-4]))
        (False, True)
    """
    return True if isinstance(rtol, Tensor) else rtol <= 1e-5


def _velocities(term: Term, t: Time, y: State) -> State:
    """The velocities in many steps, `(step, *batch, state)`: all at once where the field is known to bear the axis."""
    plain = isinstance(term, ODETerm | AugmentedTerm) and not isinstance(term.field, VectorField)
    # What drives a term has been restricted to all of these steps together.
    if not plain or term.tensors():
        return term.derivative(t, y)
    # A plain function may well index the axes of its batch by number.
    return torch.stack([term.derivative(time, state) for time, state in zip(t.unbind(0), y.unbind(0), strict=True)])


def _combine(y0: Tensor | None, dt: Tensor, weights: Sequence[float], velocities: Sequence[Tensor]) -> Tensor:
    """`y0 + dt * sum(weight * velocity)`, one fused operation per weight that is not zero."""
    result = y0
    for weight, velocity in zip(weights, velocities, strict=True):
        if weight != 0.0:
            result = weight * dt * velocity if result is None else torch.addcmul(result, dt, velocity, value=weight)
    if result is None:
        raise ValueError("a tableau needs a weight that is not zero.")
    return result


def _times(t0: Time, span: Time, nodes: tuple[float, ...]) -> Sequence[Time]:
    """`t0 + node * span` for every node."""
    if torch.compiler.is_compiling():
        # A cached tensor is foreign to a compiled program, which makes no operations of these in any case.
        return [torch.add(t0, span, alpha=node) for node in nodes]
    return torch.addcmul(t0, _column(nodes, span.dim(), span.dtype, span.device), span).unbind(0) if nodes else ()


@functools.cache
def _column(values: tuple[float, ...], dims: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Made in inference mode it could not be saved for a backward pass later.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).reshape(-1, *[1] * dims)


@functools.cache
def _matrix(rows: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=dtype, device=device).mT.contiguous()
