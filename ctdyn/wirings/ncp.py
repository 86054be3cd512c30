"""Neural circuit policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .base import Circuit, Wiring, check_size


__all__ = ["NCP"]


@dataclass(frozen=True)
class NCP(Wiring):
    """A neural circuit policy: inputs to inter neurons to command neurons, which also act on each other, to motors.

    Sparse, in layers, after the nervous system of a worm; `AutoNCP` chooses these numbers. The synapses are those of
    ncps for the same seed.

    Args:
        inter: number of inter neurons.
        command: number of command neurons.
        motor: number of motor neurons, which are put out.
        sensory_fanout: inter neurons that each input acts on.
        inter_fanout: command neurons that each inter neuron acts on.
        recurrent_command_synapses: how often a synapse between two command neurons is drawn.
        motor_fanin: command neurons that act on each motor neuron.
        seed: of the choice and of the signs.

    Raises:
        ValueError: a layer is empty, or is to be reached by more synapses than it has neurons.

    Reference:
        Neural circuit policies enabling auditable autonomy, M. Lechner, R. Hasani, A. Amini, T. A. Henzinger, D. Rus,
        R. Grosu, 2020, https://doi.org/10.1038/s42256-020-00237-3

    Example:
        >>> wiring = NCP(4, 3, 2, sensory_fanout=2, inter_fanout=2, recurrent_command_synapses=3, motor_fanin=2)
        >>> wiring.units, wiring.connect(5).num_sensory_synapses
        (9, 10)
    """

    inter: int
    command: int
    motor: int
    sensory_fanout: int
    inter_fanout: int
    recurrent_command_synapses: int
    motor_fanin: int
    seed: int = 22222
    units: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("inter", "command", "motor"):
            check_size(name, getattr(self, name))
        check_size("sensory_fanout", self.sensory_fanout, 0, self.inter, "inter neurons")
        check_size("inter_fanout", self.inter_fanout, 0, self.command, "command neurons")
        check_size("motor_fanin", self.motor_fanin, 0, self.command, "command neurons")
        check_size("recurrent_command_synapses", self.recurrent_command_synapses, 0)
        object.__setattr__(self, "units", self.inter + self.command + self.motor)

    @property
    def motor_size(self) -> int:
        """See `Wiring.motor_size`."""
        return self.motor

    @property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """Inter, command and motor neurons."""
        first = self.motor + self.command
        return tuple(range(first, self.units)), tuple(range(self.motor, first)), tuple(range(self.motor))

    def connect(self, input_size: int) -> Circuit:
        """See `Wiring.connect`."""
        check_size("input_size", input_size)
        rng = np.random.RandomState(self.seed)
        inter, command, motor = (list(layer) for layer in self.layers)
        inputs = list(range(input_size))
        recurrent = np.zeros((self.units, self.units), dtype=np.int64)
        sensory = np.zeros((input_size, self.units), dtype=np.int64)
        _spread(rng, sensory, inputs, inter, self.sensory_fanout)
        _spread(rng, recurrent, inter, command, self.inter_fanout)
        for _ in range(self.recurrent_command_synapses):
            source, target = rng.choice(command), rng.choice(command)
            recurrent[source, target] = _sign(rng)
        # Into the motors the synapses are drawn from their far end.
        _spread(rng, recurrent.T, motor, command, self.motor_fanin)
        return Circuit(recurrent, sensory)


def _spread(
    rng: np.random.RandomState, matrix: np.ndarray, sources: Sequence[int], targets: Sequence[int], fan: int
) -> None:
    """Connect every source to so many targets, then the targets that were forgotten to so many sources on average."""
    forgotten = list(targets)
    for source in sources:
        for target in rng.choice(targets, size=fan, replace=False):
            if target in forgotten:
                forgotten.remove(target)
            matrix[source, target] = _sign(rng)
    back = int(np.clip(int(len(sources) * fan / len(targets)), 1, len(sources)))
    for target in forgotten:
        for source in rng.choice(sources, size=back, replace=False):
            matrix[source, target] = _sign(rng)


def _sign(rng: np.random.RandomState) -> int:
    return int(rng.choice((-1, 1)))
