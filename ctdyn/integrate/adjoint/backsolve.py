"""The continuous adjoint: gradients from a second equation, solved backwards."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..._checks import AdjointInstabilityWarning, SolveError, check_count
from ..._options import with_suggestions
from ..._types import State, States
from ...solvers.base import Solver, StepState
from ...solvers.runge_kutta import RungeKutta
from ...solvers.tsit5 import Tsit5
from ...terms import SDETerm
from ..controllers import PIDController, StepController
from ..dense import Record
from ..loop import Replay
from ._pieces import Ended, Pieces, apart, first_nodes, first_step
from ._sweep import Sweep
from ._tracing import Held, pull, refuse_second
from .base import Adjoint
from .checkpoint import recomputed


__all__ = ["Backsolve"]

_STEPS_AT_ONCE = 64
_ALLOWED = 100.0


@with_suggestions
@dataclass(frozen=True)
class Backsolve(Adjoint):
    r"""The continuous adjoint: the state and its sensitivity are solved backwards, in memory that does not grow.

    .. math:: \frac{da}{dt} = -a^\top \frac{\partial f}{\partial y}, \qquad
              \frac{d\ell}{d\theta} = \int_{t_0}^{t_1} a^\top \frac{\partial f}{\partial \theta}\, dt

    Every series is solved on its own clock, with a jump of :math:`a` at each of its output times, where the state is
    set back to what it was. Parameters, and whatever else the field holds, stay outside the error norm: their gradient
    is a Gauss quadrature over the dense output of the steps.

    These are the gradients of the equation and not of the steps that were taken, and running an equation backwards can
    be unstable: what contracts forwards explodes. The reconstructed states are therefore compared with the true ones at
    every output time and at the start, and a warning names the series where they differ by more than a hundred times
    the tolerance. Where the backward solve fails altogether, `Checkpoint` computes the gradient, and a warning says so.
    `Checkpoint` and `Reversible` save memory without such a risk. There are no second derivatives.

    Args:
        controller: the tolerances of the backward solve; None for those of the solve, and for `PIDController(1e-6,
            1e-8)` where its steps are fixed.
        solver: the method; None for that of the solve where it is an explicit one with an error estimate, or `Tsit5()`.
        max_steps: the most attempts of one series.
        planned: the steps of the solve; `solve` fills it in.

    Raises:
        ValueError: `max_steps` is less than 1, or the tolerances are negative or 0.
        TypeError: the method has no error estimate; or, when solving, the equation is a stochastic one.

    Reference:
        R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, Neural ordinary differential equations, 2018,
        https://arxiv.org/abs/1806.07366; P. Kidger, R. T. Q. Chen, T. Lyons, "Hey, that's not an ODE": faster ODE
        adjoints via seminorms, 2021, https://arxiv.org/abs/2009.09457

    Example:
        >>> from ctdyn.integrate import solve
        >>> y0, ts = torch.ones(1, requires_grad=True), torch.tensor([0.0, 1.0])
        >>> ys = solve(lambda t, y: -y, y0, ts, adjoint=Backsolve()).ys
        >>> torch.autograd.grad(ys[-1].sum(), y0)[0].round(decimals=3)
        tensor([0.3680])
    """

    controller: PIDController | None = None
    solver: Solver | None = None
    max_steps: int = 10_000
    planned: PIDController | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps)
        if not isinstance(self.controller, PIDController | None):
            raise TypeError(
                f"controller must be a PIDController, for example PIDController(rtol=1e-6, atol=1e-8); got "
                f"{self.controller!r}."
            )
        if self.solver is not None and not self.solver.adaptive:
            raise TypeError(f"{self.solver!r} has no error estimate, which Backsolve needs; take Tsit5() or Dopri5().")

    def within(self, controller: StepController) -> Backsolve:
        """The adjoint for a solve with these steps: under the same tolerances, where it has none of its own."""
        return replace(self, planned=controller if isinstance(controller, PIDController) else None)

    def run(self, replay: Replay, y0: State) -> tuple[States, list[Tensor], Record | None]:
        """The replay, of which nothing is kept but the outputs and the end."""
        if isinstance(replay.term, SDETerm):
            raise TypeError(
                "Backsolve differentiates ordinary equations. For a stochastic one use Direct(), Checkpoint(), or "
                "Reversible() with solver=ReversibleHeun()."
            )
        program = _Program(replay, Held(first_step(replay), y0, "Backsolve"), self)
        ys, y1 = _Solved.apply(program, y0, replay.grid, replay.ts, *program.held.tensors)
        return ys, [*program.nodes, y1], None


class _Program:
    """A replay that is differentiated by another solve."""

    def __init__(self, replay: Replay, held: Held, adjoint: Backsolve) -> None:
        # What is kept must not hold on to the graph of the times.
        self.replay = replace(replay, grid=apart(replay.grid), ts=apart(replay.ts))
        explicit = isinstance(replay.solver, RungeKutta) and replay.solver.adaptive
        self.solver = adjoint.solver or (replay.solver if explicit else Tsit5())
        own = adjoint.controller or adjoint.planned or PIDController(rtol=1e-6, atol=1e-8)
        self.controllers = own, adjoint.planned or PIDController()
        self.held, self.max_steps = held, adjoint.max_steps
        self.nodes: list[Tensor] = []

    def forward(self, y0: State) -> tuple[Tensor, Tensor]:
        """The outputs and the end."""

        def run(piece: Replay, y: State, state: StepState) -> Ended:
            segment = piece.run(y, state)
            return Ended(segment.ys, segment.y1, segment.state, first_nodes(segment))

        total = self.replay.num_steps
        ended = Pieces.cut(self.replay, [*range(0, total, _STEPS_AT_ONCE), total]).chain(y0, None, run)
        self.nodes = ended.nodes
        return ended.ys, ended.y1


class _Solved(torch.autograd.Function):
    """A solve of which only the start, the outputs and the end are kept."""

    @staticmethod
    def forward(ctx: Any, program: _Program, y0: State, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ys, y1 = program.forward(y0)
        ctx.program = program
        ctx.save_for_backward(y0, ys, y1, *program.held.tensors)
        ctx.set_materialize_grads(False)
        return ys, y1

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        program: _Program = ctx.program
        y0, ys, y1, *_ = ctx.saved_tensors
        of_ys, of_y1 = (torch.zeros_like(x) if c is None else c for x, c in zip((ys, y1), cotangents, strict=True))
        with torch.no_grad(), program.held.again():
            sweep = Sweep(program.replay, program.held, program.solver, program.controllers, (y0, ys, y1))
            try:
                of_y0 = sweep.run(of_ys, of_y1, program.max_steps)
                gradients = [of_y0, *sweep.times(of_y0, of_ys, of_y1), *sweep.found]
            except SolveError as failure:
                _say(f"{failure} This gradient was computed by Checkpoint() instead, and is exact.")
                gradients = _recomputed(program, y0, [of_ys, of_y1])
            else:
                _check(sweep)
        given = [c for c in cotangents if c is not None]
        return None, *refuse_second("Backsolve", gradients, [*ctx.saved_tensors, *given])


def _recomputed(program: _Program, y0: State, cotangents: list[Tensor]) -> list[Tensor | None]:
    """The gradients without any backward solve."""
    local = [y0.detach().requires_grad_(), apart(program.replay.grid), apart(program.replay.ts)]
    with torch.enable_grad():
        ended = recomputed(replace(program.replay, grid=local[1], ts=local[2]), local[0], None, program.held)
    return pull([ended.ys, ended.y1], cotangents, [*local, *program.held.tensors])


def _say(message: str) -> None:
    warnings.warn(message, AdjointInstabilityWarning, stacklevel=3)


def _check(sweep: Sweep) -> None:
    """Say so where the reconstructed states are not those of the solve."""
    if not bool((sweep.worst > _ALLOWED).any()):
        return
    place = tuple(torch.nonzero(sweep.worst == sweep.worst.amax())[0].tolist())
    name = f"series {', '.join(map(str, place))}" if place else "the series"
    others = int((sweep.worst > _ALLOWED).sum()) - 1
    more = f" (and {others} more series)" if others else ""
    _say(
        f"Backsolve: solved backwards, {name}{more} came to t={float(sweep.worst_at[place]):.6g} with a state that is "
        f"{float(sweep.worst[place]):.3g} tolerances from the true one: the gradient is not to be trusted. Backwards "
        "this equation is unstable, or the steps of the solve were too coarse. Use adjoint=Checkpoint(), which "
        "recomputes from checkpoints and is exact, or smaller tolerances."
    )
