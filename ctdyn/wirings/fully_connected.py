"""Everything connected to everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Circuit, Wiring, check_size, polarities


__all__ = ["FullyConnected"]


@dataclass(frozen=True)
class FullyConnected(Wiring):
    """Every neuron and every input acts on every neuron; what an integer number of neurons stands for.

    The synapses are those of ncps for the same seed.

    Args:
        units: number of neurons.
        output_size: how many of them are put out; all by default.
        seed: of the signs.
        self_connections: whether a neuron acts on itself.

    Raises:
        ValueError: a size does not fit.

    Reference:
        Liquid Time-constant Networks, R. Hasani, M. Lechner, A. Amini, D. Rus, R. Grosu, 2021,
        https://arxiv.org/abs/2006.04439

    Example:
        >>> FullyConnected(2).connect(1).recurrent
        array([[1, 1],
               [1, 1]])
    """

    units: int
    output_size: int | None = None
    seed: int = 1111
    self_connections: bool = True

    def __post_init__(self) -> None:
        check_size("units", self.units)
        if self.output_size is not None:
            check_size("output_size", self.output_size, 1, self.units, "units")

    @property
    def motor_size(self) -> int:
        """See `Wiring.motor_size`."""
        return self.units if self.output_size is None else self.output_size

    def connect(self, input_size: int) -> Circuit:
        """See `Wiring.connect`."""
        check_size("input_size", input_size)
        rng = np.random.default_rng(self.seed)
        recurrent = np.zeros((self.units, self.units), dtype=np.int64)
        there = np.ones_like(recurrent, dtype=bool) if self.self_connections else ~np.eye(self.units, dtype=bool)
        recurrent[there] = polarities(rng, int(there.sum()))
        sensory = polarities(rng, input_size * self.units).reshape(input_size, self.units)
        return Circuit(recurrent, sensory)
