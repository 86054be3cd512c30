"""torchdiffeq behind `solve`: its methods on a clock per series, without the union of all times."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from ..._checks import MaxStepsError, NonFiniteError, SolveError, StepSizeError
from ..._types import State, States, Time, Times
from ...terms import Term
from .base import Engine


__all__ = ["TorchDiffEq"]

_ADAPTIVE = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun")
_FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4")
_MULTISTEP = ("explicit_adams", "implicit_adams", "fixed_adams")
_SCIPY = ("scipy_solver",)
# Lengths and places on the time axis, which the observation index does not share.
_TIMED_OPTIONS = ("first_step", "min_step", "max_step", "step_t", "jump_t")


class TorchDiffEq(Engine):
    r"""The solvers of torchdiffeq, for comparison and as an oracle: `solve(..., solver=TorchDiffEq("dopri5"))`.

    torchdiffeq knows one clock. If all series share their times, they go to it as they are. Otherwise every series is
    integrated over the index :math:`s` of its own times,

    .. math:: \frac{dy}{ds} = \dot t(s) \, f(t(s), y), \qquad t(k) = t_k, \quad t \text{ linear between}

    and adaptive methods are told that the right-hand side jumps at every :math:`k` (without this the answers are
    silently wrong). That costs one full step per observation; the union of all times, the other way, costs a backward
    pass that is quadratic in the number of outputs. Adaptive methods control one error for the whole batch: an answer
    depends, within the tolerance, on the other series of the batch. Gradients are those of the discrete solve.

    On a shared clock `"dopri8"` and `"bosh3"` read outputs from an interpolant that is far less accurate than their
    steps; `step_t=ts` makes them land on the times instead.

    Args:
        method: a method of torchdiffeq: `"dopri8"`, `"dopri5"`, `"bosh3"`, `"fehlberg2"`, `"adaptive_heun"` adapt their
            step; `"euler"`, `"midpoint"`, `"heun2"`, `"heun3"`, `"rk4"` step from one time to the next; the multistep
            `"explicit_adams"`, `"implicit_adams"`, `"fixed_adams"` need a shared clock; so does `"scipy_solver"`, which
            has no gradients.
        rtol: relative tolerance of adaptive methods.
        atol: absolute tolerance of adaptive methods, in the unit of the state.
        **options: options of the method. `step_size` (fixed steps) is an upper bound in the unit of time: an interval
            is cut into equal steps no longer than it.

    Raises:
        ValueError: torchdiffeq has no such method, or, when solving, the method or an option does not fit the clocks.

    Reference:
        torchdiffeq, R. T. Q. Chen, 2018, https://github.com/rtqichen/torchdiffeq

    Example:
        >>> from ctdyn.integrate import solve
        >>> ts = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.5, 0.7]])
        >>> solution = solve(lambda t, y: -y, torch.ones(2, 1), ts, solver=TorchDiffEq("dopri5", rtol=1e-6, atol=1e-8))
        >>> torch.allclose(solution.ys[..., 0], (-ts).exp(), atol=1e-5)
        True
    """

    def __init__(self, method: str = "dopri5", *, rtol: float = 1e-4, atol: float = 1e-6, **options: Any) -> None:
        methods = (*_ADAPTIVE, *_FIXED, *_MULTISTEP, *_SCIPY)
        if method not in methods:
            raise ValueError(f"torchdiffeq has no method {method!r} that is known here; choose from {methods}.")
        if "grid_constructor" in options:
            raise ValueError("grid_constructor is how this engine lays its own grids; pass step_size= instead.")
        if "step_size" in options and method not in (*_FIXED, *_MULTISTEP):
            raise ValueError(f"{method!r} chooses its own steps; pass rtol= and atol=, or max_step=, not step_size=.")
        self.method = method
        self.rtol = rtol
        self.atol = atol
        self.options = options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"TorchDiffEq({self.method!r}, rtol={self.rtol:g}, atol={self.atol:g}{options})"

    def run(self, term: Term, y0: State, ts: Times, t0: Time) -> tuple[States, dict[str, Tensor]]:
        """The states at `ts`, each series on its own clock; see `Engine.run`.

        Raises:
            ValueError: the method or an option does not fit the clocks.
            SolveError: torchdiffeq gave up.
        """
        if self.method in _SCIPY and torch.is_grad_enabled() and _needs_gradient(term, y0, ts):
            raise ValueError("scipy_solver has no gradients; call solve under torch.no_grad(), or use another method.")
        clock = torch.cat([t0[..., None], ts], -1)
        # Where no series moves on (padding, a first time that is t0), torchdiffeq has nothing to do.
        moves = (clock.diff(dim=-1) != 0).reshape(-1, ts.shape[-1]).any(0)
        distinct = clock[..., torch.cat([moves.new_ones(1), moves])]
        shared = distinct.reshape(-1, distinct.shape[-1])[0]
        if bool((distinct == shared).all()):
            ys, evaluations = self._on_shared_clock(term, y0, shared)
        else:
            ys, evaluations = self._on_own_clocks(term, y0, distinct)
        count = torch.full(y0.shape[:-1], evaluations, dtype=torch.int64, device=y0.device)
        return ys[..., torch.cumsum(moves, 0), :], {"evaluations": count}

    def _on_shared_clock(self, term: Term, y0: State, clock: Tensor) -> tuple[States, int]:
        """All series at once, on the time since the start: a float32 state then costs the clock no precision."""
        start, elapsed = clock[0], clock - clock[0]
        options = dict(self.options)
        for name in ("step_t", "jump_t"):
            if name in options:
                options[name] = torch.as_tensor(options[name], dtype=clock.dtype, device=clock.device) - start.detach()
        step_size = options.pop("step_size", None)
        if step_size is not None:
            num_steps = max(1, math.ceil(float(elapsed[-1].abs()) / step_size - 1e-9))
            options["grid_constructor"] = lambda func, y, t: _equal_steps(t, num_steps)
            # A straight line between steps would throw the order of the method away.
            options.setdefault("interp", "cubic")
        elif self.method in _MULTISTEP and not _equally_spaced(elapsed):
            raise ValueError(
                f"{self.method!r} assumes equal steps, and the times are not equally spaced; pass step_size=, or use a "
                "one-step method such as TorchDiffEq('rk4')."
            )

        def velocity(t: Tensor, y: Tensor) -> Tensor:
            return term.derivative((start + t).expand(y.shape[:-1]), y)

        counted = _Counted(velocity)
        return self._integrate(counted, y0, elapsed, options), counted.evaluations

    def _on_own_clocks(self, term: Term, y0: State, clock: Times) -> tuple[States, int]:
        """Every series over the index of its own times."""
        if self.method in (*_MULTISTEP, *_SCIPY):
            raise ValueError(
                f"{self.method!r} cannot solve series that have their own clocks (it would step across the kinks of "
                "the clock); use a one-step method such as TorchDiffEq('dopri5'), or give all series the same times."
            )
        misplaced = [name for name in _TIMED_OPTIONS if name in self.options]
        if misplaced:
            raise ValueError(
                f"the options {misplaced} are times or lengths of time; where every series has its own clock, "
                "torchdiffeq integrates over the index of the times and they have no meaning. Leave them out."
            )
        gaps = clock.diff(dim=-1)
        options = dict(self.options)
        marks = _marks(gaps)
        lengths, last = marks.diff().tolist(), gaps.shape[-1] - 1
        adaptive = self.method in _ADAPTIVE
        if adaptive:
            options["jump_t"] = marks[1:]
        else:
            step_size = options.pop("step_size", math.inf)
            num_steps = max(1, math.ceil(float(gaps.abs().max()) / step_size - 1e-9))
            options["perturb"] = True
            options["grid_constructor"] = lambda func, y, s: _subdivided(s, num_steps)

        def velocity(s: Tensor, y: Tensor) -> Tensor:
            # torchdiffeq rounds s to the state's dtype before it looks to one side of a mark: so must the marks.
            found = int(torch.searchsorted(marks.to(s.dtype), s.detach(), right=True)) - 1
            piece = min(max(found, 0), last)
            pace = gaps[..., piece] / lengths[piece]
            t = clock[..., piece] + (s - marks[piece]) * pace
            return pace.to(y.dtype)[..., None] * term.derivative(t, y)

        counted = _Counted(velocity)
        # Fixed-step methods know no such callback, and warn about it.
        guarded = _WithinIntervals(counted, marks.tolist()) if adaptive else counted
        return self._integrate(guarded, y0, marks, options), counted.evaluations

    def _integrate(
        self, velocity: _Counted | _WithinIntervals, y0: State, s: Tensor, options: dict[str, Any]
    ) -> States:
        """One call of torchdiffeq, its assertions turned into errors that say what to do."""
        if s.shape[0] == 1:
            return y0[..., None, :]
        try:
            found = torchdiffeq.odeint(
                velocity, y0, s, rtol=self.rtol, atol=self.atol, method=self.method, options=options
            )
        except AssertionError as error:
            raise _explained(str(error), self) from error
        return torch.movedim(torch.as_tensor(found), 0, -2)


class _Counted:
    """A right-hand side that counts its evaluations."""

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._velocity = velocity
        self.evaluations = 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.evaluations += 1
        return self._velocity(t, y)


class _WithinIntervals:
    """A right-hand side over the index of the times, on which no accepted step may cross a mark."""

    def __init__(self, velocity: _Counted, marks: list[float]) -> None:
        self._velocity = velocity
        self._marks = marks

    def __call__(self, s: Tensor, y: Tensor) -> Tensor:
        return self._velocity(s, y)

    def callback_accept_step(self, s: Tensor, y: Tensor, ds: Tensor) -> None:
        """Called by torchdiffeq after every accepted step."""
        start, end = float(s.detach()), float((s + ds).detach())
        following = bisect.bisect_right(self._marks, start)
        # The marks make this all but impossible; were it to happen, the answer would be wrong without a word.
        if following < len(self._marks) and end > self._marks[following] + 1e-12 * end:
            raise SolveError(
                f"torchdiffeq stepped across the time with index {following}; change rtol slightly, or use a solver of "
                "ctdyn, for example Dopri5()."
            )


def _needs_gradient(term: Term, y0: Tensor, ts: Tensor) -> bool:
    return any(tensor.requires_grad for tensor in (y0, ts, *term.parameters(), *term.tensors()))


def _marks(gaps: Tensor) -> Tensor:
    """The values of s at which the times of every series lie: nearly the integers, closer and closer together.

    torchdiffeq 0.2.5 forgets all jumps after one on which a step ends by itself and not because it was cut. It keeps a
    step that was just good enough, so on the integers (a step of 1, then the next of 1) that is common. Where every
    interval is a little shorter than the one before, such a step is too long and is cut.
    """
    lengths = torch.pow(1 - 1e-6, torch.arange(gaps.shape[-1], dtype=torch.float64, device=gaps.device))
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _equally_spaced(times: Tensor) -> bool:
    gaps = times.diff()
    return bool(((gaps - gaps.mean()).abs() <= 1e-9 * times[-1].abs()).all())


def _equal_steps(t: Tensor, num_steps: int) -> Tensor:
    """A grid of equal steps that starts at the first and ends exactly at the last of the times `t`."""
    steps = torch.arange(num_steps, dtype=t.dtype, device=t.device)
    return torch.cat([t[0] + steps * ((t[-1] - t[0]) / num_steps), t[-1:]])


def _subdivided(s: Tensor, num_steps: int) -> Tensor:
    """The grid `s` with every interval cut into equal steps; the entries of `s` stay in it exactly."""
    parts = torch.arange(num_steps, dtype=s.dtype, device=s.device) / num_steps
    return torch.cat([(s[:-1, None] + parts * s.diff()[:, None]).reshape(-1), s[-1:]])


def _explained(message: str, engine: TorchDiffEq) -> SolveError:
    if "underflow" in message:
        return StepSizeError(
            f"torchdiffeq's step size underflowed ({message}): the equation is stiff or its field is not smooth. "
            f"Loosen rtol and atol of {engine!r}, or scale time and state to about 1."
        )
    if "non-finite" in message:
        return NonFiniteError(f"the state became NaN or infinite inside {engine!r}; check the field and y0.")
    if "max_num_steps" in message:
        return MaxStepsError(f"{engine!r} used up its steps ({message}); raise max_num_steps or loosen rtol and atol.")
    return SolveError(f"{engine!r} gave up: {message}")
