"""The contracts of what a stochastic solve is made of, as checks that raise AssertionError with the reason.

Call them in the tests of your own Brownian motion, stochastic field or method: a part is done when its check passes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .._types import Inputs, State, Time
from ..integrate import ConstantStep, PIDController, solve
from ..integrate.stochastic import method_for
from ..paths import Brownian, StoredBrownian, VirtualBrownianTree
from ..solvers import Solver
from ..structure import Calculus, Noise, SDEField
from ..terms import SDETerm, brownian_size
from ._judging import require, same


__all__ = ["check_brownian", "check_sde_field", "check_sde_solver"]

_F64 = torch.float64


def check_brownian(brownian: Brownian, t0: Time, t1: Time, *, seed: int = 0) -> None:
    r"""The contract of a `Brownian`.

    * it answers the same twice, in any order and any company, and its increments and areas add up;
    * increments over `[t0, t1]` and parts of it, down to a thousandth, are normal with the length as variance, areas
      with a twelfth of it; they are independent of each other, of those of other intervals, motions and series.

    The laws are judged on all series and motions together, to five standard errors: have a few thousand in all.

    Args:
        brownian: the motion.
        t0: start of an interval on which it is defined, `(*batch,)`.
        t1: its end.
        seed: of the random times.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> zero = torch.zeros(1000, dtype=torch.float64)
        >>> check_brownian(VirtualBrownianTree(torch.arange(1000), size=2), zero, zero + 3)
    """
    rng = torch.Generator().manual_seed(seed)
    places = torch.cat([torch.zeros(1, dtype=_F64), torch.rand(6, generator=rng, dtype=_F64), torch.ones(1).to(_F64)])
    places = torch.cat([places, places[2:3] + 1e-3 * (1 - places[2:3])]).sort().values
    times = torch.stack([torch.lerp(t0.to(_F64), t1.to(_F64), float(place)) for place in places])
    values = brownian.evaluate(times)
    shape = (*times.shape, brownian.size)
    require(brownian.batch_shape == t0.shape, f"batch_shape is {tuple(brownian.batch_shape)}, not {tuple(t0.shape)}")
    require(values.shape == shape, f"evaluate gives {tuple(values.shape)} for times {tuple(times.shape)}, not {shape}")
    for k in torch.randperm(len(times), generator=rng).tolist():
        same(brownian.evaluate(times[k]), values[k], 1e-12, "a time asked alone has another value than in company")
        same(brownian.integrate(times[k])[0], values[k], 1e-12, "integrate gives another value than evaluate")
    changes, areas = brownian.increments_and_areas(times)
    same(brownian.increments(times), changes, 1e-12, "increments with areas differ from those without")
    s, t, u = times[0], times[3], times[-1]
    parts = brownian.increment(s, t) + brownian.increment(t, u)
    same(parts, brownian.increment(s, u), 1e-12, "W(t) - W(s) and W(u) - W(t) do not add up to W(u) - W(s)")
    _check_area_sum(brownian, s, t, u)
    still = brownian.increment_and_area(t, t)
    require(all(bool((part == 0).all()) for part in still), "the motion moves on an empty interval")
    _check_laws(changes, areas, times.diff(dim=0).abs().unsqueeze(-1))


def _check_area_sum(brownian: Brownian, s: Time, t: Time, u: Time) -> None:
    """The area under the path over two intervals running, by what is known of each."""

    def under(a: Time, b: Time) -> Tensor:
        change, area = brownian.increment_and_area(a, b)
        return (b - a).unsqueeze(-1) * (0.5 * change + area)

    together = under(s, t) + under(t, u) + brownian.increment(s, t) * (u - t).unsqueeze(-1)
    same(together, under(s, u), 1e-9, "the areas of two intervals running do not add up to that of both")


def _check_laws(changes: Tensor, areas: Tensor, spans: Tensor) -> None:
    drawn = torch.cat([changes / spans.sqrt(), areas / (spans / 12).sqrt()]).flatten(1)
    count = drawn.shape[1]
    names = [f"{kind} of part {k}" for kind in ("the increment", "the area") for k in range(len(changes))]
    error = 5 / count**0.5
    for name, row in zip(names, drawn, strict=True):
        require(abs(float(row.mean())) < error, f"{name} does not have the mean 0: {float(row.mean()):.3f}")
        spread = float(row.square().mean())
        require(abs(spread - 1) < 1.5 * error, f"{name} has {spread:.3f} times the variance that it should have")
        places = torch.special.ndtr(row.sort().values)
        gap = float((places - torch.linspace(0, 1, count, dtype=_F64)).abs().max())
        require(gap < 2.3 / count**0.5, f"{name} is not normal: its distribution is off by {gap:.3f}")
    products = drawn @ drawn.mT / count - torch.eye(len(drawn), dtype=_F64)
    worst = int(products.fill_diagonal_(0).abs().argmax())
    pair = f"{names[worst // len(drawn)]} and {names[worst % len(drawn)]}"
    require(float(products.abs().max()) < error, f"{pair} are correlated: {float(products.abs().max()):.3f}")
    for lag in (1, changes.shape[-1]):
        shifted = (drawn[:, lag:] * drawn[:, :-lag]).mean(1).abs().max()
        require(float(shifted) < error, f"motions or series are correlated with their neighbours: {float(shifted):.3f}")


def check_sde_field(field: SDEField, state_size: int, *, input_size: int = 0, seed: int = 0) -> None:
    """The contract of an `SDEField`; a float64 copy of it is checked.

    * drift and diffusion have the shapes that its `noise` asks for, in the dtype of the state, and are finite;
    * the noise is what it says: entry i of a diagonal diffusion depends on entry i of the state alone, an additive one
      on none. (A diffusion that mixes entries is solved wrongly, and silently, if it is declared diagonal.)
    * extra leading axes are accepted, `t` is per series, and series do not mix;
    * gradients reach every parameter, and are finite.

    Args:
        field: the field.
        state_size: size of its state.
        input_size: size of its inputs; 0 for none.
        seed: of the random states.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> from ctdyn.systems import GeometricBrownianMotion
        >>> check_sde_field(GeometricBrownianMotion(), 3)
    """
    field = copy.deepcopy(field).to(_F64)
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=_F64)

    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.3 * draw(*parameter.shape))
    t, y = draw(2, 3), draw(2, 3, state_size).requires_grad_()
    u = draw(2, 3, input_size) if input_size else None
    brownian_size(field, t, y, u)
    f, g = _both(field, t, y, u)
    require(f.shape == y.shape, f"the drift has shape {tuple(f.shape)} for a state of shape {tuple(y.shape)}")
    require(
        f.dtype == y.dtype and g.dtype == y.dtype, f"drift and diffusion are {f.dtype} and {g.dtype}, not {y.dtype}"
    )
    require(bool(torch.isfinite(f).all() and torch.isfinite(g).all()), "drift or diffusion are not finite")
    for sample in range(2):
        for series in range(3):
            one = sample, series
            alone = _both(field, t[one], y[one], None if u is None else u[one])
            for found, whole in zip(alone, (f, g), strict=True):
                reason = "a series alone has another drift or diffusion than in a batch: series mix"
                same(found.detach(), whole[one].detach(), 1e-10, reason)
    named = [(name, p) for name, p in field.named_parameters() if p.requires_grad]
    probe = (f * draw(*f.shape)).sum() + (g * draw(*g.shape)).sum()
    parameters = [p for _, p in named]
    found = torch.autograd.grad(probe, parameters, retain_graph=True, allow_unused=True) if named else ()
    for (name, _), gradient in zip(named, found, strict=True):
        require(gradient is not None and bool((gradient != 0).any()), f"no gradient reaches the parameter {name}")
        require(bool(torch.isfinite(gradient).all()), f"the gradient of the parameter {name} is not finite")
    _check_noise(field.noise, g, y)


def _both(field: SDEField, t: Time, y: State, u: Inputs | None) -> tuple[Tensor, Tensor]:
    arguments = (t, y) if u is None else (t, y, u)
    return field.drift(*arguments), field.diffusion(*arguments)


def _check_noise(noise: Noise, g: Tensor, y: Tensor) -> None:
    if noise not in (Noise.DIAGONAL, Noise.ADDITIVE) or not g.requires_grad:
        return
    for entry in range(y.shape[-1]):
        row = (
            g[..., entry]
            if noise is Noise.DIAGONAL
            else g[..., entry, :].sum(-1)
            if g.dim() > y.dim()
            else g[..., entry]
        )
        (slope,) = torch.autograd.grad(row.sum(), y, retain_graph=True, allow_unused=True)
        if slope is None:
            continue
        if noise is Noise.ADDITIVE:
            require(not bool(slope.any()), f"the noise is declared additive, and entry {entry} depends on the state")
            continue
        others = torch.cat([slope[..., :entry], slope[..., entry + 1 :]], -1)
        require(
            not bool(others.any()),
            f"the noise is declared diagonal, and entry {entry} of the diffusion depends on other entries of the "
            "state: declare it general, and return a matrix",
        )


class _Bounded(SDEField):
    """Diagonal or scalar noise, nonlinear, with a solution path by path."""

    def __init__(self, noise: Noise, calculus: Calculus) -> None:
        super().__init__()
        self.noise, self.calculus = noise, calculus
        self.pull, self.push = nn.Parameter(torch.tensor(0.2).to(_F64)), nn.Parameter(torch.tensor(0.5).to(_F64))

    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        f = -self.pull * (1 - y**2)
        return f if self.calculus is Calculus.STRATONOVICH else f - self.push**2 * y * (1 - y**2)

    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        return self.push * (1 - y**2)

    def exact(self, t: Tensor, y0: Tensor, W: Tensor) -> Tensor:
        return torch.tanh(torch.atanh(y0) - self.pull * t[..., None] + self.push * W)


class _Fading(SDEField):
    """Additive noise that fades, with a solution path by path."""

    noise = Noise.ADDITIVE

    def __init__(self, calculus: Calculus) -> None:
        super().__init__()
        self.calculus = calculus
        self.pull, self.push = nn.Parameter(torch.tensor(1.0).to(_F64)), nn.Parameter(torch.tensor(0.7).to(_F64))

    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        late = 1 + t[..., None]
        return self.pull / late.sqrt() - y / (2 * late)

    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        return (self.push / (1 + t[..., None]).sqrt()).expand_as(y)

    def exact(self, t: Tensor, y0: Tensor, W: Tensor) -> Tensor:
        return (y0 + self.pull * t[..., None] + self.push * W) / (1 + t[..., None]).sqrt()


def check_sde_solver(solver: Solver, *, paths: int = 1000) -> None:
    """The contract of a `Solver` that has a `calculus`.

    * path by path it converges, with every kind of noise it names but the general one, at least as fast as its
      `strong_order` says (within 0.1), to the solution in its calculus;
    * asking for more times does not move the old answers, padded times are harmless, and a step of length zero stays;
    * with a Brownian motion keyed by series, a series is solved as if it were alone;
    * gradients reach drift, diffusion and the initial state, and are those of finite differences;
    * where it is adaptive, a tighter tolerance gives a smaller error.

    Args:
        solver: the method.
        paths: how many paths the order is observed on.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> from ctdyn.solvers import EulerHeun
        >>> check_sde_solver(EulerHeun(), paths=300)
    """
    require(solver.calculus is not None, f"{type(solver).__name__} has no calculus: it solves smooth equations only")
    calculus = solver.calculus or Calculus.ITO
    for noise in (Noise.SCALAR, Noise.DIAGONAL, Noise.ADDITIVE):
        if noise in solver.noises:
            _check_strong_order(solver, *_problem(noise, calculus), paths)
    noise = next(kind for kind in (Noise.DIAGONAL, Noise.ADDITIVE, Noise.SCALAR) if kind in solver.noises)
    field, exact = _problem(noise, calculus)
    _check_answers(solver, field)
    _check_gradients(solver, field)
    seeds, t0, *_ = _series()
    if method_for(SDETerm(field, _motion(field, seeds, t0)), solver).adaptive:
        _check_adaptive(solver, field, exact)


def _problem(noise: Noise, calculus: Calculus) -> tuple[SDEField, Callable[..., Tensor]]:
    """An equation and its solution path by path."""
    field = _Fading(calculus) if noise is Noise.ADDITIVE else _Bounded(noise, calculus)
    return field, field.exact


@torch.no_grad()
def _check_strong_order(solver: Solver, field: SDEField, exact: Callable[..., Tensor], paths: int) -> None:
    counts = (16, 32, 64)
    grid = torch.linspace(0, 1, counts[-1] + 1, dtype=_F64)[:, None].expand(-1, paths)
    size = 1 if field.noise is Noise.SCALAR else 2
    motion = StoredBrownian.draw(grid, size, generator=torch.Generator().manual_seed(0))
    y0 = torch.tensor([0.2, -0.3], dtype=_F64).expand(paths, 2)
    truth = exact(grid[-1], y0, motion.evaluate(grid[-1]))
    errors = []
    for count in counts:
        ys = solve(SDETerm(field, motion), y0, grid[[0, -1], 0], solver=solver, controller=ConstantStep(1 / count)).ys
        errors.append(float((ys[:, -1] - truth).square().mean().sqrt()))
    slope, least = _slope(counts, errors), solver.strong_order(field.noise)
    require(
        slope >= least - 0.1,
        f"with {field.noise.value} noise the error falls with the power {slope:.2f} of the step, path by path; "
        f"strong_order says {least}",
    )


def _slope(counts: Sequence[int], errors: Sequence[float]) -> float:
    x, y = torch.tensor(counts).double().log2(), -torch.tensor(errors).double().log2()
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())


def _series() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Seeds, start times, initial states and the own, padded clocks of three series."""
    t0 = torch.tensor([0.0, 0.5, 0.25], dtype=_F64)
    y0 = torch.tensor([[0.5, 0.0], [0.0, -0.6], [0.3, -0.4]], dtype=_F64)
    steps = torch.tensor([[0.0, 0.3, 0.31, 0.9, 1.4], [0.2, 0.5, 0.8, 0.85, 2.0], [0.1, 0.4, 0.7, 0.7, 0.7]])
    return torch.tensor([5, 6, 7]), t0, y0, t0[:, None] + steps.to(_F64)


