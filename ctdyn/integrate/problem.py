"""One initial value problem, checked: plan its steps, replay them, and see what came of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._checks import SolveError
from .._types import State, States, Time
from ..nn import take_items
from ..paths.base import Path
from ..solvers.base import Solver
from ..terms import SDETerm, Term
from .adjoint import Adjoint
from .clock import Clock
from .controllers import AdaptiveController, GridController, StepController
from .dense import Record, Trajectory, inner_steps
from .drift import Conservation
from .loop import Limits, Replay, StepPlan, Watch, plan
from .solution import DensePath
from .status import Status, raise_failure
from .stiffness import CURE, held_back


__all__ = ["Answer", "Problem", "last_finite"]

_LOOK = 200
"""Attempts that are made only to see why a solve did not end."""

_SHARE = 1e-3
"""Share of the tolerance to try where errors within the tolerance were not harmless."""


@dataclass(frozen=True)
class Answer:
    """What a problem came to.

    Args:
        ys: states at the output times, `(*batch, time, state)`; NaN where a failed series never arrived.
        final: states at the last time that each series reached, `(*batch, state)`.
        planned: the steps and the status of every series.
        stats: counts per series.
        description: how the problem was solved, one sentence.
        dense: makes the path through the whole solution.

    Example:
        >>> Answer.__name__
        'Answer'
    """

    ys: States
    final: State
    planned: StepPlan
    stats: dict[str, Tensor]
    description: str
    dense: Callable[[], Path]


@dataclass(frozen=True)
class Problem:
    """An initial value problem whose parts fit together.

    Args:
        term: the equation.
        y0: states at the start, `(*batch, state)`.
        clock: times of the batch.
        solver: the method.
        controller: the steps.
        adjoint: how gradients are computed.
        max_steps: the most attempts of one series.
        throw: raise where a series fails.
        judged: how many leading entries of the state the error is measured on; None for all.

    Example:
        >>> from ctdyn.integrate import Direct, StepTo
        >>> from ctdyn.solvers import RK4
        >>> from ctdyn.terms import ODETerm
        >>> clock = Clock.create(torch.tensor([0.0, 1.0]), None, torch.Size([]), torch.float32)
        >>> Problem(ODETerm(lambda t, y: -y), torch.ones(1), clock, RK4(), StepTo(), Direct(), 10, True).run().ys
        tensor([[1.0000],
                [0.3750]])
    """

    term: Term
    y0: State
    clock: Clock
    solver: Solver
    controller: StepController
    adjoint: Adjoint
    max_steps: int
    throw: bool
    judged: int | None = None

    def run(self, watch: Watch | None = None) -> Answer:
        """Plan, replay where a gradient is wanted or the steps were fixed, and read the outputs.

        Args:
            watch: what may end the solve of a series before its last time.

        Raises:
            ValueError: the field changes the state that it is given.
        """
        # Tensors of inference mode do not count their changes.
        before = None if self.y0.is_inference() else self.y0._version
        planned = self._search(watch)
        problem, planned = self._settled(planned, watch)
        answer = problem._answer(planned, watch)
        if before is not None and self.y0._version != before:
            raise ValueError(
                "the field changed the state that it was given in place, y0 itself among the states, and the answer is "
                "wrong. Return a new tensor: -y in place of y.neg_(), y = y + u in place of y += u."
            )
        return answer

    def _answer(self, planned: StepPlan, watch: Watch | None) -> Answer:
        if self.throw and isinstance(self.controller, AdaptiveController):
            final = self.y0 if planned.final is None else planned.final
            stiff = self._stiff(planned, final) if bool(planned.status.any()) else None
            self.fail(planned.status, planned.steps, planned.reached, final, stiff)
        replay = Replay.create(self.term, self.solver, planned, self.clock, self.controller.lands)
        watched = None
        if planned.taken is not None and planned.final is not None and not planned.final.requires_grad:
            ys, nodes, record = planned.taken.read(self.clock.ts, replay.node), [planned.final], planned.taken
        else:
            watched = self._watched(watch)
            ys, nodes, record = self._replay(replay, watched)
        if isinstance(self.controller, GridController):
            planned = self._inspect(planned, replay, ys, nodes)
        elif not isinstance(self.term, SDETerm):
            _warn_of_stiffness(record, planned)
        if bool((planned.status != Status.SUCCESS).any()):
            ys = _blank(ys, planned, self.clock)
        return Answer(
            ys,
            nodes[-1],
            planned,
            _stats(planned, replay, self.solver, record),
            self._describe(planned),
            lambda: self._through(replay, record, watched),
        )

    def _watched(self, watch: Watch | None) -> Conservation | None:
        """What compares the gradients of a stiff solve, where it can: not with events, nor where time matters."""
        adaptive = isinstance(self.controller, AdaptiveController) and self.solver.implicit and watch is None
        if not adaptive or not self.tracked() or self.term.knots() is not None:
            return None
        watched = Conservation(self.term, self.clock.t0, self.clock.ts)
        return watched if watched.holds(self.y0) else None

    def _replay(self, replay: Replay, watched: Conservation | None) -> tuple[States, list[Tensor], Record | None]:
        y0 = self.y0 if watched is None else watched.begins(self.y0)
        ys, nodes, record = self.adjoint.within(self.controller).run(replay, y0)
        if watched is not None:
            watched.ends(ys)
        return ys, nodes, record

    def _through(self, replay: Replay, record: Record | None, watched: Conservation | None) -> Path:
        if watched is not None:
            # Gradients may now come by another way than the outputs.
            watched.complete = False
        return self._path(_dense(replay, self.y0) if record is None else record.trajectory())

    def _search(self, watch: Watch | None) -> StepPlan:
        limits = Limits(self.max_steps, not self.tracked(), self.judged, watch, self.adjoint.compiles)
        return plan(self.term, self.solver, self.controller, self.y0, self.clock, limits)

    def _settled(self, planned: StepPlan, watch: Watch | None) -> tuple[Problem, StepPlan]:
        """The problem and its plan; where errors grew until they were the answer, with tolerances that prevent it.

        An implicit method takes steps so long that what the tolerance leaves of small entries may grow unseen, into a
        blow-up that is not the equation's: one that is stays, whatever the tolerance.
        """
        doubt = _in_doubt(planned)
        if not self.solver.implicit or not bool(doubt.any()):
            return self, planned
        problem = self._tightened(doubt)
        if problem is None:
            return self, planned
        again = problem._searched(watch)
        spent = planned.evaluations + again.evaluations
        right = doubt & ~_in_doubt(again) & (again.status == Status.SUCCESS)
        lost = doubt & ~right & (planned.status != Status.SUCCESS)
        if self.throw and bool(lost.any()):
            return self, planned
        if not bool(right[doubt].all()):
            # Those for which more exact steps changed nothing keep what was asked for.
            tighter = self._tightened(right) if bool(right.any()) else None
            problem = self if tighter is None else tighter
            again = problem._searched(watch)
            spent = spent + again.evaluations
        _warn_of_doubt(right, doubt & ~right & ~lost)
        return problem, replace(again, evaluations=spent)

    def _searched(self, watch: Watch | None) -> StepPlan:
        if watch is not None:
            watch.reset()
        return self._search(watch)

    def _tightened(self, where: Tensor) -> Problem | None:
        """The same problem with a share of the tolerances for some series; None if the control has none."""
        return self.tightened(torch.where(where, _SHARE, torch.ones_like(self.clock.t0.detach())))

    def tightened(self, share: Tensor) -> Problem | None:
        """The same problem within a share of the tolerances for each series, `(*batch,)`; None if the control has none.

        Args:
            share: above 1 to loosen them.
        """
        control = self.controller.tightened(share) if isinstance(self.controller, AdaptiveController) else None
        return None if control is None else replace(self, controller=control, solver=self.solver.tightened(share))

    @torch.no_grad()
    def _stiff(self, planned: StepPlan, final: State) -> Tensor | None:
        """Which series were held back by stability; where no steps were kept, some more are taken to see it."""
        if isinstance(self.term, SDETerm):
            return None
        if planned.taken is None and bool((planned.status == Status.MAX_STEPS).any()):
            clock = replace(self.clock, t0=planned.reached, from_first=False)
            limits = Limits(_LOOK, keep=True, judged=self.judged)
            planned = plan(self.term, self.solver, self.controller, final, clock, limits)
        return held_back(planned.taken, planned.steps)

    def _path(self, trajectory: Trajectory) -> Path:
        """The dense output, without what the error is not measured on."""
        trajectory = replace(trajectory, coefficients=trajectory.coefficients[..., : self.judged])
        return DensePath.create(trajectory, self.clock.direction)

    def tracked(self) -> bool:
        """Whether a gradient is known to be wanted; a plain function's closure shows only when it is evaluated."""
        if not torch.is_grad_enabled():
            return False
        clock, term = self.clock, self.term
        return any(x.requires_grad for x in (self.y0, clock.ts, clock.t0, *term.tensors(), *term.parameters()))

    def fail(self, status: Tensor, steps: Tensor, reached: Tensor, y: Tensor, stiff: Tensor | None = None) -> None:
        """Raise the error of the first series that failed; return where none did."""
        try:
            raise_failure(status, steps, reached, self.clock.t0, self.clock.end, y, self.max_steps, stiff)
        except SolveError as error:
            if isinstance(self.controller, AdaptiveController) and self._is_random(reached, y):
                raise type(error)(
                    f"{error} The field is random: evaluated twice in one place it gave two velocities (dropout in "
                    "training mode?), which no step_size makes agree. Call field.eval()."
                ) from error
            raise

    @torch.no_grad()
    def _is_random(self, t: Time, y: State) -> bool:
        if isinstance(self.term, SDETerm):
            return False
        piece = self.term.restrict(t, self.clock.end.detach())
        first, second = (torch.nan_to_num(piece.derivative(t, y.detach())) for _ in range(2))
        return not torch.equal(first, second)

    def _inspect(self, planned: StepPlan, replay: Replay, ys: States, nodes: list[Tensor]) -> StepPlan:
        """What fixed steps cannot know beforehand: whether the answer is finite, and whether it is nonsense."""
        finite = torch.isfinite(ys.detach()).all(-1)
        if not bool(finite.all()):
            status = torch.where(finite.all(-1), planned.status, int(Status.NON_FINITE))
            planned = replace(planned, status=status)
            if self.throw:
                self._fail_after(status, finite, replay, ys, nodes)
        elif self.throw:
            self.fail(planned.status, planned.steps, planned.reached, nodes[-1])
        if not isinstance(self.term, SDETerm):
            _warn_of_growth(nodes, replay.grid.detach(), replay.solver)
        return planned

    def _fail_after(self, status: Tensor, finite: Tensor, replay: Replay, ys: States, nodes: list[Tensor]) -> None:
        """Raise the error of fixed steps that came to no number, with the last step that did where all are known."""
        if len(nodes) == len(replay.grid):
            path, grid = torch.stack([node.detach() for node in nodes]), replay.grid.detach()
            last = (torch.isfinite(path).all(-1).to(torch.int64).cumprod(0).sum(0) - 1).clamp(min=0)
            reached = grid.gather(0, last[None])[0]
            state = path.gather(0, last[None, ..., None].expand(1, *path.shape[1:]))[0]
            self.fail(status, last, reached, state)
        output, reached = last_finite(finite, self.clock)
        steps = replay.node.gather(-1, output[..., None])[..., 0]
        self.fail(status, steps, reached, take_items(ys.detach(), output[..., None], -2)[..., 0, :])

    def _describe(self, planned: StepPlan) -> str:
        reading = "outputs are ends of steps" if self.controller.lands else "outputs read from the dense output"
        many = f"{int(planned.steps.amax())} steps for the longest of {planned.steps.numel()} series"
        how = f"{self.solver!r} with {self.controller!r}"
        return f"{how}: {many}, each on its own clock; {reading}; gradients by {self.adjoint!r}"


