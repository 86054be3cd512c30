"""How long the steps are: fixed in advance, or chosen from the estimated error, for every series on its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import check_count
from .._options import with_suggestions
from .._types import State, Time, Times
from ..solvers.base import Solver, shared
from ..terms import Term
from .clock import Clock, landing_times, rounding


__all__ = [
    "AdaptiveController",
    "ConstantStep",
    "GridController",
    "PIDController",
    "StepController",
    "StepTo",
    "Verdict",
]


class StepController(ABC):
    """Where the steps of each series end.

    Example:
        >>> StepTo(2).lands, ConstantStep(0.1).lands
        (True, False)
    """

    @property
    @abstractmethod
    def lands(self) -> bool:
        """Whether every output time is the end of a step, so that nothing needs to be interpolated."""


class GridController(StepController):
    """Steps that are known before the solve.

    Example:
        >>> issubclass(StepTo, GridController)
        True
    """

    @abstractmethod
    def count(self, clock: Clock, knots: Times | None) -> int:
        """An upper bound of the steps that the longest series takes, found without building the grid."""

    @abstractmethod
    def grid(self, clock: Clock, knots: Times | None) -> Tensor:
        """The ends of the steps, `(step + 1, *batch)`, the start included; a series that is done stays at its end.

        It is differentiable with respect to the times of the clock.
        """


class Verdict(NamedTuple):
    """What an adaptive controller says of one attempt.

    Args:
        accept: whether the step stands, `(*batch,)`.
        factor: what to multiply the step by for the next attempt, `(*batch,)`.
        finite: False where the attempt was NaN or infinite, `(*batch,)`.
        memory: what the controller wants to see again.

    Example:
        >>> from ctdyn.solvers import Tsit5
        >>> error, y = torch.full((1, 2), 1e-3), torch.ones(1, 2)
        >>> control = PIDController(rtol=1e-4, atol=1e-6)
        >>> control.next(Tsit5(), error, y, y, control.start(torch.zeros(1))).accept
        tensor([False])
    """

    accept: Tensor
    factor: Tensor
    finite: Tensor
    memory: tuple[Tensor, ...]


class AdaptiveController(StepController):
    """Steps chosen on the way, without gradients: the grid is data.

    Example:
        >>> issubclass(PIDController, AdaptiveController)
        True
    """

    @abstractmethod
    def first(
        self, term: Term, solver: Solver, t0: Time, t1: Time, y0: State, f0: State, judged: int | None = None
    ) -> Time:
        """The length of the first step, `(*batch,)`, at most that of the interval from `t0` to `t1`.

        Args:
            term: the equation.
            solver: the method.
            t0: where the solve starts, `(*batch,)`.
            t1: how far the first step may go.
            y0: state at the start, `(*batch, state)`.
            f0: velocity there.
            judged: how many leading entries of the state are looked at; None for all.
        """

    @abstractmethod
    def start(self, t0: Time) -> tuple[Tensor, ...]:
        """The memory before the first step."""

    @abstractmethod
    def next(self, solver: Solver, error: State, y0: State, y1: State, memory: tuple[Tensor, ...]) -> Verdict:
        """Judge an attempt by its estimated error."""

    def tightened(self, share: Tensor) -> AdaptiveController | None:
        """The same control with a share of its tolerance for each series, `(*batch,)`; None where it has none."""
        return None


@with_suggestions
@dataclass(frozen=True)
class ConstantStep(GridController):
    r"""Steps of one length, :math:`t_0 + k\,dt` in every series whatever is asked for; the last one is cut at the end.

    Asking for more times never moves the old answers. A knot of the inputs cuts a step in two.

    Args:
        dt: length of the steps, in the unit of the times.

    Raises:
        ValueError: `dt` is not a positive number.

    Example:
        >>> ConstantStep(dt=0.1)
        ConstantStep(dt=0.1)
    """

    dt: float

    def __post_init__(self) -> None:
        if not 0.0 < self.dt < float("inf"):
            raise ValueError(f"the step_size dt must be a positive number; got {self.dt}.")

    @property
    def lands(self) -> bool:
        """Outputs are interpolated."""
        return False

    def count(self, clock: Clock, knots: Times | None) -> int:
        """The steps of the longest series, and one for every knot."""
        longest = int(self._steps(clock).amax()) if clock.t0.numel() else 1
        return longest + (0 if knots is None else knots.shape[-1])

    def grid(self, clock: Clock, knots: Times | None) -> Tensor:
        """The ends of the steps, `(step + 1, *batch)`."""
        steps = self._steps(clock)
        longest = int(steps.amax()) if steps.numel() else 1
        ticks = torch.arange(longest + 1, dtype=torch.float64, device=clock.t0.device)
        nodes = clock.t0[..., None] + ticks * (self.dt * clock.direction)[..., None]
        nodes = torch.where(ticks >= steps[..., None], clock.end[..., None], nodes)
        if knots is not None:
            # A tick that meets a knot goes with it: a gradient to the knot then moves the step that ends there.
            knots = knots.to(torch.float64).expand(*nodes.shape[:-1], knots.shape[-1])
            ends = torch.stack([clock.t0, clock.end], -1)
            nodes = landing_times(ends, clock, torch.cat([knots, nodes], -1))
        return torch.movedim(nodes, -1, 0)

    def _steps(self, clock: Clock) -> Tensor:
        # A span that is a multiple of dt but for rounding takes no extra step.
        start, end = clock.t0.detach(), clock.end.detach()
        digits = rounding(torch.maximum(start.abs(), end.abs()), self.dt, clock.epsilon)
        return (((end - start).abs() * (1 - 1e-12) - digits) / self.dt).ceil().clamp(min=1.0)


@with_suggestions
@dataclass(frozen=True)
class StepTo(GridController):
    """The same number of equal steps in each interval between neighbouring output times of each series.

    Every output is the end of a step: nothing is interpolated. The fastest choice for training on given times.

    Args:
        num_steps: steps per interval.

    Raises:
        ValueError: `num_steps` is less than 1.
        TypeError: it is no whole number.

    Example:
        >>> StepTo(num_steps=2)
        StepTo(num_steps=2)
    """

    num_steps: int = 1

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps)

    @property
    def lands(self) -> bool:
        """Outputs are the ends of steps."""
        return True

    def count(self, clock: Clock, knots: Times | None) -> int:
        """Steps for every output time and every knot."""
        intervals = clock.ts.shape[-1] - clock.from_first + (0 if knots is None else knots.shape[-1])
        return self.num_steps * max(intervals, 1)

    def grid(self, clock: Clock, knots: Times | None) -> Tensor:
        """The ends of the steps, `(step + 1, *batch)`."""
        nodes = clock.ts if clock.from_first else torch.cat([clock.t0[..., None], clock.ts], -1)
        if nodes.shape[-1] == 1:
            nodes = torch.cat([nodes, nodes], -1)
        if knots is not None or not clock.from_first:
            nodes = landing_times(nodes, clock, knots)
        ends = torch.movedim(nodes, -1, 0)
        if self.num_steps == 1:
            return ends
        share = torch.arange(self.num_steps, dtype=torch.float64, device=ends.device) / self.num_steps
        inner = ends[:-1, None] + share.reshape(-1, *[1] * (ends.dim() - 1)) * ends.diff(dim=0)[:, None]
        return torch.cat([inner.flatten(0, 1), ends[-1:]])


@with_suggestions
@dataclass(frozen=True)
class PIDController(AdaptiveController):
    r"""Steps chosen so that the estimated local error of each series stays at the tolerance.

    .. math:: r = \Big\| \frac{e}{atol + rtol \max(|y_0|, |y_1|)} \Big\|_{rms}, \qquad
              h \leftarrow h \cdot safety \cdot r_n^{-(k_I + k_P + k_D)/q}\, r_{n-1}^{(k_P + 2 k_D)/q}\,
              r_{n-2}^{-k_D/q}

    A step stands when :math:`r \le 1`; :math:`q` is the order of the estimated local error. The norm is over the state
    of one series: series never see each other's errors. The error of the answer is usually a few times the tolerance.

    Args:
        rtol: relative tolerance: a number for all, or a tensor `(*batch,)`, one for every series, or
            `(*batch, state)`, one for every entry of the state (axes of size 1 broadcast).
        atol: absolute tolerance, in the unit of the state; of the same shapes as `rtol`.
        pcoeff: proportional coefficient; about 0.3 (with `icoeff` 0.4) smooths the steps on mildly stiff problems.
        icoeff: integral coefficient.
        dcoeff: derivative coefficient.
        dt0: length of the first step; None to choose it from the field.
        safety: how far below the predicted step to stay; None for 0.9, or 0.8 from order 8 on, whose steps are so long
            that the best length changes more from one to the next.

    Raises:
        ValueError: a tolerance is negative or NaN, both are 0, `dt0` is not positive, or `safety` is not in (0, 1];
            in a solve, a tensor does not fit the batch.
        TypeError: a tolerance is neither a number nor a tensor of real numbers.

    Reference:
        E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential Equations I, 1993, II.4; G. Soederlind,
        Digital filters in adaptive time-stepping, ACM Trans. Math. Softw. 29(1), 2003.

    Example:
        >>> PIDController(rtol=1e-6, atol=1e-8).rtol
        1e-06
        >>> PIDController(rtol=torch.tensor([1e-3, 1e-6])).rtol.shape  # a tolerance for each of two series
        torch.Size([2])
    """

    rtol: float | Tensor = 1e-4
    atol: float | Tensor = 1e-6
    pcoeff: float = 0.0
    icoeff: float = 1.0
    dcoeff: float = 0.0
    dt0: float | None = None
    safety: float | None = None

    def __post_init__(self) -> None:
        zeros = [_check_tolerance(name, value) for name, value in (("rtol", self.rtol), ("atol", self.atol))]
        if all(zeros):
            raise ValueError("rtol and atol are both 0; give one of them a positive value, for example rtol=1e-6.")
        if self.dt0 is not None and not 0.0 < self.dt0 < float("inf"):
            raise ValueError(f"dt0 must be a positive number; got {self.dt0}.")
        if self.safety is not None and not 0.0 < self.safety <= 1.0:
            raise ValueError(f"safety must be above 0 and at most 1, a share of the predicted step; got {self.safety}.")

    @property
    def lands(self) -> bool:
        """Outputs are interpolated."""
        return False

    def first(
        self, term: Term, solver: Solver, t0: Time, t1: Time, y0: State, f0: State, judged: int | None = None
    ) -> Time:
        """The length of the first step, from the size of the field and of its change."""
        seen = slice(None, judged)
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            _check_fit(name, value, y0[..., seen])
        span = (t1 - t0).abs()
        if self.dt0 is not None:
            return torch.clamp(torch.full_like(span, self.dt0), max=span)
        scale = self._scale(y0[..., seen].abs())
        size, slope = _rms(y0[..., seen] / scale), _rms(f0[..., seen] / scale)
        small = (size < 1e-5) | (slope < 1e-5)
        guess = torch.where(small, 1e-6 * span, 0.01 * size / torch.where(small, 1.0, slope))
        guess = torch.minimum(torch.nan_to_num(guess, nan=0.0), span)
        time = t0 + torch.sign(t1 - t0) * guess
        moved = torch.addcmul(y0, (time - t0).to(y0.dtype).unsqueeze(-1), f0)
        bend = _rms((term.derivative(time, moved) - f0)[..., seen] / scale) / torch.where(guess > 0, guess, 1.0)
        steepest = torch.maximum(slope, bend)
        flat = ~(steepest > 1e-15)
        better = (0.01 / torch.where(flat, 1.0, steepest)) ** (1.0 / solver.error_order)
        better = torch.where(flat, torch.clamp(guess * 1e-3, min=1e-6), better)
        step = torch.minimum(torch.minimum(100.0 * guess, torch.nan_to_num(better, nan=0.0)), span)
        return torch.minimum(_rounded(torch.where(step > 0, step, 1e-6 * span)), span)

    def start(self, t0: Time) -> tuple[Tensor, ...]:
        """The errors of the two steps before: as if they had met the tolerance."""
        return (torch.ones_like(t0), torch.ones_like(t0))

    def next(self, solver: Solver, error: State, y0: State, y1: State, memory: tuple[Tensor, ...]) -> Verdict:
        """Judge an attempt by its estimated error."""
        ratio = _rms(error / self._scale(torch.maximum(y0.abs(), y1.abs())))
        accept, finite = ratio <= 1.0, ratio < torch.inf
        # An error of exactly 0 would ask for an infinite step.
        ratio = torch.nan_to_num(ratio, nan=1e10, posinf=1e10).clamp(min=1e-10)
        order = solver.error_order
        safety = (0.9 if order < 8 else 0.8) if self.safety is None else self.safety
        factor = safety * ratio ** (-(self.icoeff + self.pcoeff + self.dcoeff) / order)
        if not (self.pcoeff or self.dcoeff):
            return Verdict(accept, _rounded(factor.clamp(0.2, 10.0)), finite, memory)
        before, earlier = memory
        factor = factor * before ** ((self.pcoeff + 2.0 * self.dcoeff) / order) * earlier ** (-self.dcoeff / order)
        factor = torch.where(accept, factor.clamp(0.2, 10.0), factor.clamp(0.2, 1.0))
        memory = (torch.where(accept, ratio, before), torch.where(accept, before, earlier))
        return Verdict(accept, _rounded(factor), finite, memory)

    def tightened(self, share: Tensor) -> AdaptiveController:
        """The same control with a share of its tolerances for each series, `(*batch,)`."""
        return replace(self, rtol=shared(self.rtol, share), atol=shared(self.atol, share))

    def _scale(self, size: Tensor) -> Tensor:
        """What the error of each entry is measured in; `size` is used up."""
        scale = size.mul_(_aligned(self.rtol, size)).add_(_aligned(self.atol, size))
        # Without an absolute tolerance an entry that is exactly 0 would be compared with 0.
        return scale if isinstance(self.atol, float) and self.atol else scale.clamp_(min=torch.finfo(size.dtype).tiny)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PIDController):
            return NotImplemented
        mine, yours = _values(self), _values(other)
        return all(_equal(a, b) for a, b in zip(mine, yours, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(tuple(v.shape) if isinstance(v, Tensor) else v for v in _values(self)))

    def __repr__(self) -> str:
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return f"PIDController({', '.join(f'{name}={_brief(value)}' for name, value in named)})"


def _rounded(length: Tensor) -> Tensor:
    """To 8 bits: the rounding of an error depends on the company of a series, and must not move its steps."""
    return length.to(torch.bfloat16).to(length.dtype)


def _rms(x: Tensor) -> Tensor:
    """Root of the mean square over the state, in float64, `(*batch,)`; an empty state has none."""
    if x.shape[-1] == 0:
        return x.new_zeros(x.shape[:-1], dtype=torch.float64)
    return (torch.linalg.vector_norm(x, dim=-1) / x.shape[-1] ** 0.5).to(torch.float64)


def _values(controller: PIDController) -> tuple[float | Tensor | None, ...]:
    return tuple(getattr(controller, field.name) for field in fields(controller))


def _equal(a: float | Tensor | None, b: float | Tensor | None) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    return a == b


def _brief(value: float | Tensor | None) -> str:
    if isinstance(value, Tensor) and value.numel() > 4:
        return f"<tensor {tuple(value.shape)}, {float(value.min()):.3g} to {float(value.max()):.3g}>"
    return repr(value.tolist() if isinstance(value, Tensor) else value)


def _aligned(tolerance: float | Tensor, state: Tensor) -> float | Tensor:
    """A tolerance that broadcasts against the state."""
    if not isinstance(tolerance, Tensor) or tolerance.dim() == 0:
        return tolerance
    tolerance = tolerance.to(state)
    return tolerance if tolerance.dim() == state.dim() else tolerance.unsqueeze(-1)


def _check_tolerance(name: str, value: float | Tensor) -> bool:
    """Whether a tolerance is 0 for somebody; one that is no tolerance at all is refused."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} must hold real numbers; got a tensor of {value.dtype}.")
        if value.requires_grad:
            raise ValueError(f"{name} requires a gradient, which a solve does not have for it; use {name}.detach().")
        wrong = ~((value >= 0.0) & (value < torch.inf))
        if bool(wrong.any()):
            place = tuple(torch.nonzero(wrong)[0].tolist())
            raise ValueError(f"{name} must be non-negative; got {float(value[place])} at index {place}.")
        return bool((value == 0.0).any())
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number or a tensor (*batch,); got {type(value).__name__}.")
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite, non-negative number; got {value}.")
    return value == 0.0


def _check_fit(name: str, tolerance: float | Tensor, y0: State) -> None:
    if not isinstance(tolerance, Tensor):
        return
    axes = y0.shape if tolerance.dim() == y0.dim() else y0.shape[:-1]
    try:
        fits = torch.broadcast_shapes(tolerance.shape, axes) == axes
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} must be a number, (*batch,) = {tuple(y0.shape[:-1])} or (*batch, state) = {tuple(y0.shape)}; got "
            f"{tuple(tolerance.shape)}."
        )
