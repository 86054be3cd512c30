"""The backward solve of the continuous adjoint: every series on its own clock, with a jump at each of its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..._checks import MaxStepsError, StepSizeError
from ..._types import State, Time, Times
from ...solvers.base import Solver, Step, StepState
from ...structure import CDEField, VectorField
from ...terms import Term
from ..clock import Clock, landing_times
from ..controllers import PIDController
from ..dense import locate
from ..loop import Replay
from ._tracing import Held, pull


__all__ = ["Sweep"]

_NODES = ((0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18))
_ROWS_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class _Augmented(Term):
    """The state and its sensitivity, side by side: `(y, a)`."""

    term: Term

    @property
    def field(self) -> nn.Module:  # type: ignore[override]
        raise TypeError("the field of an adjoint equation is no field of states alone.")

    def increment(self, t0: Time, t1: Time) -> Tensor:
        return t1 - t0

    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        return self.derivative(t, y) * dx.to(y.dtype).unsqueeze(-1)

    def derivative(self, t: Time, y: State) -> State:
        state, sensitivity = y.chunk(2, -1)
        with torch.enable_grad():
            state = state.detach().requires_grad_()
            velocity = self.term.derivative(t, state)
        (change,) = pull([velocity], [sensitivity], [state])
        change = torch.zeros_like(sensitivity) if change is None else -change
        return torch.cat([velocity.detach(), change], -1)

    def restrict(self, t0: Time, t1: Time) -> _Augmented:
        return _Augmented(self.term.restrict(t0, t1))

    def knots(self) -> Times | None:
        return self.term.knots()

    def tensors(self) -> tuple[Tensor, ...]:
        return self.term.tensors()

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.term.parameters()

    def replace(self, tensors: tuple[Tensor, ...]) -> _Augmented:
        return _Augmented(self.term.replace(tensors))


@dataclass(frozen=True)
class _Row:
    """One attempt, for the quadrature: empty where it was taken back."""

    t0: Time
    t1: Time
    accept: Tensor
    y0: Tensor
    interpolant: tuple[Tensor, ...]


class Sweep:
    """The backward solve of one replay.

    Args:
        replay: the steps that were taken.
        held: what their field holds.
        solver: the method of the way back.
        controllers: the tolerances of the way back, and those of the way there.
        states: the states at the start, at the outputs and at the end.
    """

    def __init__(
        self,
        replay: Replay,
        held: Held,
        solver: Solver,
        controllers: tuple[PIDController, PIDController],
        states: tuple[State, Tensor, State],
    ) -> None:
        self.term, self.held, self.solver = replay.term, held, solver
        self.augmented, self.knotted = _Augmented(replay.term), replay.term.knots() is not None
        self.y0, self.ys, self.y1 = states
        self.replay, self.t0, self.end = replay, replay.grid[0].detach(), replay.grid[-1].detach()
        self.direction = torch.where(self.end >= self.t0, -1.0, 1.0).to(self.t0.dtype)
        self.controllers = controllers
        rtol, atol = controllers[0].rtol, controllers[0].atol
        self.controller = PIDController(rtol=_twice(rtol, self.y0), atol=_twice(atol, self.y0))
        # A series that failed, or was ended, has its later outputs where it stopped.
        ts, direction = replay.ts.detach(), self.direction[..., None]
        self.ts = torch.where((ts - self.end[..., None]) * direction < 0, self.end[..., None], ts)
        self.found: list[Tensor | None] = [None] * len(held.tensors)
        self.worst = torch.zeros_like(self.t0)
        self.worst_at = self.end.clone()
        self.rows: list[_Row] = []
        knots = self.term.knots()
        self.bends = replay.grid.requires_grad and knots is not None and knots.requires_grad
        self.of_grid = torch.zeros_like(replay.grid)

    def run(self, of_ys: Tensor, of_y1: Tensor, max_steps: int) -> Tensor:
        """Solve from the end to the start: the gradient of the initial state; those of what is held are in `found`."""
        stops, truths, known, jumps = self._stops(of_ys)
        # The equation of the sensitivity is linear: at a size of 1, tolerances mean the same for every loss.
        size = torch.maximum(of_ys.abs().amax((-2, -1)), of_y1.abs().amax(-1)).unsqueeze(-1)
        self.size = torch.where(size > 0, size, 1.0)
        t, stop = self.end, torch.zeros_like(self.end, dtype=torch.int64)
        z = torch.cat([self.y1, (of_y1 + jumps[0]) / self.size], -1)
        dt, memory, state = self._first(t, stops, z), self.controller.start(t), None
        last = len(stops) - 1
        active = t != self.t0
        for _ in range(max_steps):
            if not bool(active.any()):
                break
            goal = stops.gather(0, (stop + 1).clamp(max=last)[None])[0]
            lands = dt * (1.0 + 1e-10) >= (goal - t).abs()
            t1 = torch.where(active, torch.where(lands, goal, t + self.direction * dt), t)
            step = self.solver.step(self._piece(t, t1), t, t1, z, state, dense=True, estimate=True)
            verdict = self.controller.next(self.solver, _error(step), z, step.y1, memory)
            accept, memory = verdict.accept & active, verdict.memory
            arrived = accept & lands
            self._record(_Row(t, torch.where(accept, t1, t), accept, z, step.interpolant))
            tried = (t1 - t).abs() * verdict.factor
            dt = torch.where(active, torch.where(arrived, torch.maximum(tried, dt), tried), dt)
            self._fail(
                active & ~accept & (dt <= t.abs() * 2e-15 + 1e-300), t, "the step size fell below what times resolve"
            )
            z = torch.where(accept.unsqueeze(-1), step.y1, z)
            t = torch.where(accept, t1, t)
            stop = stop + arrived
            active = t != self.t0
            if bool(arrived.any()):
                if self.bends:
                    self._cross(t, z, arrived)
                place = stop[None, ..., None]
                there = arrived & known.gather(0, stop[None])[0]
                truth, jump = (x.gather(0, place.expand(1, *x.shape[1:]))[0] for x in (truths, jumps))
                z, state = self._reset(t, z, truth, there), None
                y, a = z.chunk(2, -1)
                z = torch.cat([y, torch.where(arrived.unsqueeze(-1), a + jump / self.size, a)], -1)
            else:
                state = _kept(accept, step.state, state)
        else:
            self._fail(active, t, f"it used up its max_steps={max_steps}", MaxStepsError)
        self._integrate()
        return z.chunk(2, -1)[1] * self.size

    def times(self, sensitivity: Tensor, of_ys: Tensor, of_y1: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of the grid, which are those of its two ends and of the knots, and of the output times."""
        grid = ts = None
        if self.replay.grid.requires_grad:
            grid = self.of_grid
            grid[0] -= self._along(self.t0, self.y0, sensitivity)
            grid[-1] += self._along(self.end, self.y1, of_y1)
        if self.replay.ts.requires_grad:
            columns = zip(self.ts.unbind(-1), self.ys.unbind(-2), of_ys.unbind(-2), strict=True)
            ts = torch.stack([self._along(*column) for column in columns], -1)
        return grid, ts

    def _along(self, t: Time, y: State, cotangent: Tensor) -> Tensor:
        """The velocity at one time in the direction of a cotangent, `(*batch,)`; at a knot that on the inner side."""
        other = torch.where(t == self.t0, self.end, self.t0)
        piece = self.term.restrict(t, other) if self.knotted else self.term
        return (cotangent.conj() * piece.derivative(t, y)).sum(-1).real.to(t.dtype)

    def _cross(self, t: Time, z: Tensor, arrived: Tensor) -> None:
        """What the time of a knot changes: how long the velocity before it lasts, and that behind it."""
        y, a = z.chunk(2, -1)
        before, behind = (self.term.restrict(t, end).derivative(t, y) for end in (self.t0, self.end))
        share = (self.size * a.conj() * (before - behind)).sum(-1).real.to(t.dtype)
        node = torch.movedim(locate(self.replay.grid, t[..., None], -self.direction), -1, 0)
        inner = arrived & (t != self.t0) & (t != self.end) & (self.replay.grid.detach().gather(0, node)[0] == t)
        self.of_grid.scatter_add_(0, node, torch.where(inner, share, 0.0)[None])

    def _piece(self, t0: Time, t1: Time) -> _Augmented:
        return self.augmented.restrict(t0, t1) if self.knotted else self.augmented

    def _first(self, t: Time, stops: Tensor, z: Tensor) -> Time:
        goal = stops[min(1, len(stops) - 1)]
        piece = self._piece(t, goal)
        return self.controller.first(piece, self.solver, t, goal, z, piece.derivative(t, z))

    def _stops(self, of_ys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where the way back halts, `(stop, *batch)`; the true state there, whether it is known, and the jumps."""
        back = torch.cat([self.end[..., None], self.ts.flip(-1), self.t0[..., None]], -1)
        clock = Clock(self.ts.flip(-1), self.end, self.direction, from_first=False)
        knots = self.term.knots()
        stops = torch.movedim(landing_times(back, clock, None if knots is None else knots.detach()), -1, 0)
        place = torch.movedim(locate(stops, self.ts, self.direction), -1, 0)
        known = torch.zeros_like(stops, dtype=torch.bool).scatter(0, place, True)
        wide = place.unsqueeze(-1).expand(*place.shape, self.ys.shape[-1])
        empty = self.ys.new_zeros(*stops.shape, self.ys.shape[-1])
        truths = empty.scatter(0, wide, torch.movedim(self.ys, -2, 0))
        jumps = empty.scatter_add(0, wide, torch.movedim(of_ys, -2, 0))
        start = stops == self.t0
        return stops, torch.where(start.unsqueeze(-1), self.y0, truths), known | start, jumps

    def _reset(self, t: Time, z: Tensor, truth: State, there: Tensor) -> Tensor:
        """Compare the reconstructed state with the true one, and go on from that."""
        y, a = z.chunk(2, -1)
        largest = torch.maximum(y.abs(), truth.abs())
        scales = [_against(c.rtol, largest) * largest + _against(c.atol, largest) for c in self.controllers]
        off = ((y - truth).abs() / torch.maximum(*scales).clamp(min=1e-300)).square().mean(-1).sqrt()
        off = torch.where(there, torch.nan_to_num(off.to(t.dtype), nan=torch.inf), 0.0)
        self.worst_at = torch.where(off > self.worst, t, self.worst_at)
        self.worst = torch.maximum(self.worst, off)
        return torch.cat([torch.where(there.unsqueeze(-1), truth, y), a], -1)

    def _record(self, row: _Row) -> None:
        self.rows.append(row)
        if len(self.rows) == _ROWS_AT_ONCE:
            self._integrate()

    def _integrate(self) -> None:
        """Add what the recorded steps contribute to the gradients of what is held, by Gauss quadrature."""
        if not self.rows:
            return
        t0, t1, accept, z0 = (torch.stack([getattr(row, x) for row in self.rows]) for x in ("t0", "t1", "accept", "y0"))
        parts = torch.stack([torch.stack(row.interpolant) for row in self.rows])
        # What was taken back may be infinite.
        parts = torch.where(accept[:, None, ..., None], parts, 0.0)
        self.rows = []
        powers = self.solver.coefficients(self._piece(t0, t1), t0, t1, z0, parts)
        ts, states, weights = [], [], []
        for place, share in _NODES:
            theta = torch.tensor([place**k for k in range(powers.shape[1])], dtype=powers.dtype, device=powers.device)
            z = torch.einsum("k,rk...->r...", theta, powers)
            y, a = z.chunk(2, -1)
            ts.append(torch.lerp(t0, t1, place))
            states.append(y)
            weights.append(a * ((t0 - t1) * share).unsqueeze(-1).to(a.dtype) * self.size)
        self._add(t0, t1, torch.stack(ts), torch.stack(states), torch.stack(weights))

    def _add(self, t0: Time, t1: Time, ts: Tensor, ys: Tensor, weights: Tensor) -> None:
        """One product of all weights with the Jacobian of the field, at many places at once."""
        with torch.enable_grad():
            if isinstance(self.term.field, VectorField | CDEField):
                piece = self.term.restrict(t0, t1) if self.knotted else self.term
                outputs = [piece.derivative(ts, ys)]
                self._sum(outputs, [weights])
                return
            # A plain function need not know what to do with further leading axes.
            for row in range(len(t0)):
                piece = self.term.restrict(t0[row], t1[row]) if self.knotted else self.term
                outputs = [piece.derivative(t[row], y[row]) for t, y in zip(ts, ys, strict=True)]
                self._sum(outputs, [w[row] for w in weights])

    def _sum(self, outputs: list[Tensor], weights: Sequence[Tensor]) -> None:
        self.held.check(outputs, ())
        held = self.held.tensors
        new = pull([*outputs, *held], [*weights, *self.found], held)
        self.found = [b if a is None else a for a, b in zip(new, self.found, strict=True)]

    def _fail(self, where: Tensor, t: Time, reason: str, kind: type[Exception] = StepSizeError) -> None:
        if not bool(where.any()):
            return
        place = tuple(torch.nonzero(where)[0].tolist())
        name = f"series {', '.join(map(str, place))}" if place else "the series"
        raise kind(
            f"Backsolve: on its way back {name} stopped at t={float(t[place]):.10g}: {reason}. Backwards this equation "
            "is stiff or unstable; use adjoint=Checkpoint()."
        )


def _error(step: Step) -> Tensor:
    if step.error is None:
        raise TypeError("the method of Backsolve returned no error estimate; take Tsit5() or Dopri5().")
    return step.error


def _kept(accept: Tensor, new: StepState, old: StepState) -> StepState:
    """The velocity at the end of the step where it was taken; None where some series have none yet."""
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        return torch.where(accept.unsqueeze(-1), new, old)
    return new if isinstance(new, Tensor) and bool(accept.all()) else None


def _against(tolerance: float | Tensor, state: Tensor) -> float | Tensor:
    if not isinstance(tolerance, Tensor) or tolerance.dim() == 0:
        return tolerance
    tolerance = tolerance.to(state)
    return tolerance if tolerance.dim() == state.dim() else tolerance.unsqueeze(-1)


def _twice(tolerance: float | Tensor, state: Tensor) -> float | Tensor:
    """A tolerance per entry, for the state and its sensitivity."""
    aligned = _against(tolerance, state.abs())
    if not isinstance(aligned, Tensor) or aligned.dim() == 0 or aligned.shape[-1] == 1:
        return tolerance
    return torch.cat([aligned, aligned], -1)