def last_finite(finite: Tensor, clock: Clock) -> tuple[Tensor, Tensor]:
    """The number of the last output before the first that is not finite, and its time, `(*batch,)`.

    Example:
        >>> clock = Clock.create(torch.tensor([1.0, 2.0, 3.0]), 0.0, torch.Size([]), torch.float64)
        >>> last_finite(torch.tensor([True, True, False]), clock)
        (tensor(1), tensor(2., dtype=torch.float64))
    """
    count = finite.to(torch.int64).cumprod(-1).sum(-1)
    output = (count - 1).clamp(min=0)
    time = clock.ts.detach().gather(-1, output[..., None])[..., 0]
    return output, torch.where(count > 0, time, clock.t0.detach())


def _in_doubt(planned: StepPlan) -> Tensor:
    """Which series may not be what the equation says: they ran away, or errors grew faster than a step resolved."""
    away = planned.status == Status.STEP_SIZE
    if planned.doubtful is None:
        return torch.zeros_like(away)
    return away | (planned.doubtful & (planned.status == Status.SUCCESS))


def _warn_of_doubt(right: Tensor, doubt: Tensor) -> None:
    """Which series were solved more exactly than was asked for, and for which that changed nothing."""
    if bool(right.any()):
        warnings.warn(
            f"errors that rtol and atol allow carried {_name(torch.nonzero(right)[0])} away from the solution; it was "
            f"solved with {_SHARE:g} of both instead. To choose yourself, give an atol below the smallest entries of "
            "the state that matter.",
            stacklevel=6,
        )
    if bool(doubt.any()):
        warnings.warn(
            f"errors grow fast near the solution of {_name(torch.nonzero(doubt)[0])}, with {_SHARE:g} of rtol and atol "
            "as well: it is unstable (it may rest on an unstable equilibrium); a disturbance would lead it elsewhere.",
            stacklevel=6,
        )


