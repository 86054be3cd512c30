"""What a solver is: a rule that advances the state of every series over one step of its own."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .._options import check_keywords
from .._types import State, Time
from ..structure import Calculus, Noise, VectorField
from ..terms import Term


__all__ = ["Solver", "Step", "StepState", "shared"]

StepState = Tensor | tuple[Tensor, ...] | None
"""What a method carries from one step to the next, `(*batch, ...)` each, or None where it carries nothing.

A single tensor is the velocity at the end of the step.
"""


class Step(NamedTuple):
    """What one step returns.

    Args:
        y1: state at the end of the step, `(*batch, state)`.
        error: estimate of the local error, of the shape of `y1`; None where none was asked for.
        state: what the next step can use if it starts where this one ends and no knot lies there.
        interpolant: what `Solver.coefficients` needs to know of the step; empty where no dense output was asked for.
        outgrown: whether something near the solution grows faster than the step resolves, `(*batch,)`: whatever its
            error, such a step cannot stand. None where none was asked for, or the method does not know.

    Example:
        >>> import torch
        >>> Step(torch.ones(1), None, None, ()).y1
        tensor([1.])
    """

    y1: Tensor
    error: Tensor | None
    state: StepState
    interpolant: tuple[Tensor, ...]
    outgrown: Tensor | None = None


class Solver(ABC):
    r"""A one-step method, :math:`y_{k+1} = \Phi(t_k, t_{k+1}, y_k)`, with a step of its own for every series.

    A solver is a value without tensors: it can be compared, printed and shared.

    Example:
        >>> from ctdyn.solvers import Tsit5
        >>> Tsit5().order, Tsit5().adaptive
        (5, True)
    """

    def __new__(cls, *args: Any, **options: Any):
        """A method; an option that it does not have is answered with the one that was probably meant."""
        if options:
            own = cls.__init__ is not object.__init__
            check_keywords(cls.__name__, options, inspect.signature(cls.__init__).parameters if own else {})
        return super().__new__(cls)

    order: ClassVar[int]
    """Order of convergence: the global error falls like the step to this power."""

    adaptive: ClassVar[bool]
    """Whether the method estimates its own error."""

    error_order: ClassVar[int]
    """The power of the step with which the estimated local error falls."""

    stages: ClassVar[int]
    """Evaluations of the field in one step that is given the `state` of the step before and returns one."""

    extra_stages: ClassVar[int] = 0
    """Further evaluations that the dense output of one step takes, made only in steps that hold an output."""

    interpolates: ClassVar[bool] = True
    """Whether a step has a dense output; otherwise outputs inside it are read by a shorter step from its start."""

    implicit: ClassVar[bool] = False
    """Whether it solves equations for a step, which is then stable however long it is."""

    calculus: ClassVar[Calculus | None] = None
    """How the method means a stochastic integral; None where it solves smooth equations only."""

    noises: ClassVar[frozenset[Noise]] = frozenset(Noise)
    """The kinds of noise that the method solves, where it solves stochastic equations."""

    def within(self, rtol: float | Tensor, atol: float | Tensor) -> Solver:
        """The method for a solve under these tolerances: itself, unless it iterates and so must know when to stop."""
        return self

    def tightened(self, share: Tensor) -> Solver:
        """The method for a solve within a share of the tolerances that it knows of, `(*batch,)`."""
        return self

    def strong_order(self, noise: Noise) -> float:
        """Order of convergence path by path of a method with a `calculus`: 0.5 for general noise, otherwise 1."""
        return 0.5 if noise is Noise.GENERAL else 1.0

    def pieces(self, term: Term, ends: Sequence[Time], dtype: torch.dtype) -> Iterator[Term]:
        """The term restricted to each of consecutive steps; good for that step alone.

        Args:
            term: the equation.
            ends: ends of the steps, the start included, `(*batch,)` each; the very tensors that `step` is given.
            dtype: of the state.
        """
        return term.pieces(ends)

    def prepared(self, term: Term, grid: Tensor, dtype: torch.dtype) -> Term:
        """The term with all that its driver does on consecutive steps found beforehand, for a program of tensors.

        Args:
            term: the equation.
            grid: ends of the steps, `(step + 1, *batch)`.
            dtype: of the state.
        """
        return term

    requires: ClassVar[type[VectorField]] = VectorField
    """What a field must be for the method to apply to it: some use more of its structure than its velocity."""

    @abstractmethod
    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """What the first step can use, and any step that starts on a knot."""

    def across(self, state: StepState) -> StepState:
        """What still holds of the `state` of a step where the next one starts on a knot: nothing, unless overridden."""
        return None

    @abstractmethod
    def step(
        self, term: Term, t0: Time, t1: Time, y0: State, state: StepState, *, dense: bool = True, estimate: bool = False
    ) -> Step:
        """Advance every series from its `t0` to its `t1`; where they are equal the state comes back unchanged.

        Args:
            term: the equation, restricted to this step.
            t0: float64 start of the step of each series, `(*batch,)`.
            t1: its end; before `t0` to go backwards.
            y0: states at `t0`, `(*batch, state)`.
            state: what the step before returned, or `init`, or None.
            dense: whether the next state and the interpolant are wanted; without them a step may be cheaper.
            estimate: whether the error is wanted.
        """

    def pressure(self, interpolants: Tensor) -> Tensor | None:
        """How near each step came to the limit of the method's stability, 1 at the limit, `(step, *batch)`.

        None where the method has no such limit, or no way to tell. `interpolants` as in `coefficients`.
        """
        return None

    @abstractmethod
    def coefficients(self, term: Term, t0: Time, t1: Time, y0: State, interpolants: Tensor) -> Tensor:
        r"""The dense output of many steps: polynomials in :math:`\theta = (t - t_0) / (t_1 - t_0)`, lowest power first.

        Args:
            term: the equation, restricted to these steps; a method may evaluate it for further stages.
            t0: float64 start of each step, `(step, *batch)`.
            t1: its end.
            y0: state at its start, `(step, *batch, state)`.
            interpolants: the interpolants of the steps, stacked, `(step, part, *batch, state)`.

        Returns:
            `(step, degree + 1, *batch, state)`.
        """


def shared(tolerance: float | Tensor, share: Tensor) -> float | Tensor:
    """A share of a tolerance for each series; a tolerance of 0 stays what it is.

    Args:
        tolerance: a number, `(*batch,)` or `(*batch, state)`.
        share: `(*batch,)`.

    Example:
        >>> shared(0.5, torch.tensor([1.0, 0.5]))
        tensor([0.5000, 0.2500])
    """
    if not isinstance(tolerance, Tensor):
        return share * tolerance if tolerance else tolerance
    return tolerance * (share[..., None] if tolerance.dim() > share.dim() else share)
