"""What a wiring is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np


__all__ = ["Circuit", "Wiring", "check_size", "polarities"]

#: Two of three synapses excite, where nothing else is said.
_SIGNS = (-1, 1, 1)


@dataclass(frozen=True, eq=False)
class Circuit:
    """The synapses of a wiring: 1 where one excites, -1 where it inhibits, 0 where there is none.

    Args:
        recurrent: from every neuron (row) to every neuron (column), `(unit, unit)`.
        sensory: from every input to every neuron, `(input, unit)`.

    Example:
        >>> from ctdyn.wirings import FullyConnected
        >>> circuit = FullyConnected(3, self_connections=False).connect(2)
        >>> circuit.num_synapses, circuit.num_sensory_synapses
        (6, 6)
    """

    recurrent: np.ndarray
    sensory: np.ndarray

    @property
    def num_synapses(self) -> int:
        """How many there are between neurons."""
        return int(np.count_nonzero(self.recurrent))

    @property
    def num_sensory_synapses(self) -> int:
        """How many there are from inputs to neurons."""
        return int(np.count_nonzero(self.sensory))


class Wiring(ABC):
    """Which neuron listens to which. Implementations are frozen dataclasses, the same for the same arguments.

    The motor neurons, which are what a cell puts out, come first.

    Example:
        >>> from ctdyn.wirings import AutoNCP
        >>> wiring: Wiring = AutoNCP(8, 2)
        >>> wiring.units, wiring.motor_size, wiring.layers
        (8, 2, ((4, 5, 6, 7), (2, 3), (0, 1)))
    """

    units: int
    """How many neurons there are."""

    @property
    @abstractmethod
    def motor_size(self) -> int:
        """How many of them are put out."""

    @property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """The neurons in the order in which a signal passes them; a single layer unless a wiring says otherwise."""
        return (tuple(range(self.units)),)

    @abstractmethod
    def connect(self, input_size: int) -> Circuit:
        """The synapses for a number of inputs; every call gives the same.

        Args:
            input_size: how many inputs there are, at least 1.
        """


def check_size(name: str, value: int, least: int = 1, most: int | None = None, of: str = "") -> None:
    """Refuse a number of neurons or synapses that cannot be.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is too small or too large.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number; got {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}.")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, the number of {of}; got {value}.")


def polarities(rng: np.random.Generator, count: int) -> np.ndarray:
    """Signs of synapses, two of three exciting."""
    return rng.choice(_SIGNS, size=count)
