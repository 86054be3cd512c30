"""torchcde behind `solve`: controlled equations on a clock per series, with a jump marked at every knot."""

from __future__ import annotations

import math
from typing import Any

import torch
import torchcde
from torch import Tensor

from ..._options import check_options
from ..._types import State, States, Time, Times
from ...terms import CDETerm, ODETerm, Term
from ..clock import Clock, landing_times
from ._clocks import OwnClocks
from ._odeint import ADAPTIVE, FIXED, chosen, explained, options_of, subdivided
from .base import Engine


__all__ = ["TorchCDE"]


class TorchCDE(Engine):
    r"""torchcde's `cdeint`, for comparison and as an oracle: `solve(field, y0, ts, inputs=path, solver=TorchCDE())`.

    torchcde knows one clock. Every series runs over a parameter :math:`s` that is linear between its own output times
    and the knots of its control, :math:`dy/ds = F(t(s), y)\, dX/ds`; adaptive methods are told that the right-hand side
    jumps there. Gradients are those of the discrete solve (`adjoint=False`, which is several times faster than
    torchcde's default and as exact as the steps). An ordinary equation is solved as one that time controls.

    Args:
        method: a method of torchdiffeq: `"dopri8"`, `"dopri5"`, `"bosh3"`, `"fehlberg2"`, `"adaptive_heun"` adapt their
            step; `"euler"`, `"midpoint"`, `"heun2"`, `"heun3"`, `"rk4"` step from one time to the next.
        rtol: relative tolerance of adaptive methods.
        atol: absolute tolerance of adaptive methods, in the unit of the state.
        **options: options of the method. `step_size` (fixed steps) is an upper bound in the unit of time: an interval
            is cut into equal steps no longer than it.

    Raises:
        ValueError: torchcde has no such method, an option does not fit, or, when solving, the equation is no controlled
            or ordinary one.
        TypeError: the method has no such option.

    Reference:
        Neural Controlled Differential Equations for Irregular Time Series, P. Kidger, J. Morrill, J. Foster, T. Lyons,
        2020, https://github.com/patrick-kidger/torchcde

    Example:
        >>> from ctdyn.integrate import solve
        >>> from ctdyn.paths import LinearPath
        >>> ts = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.5, 0.7]])
        >>> term = CDETerm(lambda t, y: y.unsqueeze(-1), LinearPath(ts, ts.square().unsqueeze(-1)))
        >>> solution = solve(term, torch.ones(2, 1), ts, solver=TorchCDE(rtol=1e-6, atol=1e-8))
        >>> torch.allclose(solution.ys[..., 0], ts.square().exp(), rtol=1e-5)
        True
    """

    def __init__(self, method: str = "dopri5", *, rtol: float = 1e-4, atol: float = 1e-6, **options: Any) -> None:
        methods = (*ADAPTIVE, *FIXED)
        if method not in methods:
            raise ValueError(f"TorchCDE has no method {method!r}; choose from {methods}.")
        reserved = {"jump_t", "step_t", "grid_constructor", "adjoint", "backend"} & set(options)
        if reserved:
            raise ValueError(f"TorchCDE sets {sorted(reserved)} itself, from the knots of the control; leave them out.")
        if "step_size" in options and method in ADAPTIVE:
            raise ValueError(f"{method!r} chooses its own steps; pass rtol= and atol=, not step_size=.")
        check_options(f"TorchCDE({method!r})", options, options_of(method))
        self.method = method
        self.rtol = rtol
        self.atol = atol
        self.options = options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"TorchCDE({self.method!r}, rtol={self.rtol:g}, atol={self.atol:g}{options})"

    def run(self, term: Term, y0: State, ts: Times, t0: Time) -> tuple[States, dict[str, Tensor]]:
        """The states at `ts`, each series on its own clock; see `Engine.run`.

        Raises:
            ValueError: the equation is neither controlled nor ordinary.
            SolveError: torchdiffeq, which steps for torchcde, gave up.
        """
        if not isinstance(term, CDETerm | ODETerm):
            raise ValueError(
                f"TorchCDE solves a controlled equation (a CDEField with inputs=); got a {type(term).__name__}. Take "
                "TorchDiffEq() for an ordinary one, TorchSDE() for a stochastic one."
            )
        clock = Clock(ts, t0, torch.where(ts[..., -1] >= t0, 1.0, -1.0), from_first=False)
        nodes = landing_times(torch.cat([t0[..., None], ts], -1), clock, term.knots())
        clocks = OwnClocks.create(nodes)
        marks, options = clocks.marks, dict(self.options)
        if len(marks) == 1:
            return y0[..., None, :].expand(*ts.shape, y0.shape[-1]), {"evaluations": _count(y0, 0)}
        if self.method in ADAPTIVE:
            options |= {"step_t": marks[-1:]} | ({"jump_t": marks[1:-1]} if len(marks) > 2 else {})
        else:
            longest = float(nodes.diff(dim=-1).abs().max())
            num_steps = max(1, math.ceil(longest / options.pop("step_size", math.inf) - 1e-9))
            options |= {"perturb": True, "grid_constructor": lambda func, y, s: subdivided(s, num_steps)}
        field, control = _Field(term, clocks), _Control(term, clocks)
        chosen_options = {"rtol": self.rtol, "atol": self.atol, "method": self.method, "options": options}
        try:
            found = torchcde.cdeint(control, field, y0, marks, adjoint=False, **chosen_options)
        except AssertionError as error:
            raise explained(str(error), self) from error
        ys = chosen(torch.as_tensor(found), clocks.place(ts, clock.direction), marks)
        return ys, {"evaluations": _count(y0, field.evaluations)}


class _Control:
    """The control over the common parameter, as torchcde asks for it."""

    def __init__(self, term: CDETerm | ODETerm, clocks: OwnClocks) -> None:
        self._term = term
        self._clocks = clocks

    def derivative(self, s: Tensor) -> Tensor:
        t, pace = self._clocks.at(s)
        term = self._clocks.restricted(self._term, s)
        return pace[..., None] * term.control.derivative(t) if isinstance(term, CDETerm) else pace[..., None]


class _Field:
    """The field over the common parameter, as torchcde asks for it."""

    def __init__(self, term: CDETerm | ODETerm, clocks: OwnClocks) -> None:
        self._term = term
        self._clocks = clocks
        self.evaluations = 0

    def prod(self, s: Tensor, y: Tensor, dx: Tensor) -> Tensor:
        self.evaluations += 1
        t, _ = self._clocks.at(s)
        term = self._clocks.restricted(self._term, s)
        return term.prod(t, y, dx) if isinstance(term, CDETerm) else term.derivative(t, y) * dx.to(y.dtype)


def _count(y0: Tensor, evaluations: int) -> Tensor:
    return torch.full(y0.shape[:-1], evaluations, dtype=torch.int64, device=y0.device)