def _name(where: Tensor) -> str:
    return f"series {', '.join(map(str, where.tolist()))}" if len(where) else "the series"


@torch.no_grad()
def _warn_of_growth(nodes: list[Tensor], grid: Tensor, solver: Solver) -> None:
    """Velocities that grow a hundredfold in each of two steps running are an unstable method, not a solution."""
    # The last state need not follow the one before it in the list: some ways to replay keep the first few alone.
    if len(nodes) == 4 or len(nodes) == len(grid) == 3:
        # Of two steps there are two velocities: there the sizes of all three states must tell.
        start, middle, end = (torch.linalg.vector_norm(node, dim=-1) for node in nodes[:3])
        if bool(((middle > 100.0 * start) & (end > 100.0 * middle) & (start > 0)).any()):
            _say_unstable(solver)
        return
    nodes = nodes[: min(8, len(nodes) - 1)]
    if len(nodes) < 4:
        return
    path = torch.stack(nodes)
    spans = grid[: len(path)].diff(dim=0).abs()
    # The gap between a knot and a time beside it may be no more than rounding, and so is then what happens in it.
    spans = torch.where(spans > 1e-6 * spans.amax(0), spans, torch.inf)
    changes = torch.linalg.vector_norm(path.diff(dim=0), dim=-1) / spans
    growing = changes[1:] > 100.0 * changes[:-1]
    if bool((growing[1:] & growing[:-1] & (changes[:-2] > 0)).any()):
        _say_unstable(solver)