def _motion(field: SDEField, seeds: Tensor, t0: Tensor) -> VirtualBrownianTree:
    return VirtualBrownianTree(seeds, 1 if field.noise is Noise.SCALAR else 2, t0)


@torch.no_grad()
def _check_answers(solver: Solver, field: SDEField) -> None:
    seeds, t0, y0, ts = _series()
    method, term = (
        method_for(SDETerm(field, _motion(field, seeds, t0)), solver),
        SDETerm(field, _motion(field, seeds, t0)),
    )
    still = method.step(term, t0, t0, y0, method.init(term, t0, y0), dense=False)
    same(still.y1, y0, 0.0, "a step of length zero moves the state")

    def run(rows: slice, times: Tensor) -> Tensor:
        part = SDETerm(field, _motion(field, seeds[rows], t0[rows]))
        return solve(part, y0[rows], times[rows], t0=t0[rows], solver=solver, controller=ConstantStep(0.07)).ys

    every = slice(None)
    found = run(every, ts)
    for series in range(3):
        row = slice(series, series + 1)
        same(run(row, ts), found[row], 1e-12, "a series is solved otherwise alone than in a batch")
    padded = run(every, torch.cat([ts, ts[:, -1:].expand(-1, 3)], -1))
    same(padded[:, : ts.shape[1]], found, 1e-12, "padded times change the answers")
    extra = t0[:, None] + torch.tensor([0.05, 0.33, 2.4], dtype=_F64)
    both = torch.cat([ts[:, :3], extra], -1).sort(-1)
    more = torch.take_along_dim(run(every, both.values), both.indices.argsort(-1)[..., None], 1)
    same(more[:, :3], found[:, :3], 1e-12, "asking for more times moves the old answers")


