"""Some of all synapses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Circuit, Wiring, check_size, polarities


__all__ = ["Random"]


@dataclass(frozen=True)
class Random(Wiring):
    """A random part of all synapses, between neurons and from inputs; the same as in ncps for the same seed.

    Args:
        units: number of neurons.
        output_size: how many of them are put out; all by default.
        sparsity: the share of synapses that is left out, at least 0 and less than 1.
        seed: of the choice and of the signs.

    Raises:
        ValueError: a size or the sparsity does not fit.

    Reference:
        Neural circuit policies enabling auditable autonomy, M. Lechner, R. Hasani, A. Amini, T. A. Henzinger, D. Rus,
        R. Grosu, 2020, https://doi.org/10.1038/s42256-020-00237-3

    Example:
        >>> Random(8, sparsity=0.75).connect(2).num_synapses
        16
    """

    units: int
    output_size: int | None = None
    sparsity: float = 0.0
    seed: int = 1111

    def __post_init__(self) -> None:
        check_size("units", self.units)
        if self.output_size is not None:
            check_size("output_size", self.output_size, 1, self.units, "units")
        if not 0.0 <= self.sparsity < 1.0:
            raise ValueError(f"sparsity must be at least 0 and less than 1; got {self.sparsity}.")

    @property
    def motor_size(self) -> int:
        """See `Wiring.motor_size`."""
        return self.units if self.output_size is None else self.output_size

    def connect(self, input_size: int) -> Circuit:
        """See `Wiring.connect`."""
        check_size("input_size", input_size)
        rng = np.random.default_rng(self.seed)
        recurrent = np.zeros(self.units * self.units, dtype=np.int64)
        chosen = self._choose(rng, len(recurrent))
        recurrent[chosen] = polarities(rng, len(chosen))
        sensory = np.zeros(input_size * self.units, dtype=np.int64)
        chosen = self._choose(rng, len(sensory))
        # ncps draws two signs for each and keeps the second.
        sensory[chosen] = polarities(rng, 2 * len(chosen))[1::2]
        return Circuit(recurrent.reshape(self.units, self.units), sensory.reshape(input_size, self.units))

    def _choose(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.choice(count, size=int(np.round(count * (1.0 - self.sparsity))), replace=False)