def _say_unstable(solver: Solver) -> None:
    warnings.warn(
        f"the state grows more than a hundredfold per step: the step_size is too large for {type(solver).__name__} on "
        "this field, and the answer is probably wrong. Take smaller steps (ConstantStep(dt=...), "
        "StepTo(num_steps=...)) or an adaptive method.",
        stacklevel=6,
    )


def _warn_of_stiffness(record: Record | None, planned: StepPlan) -> None:
    """An answer that is right and took far longer than it need have."""
    stiff = held_back(record, planned.steps)
    if record is not None and bool(stiff.any()):
        where = tuple(torch.nonzero(stiff)[0].tolist())
        name = f"series {', '.join(map(str, where))}" if where else "the series"
        warnings.warn(
            f"{name} took {int(planned.steps[where])} steps, each as long as {type(record.solver).__name__} is stable: "
            f"the equation is stiff. To save most of them, {CURE}.",
            stacklevel=5,
        )


def _blank(ys: States, planned: StepPlan, clock: Clock) -> States:
    """NaN where a failed series never arrived."""
    direction = clock.direction[..., None]
    beyond = (clock.ts.detach() - planned.reached.detach()[..., None]) * direction > 0
    missing = beyond & (planned.status != Status.SUCCESS)[..., None]
    return torch.where(missing[..., None], torch.nan, ys)


def _stats(planned: StepPlan, replay: Replay, solver: Solver, record: Record | None) -> dict[str, Tensor]:
    per_step = solver.stages + (replay.term.knots() is not None and not replay.lands)
    evaluations = planned.evaluations
    if record is None or record is not planned.taken:
        evaluations = evaluations + planned.steps * per_step
    if solver.extra_stages and not replay.lands:
        held = inner_steps(replay.grid, replay.ts, replay.node).sum(-1)
        evaluations = evaluations + held * solver.extra_stages
    return {"steps": planned.steps, "rejected": planned.rejected, "evaluations": evaluations}


def _dense(replay: Replay, y0: Tensor) -> Trajectory:
    record = replace(replay, lands=False).run(y0).record
    if record is None:
        raise TypeError(
            f"{type(replay.solver).__name__} has no dense output: nothing is known between the asked times. Ask for "
            "them in ts."
        )
    return record.trajectory()
