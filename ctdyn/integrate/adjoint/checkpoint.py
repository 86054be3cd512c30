"""Back-propagation that recomputes the steps instead of keeping them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..._types import State, States
from ...solvers.base import StepState
from ..dense import Record
from ..loop import Replay
from .base import Adjoint


__all__ = ["Checkpoint"]


@dataclass(frozen=True)
class Checkpoint(Adjoint):
    r"""Back-propagation that keeps only the states between segments and recomputes the rest: exact, less memory.

    With :math:`S` steps and :math:`\sqrt S` segments memory grows like :math:`\sqrt S`, for one more forward pass.

    Args:
        segments: how many segments the steps are cut into; None for the square root of their number.

    Raises:
        ValueError: `segments` is less than 1.

    Reference:
        A. Griewank, A. Walther, Algorithm 799: revolve, ACM Trans. Math. Softw. 26(1), 2000; T. Chen et al., Training
        deep nets with sublinear memory cost, https://arxiv.org/abs/1604.06174, 2016.

    Example:
        >>> Checkpoint(segments=10)
        Checkpoint(segments=10)
    """

    segments: int | None = None

    def __post_init__(self) -> None:
        if self.segments is not None and self.segments < 1:
            raise ValueError(f"segments must be at least 1; got {self.segments}.")

    def run(self, replay: Replay, y0: State) -> tuple[States, list[Tensor], Record | None]:
        """The replay in segments; each reads the output times that fall into it."""
        total = replay.num_steps
        segments = min(math.isqrt(total) if self.segments is None else self.segments, total) or 1
        bounds = [round(total * k / segments) for k in range(segments + 1)]
        step = (replay.node - 1).clamp(min=0)
        # Times are monotone, so that the outputs of a segment are a range of each series' outputs.
        below = torch.stack([(step < bound).sum(-1) for bound in bounds])
        widths = below.diff(dim=0).flatten(1).amax(-1).tolist() if below[0].numel() else [0] * segments
        y, state = y0, None
        blocks: list[Tensor] = []
        nodes = [y0]
        for (first, last), begin, width in zip(pairwise(bounds), below, widths, strict=False):
            at = begin[..., None] + torch.arange(width, device=begin.device)
            at = at.clamp(max=replay.ts.shape[-1] - 1)
            ys, y, state = checkpoint(_segment, replay, y, state, (first, last), at, use_reentrant=False)
            blocks.append(ys)
            nodes.append(y)
        offsets = torch.tensor([0, *widths], device=step.device).cumsum(0)
        which = torch.searchsorted(torch.tensor(bounds, device=step.device), step, right=True) - 1
        begins = torch.movedim(below, 0, -1).gather(-1, which)
        place = offsets[which] + torch.arange(step.shape[-1], device=step.device) - begins
        stacked = torch.cat(blocks, -2)
        return stacked.gather(-2, place[..., None].expand(*place.shape, stacked.shape[-1])), nodes, None


def _segment(
    replay: Replay, y: State, state: StepState, steps: tuple[int, int], at: Tensor
) -> tuple[States, State, StepState]:
    segment = replay.run(y, state, steps, at=at)
    return segment.ys, segment.y1, segment.state
