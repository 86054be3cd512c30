"""Methods whose steps can be undone, and a wrapper that makes one of any other method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._types import State, Time
from ..terms import Term
from .base import Solver, Step, StepState
from .stochastic import StochasticSolver


__all__ = ["ReversibleMethod", "ReversibleSolver"]


class ReversibleSolver(Solver, ABC):
    """A method that carries a second state along, so that a step can be undone: what `Reversible` needs.

    The carried states are kept in double precision, so that thousands of steps are undone to the last digit of float32.

    Example:
        >>> from ctdyn.solvers import ReversibleHeun
        >>> issubclass(ReversibleHeun, ReversibleSolver)
        True
    """

    @abstractmethod
    def undo(self, term: Term, t0: Time, t1: Time, y1: State, state: StepState) -> tuple[State, StepState]:
        """The state at `t0`, and what the step from there was given, of a step that led to `t1`.

        Args:
            term: the equation, restricted to this step.
            t0: float64 start of the step of each series, `(*batch,)`.
            t1: its end.
            y1: states at `t1`, `(*batch, state)`.
            state: what the step returned, or what `across` leaves of it.
        """


@dataclass(frozen=True)
class ReversibleMethod(ReversibleSolver):
    r"""Any one-step method made reversible: gradients that are exact, in memory that does not grow with the steps.

    With :math:`\Psi_h(t, y)` the change that a step of the base method makes to :math:`y`, two states :math:`y, z` that
    start together take turns,

    .. math:: y_1 = \lambda y_0 + (1 - \lambda) z_0 + \Psi_h(t_0, z_0), \qquad z_1 = z_0 - \Psi_{-h}(t_1, y_1)

    which is undone by :math:`z_0 = z_1 + \Psi_{-h}(t_1, y_1)` and
    :math:`y_0 = \lambda^{-1} (y_1 - (1 - \lambda) z_0 - \Psi_h(t_0, z_0))`. The order is that of the base method, for
    twice its evaluations. The coupling :math:`\lambda` pulls the states together, which makes the method stable; going
    back it amplifies rounding by :math:`\lambda^{-1}` per step. The dense output is the cubic Hermite polynomial.

    Args:
        base: the method, for smooth equations; best an explicit one.
        coupling: :math:`\lambda`, in (0, 1].

    Raises:
        TypeError: `base` is no method for smooth equations, or is reversible already.
        ValueError: `coupling` is not in (0, 1].

    Reference:
        S. McCallum, J. Foster, Efficient, accurate and stable gradients for neural ODEs, 2024,
        https://arxiv.org/abs/2410.11648

    Example:
        >>> from ctdyn.integrate import ConstantStep, Reversible, solve
        >>> from ctdyn.solvers import RK4
        >>> y0, ts = torch.ones(1, requires_grad=True), torch.tensor([0.0, 1.0])
        >>> method, steps = ReversibleMethod(RK4()), ConstantStep(0.1)
        >>> ys = solve(lambda t, y: -y, y0, ts, solver=method, controller=steps, adjoint=Reversible()).ys
        >>> torch.autograd.grad(ys[-1].sum(), y0)
        (tensor([0.3679]),)
    """

    base: Solver
    coupling: float = 0.999

    def __post_init__(self) -> None:
        if not isinstance(self.base, Solver) or isinstance(self.base, StochasticSolver):
            raise TypeError(
                "base must be a Solver for smooth equations such as RK4() or Tsit5(); got "
                f"{self.base!r}. For a stochastic equation use ReversibleHeun()."
            )
        if isinstance(self.base, ReversibleSolver):
            raise TypeError(f"{self.base!r} is reversible already; use it as it is.")
        if not 0.0 < self.coupling <= 1.0:
            raise ValueError(f"coupling must lie in (0, 1]; got {self.coupling}.")
        # What other methods say as a class, this one takes from its base.
        for name, value in (
            ("order", self.base.order),
            ("error_order", self.base.error_order),
            ("adaptive", self.base.adaptive),
            ("stages", 2 * self.base.stages + self.base.adaptive),
            ("requires", self.base.requires),
        ):
            object.__setattr__(self, name, value)

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """Both states, equal, and what the base method can use at the first of them: `(y, z)` or `(y, z, velocity)`."""
        return self._begin(term, t0, y0)

    def across(self, state: StepState) -> StepState:
        """Both states: they hold nothing of the field."""
        return state[:2] if isinstance(state, tuple) else None

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        y, z, *start = state if isinstance(state, tuple) else self._begin(term, t0, y0)
        moving = (t0 != t1).unsqueeze(-1)
        change, error = self._change(term, t0, t1, z.to(y0.dtype), None, estimate)
        wide = torch.where(moving, self.coupling * y + (1.0 - self.coupling) * z + change, y)
        y1 = wide.to(y0.dtype)
        end = self._velocity(term, t1, y1)
        back, _ = self._change(term, t1, t0, y1, end, False)
        after = (wide, torch.where(moving, z - back, z), *end)
        if not dense:
            return Step(y1, error, after, ())
        slopes = [v[0] if v else term.derivative(t, x) for v, t, x in ((start, t0, y0), (end, t1, y1))]
        return Step(y1, error, after, (*slopes, y1 - y0))

    def undo(self, term: Term, t0: Time, t1: Time, y1: State, state: StepState) -> tuple[State, StepState]:
        """The states before a step."""
        if not isinstance(state, tuple):
            raise TypeError("a step can only be undone with the second state that it returned.")
        wide, z, *end = state
        moving = (t0 != t1).unsqueeze(-1)
        back, _ = self._change(term, t1, t0, y1, end or self._velocity(term, t1, y1), False)
        z = torch.where(moving, z + back, z)
        change, _ = self._change(term, t0, t1, z.to(y1.dtype), None, False)
        y = torch.where(moving, (wide - (1.0 - self.coupling) * z - change) / self.coupling, wide)
        y0 = y.to(y1.dtype)
        return y0, (y, z, *self._velocity(term, t0, y0))

    def coefficients(self, term: Term, t0: Time, t1: Time, y0: State, interpolants: Tensor) -> Tensor:
        """The dense output of many steps, `(step, degree + 1, *batch, state)`."""
        dt = (t1 - t0).to(y0.dtype).unsqueeze(-1)
        start, end, rise = interpolants.unbind(1)
        start, end = dt * start, dt * end
        return torch.stack([y0, start, 3 * rise - 2 * start - end, start + end - 2 * rise], 1)

    def _begin(self, term: Term, t0: Time, y0: State) -> tuple[Tensor, ...]:
        wide = y0.to(_double(y0.dtype))
        return (wide, wide, *self._velocity(term, t0, y0))

    def _velocity(self, term: Term, t: Time, y: State) -> tuple[Tensor, ...]:
        """The first stage of the base method, where it is the velocity: nothing is evaluated for dense output alone."""
        state = self.base.init(term, t, y)
        return (state,) if isinstance(state, Tensor) else ()

    def _change(
        self, term: Term, t0: Time, t1: Time, y: State, velocity: Sequence[Tensor] | None, estimate: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What a step of the base method adds, and its error."""
        state = velocity[0] if velocity else None
        step = self.base.step(term, t0, t1, y, state, dense=False, estimate=estimate)
        return (step.y1 - y).to(_double(y.dtype)), step.error


def _double(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float64)
