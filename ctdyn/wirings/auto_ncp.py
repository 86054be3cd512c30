"""Neural circuit policies by two numbers."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Circuit, Wiring, check_size
from .ncp import NCP


__all__ = ["AutoNCP"]


@dataclass(frozen=True)
class AutoNCP(Wiring):
    """A neural circuit policy of a given size and sparsity: two fifths of what is no motor neuron command.

    Args:
        units: number of neurons.
        output_size: how many of them are motor neurons, which are put out; less than `units - 2`.
        sparsity: the share of synapses between layers that is left out, 0.1 to 1.
        seed: of the choice and of the signs.

    Raises:
        ValueError: there are too many motor neurons, or the sparsity does not fit.

    Reference:
        Neural circuit policies enabling auditable autonomy, M. Lechner, R. Hasani, A. Amini, T. A. Henzinger, D. Rus,
        R. Grosu, 2020, https://doi.org/10.1038/s42256-020-00237-3

    Example:
        >>> AutoNCP(16, 4).ncp == NCP(8, 4, 4, 4, 2, 4, 2)
        True
    """

    units: int
    output_size: int
    sparsity: float = 0.5
    seed: int = 22222

    def __post_init__(self) -> None:
        check_size("units", self.units)
        check_size("output_size", self.output_size)
        if self.output_size >= self.units - 2:
            raise ValueError(
                f"output_size must be less than units - 2, so that inter and command neurons are left; got "
                f"{self.output_size} of {self.units} units."
            )
        if not 0.1 <= self.sparsity <= 1.0:
            raise ValueError(f"sparsity must be 0.1 to 1; got {self.sparsity}.")

    @property
    def ncp(self) -> NCP:
        """The wiring that it stands for."""
        density = 1.0 - self.sparsity
        rest = self.units - self.output_size
        command = max(int(0.4 * rest), 1)
        inter = rest - command
        return NCP(
            inter,
            command,
            self.output_size,
            sensory_fanout=max(int(inter * density), 1),
            inter_fanout=max(int(command * density), 1),
            recurrent_command_synapses=max(int(command * density * 2), 1),
            motor_fanin=max(int(command * density), 1),
            seed=self.seed,
        )

    @property
    def motor_size(self) -> int:
        """See `Wiring.motor_size`."""
        return self.output_size

    @property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """Inter, command and motor neurons."""
        return self.ncp.layers

    def connect(self, input_size: int) -> Circuit:
        """See `Wiring.connect`."""
        return self.ncp.connect(input_size)
