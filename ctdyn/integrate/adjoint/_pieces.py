"""A replay cut into pieces that read their own outputs, so that no more than one piece need be held at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ...nn import take_items
from ...solvers.base import StepState
from ..loop import Replay, Segment


__all__ = ["Ended", "Pieces", "apart", "empty_like", "even", "first_nodes", "first_step", "flat", "like"]


class Ended(NamedTuple):
    """Where a piece ends.

    Args:
        ys: its outputs, `(*batch, width, state)`.
        y1: the state at its end, `(*batch, state)`.
        state: what the next step can use.
        nodes: the states at the ends of the first few steps, without gradients.
    """

    ys: Tensor
    y1: Tensor
    state: StepState
    nodes: list[Tensor]


@dataclass(frozen=True)
class Pieces:
    """A replay in pieces of neighbouring steps.

    Args:
        replay: the whole.
        bounds: the first step of each piece, and at the end the number of steps.
        begins: how many outputs lie before each bound, `(*batch, bound)`.
        widths: the most outputs of one series in each piece, at least 1.
        order: where each output stands among those of all pieces, side by side, `(*batch, time)`.
    """

    replay: Replay
    bounds: tuple[int, ...]
    begins: Tensor
    widths: tuple[int, ...]
    order: Tensor

    @classmethod
    def cut(cls, replay: Replay, bounds: Sequence[int]) -> Pieces:
        """Cut at these steps; the first is 0 and the last their number."""
        # Times are monotone, so that the outputs of a piece are a range of each series' outputs.
        step = (replay.node - 1).clamp(min=0)
        edges = torch.tensor(bounds, device=step.device)
        begins = torch.searchsorted(step.contiguous(), edges.expand(*step.shape[:-1], -1).contiguous())
        begins[..., -1] = step.shape[-1]
        widths = begins.diff(dim=-1).reshape(-1, len(bounds) - 1).amax(0).clamp(min=1)
        offsets = torch.cat([widths.new_zeros(1), widths.cumsum(0)])
        which = torch.searchsorted(edges[1:-1], step, right=True)
        order = torch.arange(step.shape[-1], device=step.device) - begins.gather(-1, which) + offsets[which]
        return cls(replay, tuple(bounds), begins, tuple(widths.tolist()), order)

    def __len__(self) -> int:
        return len(self.widths)

    def numbers(self, piece: int) -> Tensor:
        """The outputs that a piece reads, `(*batch, width)`; beyond its own they are any."""
        at = self.begins[..., piece, None] + torch.arange(self.widths[piece], device=self.begins.device)
        return at.clamp(max=self.replay.ts.shape[-1] - 1)

    def own(self, piece: int) -> Tensor:
        """Which of them are its own, `(*batch, width)`."""
        count = self.begins[..., piece + 1] - self.begins[..., piece]
        return torch.arange(self.widths[piece], device=count.device) < count[..., None]

    def __getitem__(self, piece: int) -> Replay:
        """One piece, a replay in its own right."""
        first, last = self.bounds[piece], self.bounds[piece + 1]
        grid, at, own = self.replay.grid[first : last + 1], self.numbers(piece), self.own(piece)
        # Rows are filled up with the end of the piece: it costs nothing, cannot overflow, and leaves them in order.
        ts = torch.where(own, self.replay.ts.gather(-1, at), grid[-1].detach()[..., None])
        node = torch.where(own, self.replay.node.gather(-1, at) - first, last - first).clamp(min=0)
        if self.replay.ts.requires_grad and not ts.requires_grad:
            # Outputs may be read in another way where the times want a gradient: it must be the same without a graph.
            ts.requires_grad_()
        return replace(self.replay, grid=grid, ts=ts, node=node)

    def __iter__(self) -> Iterator[Replay]:
        grid, sizes = self.replay.grid, [last - first for first, last in pairwise(self.bounds)]
        if not grid.requires_grad:
            yield from (self[piece] for piece in range(len(self)))
            return
        # Together the gradients of these cost one grid, those of slices one grid each.
        heads = grid.split([*sizes, 1])
        for piece, (head, after) in enumerate(pairwise(heads)):
            yield replace(self[piece], grid=torch.cat([head, after[:1]]))

    def chain(self, y: Tensor, state: StepState, run: Callable[[Replay, Tensor, StepState], Ended]) -> Ended:
        """Run one piece after the other, each from where the one before ended."""
        blocks: list[Tensor] = []
        nodes: list[Tensor] = []
        for piece in self:
            ended = run(piece, y, state)
            y, state = ended.y1, ended.state
            blocks.append(ended.ys)
            nodes = nodes or ended.nodes
        return Ended(self.join(blocks), y, state, nodes)

    def join(self, blocks: Sequence[Tensor]) -> Tensor:
        """The outputs of all pieces in the order in which they were asked for, `(*batch, time, state)`."""
        stacked = torch.cat(list(blocks), -2)
        return take_items(stacked, self.order, -2)

    def part(self, states: Tensor, piece: int) -> Tensor:
        """The outputs of one piece, `(*batch, width, state)`; zero where they are not its own."""
        return take_items(states, self.numbers(piece), -2) * self.own(piece)[..., None]


def even(total: int, pieces: int) -> list[int]:
    """The bounds of so many pieces of equal length."""
    return [round(total * k / pieces) for k in range(pieces + 1)]


def flat(state: StepState) -> tuple[Tensor, ...]:
    """The tensors of a state."""
    return () if state is None else (state,) if isinstance(state, Tensor) else state


def like(state: StepState, tensors: Sequence[Tensor]) -> StepState:
    """A state of the same form made of these tensors."""
    return None if state is None else tensors[0] if isinstance(state, Tensor) else tuple(tensors)


def apart(x: Tensor) -> Tensor:
    """The same numbers, wanting a gradient where they did, without the graph that they came from."""
    return x.detach().requires_grad_(x.requires_grad)


def empty_like(state: StepState) -> StepState:
    """A state of the same form that holds nothing."""
    return like(state, [x.new_empty(0) for x in flat(state)])


def first_step(replay: Replay) -> Replay:
    """The first step of a replay."""
    return Pieces.cut(replay, [0, 1, replay.num_steps])[0] if replay.num_steps > 1 else replay


def first_nodes(segment: Segment) -> list[Tensor]:
    """The first few states of a segment, without gradients: enough to see an instability."""
    return [node.detach() for node in segment.nodes[:8]]
