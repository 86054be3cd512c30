"""Back-propagation that runs the steps backwards instead of keeping them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._checks import AdjointInstabilityWarning, check_count
from ..._options import with_suggestions
from ..._types import State, States
from ...solvers.base import StepState
from ...solvers.reversible import ReversibleMethod, ReversibleSolver
from ..dense import Record
from ..loop import Replay
from ._pieces import Ended, Pieces, apart, empty_like, first_nodes, first_step, flat, like
from ._tracing import Held, pull, refuse_second
from .base import Adjoint
from .checkpoint import recomputed


__all__ = ["Reversible"]


@with_suggestions
@dataclass(frozen=True)
class Reversible(Adjoint):
    """Back-propagation that undoes the steps on its way back: exact, in memory that hardly grows with the steps.

    It takes a method whose steps can be undone: `ReversibleMethod(Tsit5())`, or with any other base method, for
    ordinary equations; `ReversibleHeun()` for stochastic ones. Its gradients are those of `Direct` for the same steps,
    whatever their length, and reach what those reach. A few states between are kept, one every 512 steps or as the
    coupling of the method asks for, so that rounding cannot build up. Where a field contracts so strongly that its past
    cannot be recovered from its end, this is noticed: the undone states are compared with the outputs and with the
    states that were kept. The steps are then recomputed as `Checkpoint` does it, and a warning says so. There are no
    second derivatives.

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
        check_count("steps_at_once", self.steps_at_once)

    def run(self, replay: Replay, y0: State) -> tuple[States, list[Tensor], Record | None]:
        """The replay in pieces, of which nothing is kept but the outputs and the end."""
        if not isinstance(replay.solver, ReversibleSolver):
            raise TypeError(
                f"{replay.solver!r} cannot be undone, which Reversible needs. Use "
                f"solver=ReversibleMethod({replay.solver!r}) for an ordinary equation, ReversibleHeun() for a "
                "stochastic one, or adjoint=Checkpoint(), which takes any method."
            )
        program = _Program(replay, Held(first_step(replay), y0, "Reversible"), self.steps_at_once)
        ys, y1 = _Undone.apply(program, y0, replay.grid, replay.ts, *program.held.tensors)
        if isinstance(replay.solver, ReversibleMethod):
            program.check_coupling(ys.detach())
        return ys, [*program.nodes, y1], None


