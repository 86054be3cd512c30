"""What a cell is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .._checks import check_count
from .._config import Configurable
from .._types import Inputs, State, States, Time, Times
from ..integrate import explain
from ..structure import Explained, Transition


__all__ = ["Cell"]


class Cell(nn.Module, Configurable, Transition, Explained, ABC):
    """A hidden state with continuous dynamics and an update by observations.

    A time interval of length zero and an observation with an empty mask both leave the state exactly as it is; that
    makes padding harmless.

    Args:
        num_channels: how many channels are observed.
        hidden_size: size of the hidden state.

    Raises:
        ValueError: a size is below 1; or, later, a hidden state or an observation has another.

    Example:
        >>> import torch
        >>> from ctdyn.cells import ODERNNCell
        >>> cell: Cell = ODERNNCell(num_channels=2, hidden_size=3)
        >>> h = torch.ones(1, 3)
        >>> torch.equal(cell.evolve(h, t0=torch.ones(1), t1=torch.ones(1)), h)
        True
    """

    #: Whether inputs can drive it.
    driven: bool = True

    def __init__(self, num_channels: int, hidden_size: int) -> None:
        super().__init__()
        for name, size in (("num_channels", num_channels), ("hidden_size", hidden_size)):
            check_count(name, size)
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

    def explain(self) -> str:
        """Which way the state is carried over an interval; see `Explained.explain`."""
        return explain(self)

    @abstractmethod
    def update(self, h: State, x: Tensor, mask: Tensor) -> State:
        """The state after an observation.

        Args:
            h: hidden states, `(*batch, hidden)`.
            x: observed values, `(*batch, channel)`.
            mask: True where observed, `(*batch, channel)`; a series with nothing observed keeps its state.
        """

    def scan(self, h: State, ts: Times, xs: Tensor, mask: Tensor, us: Tensor | None = None) -> tuple[States, States]:
        """The states before and after every observation of a series, read from the first row to the last.

        It is `update` and `evolve` in turns; a cell that can do better overrides it.

        Args:
            h: hidden states before the first row, `(*batch, hidden)`.
            ts: times of the rows, monotone, `(*batch, time)`; from the last to the first they run backwards.
            xs: observed values, `(*batch, time, channel)`.
            mask: True where observed, `(*batch, time, channel)`.
            us: inputs at the rows, each held until the next, `(*batch, time, input)`.

        Returns:
            The states before the observations and those after, each `(*batch, time, hidden)`.
        """
        before, after = [], []
        for k in range(ts.shape[-1]):
            if k > 0:
                h = self.evolve(h, ts[..., k - 1], ts[..., k], None if us is None else us[..., k - 1, :])
            before.append(h)
            h = self.update(h, xs[..., k, :], mask[..., k, :])
            after.append(h)
        return torch.stack(before, -2), torch.stack(after, -2)

    def _check(self, h: State, x: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Refuse what would only broadcast by mistake."""
        name = type(self).__name__
        if h.shape[-1] != self.hidden_size:
            raise ValueError(
                f"this {name} has hidden_size={self.hidden_size}; got hidden states (*batch, hidden) of "
                f"{tuple(h.shape)}."
            )
        for what, one in (("values", x), ("a mask", mask)):
            if one is not None and one.shape[-1] != self.num_channels:
                raise ValueError(
                    f"this {name} has num_channels={self.num_channels}; got {what} (*batch, channel) of "
                    f"{tuple(one.shape)}."
                )
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError(f"mask must be boolean, True where observed; got {mask.dtype}.")
