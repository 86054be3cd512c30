"""All fixed steps of a solve at once, by Newton's method over time."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..._options import with_suggestions
from ..._types import State, States
from ...linear import NewtonScan, nonlinear_recurrence
from ...solvers.base import Step
from ..controllers import GridController, StepController
from ..dense import Record, rows_of
from ..loop import Replay
from .base import Adjoint


__all__ = ["ParallelInTime"]


@with_suggestions
@dataclass(frozen=True)
class ParallelInTime(Adjoint):
    r"""Take all fixed steps at once: the steps are one equation for all states, solved by repeated linear scans.

    .. math:: y_k = \Phi(t_{k-1}, t_k, y_{k-1}) \quad \text{for all } k

    It pays for many steps of a smooth field that forgets where it came from, on few series: an iteration costs one step
    of all times side by side and one scan, and a handful of them do. Memory grows with steps times the state squared. A
    series on which it does not converge is solved step by step, with a warning. The answer is that of the same steps
    taken in turn, to the tolerance; gradients are exact.

    Args:
        newton: how the equation is solved.

    Raises:
        ValueError: the steps are chosen on the way, or outputs lie inside the steps of a method without dense output.

    References:
        Parallelizing non-linear sequential models over the sequence length, Y. H. Lim, Q. Zhu, J. Selfridge, M. F.
        Kasim, 2024, https://arxiv.org/abs/2309.12252

    Example:
        >>> from ctdyn.integrate import StepTo, solve
        >>> from ctdyn.solvers import RK4
        >>> ts = torch.linspace(0.0, 1.0, 101)
        >>> ys = solve(
        ...     lambda t, y: -y, torch.ones(1), ts, solver=RK4(), controller=StepTo(), adjoint=ParallelInTime()
        ... ).ys
        >>> round(float(ys[-1, 0]), 4)
        0.3679
    """

    newton: NewtonScan = field(default_factory=NewtonScan)

    def within(self, controller: StepController) -> Adjoint:
        """Itself, for steps that are known beforehand."""
        if not isinstance(controller, GridController):
            raise ValueError(
                f"ParallelInTime takes all steps at once and cannot choose them on the way as {controller!r} does; "
                "pass controller=StepTo(num_steps=...) or ConstantStep(dt=...)."
            )
        return self

    def run(self, replay: Replay, y0: State) -> tuple[States, list[Tensor], Record | None]:
        """The replay, all steps at once."""
        term, solver, grid = replay.term, replay.solver, replay.grid
        if not (replay.lands or solver.interpolates):
            raise ValueError(
                f"ParallelInTime needs outputs that are ends of steps with {type(solver).__name__}, which has no dense "
                "output; pass controller=StepTo(num_steps=...)."
            )
        knotted = term.knots() is not None
        ends = torch.movedim(torch.stack([grid[:-1], grid[1:]], -1), 0, -2)

        def take(y: Tensor, between: Tensor, dense: bool = False) -> Step:
            t0, t1 = torch.movedim(between, -2, 0).unbind(-1)
            piece = term.restrict(t0, t1) if knotted else term
            return solver.step(piece, t0, t1, torch.movedim(y, -2, 0), None, dense=dense)

        found = nonlinear_recurrence(
            lambda y, between: torch.movedim(take(y, between).y1, 0, -2), y0, ends, method=self.newton
        )
        _warn(found.sequential)
        nodes = torch.cat([y0.unsqueeze(0), torch.movedim(found.hs, -2, 0)])
        if replay.lands:
            return rows_of(nodes, replay.node), list(nodes.unbind(0)), None
        last = take(torch.movedim(nodes[:-1], 0, -2), ends, dense=True)
        parts = torch.stack(last.interpolant, 1)
        record = Record(term, solver, grid, grid[:-1], grid[1:], nodes[:-1], parts, nodes[-1])
        return record.read(replay.ts, replay.node), list(nodes.unbind(0)), record


def _warn(sequential: Tensor) -> None:
    count = int(sequential.sum())
    if count:
        warnings.warn(
            f"{count} of {sequential.numel()} series did not converge in parallel and were solved step by step: their "
            "field amplifies differences, or the steps are too long. Use adjoint=Direct() for such a field, or shorter "
            "steps.",
            stacklevel=5,
        )
