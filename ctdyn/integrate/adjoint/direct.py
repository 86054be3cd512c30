"""Back-propagation through the steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ..._types import State, States
from ..dense import Record
from ..loop import Replay
from .base import Adjoint


__all__ = ["Direct"]


@dataclass(frozen=True)
class Direct(Adjoint):
    """Back-propagation through the steps: exact and fastest; memory grows with the number of steps. The default.

    Compiled, the steps and the search for them run several to a call of one program, some times faster for the same
    answer to rounding. The first solve of a field, a method and a shape then takes half a minute or so; where torch
    finds its machine code on disk, a few seconds. A field that cannot be compiled runs as it is, after a warning. A
    compiled solve has first derivatives only: torch raises an error at the second.

    Args:
        compile: whether to compile the steps, by torch.compile; worth it for a solve that is repeated many times.

    Example:
        >>> Direct()
        Direct(compile=False)
    """

    compile: bool = False

    @property
    def compiles(self) -> bool:
        """Whether the search is compiled."""
        return self.compile

    def run(self, replay: Replay, y0: State) -> tuple[States, list[Tensor], Record | None]:
        """The replay as it stands."""
        segment = replace(replay, compile=self.compile).run(y0)
        return segment.ys, segment.nodes, segment.record
