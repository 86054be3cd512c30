"""What an adjoint is: a way to run the replay of a solve, and so to differentiate it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ..._types import State, States
from ..controllers import StepController
from ..dense import Record
from ..loop import Replay


__all__ = ["Adjoint"]


class Adjoint(ABC):
    """How the replay of a solve is differentiated. Gradients reach whatever the steps touched; nothing is declared.

    Example:
        >>> from ctdyn.integrate import Direct
        >>> issubclass(Direct, Adjoint)
        True
    """

    @property
    def compiles(self) -> bool:
        """Whether the search for the steps is to be compiled; it never changes what is found."""
        return False

    def within(self, controller: StepController) -> Adjoint:
        """The adjoint for a solve with these steps: itself, unless it solves something of its own."""
        return self

    @abstractmethod
    def run(self, replay: Replay, y0: State) -> tuple[States, list[Tensor], Record | None]:
        """The states at the output times, the states at the nodes that were kept, and the dense output where kept."""
