"""Back-propagation through the steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..._types import State, States
from ..dense import Record
from ..loop import Replay
from .base import Adjoint


__all__ = ["Direct"]


@dataclass(frozen=True)
class Direct(Adjoint):
    """Back-propagation through the steps: exact and fastest; memory grows with the number of steps. The default.

    Example:
        >>> Direct()
        Direct()
    """

    def run(self, replay: Replay, y0: State) -> tuple[States, list[Tensor], Record | None]:
        """The replay as it stands."""
        segment = replay.run(y0)
        return segment.ys, segment.nodes, segment.record
