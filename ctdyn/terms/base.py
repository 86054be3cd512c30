"""What a term is: a field and what drives it, all that a solver sees of an equation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from torch import Tensor, nn

from .._types import State, Time, Times


__all__ = ["Term"]


class Term(ABC):
    r"""One right-hand side with its driver, :math:`f(t, y, u(t))\,dx(t)`.

    Explicit methods for smooth drivers need `derivative` alone; methods for rough ones use `increment` and `prod`.
    Times arrive in float64 whatever the dtype of the state: a clock that counts seconds since 1970 stays exact.

    Example:
        >>> from ctdyn.terms import ODETerm
        >>> issubclass(ODETerm, Term)
        True
    """

    field: Callable[..., Tensor]

    @abstractmethod
    def increment(self, t0: Time, t1: Time) -> Tensor:
        """What the driver does between `t0` and `t1`, `(*batch,)`."""

    @abstractmethod
    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        """The field at `(t, y)` applied to an increment of the driver, `(*batch, state)`."""

    @abstractmethod
    def derivative(self, t: Time, y: State) -> State:
        """The velocity `dy/dt` at `(t, y)`, `(*batch, state)`, where the driver has one."""

    @abstractmethod
    def restrict(self, t0: Time, t1: Time) -> Term:
        """The term on one step from `t0` to `t1`, smooth inside where no knot lies inside."""

    def pieces(self, ends: Sequence[Time]) -> Iterator[Term]:
        """The term restricted to each of consecutive steps; itself where its driver is smooth throughout.

        Args:
            ends: ends of the steps, the start included, `(*batch,)` each.
        """
        knotted = self.knots() is not None
        for t0, t1 in pairwise(ends):
            yield self.restrict(t0, t1) if knotted else self

    @abstractmethod
    def knots(self) -> Times | None:
        """The times where the driver is not smooth, `(*batch, knot)`; a step never straddles one. None if smooth."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the driver: what a gradient can flow to besides the parameters."""

    @abstractmethod
    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the field."""

    @abstractmethod
    def replace(self, tensors: tuple[Tensor, ...]) -> Term:
        """The same term with a driver made of other tensors, in the order of `tensors()`."""