def _check_gradients(solver: Solver, field: SDEField) -> None:
    seeds, t0, y0, ts = _series()
    y0 = y0.requires_grad_()
    leaves = [y0, *field.parameters()]

    def loss() -> Tensor:
        term = SDETerm(field, _motion(field, seeds, t0))
        return solve(term, y0, ts, t0=t0, solver=solver, controller=ConstantStep(0.2)).ys.square().sum()

    gradients = torch.autograd.grad(loss(), leaves, allow_unused=True)
    for name, leaf, gradient in zip(
        ("the initial state", "the drift", "the diffusion"), leaves, gradients, strict=True
    ):
        require(gradient is not None, f"no gradient reaches {name}")
        with torch.no_grad():
            step, values = 1e-6, []
            for sign in (1, -1):
                leaf.add_(sign * step)
                values.append(loss())
                leaf.sub_(sign * step)
        difference = (values[0] - values[1]) / (2 * step)
        total = torch.zeros(()) if gradient is None else gradient.sum()
        same(total, difference, 1e-6, f"the gradient of {name} is not the finite difference")


@torch.no_grad()
def _check_adaptive(solver: Solver, field: SDEField, exact: Callable[..., Tensor]) -> None:
    zero = torch.zeros(32, dtype=_F64)
    motion = _motion(field, torch.arange(32), zero)
    y0 = torch.tensor([0.2, -0.3], dtype=_F64).expand(32, 2)
    truth = exact(zero + 1, y0, motion.evaluate(zero + 1))
    errors = []
    for tolerance in (1e-1, 1e-3):
        control = PIDController(rtol=tolerance, atol=tolerance, dt0=0.1)
        ys = solve(SDETerm(field, motion), y0, torch.tensor([0.0, 1.0]), solver=solver, controller=control).ys
        errors.append(float((ys[:, -1] - truth).square().mean().sqrt()))
    smaller = errors[1] < max(0.3 * errors[0], 1e-3) and math.isfinite(errors[1])
    require(smaller, f"a tolerance 100 times tighter takes the error from {errors[0]:.2e} to {errors[1]:.2e} only")
