"""Writing down the steps of torchdiffeq, so that outputs of many clocks can be read from them afterwards."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import torch
from torch import Tensor

from ..._checks import SolveError
from ..._types import State, States
from ...solvers import RungeKutta
from ...terms import Term
from ..dense import Trajectory
from ._clocks import OwnClocks


__all__ = ["Counted", "Recorded"]


class Counted:
    """A right-hand side that counts its evaluations."""

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._velocity = velocity
        self.evaluations = 0

    def __call__(self, s: Tensor, y: Tensor) -> Tensor:
        self.evaluations += 1
        return self._velocity(s, y)


class Recorded(Counted):
    """A right-hand side of an adaptive method that keeps what every accepted step was made of.

    torchdiffeq reports the beginning and the acceptance of each step; what was evaluated between is the step's own.

    Args:
        velocity: the right-hand side.
        marks: parameters that no step may cross.
    """

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor], marks: list[float]) -> None:
        super().__init__(velocity)
        self._marks = marks
        self._pending: list[Tensor] = []
        self._start: Tensor | None = None
        self._ends: list[Tensor] = []
        self._states: list[Tensor] = []
        self._velocities: list[list[Tensor]] = []

    def __call__(self, s: Tensor, y: Tensor) -> Tensor:
        dy = super().__call__(s, y)
        self._pending.append(dy)
        return dy

    def callback_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        """Called by torchdiffeq before every attempt."""
        if self._start is None:
            self._start = self._pending[0]
        elif self._velocities and self._pending:
            # At a mark the velocity is taken anew, on the other side.
            self._start = self._pending[-1]
        self._pending = []

    def callback_reject_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        """Called by torchdiffeq after every attempt that failed."""
        self._pending = []

    def callback_accept_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        """Called by torchdiffeq after every accepted step."""
        start, end = float(s.detach()), float((s + ds).detach())
        following = bisect.bisect_right(self._marks, start)
        # The marks make this all but impossible; were it to happen, the answer would be wrong without a word.
        if following < len(self._marks) and end > self._marks[following] + 1e-12 * end:
            raise SolveError(
                f"torchdiffeq stepped across the mark with index {following}; change rtol slightly, or use a solver of "
                "ctdyn, for example Dopri5()."
            )
        if self._start is None:
            raise SolveError("torchdiffeq accepted a step that it did not begin; its version does not fit this engine.")
        self._states.append(y)
        self._ends.append(s + ds)
        self._velocities.append([self._start, *self._pending])
        self._start = self._pending[-1]
        self._pending = []

    def read(self, place: Tensor, last: State, term: Term, clocks: OwnClocks, solver: RungeKutta | None) -> States:
        """The states of all outputs, `(*batch, time, state)`: one search, one gather, one polynomial.

        Args:
            place: the parameter of each output, `(*batch, time)`.
            last: the state at the end, `(*batch, state)`.
            term: the equation.
            clocks: the times that belong to the parameter.
            solver: the same method here, whose dense output is made of the same stages; None for the cubic Hermite
                polynomials of the steps.
        """
        ends = torch.stack([torch.zeros_like(self._ends[0]), *self._ends])
        step = (torch.searchsorted(ends.detach(), place.detach().contiguous()) - 1).clamp(0, len(self._ends) - 1)
        grid = ends.reshape(-1, *[1] * (place.dim() - 1)).expand(-1, *place.shape[:-1])
        y0 = torch.stack(self._states)
        ds = ends.diff().to(y0.dtype).reshape(-1, *[1] * (y0.dim() - 1))
        if solver is None:
            rise = torch.stack([*self._states[1:], last]) - y0
            start, end = (ds * torch.stack([velocities[k] for velocities in self._velocities]) for k in (0, -1))
            polynomial = torch.stack([y0, start, 3 * rise - 2 * start - end, start + end - 2 * rise], 1)
        else:
            times = torch.stack([clocks.at(s)[0] for s in ends])
            t0, t1 = times[:-1], times[1:]
            span = (t1 - t0).to(y0.dtype).unsqueeze(-1)
            # Per unit of time again, for the stages that a dense output may need beyond those of the step.
            scale = torch.where(span == 0, 0.0, ds / torch.where(span == 0, 1.0, span)).unsqueeze(1)
            parts = scale * torch.stack([torch.stack(velocities) for velocities in self._velocities])
            inside = term if term.knots() is None else term.restrict(t0, t1)
            polynomial = solver.coefficients(inside, t0, t1, y0, parts)
            self.evaluations += solver.extra_stages
        return Trajectory(grid, torch.movedim(polynomial, 1, -2)).read(place, step)
