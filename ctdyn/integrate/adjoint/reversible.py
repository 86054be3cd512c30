"""Back-propagation that runs the steps backwards instead of keeping them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..._checks import AdjointInstabilityWarning
from ..._types import State, States
from ...solvers.base import StepState
from ...solvers.reversible import ReversibleSolver
from ..dense import Record
from ..loop import Replay
from ._pieces import Ended, Pieces, apart, empty_like, first_nodes, first_step, flat, like
from ._tracing import Held, pull, refuse_second
from .base import Adjoint
from .checkpoint import recomputed


__all__ = ["Reversible"]

_STEPS_FROM_MEMORY = 512


@dataclass(frozen=True)
class Reversible(Adjoint):
    """Back-propagation that undoes the steps on its way back: exact, in memory that hardly grows with the steps.

    It takes a method whose steps can be undone: `ReversibleMethod(Tsit5())`, or with any other base method, for
    ordinary equations; `ReversibleHeun()` for stochastic ones. Its gradients are those of `Direct` for the same steps,
    whatever their length, and reach what those reach. The states of every 512th step are kept, so that rounding cannot
    build up. Where a field contracts so strongly that its past cannot be
    recovered from its end, this is noticed (the undone states are compared with the outputs and with the start), the
    gradient is computed by `Checkpoint` instead, and a warning says so. There are no second derivatives.

    Args:
        steps_at_once: how many steps are undone before they are taken again with gradients; memory grows with it.

    Raises:
        TypeError: when solving, the method cannot be undone.
        ValueError: `steps_at_once` is less than 1.

    Reference:
        P. Kidger, J. Foster, X. Li, T. Lyons, Efficient and accurate gradients for neural SDEs, 2021,
        https://arxiv.org/abs/2105.13493; S. McCallum, J. Foster, Efficient, accurate and stable gradients for neural
        ODEs, 2024, https://arxiv.org/abs/2410.11648

    Example:
        >>> from ctdyn.integrate import solve
        >>> from ctdyn.solvers import ReversibleMethod, Tsit5
        >>> y0, ts = torch.ones(1, requires_grad=True), torch.tensor([0.0, 1.0])
        >>> ys = solve(lambda t, y: -y, y0, ts, solver=ReversibleMethod(Tsit5()), adjoint=Reversible()).ys
        >>> torch.autograd.grad(ys[-1].sum(), y0)
        (tensor([0.3679]),)
    """

    steps_at_once: int = 16

    def __post_init__(self) -> None:
        if self.steps_at_once < 1:
            raise ValueError(f"steps_at_once must be at least 1; got {self.steps_at_once}.")

    def run(self, replay: Replay, y0: State) -> tuple[States, list[Tensor], Record | None]:
        """The replay in pieces, of which nothing is kept but the outputs and the end."""
        if not isinstance(replay.solver, ReversibleSolver):
            raise TypeError(
                f"{replay.solver!r} cannot be undone, which Reversible needs. Use "
                f"solver=ReversibleMethod({replay.solver!r}) for an ordinary equation, ReversibleHeun() for a "
                "stochastic one, or adjoint=Checkpoint(), which takes any method."
            )
        held = Held(first_step(replay), y0, "Reversible")

        def run(stretch: Replay, y: State, state: StepState) -> Ended:
            program = _Program(stretch, state, held, self.steps_at_once)
            ys, y1, *carried = _Undone.apply(program, y, *flat(state), stretch.grid, stretch.ts, *held.tensors)
            return Ended(ys, y1, like(program.left, carried), program.nodes)

        ended = Pieces.cut(replay, _bounds(replay.num_steps, _STEPS_FROM_MEMORY)).chain(y0, None, run)
        return ended.ys, [*ended.nodes, ended.y1], None


def _bounds(total: int, size: int) -> list[int]:
    return [*range(0, total, size), total]


class _Program:
    """A stretch of steps as a function of tensors."""

    def __init__(self, stretch: Replay, state: StepState, held: Held, size: int) -> None:
        # What is kept must not hold on to the graph of the times.
        stretch = replace(stretch, grid=apart(stretch.grid), ts=apart(stretch.ts))
        self.pieces = Pieces.cut(stretch, _bounds(stretch.num_steps, size))
        self.held = held
        self.form, self.left = empty_like(state), None
        self.nodes: list[Tensor] = []

    def forward(self, y: State, state: StepState) -> tuple[Tensor, State, StepState]:
        """The outputs, and where the steps end."""

        def run(piece: Replay, y: State, state: StepState) -> Ended:
            segment = piece.run(y, state)
            return Ended(segment.ys, segment.y1, segment.state, first_nodes(segment))

        ended = self.pieces.chain(y, state, run)
        self.left, self.nodes = empty_like(ended.state), ended.nodes
        return ended.ys, ended.y1, ended.state

    def undo(self, piece: Replay, y: State, state: StepState) -> tuple[State, StepState]:
        """The state before a piece."""
        solver = piece.solver
        if not isinstance(solver, ReversibleSolver):
            raise TypeError(f"{solver!r} cannot be undone.")
        knotted = piece.term.knots() is not None
        ends = piece.grid.unbind(0)
        steps = list(zip(solver.pieces(piece.term, ends, y.dtype), pairwise(ends), strict=True))
        for term, (t0, t1) in reversed(steps):
            y, state = solver.undo(term, t0, t1, y, state)
            state = solver.across(state) if knotted else state
        return y, state


class _Undone(torch.autograd.Function):
    """A stretch of steps of which only the start, the outputs and the end are kept."""

    @staticmethod
    def forward(ctx: Any, program: _Program, *tensors: Tensor) -> tuple[Tensor, ...]:
        y, *rest = tensors
        carried = rest[: len(flat(program.form))]
        ys, y1, state = program.forward(y, like(program.form, carried))
        ctx.program = program
        ctx.save_for_backward(y, *carried, ys, y1, *flat(state), *program.held.tensors)
        ctx.set_materialize_grads(False)
        return (ys, y1, *flat(state))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        program: _Program = ctx.program
        y0, *rest = ctx.saved_tensors
        count, left = len(flat(program.form)), len(flat(program.left))
        start = y0, like(program.form, rest[:count])
        ys, y1, *after = rest[count : count + 2 + left]
        with torch.no_grad(), program.held.again():
            back = _Back(program, start, ys)
            gradients = back.run(y1, like(program.left, after), list(cotangents))
        given = [c for c in cotangents if c is not None]
        return None, *refuse_second("Reversible", gradients, [*ctx.saved_tensors, *given])


class _Back:
    """The way back through the pieces of a stretch."""

    def __init__(self, program: _Program, start: tuple[State, StepState], ys: Tensor) -> None:
        self.program, self.pieces, self.held = program, program.pieces, program.held
        self.start, self.ys = start, ys
        whole = self.pieces.replay
        self.grid = torch.zeros_like(whole.grid) if whole.grid.requires_grad else None
        self.ts = torch.zeros_like(whole.ts) if whole.ts.requires_grad else None
        self.found: list[Tensor | None] = [None] * len(self.held.tensors)
        largest = torch.maximum(ys.abs().amax((-2, -1)), start[0].abs().amax(-1))
        self.allowed = largest * (1e-9 if start[0].dtype.to_real() == torch.float64 else 2e-6)

    def run(self, y: State, state: StepState, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        """The gradients of the start, of the steps, of the output times and of what the field holds."""
        of_ys, *pulled = cotangents
        for number in reversed(range(len(self.pieces))):
            y, state = self.program.undo(self.pieces[number], y, state)
            off = torch.zeros_like(self.allowed)
            if number == 0:
                off = self._off(y, self.start[0])
                y, state = self.start
            local, outputs = self._again(self.pieces[number], y, state)
            seen = outputs[0].detach() * self.pieces.own(number)[..., None]
            off = torch.maximum(off, self._off(seen, self.pieces.part(self.ys, number)))
            if bool((off > 1.0).any()):
                return self._recompute(off, cotangents)
            block = None if of_ys is None else self.pieces.part(of_ys, number)
            pulled = self._pull(number, local, outputs, [block, *pulled])
        return [*pulled, self.grid, self.ts, *self.found]

    def _off(self, found: Tensor, true: Tensor) -> Tensor:
        """How far states are from what they should be, in units of what is allowed, `(*batch,)`."""
        worst = (found - true).abs().flatten(self.allowed.dim()).amax(-1)
        worst = torch.where(torch.isfinite(worst), worst, torch.inf)
        return torch.where(worst == 0, 0.0, worst / self.allowed)

    def _leaves(self, replay: Replay, y: State, state: StepState) -> tuple[list[Tensor], Replay, StepState]:
        """What a replay is made of, ready for a gradient."""
        start = [x.detach().requires_grad_() for x in (y, *flat(state))]
        grid, ts = replay.grid.detach().requires_grad_(self.grid is not None), apart(replay.ts)
        return [*start, grid, ts], replace(replay, grid=grid, ts=ts), like(state, start[1:])

    def _again(self, piece: Replay, y: State, state: StepState) -> tuple[list[Tensor], list[Tensor]]:
        """A piece once more with gradients: the tensors that it was made of, and what came out."""
        with torch.enable_grad():
            local, replay, state = self._leaves(piece, y, state)
            segment = replay.run(local[0], state)
        outputs = [segment.ys, segment.y1, *flat(segment.state)]
        self.held.check(outputs, local)
        return local, outputs

    def _pull(
        self, number: int, local: list[Tensor], outputs: list[Tensor], cotangents: list[Tensor | None]
    ) -> list[Tensor | None]:
        """Through one piece: the gradients of the state that it began with; the others are added up."""
        # What `across` dropped of a state has no gradient.
        cotangents = [*cotangents, *[None] * (len(outputs) - len(cotangents))]
        found = pull(outputs, cotangents, [*local, *self.held.tensors])
        *pulled, grid, ts = found[: len(local)]
        first, last = self.pieces.bounds[number], self.pieces.bounds[number + 1]
        if self.grid is not None and grid is not None:
            self.grid[first : last + 1] += grid
        if self.ts is not None and ts is not None:
            self.ts.scatter_add_(-1, self.pieces.numbers(number), ts * self.pieces.own(number))
        self.found = [_sum(old, new) for old, new in zip(self.found, found[len(local) :], strict=True)]
        return pulled

    def _recompute(self, off: Tensor, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        """By other means: the states could not be recovered."""
        where = tuple(torch.nonzero(off == off.amax())[0].tolist())
        name = f" of series {', '.join(map(str, where))}" if where else ""
        warnings.warn(
            f"Reversible could not recover the states{name} from where the solve ended: the field contracts too "
            "strongly, or the coupling of the method is too weak, for so long a solve. This gradient was computed by "
            "Checkpoint() instead, and is exact; adjoint=Checkpoint() saves the attempt.",
            AdjointInstabilityWarning,
            stacklevel=2,
        )
        with torch.enable_grad():
            local, replay, state = self._leaves(self.pieces.replay, *self.start)
            ended = recomputed(replay, local[0], state, self.held)
        outputs = [ended.ys, ended.y1, *flat(ended.state)]
        return pull(outputs, cotangents, [*local, *self.held.tensors])


def _sum(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    return old if new is None else new if old is None else old + new
