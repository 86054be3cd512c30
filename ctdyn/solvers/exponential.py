"""What exponential methods share: the decay of every entry is solved exactly, the rest by a polynomial in time."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from torch import Tensor

from .._types import State, Time
from ..structure import DecayField, VectorField
from ..terms import ODETerm, Term
from .base import Solver, StepState


__all__ = ["ExponentialSolver", "Frozen"]


class ExponentialSolver(Solver, ABC):
    r"""A method that is exact where rates and drive of a `DecayField` are constant, whatever the step and the rates.

    The rates are frozen at the start of the step, and what they change within it joins the drive:

    .. math:: \frac{dy}{dt} = -a_0 \odot y + N(t, y), \qquad N = b - (a - a_0) \odot y, \quad a_0 = a(t_0, y_0)

    A polynomial cannot follow a fast decay: outputs inside a step are read by a shorter step from its start, all of
    them at once, and are exact where the step is.

    Example:
        >>> from ctdyn.solvers import ETDRK4
        >>> issubclass(ETDRK4, ExponentialSolver)
        True
    """

    interpolates: ClassVar[bool] = False
    requires: ClassVar[type[VectorField]] = DecayField

    def init(self, term: Term, t0: Time, y0: State) -> StepState:
        """Nothing is carried from one step to the next."""
        return None

    def coefficients(self, term: Term, t0: Time, t1: Time, y0: State, interpolants: Tensor) -> Tensor:
        """There are none.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{type(self).__name__} has no dense output; outputs are read by shorter steps.")


class Frozen:
    r"""A decay field with its rates frozen at the start of a step.

    Args:
        term: the equation, of a `DecayField`.
        t0: start of the step, `(*batch,)`.
        y0: state there, `(*batch, state)`.

    Attributes:
        rate: the frozen rates, `(*batch, state)`.
        drive: the drive at the start, `(*batch, state)`.

    Raises:
        TypeError: the field does not say how it decays.

    Example:
        >>> import torch
        >>> class Leak(DecayField):
        ...     def decay(self, t, y, u=None):
        ...         return torch.full_like(y, 2.0), torch.ones_like(y)
        >>> Frozen(ODETerm(Leak()), torch.zeros(1), torch.ones(1, 1)).velocity
        tensor([[-1.]])
    """

    def __init__(self, term: Term, t0: Time, y0: State) -> None:
        if not isinstance(term, ODETerm):
            raise TypeError(
                f"exponential methods solve an ODETerm whose field is a DecayField; got {type(term).__name__}. Use "
                "another method such as Tsit5()."
            )
        self._term = term
        self.rate, self.drive = term.decay(t0, y0)
        self.velocity = self.drive - self.rate * y0

    def decay(self, t: Time, y: State) -> tuple[State, State]:
        """Rates and drive elsewhere in the step."""
        return self._term.decay(t, y)

    def change(self, t: Time, y: State) -> State:
        """How far the drive, with what the rates have changed, has moved since the start of the step."""
        rate, drive = self._term.decay(t, y)
        return drive - (rate - self.rate) * y - self.drive
