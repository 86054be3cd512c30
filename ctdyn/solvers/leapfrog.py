"""The leapfrog method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._types import State, Time
from ..structure import SecondOrderField, VectorField
from ..terms import ODETerm, Term
from .base import Solver, Step, StepState


__all__ = ["Leapfrog"]


@dataclass(frozen=True)
class Leapfrog(Solver):
    r"""The leapfrog (velocity Verlet) method for positions and momenta: symplectic, so that energy never drifts away.

    .. math:: p_{1/2} = p_0 + \tfrac h2 F(t_0, q_0), \quad q_1 = q_0 + h\, v(t_{1/2}, p_{1/2}), \quad
              p_1 = p_{1/2} + \tfrac h2 F(t_1, q_1)

    One evaluation of the force per step, order 2, reversible in time, for a `SecondOrderField`. With steps of one
    length the energy of a conservative field stays within a band of width :math:`h^2` for very long times. The dense
    output is the cubic Hermite polynomial of the step.

    Reference:
        E. Hairer, C. Lubich, G. Wanner, Geometric numerical integration illustrated by the Stoermer-Verlet method,
        Acta Numerica 12, 2003, https://doi.org/10.1017/S0962492902000144

    Example:
        >>> from ctdyn.integrate import ConstantStep, solve
        >>> class Spring(SecondOrderField):
        ...     def force(self, t, q, u=None):
        ...         return -q
        >>> ts, y0 = torch.tensor([0.0, 20 * torch.pi]), torch.tensor([1.0, 0.0])
        >>> ys = solve(Spring(), y0, ts, solver=Leapfrog(), controller=ConstantStep(0.1)).ys
        >>> round(float(ys[-1].norm()), 2)
        1.0
    """

    order: ClassVar[int] = 2
    error_order: ClassVar[int] = 2
    adaptive: ClassVar[bool] = False
    stages: ClassVar[int] = 1
    requires: ClassVar[type[VectorField]] = SecondOrderField

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """The velocity at the start."""
        return _plain(term, y0).derivative(t0, y0)

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        ode = _plain(term, y0)
        span = t1 - t0
        dt = span.to(y0.dtype).unsqueeze(-1)
        q, p = y0.chunk(2, -1)
        start = state if isinstance(state, Tensor) else None
        force = ode.force(t0, q) if start is None else start.chunk(2, -1)[1]
        half = torch.addcmul(p, dt, force, value=0.5)
        q = torch.addcmul(q, dt, ode.velocity(t0 + span / 2, half))
        force = ode.force(t1, q)
        p = torch.addcmul(half, dt, force, value=0.5)
        y1 = torch.cat([q, p], -1)
        if not dense:
            return Step(y1, None, None, ())
        end = torch.cat([ode.velocity(t1, p), force], -1)
        return Step(y1, None, end, (ode.derivative(t0, y0) if start is None else start, end, y1 - y0))

    def coefficients(self, term: Term, t0: Time, t1: Time, y0: State, interpolants: Tensor) -> Tensor:
        """The cubic Hermite polynomials of many steps, `(step, degree + 1, *batch, state)`."""
        dt = (t1 - t0).to(y0.dtype).unsqueeze(-1)
        start, end, rise = interpolants.unbind(1)
        start, end = dt * start, dt * end
        return torch.stack([y0, start, 3 * rise - 2 * start - end, start + end - 2 * rise], 1)


def _plain(term: Term, y0: State) -> ODETerm:
    if not isinstance(term, ODETerm):
        raise TypeError(
            f"Leapfrog solves an ODETerm whose field is a SecondOrderField; got {type(term).__name__}. Use another "
            "method such as Tsit5()."
        )
    if y0.shape[-1] % 2:
        raise ValueError(f"the state of Leapfrog holds positions and momenta, (*batch, 2 n); got {tuple(y0.shape)}.")
    return term
