"""The public entry: `solve`, and `evolve` for one interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from .._checks import NonFiniteError, check_count, check_instance
from .._options import suggesting
from .._types import State, States, Time
from ..nn import take_items
from ..paths.base import Path
from ..paths.missing import fill_forward
from ..solvers.base import Solver
from ..structure import CDEField, SDEField, Transition, VectorField
from ..terms import AugmentedTerm, CDETerm, ODETerm, SDETerm, Term, as_term, augmented_sde
from .adjoint import Adjoint, Direct
from .choice import check_transition, choose, why_transition
from .clock import Clock, landing_times
from .controllers import AdaptiveController, PIDController, StepController
from .dense import Trajectory
from .engines.base import Engine
from .episodes import run_episodes
from .events import Event, Events
from .exact import follow_exactly
from .problem import Problem, last_finite
from .solution import DensePath, Solution
from .status import Status, raise_failure
from .stochastic import check_steps, equation_of, method_for


__all__ = ["evolve", "solve"]


@suggesting
def solve(
    term: Term | VectorField | CDEField | SDEField | Transition | Callable[..., Tensor],
    y0: Tensor,
    ts: Tensor,
    *,
    t0: Tensor | float | None = None,
    inputs: Path | None = None,
    solver: Solver | Engine | None = None,
    controller: StepController | None = None,
    adjoint: Adjoint | None = None,
    event: Event | Sequence[Event] | None = None,
    aux: Callable[..., Tensor] | Sequence[Callable[..., Tensor]] = (),
    generator: Generator | None = None,
    max_steps: int = 10_000,
    throw: bool = True,
) -> Solution:
    r"""Solve a differential equation for a batch of series, each on a clock of its own.

    .. math:: \frac{dy}{dt} = f(t, y, u(t)), \qquad y(t_0) = y_0

    Every series has its own start, its own output times, its own direction and its own steps: the answer for a series
    does not depend on the company it is in, and many times cost no more than few. Times are kept in float64 inside.
    Gradients reach `y0`, the parameters of the field, the tensors of the inputs, and the times; never the step control.

    Args:
        term: the field, a `VectorField` or any callable `f(t, y)` (with inputs `f(t, y, u)`), a `CDEField`, a
            `Transition`, or a `Term`.
        y0: states at `t0`, float32, float64 or complex, `(*batch, state)`. Leading axes that `ts` lacks (Monte Carlo
            samples) are allowed.
        ts: output times, `(*batch, time)`, or `(time,)` for all series; monotone, forward or backward. A short series
            is padded by repeating its last time.
        t0: time of `y0`, `(*batch,)` or a number; None: the first output time.
        inputs: what drives the field, the control of a `CDEField`; a step never straddles one of its knots.
        solver: the method, or an `Engine`. By default none at all where the equation is known in closed form (a
            `Transition`; an `ExactCDEField` along straight lines, if nothing is asked of its steps); for a `DecayField`
            `ExponentialMidpoint()`, which solves its decay (but not with events, integrands, other adjoints than
            `Direct` and `Checkpoint`, or an rtol below 1e-6); otherwise `Tsit5()`. `explain` says which, and why.
        controller: the steps. By default `PIDController()` (rtol 1e-4, atol 1e-6). A method without an error estimate
            needs `StepTo(num_steps=...)` or `ConstantStep(dt=...)`.
        adjoint: how gradients are computed, `Direct()` by default.
        event: what ends a series early, or makes it jump; outputs behind its end are NaN. At the time of an event the
            output is the state before.
        aux: integrands along the solution, `q(t, y) -> (*batch,)` or `(*batch, k)` (with inputs `q(t, y, u)`): path
            divergences, log-determinants, energies, compensators. Their integrals from `t0` are `solution.aux`; the
            step control does not see them.
        generator: of the Brownian motion of an `SDEField`; None for torch's own. A series gets its motion by its place
            in the batch, and keeps it when more times are asked for with `ConstantStep`, or later ones. To key it by
            series instead, give an `SDETerm` with a `VirtualBrownianTree`.
        max_steps: the most steps of one series, rejected ones included.
        throw: raise when a series fails. Otherwise its missing states are NaN and `solution.status` says why.

    Returns:
        A `Solution`: `ys` is `(*batch, time, state)`.

    Raises:
        ValueError: shapes, times or options do not fit together; the message says which and what to do.
        TypeError: an argument is of the wrong type.
        SolveError: a series could not be solved (`NonFiniteError`, `StepSizeError`, `MaxStepsError`).

    Example:
        >>> import torch
        >>> ts = torch.tensor([[0.0, 0.5, 1.0], [0.0, 2.0, 3.0]])  # a clock per series
        >>> solve(lambda t, y: -y, torch.ones(2, 1), ts).ys.squeeze(-1)
        tensor([[1.0000, 0.6065, 0.3679],
                [1.0000, 0.1353, 0.0498]])
    """
    _check_state(y0)
    ts = _check_times(ts, y0)
    if t0 is not None and not isinstance(t0, Tensor | int | float):
        raise TypeError(f"t0 must be a number or a tensor (*batch,); got {type(t0).__name__}.")
    shape = _batch_shape(y0, ts, t0)
    clock = Clock.create(ts, t0, shape, y0.dtype)
    y0 = y0.expand(*shape, y0.shape[-1])
    check_count("max_steps", max_steps)
    _check_driver(term, inputs, shape)
    if isinstance(term, Transition) and not isinstance(term, VectorField):
        check_transition(
            term,
            inputs,
            solver=solver,
            controller=controller,
            adjoint=adjoint,
            event=event,
            aux=_several(aux, "aux") or None,
        )
        return _carried(term, y0, ts, clock, inputs, throw)
    term = equation_of(term, y0, clock, controller, inputs, generator, max_steps)
    if isinstance(term, CDETerm):
        term.check_range(torch.cat([clock.t0[..., None], clock.ts], -1).detach())
    events, integrands = _several(event, "event"), _several(aux, "aux")
    solver, why = choose(term, solver, controller, adjoint, plain=not events and not integrands)
    if isinstance(solver, Engine):
        _refuse(solver, controller=controller, adjoint=adjoint, event=event, aux=integrands or None)
    if solver is None or isinstance(solver, Engine):
        return _whole(solver, term, y0, ts, clock, throw, why)
    controller = _check_controller(solver, controller)
    solver = method_for(term, solver)
    if isinstance(controller, PIDController):
        solver = solver.within(controller.rtol, controller.atol)
    check_steps(term, solver, controller, clock)
    adjoint = Direct() if adjoint is None else adjoint
    _check_adjoint(adjoint)

    ts = ts.expand(*shape, ts.shape[-1])
    size = y0.shape[-1]
    if integrands:
        term, y0 = _augment(term, y0, clock, integrands)
    if not shape.numel():
        return _empty(ts, y0, clock, size, events)
    problem = Problem(term, y0, clock, solver, controller, adjoint, max_steps, throw, size if integrands else None)
    answer, happened = run_episodes(problem, events) if events else (problem.run(), None)
    return Solution(
        ts,
        answer.ys[..., :size],
        answer.planned.status,
        answer.stats,
        f"{answer.description}; {why}",
        answer.dense,
        aux=answer.ys[..., size:] if integrands else None,
        events=happened,
    )


def evolve(
    term: Term | VectorField | CDEField | Callable[..., Tensor],
    y0: State,
    t0: Time,
    t1: Time,
    *,
    solver: Solver,
    num_steps: int = 1,
) -> State:
    r"""Carry every state over one interval of its own by equal steps: what a hidden state does between observations.

    An interval of length zero returns the state exactly; `t1` may lie before `t0`.

    Args:
        term: the field, or a `Term`.
        y0: states at `t0`, `(*batch, state)`.
        t0: start of each series' interval, `(*batch,)`.
        t1: its end, `(*batch,)`.
        solver: the method.
        num_steps: how many equal steps the interval is cut into.

    Returns:
        The states at `t1`, `(*batch, state)`.

    Raises:
        ValueError: `num_steps` is less than 1.
        TypeError: `num_steps` is no whole number, or `solver` no method.

    Example:
        >>> import torch
        >>> from ctdyn.solvers import RK4
        >>> evolve(lambda t, y: -y, torch.ones(2, 1), torch.zeros(2), torch.tensor([0.0, 1.0]), solver=RK4())
        tensor([[1.0000],
                [0.3750]])
    """
    check_count("num_steps", num_steps)
    check_instance("solver", solver, Solver, "RK4()")
    term = as_term(term)
    solver = method_for(term, solver)
    start, end = t0.to(torch.float64), t1.to(torch.float64)
    y, before = y0, start
    for step in range(1, num_steps + 1):
        after = end if step == num_steps else torch.lerp(start, end, step / num_steps)
        piece = term.restrict(before, after)
        y, before = solver.step(piece, before, after, y, None, dense=False).y1, after
    return y


def _check_state(y0: Tensor) -> None:
    if not isinstance(y0, Tensor):
        raise TypeError(f"y0 must be a tensor (*batch, state); got {type(y0).__name__}. Use torch.as_tensor(y0).")
    if y0.dtype in (torch.float16, torch.bfloat16):
        name = str(y0.dtype).removeprefix("torch.")
        raise TypeError(f"y0 is {name}, too coarse to solve with (float16 and bfloat16 are refused); use y0.float().")
    if not (y0.is_floating_point() or y0.is_complex()):
        raise TypeError(f"y0 must be of a floating or complex dtype; got {y0.dtype}. Use y0.to(torch.float32).")
    if y0.dim() == 0:
        raise ValueError("y0 must be (*batch, state); got a scalar. Use y0.reshape(1).")
    finite = torch.isfinite(y0)
    if not bool(finite.all()):
        index = tuple(torch.nonzero(~finite)[0].tolist())
        raise NonFiniteError(
            f"y0 is {float(y0[index].abs()) if not y0.is_complex() else 'not finite'} at index {index}; "
            "every initial state must be finite."
        )


def _check_driver(term: object, inputs: Path | None, shape: torch.Size) -> None:
    """Refuse what drives other series than those that are solved."""
    path = inputs
    if isinstance(term, ODETerm | SDETerm):
        path = term.inputs
    elif isinstance(term, CDETerm):
        path = term.control
    if path is None:
        return
    check_instance("inputs", path, Path, "ctdyn.paths.LinearPath(ts, values)")
    batch = path.batch_shape
    if batch.numel() != 1 and batch != shape[max(len(shape) - len(batch), 0) :]:
        raise ValueError(
            f"the inputs, a {type(path).__name__}, drive a batch of {tuple(batch)}, and that of y0, ts and t0 is "
            f"{tuple(shape)}. Give a path for each series, its values (*batch, time, channel), or one for all."
        )


def _check_times(ts: Tensor, y0: Tensor) -> Tensor:
    if not isinstance(ts, Tensor):
        raise TypeError(f"ts must be a tensor (*batch, time); got {type(ts).__name__}. Use torch.as_tensor(ts).")
    if ts.dim() == 0:
        raise ValueError("ts must be (*batch, time); got a scalar. For one time use ts.reshape(1) and give t0.")
    if ts.shape[-1] == 0:
        raise ValueError(f"ts is empty: its shape is {tuple(ts.shape)}; ask for at least one time.")
    if ts.is_complex() or ts.dtype == torch.bool:
        raise TypeError(f"ts must hold real numbers; got {ts.dtype}.")
    return (ts if ts.is_floating_point() else ts.to(torch.float64)).to(y0.device)


def _batch_shape(y0: Tensor, ts: Tensor, t0: Tensor | float | None) -> torch.Size:
    start = t0.shape if isinstance(t0, Tensor) else torch.Size()
    try:
        return torch.broadcast_shapes(y0.shape[:-1], ts.shape[:-1], start)
    except RuntimeError as error:
        raise ValueError(
            f"y0 (*batch, state), ts (*batch, time) and t0 (*batch,) must share their batch axes; got y0 "
            f"{tuple(y0.shape)}, ts {tuple(ts.shape)}, t0 {tuple(start)}. One clock for all is ts of shape (time,)."
        ) from error


def _check_controller(solver: Solver, controller: StepController | None) -> StepController:
    if not isinstance(solver, Solver):
        given = f"the class {solver.__name__}; write {solver.__name__}()" if isinstance(solver, type) else repr(solver)
        raise TypeError(f"solver must be a Solver object such as Tsit5(); got {given}.")
    name = type(solver).__name__
    fixed = "controller=ConstantStep(dt=step_size) or controller=StepTo(num_steps=...)"
    if controller is None:
        if not solver.adaptive:
            raise ValueError(f"{name} cannot choose its step_size: it has no error estimate. Pass {fixed}.")
        return PIDController()
    if not isinstance(controller, StepController):
        raise TypeError(f"controller must be a StepController object; got {controller!r}. Pass {fixed}.")
    if isinstance(controller, AdaptiveController) and not solver.adaptive:
        raise ValueError(f"{name} has no error estimate, which {type(controller).__name__} needs. Pass {fixed}.")
    return controller


def _check_adjoint(adjoint: Adjoint) -> None:
    if not isinstance(adjoint, Adjoint):
        raise TypeError(f"adjoint must be an Adjoint object such as Direct(); got {adjoint!r}.")


def _several(given: Any, name: str) -> tuple[Any, ...]:
    """One thing or a sequence of them, as a tuple."""
    several = () if given is None else tuple(given) if isinstance(given, Sequence) else (given,)
    for entry in several:
        if name == "event" and not isinstance(entry, Event):
            raise TypeError(f"event must be an Event(condition) or a sequence of them; got {type(entry).__name__}.")
        if not callable(entry) and name == "aux":
            raise TypeError(f"aux must be a callable q(t, y) or a sequence of them; got {type(entry).__name__}.")
    return several


def _augment(
    term: Term, y0: Tensor, clock: Clock, integrands: tuple[Callable[..., Tensor], ...]
) -> tuple[Term, Tensor]:
    """The equation with its integrals, and where they start."""
    larger = AugmentedTerm(term, integrands, y0.shape[-1])
    with torch.no_grad():
        start = clock.t0.detach()
        rates = larger.restrict(start, clock.end.detach()).rates(start, y0)
    if isinstance(term, SDETerm):
        larger = augmented_sde(term, integrands, y0.shape[-1], rates.shape[-1])
    return larger, torch.cat([y0, torch.zeros_like(rates)], -1)


def _refuse(engine: Engine, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"{type(engine).__name__} brings its own steps and gradients and takes no {name}=; set its options on "
                f"the engine, or use a ctdyn solver such as Tsit5() with {name}={value!r}."
            )


def _whole(engine: Engine | None, term: Term, y0: Tensor, ts: Tensor, clock: Clock, throw: bool, why: str) -> Solution:
    """A whole trajectory at once: by another library, or exactly where there is none to choose."""
    ts = ts.expand(*clock.t0.shape, ts.shape[-1])
    if not clock.t0.numel():
        return _empty(ts, y0, clock, y0.shape[-1])
    if engine is None:
        ys, pieces, path = follow_exactly(term, y0, clock)
        stats = {"steps": pieces, "rejected": 0 * pieces, "evaluations": 0 * pieces}
        plan = f"exact: {int(pieces.amax())} straight pieces for the longest of {pieces.numel()} series; {why}"
        return _judged(ts, ys, stats, plan, lambda: path, y0, clock, throw)
    ys, stats = engine.run(term, y0, clock.ts, clock.t0)
    plan = f"{engine!r}: a whole trajectory by another library"
    return _judged(ts, ys, stats, plan, lambda: _between(y0, ys, clock), y0, clock, throw)


def _carried(field: Transition, y0: Tensor, ts: Tensor, clock: Clock, inputs: Path | None, throw: bool) -> Solution:
    """Every asked time reached from the start in one piece."""
    ts = ts.expand(*clock.t0.shape, ts.shape[-1])
    times = torch.movedim(clock.ts, -1, 0)
    dtype = y0.dtype.to_real()
    held = None if inputs is None else inputs.evaluate(clock.t0).to(dtype)
    u = None if held is None else held.expand(*times.shape, held.shape[-1])
    start = y0.expand(*times.shape, y0.shape[-1])
    # Times in the dtype of the state, counted from the start so that a distant origin costs no digits.
    begin = torch.zeros_like(times, dtype=dtype)
    ys = torch.movedim(field.transition(start, begin, (times - clock.t0).to(dtype), u), 0, -2)
    none = torch.zeros(ts.shape[:-1], dtype=torch.int64, device=y0.device)

    def dense() -> Path:
        raise TypeError(f"{type(field).__name__} knows its state only where it was asked for: ask for the times in ts.")

    stats = {"steps": none, "rejected": none, "evaluations": none}
    return _judged(ts, ys, stats, f"in one piece: {why_transition(field)}", dense, y0, clock, throw)


def _judged(
    ts: Tensor,
    ys: Tensor,
    stats: dict[str, Tensor],
    plan: str,
    dense: Callable[[], Path],
    y0: Tensor,
    clock: Clock,
    throw: bool,
) -> Solution:
    finite = torch.isfinite(ys.detach()).all(-1)
    status = torch.where(finite.all(-1), int(Status.SUCCESS), int(Status.NON_FINITE))
    if throw and bool(status.any()):
        steps, reached = last_finite(finite, clock)
        raise_failure(status, steps, reached, clock.t0, clock.end, y0, 0)
    return Solution(ts, ys, status, stats, plan, dense)


def _between(y0: State, ys: States, clock: Clock) -> Path:
    """A cubic from the start through the answers, its slope at each of them the one from the answer before."""
    path, times = torch.cat([y0.unsqueeze(-2), ys], -2), torch.cat([clock.t0[..., None], clock.ts], -1)
    # A series that failed holds the last state that it reached.
    path = fill_forward(torch.where(torch.isfinite(path), path, torch.nan))
    nodes = landing_times(times, clock, None)
    direction = clock.direction[..., None]
    place = torch.searchsorted((times.detach() * direction).contiguous(), (nodes.detach() * direction).contiguous())
    # A step at least, if one of no length.
    place, nodes = (torch.cat([x, x[..., -1:]], -1) for x in (place, nodes))
    states, gaps = take_items(path, place, -2), nodes.diff(dim=-1)
    rises = states.diff(dim=-2)
    share = torch.where(gaps[..., :-1] == 0, 0.0, gaps[..., 1:] / torch.where(gaps == 0, 1.0, gaps)[..., :-1])
    start = torch.cat([rises[..., :1, :], share.to(ys.dtype).unsqueeze(-1) * rises[..., :-1, :]], -2)
    bend = rises - start
    coefficients = torch.stack([states[..., :-1, :], start, 2 * bend, -bend], -2)
    grid, rows = torch.movedim(nodes, -1, 0), torch.movedim(coefficients, -3, 0)
    return DensePath.create(Trajectory(grid, rows), clock.direction)


def _empty(ts: Tensor, y0: Tensor, clock: Clock, size: int, events: tuple[Event, ...] = ()) -> Solution:
    """The solution for no series; its entries from `size` on are integrals."""
    ys = y0.unsqueeze(-2).expand(*ts.shape, y0.shape[-1])
    states, aux = ys[..., :size], ys[..., size:] if y0.shape[-1] > size else None
    status = torch.zeros(ts.shape[:-1], dtype=torch.int64, device=y0.device)
    stats: dict[str, Tensor] = {"steps": status, "rejected": status, "evaluations": status}
    happened = Events.none(y0[..., :size]) if events else None
    plan = "an empty batch: nothing was solved"
    return Solution(
        ts, states, status, stats, plan, lambda: _between(y0[..., :size], states, clock), aux=aux, events=happened
    )
