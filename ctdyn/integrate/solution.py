"""What `solve` returns: the states at the asked times, and a path through everything between."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from .._types import State, States, Time, Times
from ..paths.base import Path
from ..paths.piecewise import PiecewisePath
from .dense import Trajectory, rows_of
from .events import Events


__all__ = ["DensePath", "Solution"]


class DensePath(PiecewisePath):
    """The dense output of a solve as a path in time; before and after the solve it holds the end states.

    Args:
        ts: ends of the steps, non-decreasing, `(*batch, knot)`.
        xs: states there, `(*batch, knot, state)`.
        polynomials: one per step, in powers of the time since `origins`, `(*batch, step, degree + 1, state)`.
        origins: where each is expanded, `(*batch, step)`.

    Example:
        >>> ts = torch.tensor([[0.0, 2.0]])
        >>> line = torch.tensor([[[[1.0], [3.0]]]])
        >>> DensePath(ts, torch.tensor([[[1.0], [7.0]]]), line, ts[..., :-1]).evaluate(torch.tensor([1.0]))
        tensor([[4.]])
    """

    def __init__(self, ts: Times, xs: States, polynomials: Tensor, origins: Tensor) -> None:
        self._inner, self._inner_origins = polynomials, origins
        super().__init__(ts, xs)
        self._origins = torch.cat([ts[..., :1], origins, ts[..., -1:]], -1)

    def _polynomials(self, starts: Tensor, slopes: Tensor, gaps: Tensor) -> Tensor:
        return self._inner

    @classmethod
    def create(cls, trajectory: Trajectory, direction: Time) -> DensePath:
        """Put the steps of every series in the order of time.

        Args:
            trajectory: the dense output.
            direction: 1 forward, -1 backward, `(*batch,)`.
        """
        grid = torch.movedim(trajectory.grid, 0, -1)
        steps = grid.shape[-1] - 1
        number = torch.arange(steps, device=grid.device).expand(*grid.shape[:-1], steps)
        order = torch.where(direction[..., None] > 0, number, number.flip(-1))
        row = order if trajectory.rows is None else rows_of(trajectory.rows, order)
        theta = rows_of(trajectory.coefficients, row)
        origins, ends = grid.gather(-1, order), grid.gather(-1, order + 1)
        span = torch.where(ends == origins, 1.0, ends - origins)
        powers = torch.arange(theta.shape[-2], dtype=grid.dtype, device=grid.device)
        scale = (span[..., None] ** -powers).to(theta.dtype)
        # What an idle step of a finished series would extrapolate to is never looked at, but its slope is 0.
        polynomials = theta * scale[..., None]
        last = theta.sum(-2)
        states = torch.cat([theta[..., :1, 0, :], last], -2)
        mirrored = torch.cat([last[..., :1, :], theta[..., 0, :]], -2)
        forward = direction[..., None] > 0
        ts = torch.where(forward, grid, grid.flip(-1))
        return cls(ts, torch.where(forward[..., None], states, mirrored), polynomials, origins)

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the path is made of."""
        return (self.ts, self.xs, self._inner, self._inner_origins)

    def replace(self, tensors: tuple[Tensor, ...]) -> DensePath:
        """The same path made of other tensors."""
        return DensePath(*tensors)


class Solution(Path):
    """The solution of a differential equation; it is a path, so that it can be asked at any time, or drive another one.

    Between the asked times it is the dense output of the method, as accurate as the answers. Where the solve kept none
    (`StepTo`, `Checkpoint`) it is computed at the first question, and kept. Of an engine only the answers are known: it
    is a cubic through the start and these, good where they are close to each other.

    Args:
        ts: the asked times, `(*batch, time)`.
        ys: the states there, `(*batch, time, state)`; NaN at times that a failed series did not reach.
        status: a `Status` per series, `(*batch,)`.
        stats: counts per series, `(*batch,)`: `steps`, `rejected`, `evaluations`.
        plan: how the solve was done and why, one sentence.
        dense: builds the path on the first question.
        aux: the integrals that were asked for, at the asked times, `(*batch, time, integral)`; None without.
        events: the events that happened; None where none were looked for.

    Example:
        >>> from ctdyn.integrate import solve
        >>> solution = solve(lambda t, y: -y, torch.ones(1), torch.tensor([0.0, 2.0]))
        >>> solution.ys.shape, bool(solution.status == 0)
        (torch.Size([2, 1]), True)
        >>> round(float(solution.evaluate(torch.tensor(1.0))), 3)
        0.368
    """

    def __init__(
        self,
        ts: Times,
        ys: States,
        status: Tensor,
        stats: dict[str, Tensor],
        plan: str,
        dense: Callable[[], Path],
        *,
        aux: Tensor | None = None,
        events: Events | None = None,
    ) -> None:
        self.ts = ts
        self.ys = ys
        self.status = status
        self.stats = stats
        self.plan = plan
        self.aux = aux
        self.events = events
        self._dense = dense

    def __repr__(self) -> str:
        return f"Solution(ys={tuple(self.ys.shape)}, plan={self.plan!r})"

    @functools.cached_property
    def path(self) -> Path:
        """The path through the solution."""
        return self._dense()

    @property
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""
        return self.ts.shape[:-1]

    def evaluate(self, t: Time) -> State:
        """The state at one time per series, `(*batch, state)`."""
        return self.path.evaluate(t)

    def derivative(self, t: Time) -> State:
        """The velocity at one time per series, `(*batch, state)`."""
        return self.path.derivative(t)

    def restrict(self, t0: Time, t1: Time) -> Path:
        """The path between `t0` and `t1` of each series."""
        return self.path.restrict(t0, t1)

    def knots(self) -> Times | None:
        """The ends of the steps."""
        return self.path.knots()

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the dense output."""
        return self.path.tensors()

    def replace(self, tensors: tuple[Tensor, ...]) -> Path:
        """A path made of other tensors."""
        return self.path.replace(tensors)
