"""Back-propagation that recomputes the steps instead of keeping them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..._checks import check_count
from ..._options import with_suggestions
from ..._types import State, States
from ...solvers.base import StepState
from ..dense import Record
from ..loop import Replay
from ._pieces import Ended, Pieces, apart, empty_like, even, first_nodes, first_step, flat, like
from ._tracing import Held, pull, refuse_second
from .base import Adjoint


__all__ = ["Checkpoint", "recomputed"]


@with_suggestions
@dataclass(frozen=True)
class Checkpoint(Adjoint):
    r"""Back-propagation that keeps only the states between segments and recomputes the rest: exact, less memory.

    Each of :math:`L` levels cuts what the level above left uncut into :math:`k` segments. For :math:`S` steps the
    states of about :math:`L k` steps and what back-propagation needs of :math:`S / k^L` steps are held at a time; the
    steps are taken :math:`L` times more than by `Direct`. One level with :math:`k = \sqrt S` is the default; with
    :math:`k = 2` and :math:`L = \log_2 S` memory is logarithmic.

    Gradients and second derivatives reach what they reach with `Direct`. The field must not be random.

    Args:
        segments: how many segments each level makes; None for the number that balances what is held.
        levels: how many times segments are cut again.

    Raises:
        ValueError: `segments` or `levels` is less than 1.

    Reference:
        A. Griewank, A. Walther, Algorithm 799: revolve, ACM Trans. Math. Softw. 26(1), 2000,
        https://doi.org/10.1145/347837.347846; T. Chen, B. Xu, C. Zhang, C. Guestrin, Training deep nets with sublinear
        memory cost, 2016, https://arxiv.org/abs/1604.06174

    Example:
        >>> Checkpoint(segments=10)
        Checkpoint(segments=10, levels=1)
    """

    segments: int | None = None
    levels: int = 1

    def __post_init__(self) -> None:
        if self.segments is not None:
            check_count("segments", self.segments)
        check_count("levels", self.levels)

    def run(self, replay: Replay, y0: State) -> tuple[States, list[Tensor], Record | None]:
        """The replay in segments; each reads the output times that fall into it."""
        held = Held(first_step(replay), y0, "Checkpoint")
        ended = recomputed(replay, y0, None, held, self.levels, self.segments)
        return ended.ys, [*ended.nodes, ended.y1], None


def recomputed(
    replay: Replay, y: State, state: StepState, held: Held, levels: int = 1, segments: int | None = None
) -> Ended:
    """One segment after the other; each is a single operation with a gradient of its own."""
    total = replay.num_steps
    count = math.ceil(total ** (1 / (levels + 1))) if segments is None else segments

    def run(piece: Replay, y: State, state: StepState) -> Ended:
        program = _Program(piece, state, held, levels - 1, segments)
        ys, y1, *carried = _Recomputed.apply(program, y, *flat(state), piece.grid, piece.ts, *held.tensors)
        return Ended(ys, y1, like(program.left, carried), program.nodes)

    return Pieces.cut(replay, even(total, min(count, total))).chain(y, state, run)


class _Program:
    """A segment as a function of tensors; what the field holds it takes from the field."""

    def __init__(self, replay: Replay, state: StepState, held: Held, levels: int, segments: int | None) -> None:
        # What is kept must not hold on to the graph of the segments before.
        self.replay = replace(replay, grid=apart(replay.grid), ts=apart(replay.ts))
        self.levels, self.segments, self.held = levels, segments, held
        self.form, self.left = empty_like(state), None
        self.nodes: list[Tensor] = []

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        y, *carried, grid, ts = tensors
        replay, state = replace(self.replay, grid=grid, ts=ts), like(self.form, carried)
        with self.held.again():
            if self.levels:
                ys, y1, left, self.nodes = recomputed(replay, y, state, self.held, self.levels, self.segments)
            else:
                segment = replay.run(y, state)
                ys, y1, left, self.nodes = segment.ys, segment.y1, segment.state, first_nodes(segment)
        self.left = empty_like(left)
        return (ys, y1, *flat(left))

    def pull(self, tensors: Sequence[Tensor], cotangents: Sequence[Tensor | None], *, twice: bool) -> tuple:
        """The segment once more with gradients: the tensors that stood in for its own, and their gradients."""
        own = len(tensors) - len(self.held.tensors)
        local = [apart(x) for x in tensors[:own]]
        # An implicit method differentiates by the state, and makes one that it can where this one wants no gradient.
        local[0].requires_grad_()
        outputs = self(local)
        self.held.check(outputs, local)
        inputs = [*local, *self.held.tensors]
        return inputs, pull(outputs, cotangents, inputs, twice=twice)


class _Recomputed(torch.autograd.Function):
    """A segment of which only the arguments are kept."""

    @staticmethod
    def forward(ctx: Any, program: _Program, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.program = program
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return program(tensors[: len(tensors) - len(program.held.tensors)])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        present = [c is not None for c in cotangents]
        given = [c for c in cotangents if c is not None]
        return None, *_Pullback.apply(ctx.program, present, *ctx.saved_tensors, *given)


class _Pullback(torch.autograd.Function):
    """The gradients of a segment, themselves recomputed where they are differentiated."""

    @staticmethod
    def forward(ctx: Any, program: _Program, present: list[bool], *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.program, ctx.present = program, present
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        with torch.enable_grad():
            _, found = program.pull(*_split(tensors, present), twice=False)
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *weights: Tensor | None) -> Any:
        tensors, cotangents = _split(ctx.saved_tensors, ctx.present)
        with torch.enable_grad():
            cotangents = [None if c is None else c.detach().requires_grad_() for c in cotangents]
            inputs, found = ctx.program.pull(tensors, cotangents, twice=True)
            pairs = [(g, w) for g, w in zip(found, weights, strict=True) if g is not None and w is not None]
            given = [c for c in cotangents if c is not None]
            gradients = pull([g for g, _ in pairs], [w for _, w in pairs], [*inputs, *given])
        return None, None, *refuse_second("The second derivative of Checkpoint", gradients, [*ctx.saved_tensors])


def _split(tensors: Sequence[Tensor], present: list[bool]) -> tuple[list[Tensor], list[Tensor | None]]:
    count = len(tensors) - sum(present)
    given = iter(tensors[count:])
    return list(tensors[:count]), [next(given) if there else None for there in present]