class _Program:
    """The steps of a replay as a function of tensors, forward and undone."""

    def __init__(self, replay: Replay, held: Held, size: int) -> None:
        # What is kept must not hold on to the graph of the times.
        replay = replace(replay, grid=apart(replay.grid), ts=apart(replay.ts))
        horizon = replay.solver.horizon if isinstance(replay.solver, ReversibleSolver) else 1
        size = min(size, horizon)
        self.pieces = Pieces.cut(replay, [*range(0, replay.num_steps, size), replay.num_steps])
        self.every = horizon // size
        self.held = held
        self.form: StepState = None
        self.nodes: list[Tensor] = []
        self.distance = replay.ts.new_zeros(())

    def forward(self, y0: State) -> tuple[Tensor, list[Tensor]]:
        """The outputs, and the states that are kept: those at the start of some pieces, and at the end of the last."""
        kept: list[Tensor] = []
        number = 0

        def run(piece: Replay, y: State, state: StepState) -> Ended:
            nonlocal number
            if number % self.every == 0 and number:
                kept.extend((y, *flat(state)))
            number += 1
            segment = piece.run(y, state)
            return Ended(segment.ys, segment.y1, segment.state, first_nodes(segment))

        ended = self.pieces.chain(y0, None, run)
        self.form, self.nodes = empty_like(ended.state), ended.nodes
        first, second, *_ = flat(ended.state)
        self.distance = (first - second).detach().abs().amax(-1)
        return ended.ys, [*kept, ended.y1, *flat(ended.state)]

    def check_coupling(self, ys: Tensor) -> None:
        """Say so where the two states of the method lost each other: nothing else would."""
        apart = self.distance / torch.maximum(ys.abs().amax((-2, -1)), self.distance).clamp(min=1e-300)
        if bool((apart > 0.1).any()):
            place = tuple(torch.nonzero(apart == apart.amax())[0].tolist())
            name = f" of series {', '.join(map(str, place))}" if place else ""
            warnings.warn(
                f"the two states{name} that {self.pieces.replay.solver!r} carries drifted apart: the answer itself is "
                "wrong. Take shorter steps, a smaller coupling such as 0.5, or an adaptive controller.",
                AdjointInstabilityWarning,
                stacklevel=2,
            )

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
    """A solve of which only the start, the outputs, the end and a few states between are kept."""

    @staticmethod
    def forward(ctx: Any, program: _Program, y0: State, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ys, kept = program.forward(y0)
        ctx.program = program
        ctx.save_for_backward(ys, y0, *kept, *program.held.tensors)
        ctx.set_materialize_grads(False)
        return ys, kept[-1 - len(flat(program.form))]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        program: _Program = ctx.program
        ys, y0, *rest = ctx.saved_tensors
        size = 1 + len(flat(program.form))
        kept = rest[: len(rest) - len(program.held.tensors)]
        known = [(k[0], like(program.form, k[1:])) for k in (kept[i : i + size] for i in range(0, len(kept), size))]
        with torch.no_grad(), program.held.again():
            gradients = _Back(program, ys, [(y0, None), *known]).run(*cotangents)
        given = [c for c in cotangents if c is not None]
        return None, *refuse_second("Reversible", gradients, [*ctx.saved_tensors, *given])


class _Share(NamedTuple):
    """The gradients of the times that one run of steps has a share in."""

    first: int
    grid: Tensor | None
    numbers: Tensor
    ts: Tensor | None


class _Back:
    """The way back through the pieces of a solve.

    Args:
        program: the pieces.
        ys: the outputs.
        known: the states that were kept: at the start of every so many pieces, and at the end.
    """

    def __init__(self, program: _Program, ys: Tensor, known: list[tuple[State, StepState]]) -> None:
        self.program, self.pieces, self.held = program, program.pieces, program.held
        self.ys, self.known = ys, known
        self.shares: list[_Share] = []
        self.found: list[Tensor | None] = [None] * len(self.held.tensors)
        self.warned = False
        largest = torch.maximum(ys.abs().amax((-2, -1)), known[0][0].abs().amax(-1))
        self.allowed = largest * (1e-9 if ys.dtype.to_real() == torch.float64 else 2e-6)

    def run(self, of_ys: Tensor | None, of_y1: Tensor | None) -> list[Tensor | None]:
        """The gradients of the start, of the steps, of the output times and of what the field holds."""
        pulled, every, last = [of_y1], self.program.every, len(self.pieces)
        for stretch in reversed(range(len(self.known) - 1)):
            first = stretch * every
            before, count = self.found, len(self.shares)
            numbers, start, end = range(first, last), self.known[stretch], self.known[stretch + 1]
            found = self._undone(numbers, start, end, of_ys, pulled)
            if found is None:
                self.found, self.shares = before, self.shares[:count]
                found = self._recomputed(numbers, start, of_ys, pulled)
            pulled, last = found, first
        return [pulled[0], *self._times(), *self.found]

    def _undone(
        self,
        numbers: range,
        start: tuple[State, StepState],
        end: tuple[State, StepState],
        of_ys: Tensor | None,
        pulled: list[Tensor | None],
    ) -> list[Tensor | None] | None:
        """The gradients of the state at the start of some pieces; None where undoing did not lead back there."""
        y, state = end
        for number in reversed(numbers):
            piece, after = self.pieces[number], y
            y, state = start if number == numbers[0] else self.program.undo(piece, y, state)
            local, outputs = self._again(piece, y, state)
            off = self._off(outputs[1].detach(), after)
            seen = outputs[0].detach() * self.pieces.own(number)[..., None]
            off = torch.maximum(off, self._off(seen, self.pieces.part(self.ys, number)))
            if bool((off > 1.0).any()):
                self._warn(off)
                return None
            pulled = self._pull(self.pieces, number, local, outputs, of_ys, pulled)
        return pulled

    def _off(self, found: Tensor, true: Tensor) -> Tensor:
        """How far states are from what they should be, in units of what is allowed, `(*batch,)`."""
        worst = (found - true).abs().flatten(self.allowed.dim()).amax(-1)
        worst = torch.where(torch.isfinite(worst), worst, torch.inf)
        return torch.where(worst == 0, 0.0, worst / self.allowed)

    def _again(
        self, piece: Replay, y: State, state: StepState, *, sparing: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """A piece once more with gradients: the tensors that it was made of, and what came out."""
        with torch.enable_grad():
            start = [x.detach().requires_grad_() for x in (y, *flat(state))]
            grid = piece.grid.detach().requires_grad_(self.pieces.replay.grid.requires_grad)
            ts, state = apart(piece.ts), like(state, start[1:])
            piece = replace(piece, grid=grid, ts=ts)
            ended = recomputed(piece, start[0], state, self.held) if sparing else piece.run(start[0], state)
        local, outputs = [*start, grid, ts], [ended.ys, ended.y1, *flat(ended.state)]
        self.held.check(outputs, local)
        return local, outputs

    def _pull(
        self,
        pieces: Pieces,
        number: int,
        local: list[Tensor],
        outputs: list[Tensor],
        of_ys: Tensor | None,
        pulled: list[Tensor | None],
    ) -> list[Tensor | None]:
        """Through one piece: the gradients of the state that it began with; the others are added up."""
        # What `across` dropped of a state has no gradient.
        cotangents = [None if of_ys is None else pieces.part(of_ys, number), *pulled]
        cotangents += [None] * (len(outputs) - len(cotangents))
        # A sum that goes on where it was left is, in float32, the very sum that back-propagation through all makes.
        found = pull([*outputs, *self.held.tensors], [*cotangents, *self.found], [*local, *self.held.tensors])
        *pulled, grid, ts = found[: len(local)]
        numbers = pieces.numbers(number)
        self.shares.append(
            _Share(pieces.bounds[number], grid, numbers, None if ts is None else ts * pieces.own(number))
        )
        self.found = [old if new is None else new for old, new in zip(self.found, found[len(local) :], strict=True)]
        return pulled

    def _times(self) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of the grid and of the output times."""
        whole = self.pieces.replay
        grid = torch.zeros_like(whole.grid) if whole.grid.requires_grad else None
        ts = torch.zeros_like(whole.ts) if whole.ts.requires_grad else None
        for share in self.shares:
            if grid is not None and share.grid is not None:
                grid[share.first : share.first + len(share.grid)] += share.grid
            if ts is not None and share.ts is not None:
                ts.scatter_add_(-1, share.numbers, share.ts)
        return grid, ts

    def _recomputed(
        self, numbers: range, start: tuple[State, StepState], of_ys: Tensor | None, pulled: list[Tensor | None]
    ) -> list[Tensor | None]:
        """The same by other means: the states could not be recovered."""
        whole, bounds = self.pieces.replay, self.pieces.bounds
        first, last = bounds[numbers[0]], bounds[numbers[-1] + 1]
        cut = sorted({0, first, last, whole.num_steps})
        pieces, number = Pieces.cut(whole, cut), cut.index(first)
        local, outputs = self._again(pieces[number], *start, sparing=True)
        return self._pull(pieces, number, local, outputs, of_ys, pulled)

    def _warn(self, off: Tensor) -> None:
        where = tuple(torch.nonzero(off == off.amax())[0].tolist())
        name = f" of series {', '.join(map(str, where))}" if where else ""
        if not self.warned:
            warnings.warn(
                f"Reversible could not recover the states{name} from where the solve ended: the field contracts too "
                "strongly, or the coupling of the method is too weak. Where that was so the steps were recomputed from "
                "a state that was kept: the gradient is exact. adjoint=Checkpoint() saves the attempt.",
                AdjointInstabilityWarning,
                stacklevel=2,
            )
        self.warned = True
