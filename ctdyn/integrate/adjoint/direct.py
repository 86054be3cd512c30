"""Back-propagation through the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..._options import with_suggestions
from ..._types import State, States
from ...solvers.base import StepState
from ..dense import Record
from ..loop import Replay
from ._pieces import Ended, Pieces, even, first_nodes
from .base import Adjoint


__all__ = ["Direct"]

_AT_ONCE = 4096
"""The most steps whose states are held where no gradient is wanted: a million small tensors are gigabytes."""


@with_suggestions
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
        """The replay as it stands; a long one without gradients piece by piece, of which only the outputs are kept."""
        replay = replace(replay, compile=self.compile)
        if replay.num_steps > _AT_ONCE and not torch.is_grad_enabled():
            bounds = even(replay.num_steps, math.ceil(replay.num_steps / _AT_ONCE))
            ended = Pieces.cut(replay, bounds).chain(y0, None, _outputs)
            return ended.ys, [*ended.nodes, ended.y1], None
        segment = replay.run(y0)
        return segment.ys, segment.nodes, segment.record


def _outputs(piece: Replay, y: State, state: StepState) -> Ended:
    segment = piece.run(y, state)
    return Ended(segment.ys, segment.y1, segment.state, first_nodes(segment))
