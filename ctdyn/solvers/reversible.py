"""Methods whose steps can be undone, and a wrapper that makes one of any other method."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._types import State, Time
from ..terms import Term
from .base import Solver, Step, StepState
from .stochastic import StochasticSolver


__all__ = ["ReversibleMethod", "ReversibleSolver"]

_COUPLING, _COUPLING_ADAPTIVE = 0.99, 0.5


class ReversibleSolver(Solver, ABC):
    """A method that carries a second state along, so that a step can be undone: what `Reversible` needs.

    The carried states are kept in double precision, so that thousands of steps are undone to the last digit of float32.

    Example:
        >>> from ctdyn.solvers import ReversibleHeun
        >>> issubclass(ReversibleHeun, ReversibleSolver)
        True
    """

    horizon: ClassVar[int] = 512
    """How many steps can be undone from one state before rounding shows."""

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
    twice its evaluations; the dense output is the base method's.

    The coupling damps the distance between the states by :math:`\lambda` per step, and a field that contracts by
    :math:`e^{-x}` per step lets it grow by :math:`e^x`: the method is stable only where :math:`x < -\log\lambda`. Going
    back, rounding grows by :math:`\lambda^{-1}` per step, so that a small coupling needs states to be kept more often.
    Adaptive steps count the distance as an error, and so are never silently wrong; with steps of a fixed length check
    the answer, or solve with shorter ones.

    Args:
        base: the method, for smooth equations; best an explicit one.
        coupling: :math:`\lambda`, in (0, 1]; None for 0.5 where a tolerance chooses the steps, and 0.99 otherwise.

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
    coupling: float | None = None

    _pull: ClassVar[float]

    def __post_init__(self) -> None:
        if not isinstance(self.base, Solver) or isinstance(self.base, StochasticSolver):
            raise TypeError(
                "base must be a Solver for smooth equations such as RK4() or Tsit5(); got "
                f"{self.base!r}. For a stochastic equation use ReversibleHeun()."
            )
        if isinstance(self.base, ReversibleSolver):
            raise TypeError(f"{self.base!r} is reversible already; use it as it is.")
        if self.coupling is not None and not 0.0 < self.coupling <= 1.0:
            raise ValueError(f"coupling must lie in (0, 1]; got {self.coupling}.")
        # What other methods say as a class, this one takes from its base.
        pull = _COUPLING if self.coupling is None else self.coupling
        for name, value in (
            ("_pull", pull),
            ("horizon", 512 if pull == 1.0 else min(max(int(math.log(1e-3) / math.log(pull)), 1), 512)),
            ("order", self.base.order),
            ("error_order", self.base.error_order),
            ("adaptive", self.base.adaptive),
            ("stages", 2 * self.base.stages + self.base.adaptive),
            ("extra_stages", self.base.extra_stages),
            ("requires", self.base.requires),
        ):
            object.__setattr__(self, name, value)

    def within(self, rtol: float | Tensor, atol: float | Tensor) -> ReversibleMethod:
        """The method for a solve under these tolerances, with a coupling that contracting fields can bear."""
        coupling = _COUPLING_ADAPTIVE if self.coupling is None else self.coupling
        return ReversibleMethod(self.base.within(rtol, atol), coupling)

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """Both states, equal."""
        return _start(y0)

    def across(self, state: StepState) -> StepState:
        """Both states: they hold nothing of the field."""
        return state

    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`."""
        y, z = state if isinstance(state, tuple) else _start(y0)
        moving, near = (t0 != t1).unsqueeze(-1), z.to(y0.dtype)
        there = self.base.step(term, t0, t1, near, None, dense=dense, estimate=estimate)
        y = torch.where(moving, self._pull * y + (1.0 - self._pull) * z + (there.y1 - near), y)
        y1 = y.to(y0.dtype)
        z = torch.where(moving, z - self._change(term, t1, t0, y1), z)
        error = None
        if there.error is not None:
            # Where the states drift apart the answer is wrong, however small the error of either step.
            error = there.error.abs() + (y - z).abs().to(there.error.dtype)
        return Step(y1, error, (y, z), (near - y0, *there.interpolant) if dense else ())

    def undo(self, term: Term, t0: Time, t1: Time, y1: State, state: StepState) -> tuple[State, StepState]:
        """The states before a step."""
        if not isinstance(state, tuple):
            raise TypeError("a step can only be undone with the second state that it returned.")
        y, z = state
        moving = (t0 != t1).unsqueeze(-1)
        z = torch.where(moving, z + self._change(term, t1, t0, y1), z)
        change = self._change(term, t0, t1, z.to(y1.dtype))
        y = torch.where(moving, (y - (1.0 - self._pull) * z - change) / self._pull, y)
        return y.to(y1.dtype), (y, z)

    def coefficients(self, term: Term, t0: Time, t1: Time, y0: State, interpolants: Tensor) -> Tensor:
        """The dense output of many steps, `(step, degree + 1, *batch, state)`: the base method's, led from y to y."""
        apart, parts = interpolants[:, 0], interpolants[:, 1:]
        _, slope, *higher = self.base.coefficients(term, t0, t1, y0 + apart, parts).unbind(1)
        return torch.stack([y0, torch.add(slope, apart, alpha=1.0 - self._pull), *higher], 1)

    def _change(self, term: Term, t0: Time, t1: Time, y: State) -> Tensor:
        """What a step of the base method adds."""
        return (self.base.step(term, t0, t1, y, None, dense=False).y1 - y).to(_double(y.dtype))


def _start(y0: State) -> tuple[Tensor, Tensor]:
    wide = y0.to(_double(y0.dtype))
    return wide, wide


def _double(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float64)
