"""The contracts of the parts of a solve, as checks that raise AssertionError with the reason.

Call them in the tests of your own path, field, solver, engine or adjoint: a part is done when its check passes.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import Tensor

from .._types import Time
from ..integrate import Adjoint, ConstantStep, Direct, PIDController, solve
from ..integrate.engines import Engine
from ..paths import LinearPath, Path
from ..solvers import Solver, Tsit5
from ..structure import VectorField
from ..terms import ODETerm
from ._judging import require, same
from ._problems import Driven, Wheel, problem_for, wheel


__all__ = ["check_adjoint", "check_engine", "check_field", "check_path", "check_solver"]


def check_path(path: Path, t0: Time, t1: Time, *, seed: int = 0) -> None:
    """The contract of a `Path`.

    * the derivative is the finite difference of the values;
    * a restriction agrees with the path inside, has the inner slope at its ends, and stands still on an empty interval;
    * extra leading axes and many times at once give the same answers as one time after the other;
    * `tensors` and `replace` make the same path again, gradients reach every tensor, and series do not mix.

    Args:
        path: the path, in float64.
        t0: start of an interval on which the path is defined, `(*batch,)`.
        t1: its end, after `t0`.
        seed: of the random times.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> ts = torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64)
        >>> check_path(LinearPath(ts, ts[..., None] ** 2), ts[:, 0], ts[:, -1])
    """
    generator = torch.Generator().manual_seed(seed)
    portions = torch.rand(7, *t0.shape, generator=generator, dtype=torch.float64)
    ts = torch.movedim(t0 + portions * (t1 - t0), 0, -1)
    one = torch.stack([path.evaluate(t) for t in ts.unbind(-1)], -2)
    require(path.batch_shape == t0.shape, f"batch_shape is {tuple(path.batch_shape)} and not {tuple(t0.shape)}")
    require(one.shape[:-1] == ts.shape, f"evaluate gives {tuple(one.shape)} for times {tuple(ts.shape)}")
    same(path(ts), one, 1e-12, "many times at once differ from one after the other")
    leading = torch.movedim(path.evaluate(torch.movedim(ts, -1, 0)), 0, -2)
    same(leading, one, 1e-12, "a leading axis of samples changes the values")
    _check_derivative(path, ts, t1 - t0)
    _check_restriction(path, ts)
    _check_tensors(path, ts)


def _check_derivative(path: Path, ts: Tensor, span: Tensor) -> None:
    step = 1e-5 * span
    for t in ts.unbind(-1):
        found, difference = (
            path.derivative(t),
            (path.evaluate(t + step) - path.evaluate(t - step)) / (2 * step[..., None]),
        )
        knots = path.knots()
        if knots is not None:
            # A difference that reaches across a knot says nothing.
            clear = ((knots - t[..., None]).abs() > 2 * step[..., None]).all(-1, keepdim=True)
            difference = torch.where(clear, difference, found)
        same(found, difference, 1e-6, "the derivative is not the finite difference of the values")


def _check_restriction(path: Path, ts: Tensor) -> None:
    ordered = ts.sort(-1).values
    knots = path.knots()
    places = ordered if knots is None else torch.cat([ordered, knots.to(ordered)], -1).sort(-1).values
    for a, b in zip(places[..., :-1].unbind(-1), places[..., 1:].unbind(-1), strict=True):
        for piece, direction in ((path.restrict(a, b), "forward"), (path.restrict(b, a), "backward")):
            at = f"the path restricted to an interval between knots ({direction})"
            inside = a + 0.3 * (b - a)
            for t in (a, inside, b):
                same(piece.evaluate(t), path.evaluate(t), 1e-10, f"{at} has other values")
            moving = (a != b)[..., None]
            slope = torch.where(moving, path.derivative(inside), 0.0)
            same(
                piece.derivative(inside),
                slope,
                1e-10,
                f"{at} has another derivative inside, or moves though it is empty",
            )
            for end, inner in ((a, a + 1e-7 * (b - a)), (b, b - 1e-7 * (b - a))):
                slope = torch.where(moving, path.derivative(inner), 0.0)
                same(piece.derivative(end), slope, 1e-4, f"{at} does not have the inner slope at its end")
    crossing = path.restrict(ordered[..., 0], ordered[..., -1])
    for t in ordered.unbind(-1):
        same(crossing.evaluate(t), path.evaluate(t), 1e-10, "the path restricted across knots has other values")
    still = path.restrict(ordered[..., 0], ordered[..., 0]).derivative(ordered[..., 0])
    same(still, torch.zeros_like(still), 0.0, "the derivative on an empty interval is not 0")


def _check_tensors(path: Path, ts: Tensor) -> None:
    fresh = tuple(tensor.detach().clone().requires_grad_(tensor.is_floating_point()) for tensor in path.tensors())
    again = path.replace(fresh)
    values = again(ts)
    same(values.detach(), path(ts).detach(), 0.0, "replace(tensors()) does not give the same path")
    learnable = [tensor for tensor in fresh if tensor.requires_grad]
    require(values.requires_grad or not learnable, "no gradient reaches the tensors that replace() is given")
    probe = torch.rand(values.shape, generator=torch.Generator().manual_seed(1), dtype=values.dtype)
    gradients = torch.autograd.grad((values * probe).sum(), learnable, allow_unused=True) if learnable else ()
    for place, gradient in enumerate(gradients):
        require(gradient is not None, f"no gradient reaches tensor {place} of the path")
        require(bool(torch.isfinite(gradient).all()), f"the gradient of tensor {place} of the path is not finite")
    batch = path.batch_shape
    if not batch or batch[0] < 2:
        return
    mates = tuple(
        torch.cat([tensor[:1], tensor[:1].expand_as(tensor[1:])]) if tensor.shape[: len(batch)] == batch else tensor
        for tensor in path.tensors()
    )
    same(path.replace(mates)(ts)[:1], path(ts)[:1], 1e-12, "the values of a series depend on the other series")


def check_field(field: VectorField, state_size: int, *, input_size: int = 0, seed: int = 0) -> None:
    """The contract of a `VectorField`; a float64 copy of it is checked.

    * the velocity has the shape and dtype of the state, and is finite;
    * extra leading axes are accepted, `t` is per series, and series do not mix;
    * gradients reach every parameter, the state and the inputs, and are finite.

    Args:
        field: the field.
        state_size: size of its state.
        input_size: size of its inputs; 0 for none.
        seed: of the random states.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> from ctdyn.fields import MLPField
        >>> check_field(MLPField(3, input_size=2), 3, input_size=2)
    """
    field = copy.deepcopy(field).to(torch.float64)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for parameter in field.parameters():
            # Layers that start at zero would hide what lies before them.
            parameter.add_(0.3 * draw(*parameter.shape))
    t, y = draw(2, 3), draw(2, 3, state_size).requires_grad_()
    u = draw(2, 3, input_size).requires_grad_() if input_size else None
    dy = field(t, y, u)
    require(dy.shape == y.shape, f"the velocity has shape {tuple(dy.shape)} for a state of shape {tuple(y.shape)}")
    require(dy.dtype == y.dtype, f"the velocity is {dy.dtype} for a state of {y.dtype}")
    require(bool(torch.isfinite(dy).all()), "the velocity is not finite")
    for sample in range(2):
        for series in range(3):
            drive = None if u is None else u[sample, series]
            alone = field(t[sample, series], y[sample, series], drive)
            same(
                alone.detach(),
                dy[sample, series].detach(),
                1e-10,
                "a series alone has another velocity than in a batch: series mix",
            )
    named = [(f"the parameter {name}", p) for name, p in field.named_parameters() if p.requires_grad]
    named += [("the state", y)] + ([] if u is None else [("the inputs", u)])
    gradients = torch.autograd.grad((dy * draw(*dy.shape)).sum(), [p for _, p in named], allow_unused=True)
    for (name, _), gradient in zip(named, gradients, strict=True):
        require(gradient is not None and bool((gradient != 0).any()), f"no gradient reaches {name}")
        require(bool(torch.isfinite(gradient).all()), f"the gradient of {name} is not finite")


def check_solver(solver: Solver) -> None:
    """The contract of a `Solver`.

    * the observed order is within 0.1 of `order` (0.3 from order 8 on), and dense output keeps it up to order 4;
    * a step of length zero is the identity; an adaptive method estimates its error;
    * a field without the structure that the method `requires` is refused;
    * a series on its own clock is solved as if it were alone, padded times are harmless, and asking for more times does
      not move the old answers.

    Args:
        solver: the method.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> from ctdyn.solvers import Midpoint
        >>> check_solver(Midpoint())
    """
    _check_order(solver)
    field, t0, y0, ts = problem_for(solver)
    term = ODETerm(field)
    _check_requirement(solver, t0, y0)
    step = solver.step(term, t0, t0, y0, solver.init(term, t0, y0), estimate=True)
    same(step.y1, y0, 0.0, "a step of length zero moves the state")
    estimates = step.error is not None
    require(estimates == solver.adaptive, f"adaptive is {solver.adaptive}, but {estimates} that a step has an error")
    controllers = [ConstantStep(0.05)] + ([PIDController(rtol=1e-3, atol=1e-5)] if solver.adaptive else [])
    for controller in controllers:
        found = solve(field, y0, ts, t0=t0, solver=solver, controller=controller).ys
        for series in range(3):
            row = slice(series, series + 1)
            alone = solve(field, y0[row], ts[row], t0=t0[row], solver=solver, controller=controller).ys
            same(found[row], alone, 1e-12, f"with {controller}, a series is solved otherwise alone than in a batch")
        longer = torch.cat([ts, ts[:, -1:].expand(-1, 3)], -1)
        padded = solve(field, y0, longer, t0=t0, solver=solver, controller=controller).ys
        same(padded[:, : ts.shape[1]], found, 1e-12, f"with {controller}, padded times change the answers")
        same(padded[:, -1], found[:, -1], 1e-12, f"with {controller}, the state moves on padded times")
        denser = torch.linspace(0.01, 1.0, 50, dtype=torch.float64) * (ts[:, -1:] - t0[:, None]) + t0[:, None]
        both = torch.cat([denser, ts[:, -1:]], -1).sort(-1).values
        more = solve(field, y0, both, t0=t0, solver=solver, controller=controller).ys
        same(more[:, -1], found[:, -1], 1e-12, f"with {controller}, asking for more times moves the old answers")


def _check_requirement(solver: Solver, t0: Tensor, y0: Tensor) -> None:
    if solver.requires is VectorField:
        return
    try:
        solver.step(ODETerm(Driven()), t0, t0 + 1, y0, None)
    except TypeError:
        return
    raise AssertionError(f"the method requires a {solver.requires.__name__}, but steps any field.")


def _check_order(solver: Solver) -> None:
    """The orders, extrapolated to small steps: good methods keep their leading error so small that the next shows."""
    field, t0, y0, _ = problem_for(solver)
    ends, insides = [], []
    for num_steps in (64, 128, 256) if solver.order < 8 else (8, 16, 32):
        # The same places within a step for every step size: an interpolant is not equally good everywhere.
        places = torch.arange(num_steps)[:, None] + torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0], dtype=torch.float64)
        ts = t0[:, None] + (places / num_steps).reshape(-1)
        wrong = solve(field, y0, ts, t0=t0, solver=solver, controller=ConstantStep(1 / num_steps)).ys
        wrong = (wrong - field.exact(t0, y0, ts)).reshape(3, num_steps, 5, 2)
        ends.append(float(wrong[:, :, -1].square().mean()) ** 0.5)
        insides.append(float(wrong[:, :, :-1].square().mean()) ** 0.5)
    order, dense_order = _observed_order(ends), _observed_order(insides)
    allowed = 0.1 if solver.order < 8 else 0.3
    require(abs(order - solver.order) <= allowed, f"the observed order is {order:.2f}, order says {solver.order}")
    least = min(solver.order, 4) - allowed
    require(dense_order >= least, f"dense output has the observed order {dense_order:.2f}, less than {least:.1f}")


def _observed_order(errors: list[float]) -> float:
    first, second = (math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors))
    return 2 * second - first


def check_engine(engine: Engine, *, own_clocks: bool = True, tolerance: float = 1e-4) -> None:
    """The contract of an `Engine`, on a problem with a closed form.

    * shared clocks, forward and backward, and own clocks are solved to the tolerance, or own clocks are refused;
    * padded times are harmless, and the gradient of the initial state is exact to the tolerance;
    * `evaluations` is counted.

    Args:
        engine: the engine, set to be more accurate than `tolerance`.
        own_clocks: whether it solves series on their own clocks; if not, it must say so with a ValueError.
        tolerance: largest error that is allowed.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> from ctdyn.integrate import TorchDiffEq
        >>> check_engine(TorchDiffEq("dopri5", rtol=1e-7, atol=1e-9))
    """
    _, t0, y0, ts = wheel()
    if own_clocks:
        _check_trajectory(engine, t0, y0, ts, tolerance, "own clocks")
    else:
        try:
            engine.run(ODETerm(Wheel()), y0, ts, t0)
        except ValueError:
            pass
        else:
            raise AssertionError("the engine cannot solve series on their own clocks, but it does not refuse them.")
    shared = torch.tensor([0.5, 1.0, 1.5, 1.5], dtype=torch.float64).expand(3, -1)
    _check_trajectory(engine, torch.zeros_like(t0), y0, shared, tolerance, "a shared clock")
    # Backwards, what starts outside the limit cycle escapes to infinity.
    _check_trajectory(engine, torch.zeros_like(t0), 0.4 * y0, -shared, tolerance, "a shared clock backwards")


def _check_trajectory(engine: Engine, t0: Tensor, y0: Tensor, ts: Tensor, tolerance: float, clock: str) -> None:
    field, start = Wheel(), y0.clone().requires_grad_()
    ys, stats = engine.run(ODETerm(field), start, ts, t0)
    exact = field.exact(t0, start, ts)
    same(ys.detach(), exact.detach(), tolerance, f"on {clock} the states are wrong")
    probe = torch.rand(ys.shape, generator=torch.Generator().manual_seed(0), dtype=ys.dtype)
    require(ys.requires_grad, f"on {clock} no gradient reaches the initial state")
    found, expected = (torch.autograd.grad((states * probe).sum(), start)[0] for states in (ys, exact))
    same(found, expected, 10 * tolerance, f"on {clock} the gradient of the initial state is wrong")
    count = stats.get("evaluations", torch.zeros(0))
    require(count.shape == t0.shape, "stats lack evaluations, one per series")
    require(bool((count > 0).all()), "evaluations are not counted")


def check_adjoint(
    adjoint: Adjoint,
    *,
    solver: Solver | None = None,
    adaptive: bool = True,
    exact: bool = True,
    tolerance: float = 1e-8,
) -> None:
    """The contract of an `Adjoint`: states and gradients equal those of `Direct`.

    * the gradients are those of the initial state, the parameters, the tensors of the inputs, a context that a plain
      function holds, and the times, the start among them, for steps of one length and for adaptive steps;
    * a series alone has the gradient that it has in a batch;
    * where nothing wants a gradient, there is none.

    Args:
        adjoint: the way of back-propagation.
        solver: a method that it works with; `Tsit5()` by default.
        adaptive: whether it works with steps that are chosen on the way.
        exact: whether it gives the gradient of the steps that were taken; otherwise it is compared on short ones.
        tolerance: largest relative difference that is allowed.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> check_adjoint(Direct())
    """
    solver = Tsit5() if solver is None else solver
    fixed, chosen = ConstantStep(0.1), PIDController(rtol=1e-4, atol=1e-6)
    if not exact:
        fixed, chosen = ConstantStep(0.01), PIDController(rtol=1e-8, atol=1e-10)
    for controller in (fixed, chosen) if adaptive else (fixed,):
        case = _Differentiated(solver, controller)
        expected, found = case.gradients(Direct()), case.gradients(adjoint)
        for name, gradient in expected.items():
            what = "one of the states" if name == "the states" else f"the gradient of {name}"
            same(found[name], gradient, tolerance, f"with {controller}, {what} differs from what Direct gives")
        alone = case.gradients(adjoint, slice(1, 2))["y0"]
        same(
            alone,
            found["y0"][1:2],
            tolerance,
            f"with {controller}, a series has another gradient alone than in a batch",
        )
        with torch.no_grad():
            ys = case.solve(adjoint)
        require(not ys.requires_grad, "there is a graph where no gradient is wanted")


class _Differentiated:
    """A solve in which everything has a gradient."""

    def __init__(self, solver: Solver, controller: ConstantStep | PIDController) -> None:
        _, self.t0, self.y0, self.ts = wheel()
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng(()):
            torch.manual_seed(0)
            self.field = Driven()
        self.xs, self.probe = torch.rand(2, 3, 5, 2, generator=generator, dtype=torch.float64)
        self.context = torch.rand(3, 2, generator=generator, dtype=torch.float64)
        self.solver, self.controller = solver, controller

    def solve(self, adjoint: Adjoint, *given: Tensor) -> Tensor:
        t0, y0, ts, knots, xs, context = given or (self.t0, self.y0, self.ts, self.ts, self.xs, self.context)
        # A tensor that something else was computed from: a field seldom holds leaves only.
        held = torch.tanh(context)
        return solve(
            lambda t, y, u: self.field(t, y, u) + 0.1 * held,
            y0,
            ts,
            t0=t0,
            inputs=LinearPath(knots, xs),
            solver=self.solver,
            controller=self.controller,
            adjoint=adjoint,
        ).ys

    def gradients(self, adjoint: Adjoint, series: slice = slice(None)) -> dict[str, Tensor]:
        rows = (self.t0, self.y0, self.ts, self.ts, self.xs, self.context)
        start, y0, ts, knots, xs, context = (x[series].clone().requires_grad_() for x in rows)
        ys = self.solve(adjoint, start, y0, ts, knots, xs, context)
        named = {"y0": y0, "t0": start, "ts": ts, "the times of the inputs": knots, "the inputs": xs}
        named |= {"what the field holds": context}
        named |= {f"the parameter {name}": p for name, p in self.field.named_parameters()}
        gradients = torch.autograd.grad((ys * self.probe[series]).sum(), list(named.values()), allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, named.values(), strict=True)]
        return {"the states": ys.detach()} | dict(zip(named, filled, strict=True))
