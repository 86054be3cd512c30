"""What a cell is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from .._config import Configurable
from .._types import Inputs, State, Time
from ..structure import Transition


__all__ = ["Cell"]


class Cell(nn.Module, Configurable, Transition, ABC):
    """A hidden state with continuous dynamics and an update by observations.

    A time interval of length zero and an observation with an empty mask both leave the state exactly as it is; that
    makes padding harmless.

    Args:
        num_channels: how many channels are observed.
        hidden_size: size of the hidden state.

    Example:
        >>> import torch
        >>> from ctdyn.cells import ODERNNCell
        >>> cell: Cell = ODERNNCell(num_channels=2, hidden_size=3)
        >>> h = torch.ones(1, 3)
        >>> torch.equal(cell.evolve(h, t0=torch.ones(1), t1=torch.ones(1)), h)
        True
    """

    def __init__(self, num_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.hidden_size = hidden_size

    @property
    def read_size(self) -> int:
        """Size of what `read` gives."""
        return self.hidden_size

    def read(self, h: State) -> Tensor:
        """What a decoder sees of hidden states `(*batch, hidden)`: all of them, unless a cell has something better."""
        return h

    @abstractmethod
    def evolve(self, h: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """The state at `t1`, from the one at `t0`, where nothing was observed in between.

        Args:
            h: hidden states, `(*batch, hidden)`.
            t0: time of `h` per series, `(*batch,)`.
            t1: time to go to, `(*batch,)`; it may lie before `t0`.
            u: inputs, held over the interval, `(*batch, input)`.
        """

    def transition(self, y: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """As `evolve`, under the name that `solve` knows."""
        return self.evolve(y, t0, t1, u)

    @abstractmethod
    def update(self, h: State, x: Tensor, mask: Tensor) -> State:
        """The state after an observation.

        Args:
            h: hidden states, `(*batch, hidden)`.
            x: observed values, `(*batch, channel)`.
            mask: True where observed, `(*batch, channel)`; a series with nothing observed keeps its state.
        """
