"""torchdiffeq behind `solve`: its methods on a clock per series, without the union of all times."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from ..._options import check_options
from ..._types import State, States, Time, Times
from ...solvers import Dopri5, Dopri8, RungeKutta
from ...terms import Term
from ..clock import Clock, landing_times
from ._clocks import OwnClocks
from ._odeint import ADAPTIVE, FIXED, MULTISTEP, SCIPY, chosen, explained, options_of, subdivided
from ._recording import Counted, Recorded
from .base import Engine


__all__ = ["TorchDiffEq"]

# The same methods here, for the dense output of their steps.
_TWINS: dict[str, RungeKutta] = {"dopri5": Dopri5(), "dopri8": Dopri8()}
# Lengths and places on the time axis, which a parameter common to all series does not share.
_TIMED_OPTIONS = ("first_step", "min_step", "max_step", "step_t", "jump_t")


class TorchDiffEq(Engine):
    r"""The solvers of torchdiffeq, for comparison and as an oracle: `solve(..., solver=TorchDiffEq("dopri5"))`.

    torchdiffeq knows one clock. If all series share their times, they go to it as they are. Otherwise every series runs
    over a common parameter,

    .. math:: \frac{dy}{ds} = \dot t(s) \, f(t(s), y)

    Adaptive methods take the share of each series' own span for it: they step as they like, their steps are written
    down, and all outputs of all series are read from a dense output of the steps at once. (The union of all times, the
    usual way, costs a backward pass that is quadratic in the number of outputs.) Where inputs have knots, :math:`t(s)`
    is linear between these, and torchdiffeq is told that the right-hand side jumps there; without this the answers
    would be silently wrong. Fixed steps go from each output of a series to its next. Adaptive methods control one error
    for the whole batch: an answer depends, within the tolerance, on the other series of the batch. Gradients are those
    of the discrete solve.

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
        TypeError: the method has no such option.

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
        methods = (*ADAPTIVE, *FIXED, *MULTISTEP, *SCIPY)
        if method not in methods:
            raise ValueError(f"torchdiffeq has no method {method!r} that is known here; choose from {methods}.")
        if "grid_constructor" in options:
            raise ValueError("grid_constructor is how this engine lays its own grids; pass step_size= instead.")
        if "step_size" in options and method not in (*FIXED, *MULTISTEP):
            raise ValueError(f"{method!r} chooses its own steps; pass rtol= and atol=, or max_step=, not step_size=.")
        check_options(f"TorchDiffEq({method!r})", options, options_of(method))
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
        if self.method in SCIPY and torch.is_grad_enabled() and _needs_gradient(term, y0, ts):
            raise ValueError("scipy_solver has no gradients; call solve under torch.no_grad(), or use another method.")
        clock = torch.cat([t0[..., None], ts], -1)
        # Where no series moves on (padding, a first time that is t0), torchdiffeq has nothing to do.
        moves = (clock.diff(dim=-1) != 0).reshape(-1, ts.shape[-1]).any(0)
        distinct = clock[..., torch.cat([moves.new_ones(1), moves])]
        shared = distinct.reshape(-1, distinct.shape[-1])[0]
        if not bool(moves.any()):
            ys, evaluations = y0[..., None, :].expand(*ts.shape, y0.shape[-1]), 0
        elif bool((distinct == shared).all()) and (term.knots() is None or not self._lands_on_knots):
            ys, evaluations = self._on_shared_clock(term, y0, shared)
            ys = ys[..., torch.cumsum(moves, 0), :]
        else:
            ys, evaluations = self._on_own_clocks(term, y0, ts, t0)
        count = torch.full(y0.shape[:-1], evaluations, dtype=torch.int64, device=y0.device)
        return ys, {"evaluations": count}

    @property
    def _lands_on_knots(self) -> bool:
        """Whether knots are marked; one who names the jumps does it alone, and fixed steps keep to their grid."""
        return self.method in ADAPTIVE and not set(_TIMED_OPTIONS) & set(self.options)

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
        elif self.method in MULTISTEP and not _equally_spaced(elapsed):
            raise ValueError(
                f"{self.method!r} assumes equal steps, and the times are not equally spaced; pass step_size=, or use a "
                "one-step method such as TorchDiffEq('rk4')."
            )

        def velocity(t: Tensor, y: Tensor) -> Tensor:
            return term.derivative((start + t).expand(y.shape[:-1]), y)

        counted = Counted(velocity)
        return self._integrate(counted, y0, elapsed, options), counted.evaluations

    def _on_own_clocks(self, term: Term, y0: State, ts: Times, t0: Time) -> tuple[States, int]:
        """Every series over a parameter that is common to all."""
        if self.method in (*MULTISTEP, *SCIPY):
            raise ValueError(
                f"{self.method!r} cannot solve series that have their own clocks (it would step across the kinks of "
                "the clock); use a one-step method such as TorchDiffEq('dopri5'), or give all series the same times."
            )
        misplaced = [name for name in _TIMED_OPTIONS if name in self.options]
        if misplaced:
            raise ValueError(
                f"the options {misplaced} are times or lengths of time; where every series has its own clock, "
                "torchdiffeq integrates over a parameter that they do not mean. Leave them out."
            )
        clock = Clock(ts, t0, torch.where(ts[..., -1] >= t0, 1.0, -1.0), from_first=False)
        if self.method not in ADAPTIVE:
            return self._on_own_grids(term, y0, clock)
        clocks = OwnClocks.create(landing_times(torch.stack([t0, clock.end], -1), clock, term.knots()))
        marks = clocks.marks
        options = self.options | {"step_t": marks[-1:]} | ({"jump_t": marks[1:-1]} if len(marks) > 2 else {})
        recorded = Recorded(_over(clocks, term), marks.tolist())
        last = self._integrate(recorded, y0, marks[[0, -1]], options)[..., -1, :]
        place = clocks.place(ts, clock.direction)
        return recorded.read(place, last, term, clocks, _TWINS.get(self.method)), recorded.evaluations

    def _on_own_grids(self, term: Term, y0: State, clock: Clock) -> tuple[States, int]:
        """Fixed steps from one output of a series to its next."""
        nodes = torch.cat([clock.t0[..., None], clock.ts], -1)
        clocks = OwnClocks.create(landing_times(nodes, clock, None))
        options = dict(self.options)
        step_size = options.pop("step_size", math.inf)
        num_steps = max(1, math.ceil(float(clocks.nodes.diff(dim=-1).abs().max()) / step_size - 1e-9))
        options |= {"perturb": True, "grid_constructor": lambda func, y, s: subdivided(s, num_steps)}
        counted = Counted(_over(clocks, term))
        ys = self._integrate(counted, y0, clocks.marks, options)
        return chosen(ys, clocks.place(clock.ts, clock.direction), clocks.marks), counted.evaluations

    def _integrate(self, velocity: Counted, y0: State, s: Tensor, options: dict[str, Any]) -> States:
        """One call of torchdiffeq, its assertions turned into errors that say what to do."""
        if s.shape[0] == 1:
            return y0[..., None, :]
        try:
            found = torchdiffeq.odeint(
                velocity, y0, s, rtol=self.rtol, atol=self.atol, method=self.method, options=options
            )
        except AssertionError as error:
            raise explained(str(error), self) from error
        return torch.movedim(torch.as_tensor(found), 0, -2)


def _over(clocks: OwnClocks, term: Term) -> Callable[[Tensor, Tensor], Tensor]:
    """The velocity over the parameter that is common to all series."""

    def velocity(s: Tensor, y: Tensor) -> Tensor:
        t, pace = clocks.at(s)
        return pace.to(y.dtype)[..., None] * clocks.restricted(term, s).derivative(t, y)

    return velocity


def _needs_gradient(term: Term, y0: Tensor, ts: Tensor) -> bool:
    return any(tensor.requires_grad for tensor in (y0, ts, *term.parameters(), *term.tensors()))


def _equally_spaced(times: Tensor) -> bool:
    gaps = times.diff()
    return bool(((gaps - gaps.mean()).abs() <= 1e-9 * times[-1].abs()).all())


def _equal_steps(t: Tensor, num_steps: int) -> Tensor:
    """A grid of equal steps that starts at the first and ends exactly at the last of the times `t`."""
    steps = torch.arange(num_steps, dtype=t.dtype, device=t.device)
    return torch.cat([t[0] + steps * ((t[-1] - t[0]) / num_steps), t[-1:]])
