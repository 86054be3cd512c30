"""What an engine is: another library that computes a whole trajectory behind `ctdyn.solve`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ..._types import State, States, Time, Times
from ...terms import Term


__all__ = ["Engine"]


class Engine(ABC):
    """A whole solver of another library, passed to `solve` in place of a `Solver`: for comparison, and as an oracle.

    It brings its own step control and its own gradients, so `solve` refuses `controller=` and `adjoint=` beside it.
    The times arrive checked: one clock per series, monotone, trailing times possibly repeated as padding.

    Example:
        >>> from ctdyn.integrate.engines import TorchDiffEq
        >>> issubclass(TorchDiffEq, Engine)
        True
    """

    @abstractmethod
    def run(self, term: Term, y0: State, ts: Times, t0: Time) -> tuple[States, dict[str, Tensor]]:
        """The states at `ts`, each series on its own clock.

        Args:
            term: the equation.
            y0: states at `t0`, `(*batch, state)`.
            ts: float64 times, strictly monotone but for trailing repeats, `(*batch, time)`.
            t0: float64 time of `y0`, `(*batch,)`.

        Returns:
            The states, `(*batch, time, state)`, and statistics by name, one entry per series, `(*batch,)`.
        """
