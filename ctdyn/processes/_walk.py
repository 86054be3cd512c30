"""Walks along a stochastic equation on a grid of whole steps, whatever times are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from torch import Generator, Tensor

from .._types import State, Time, Times
from ..integrate import Adjoint, ConstantStep, Direct, explain, solve
from ..nn import take_items
from ..paths import ConstantPath, Path, StoredBrownian
from ..solvers import EulerMaruyama, Solver
from ..structure import SDEField
from ..terms import SDETerm, brownian_size


__all__ = ["Walk", "between", "integral", "nodes_until"]


def nodes_until(t0: Tensor, end: Tensor, dt: float) -> Tensor:
    """The times `t0 + k dt` of each series, up to the first at or behind `end` in all of them, `(*batch, step + 1)`."""
    start = t0.detach().to(torch.float64)
    longest = float((end.detach() - start).max()) if start.numel() else 0.0
    # A time that is a node but for rounding needs no further step.
    count = max(0, ceil(longest / dt - 1e-9))
    ticks = torch.arange(count + 1, dtype=torch.float64, device=start.device)
    return start.unsqueeze(-1) + ticks * dt


def between(nodes: Tensor, ys: Tensor, ts: Tensor, dt: float) -> Tensor:
    """States at `ts` on the straight lines between the nodes; before the first of them the state there.

    Args:
        nodes: `(*batch, step + 1)`.
        ys: states at the nodes, `(*lead, *batch, step + 1, state)`.
        ts: `(*batch, time)`.
        dt: from node to node.
    """
    if nodes.shape[-1] == 1:
        return ys.expand(*ys.shape[:-2], ts.shape[-1], ys.shape[-1])
    last = nodes.shape[-1] - 1
    place = ((ts - nodes[..., :1]) / dt).clamp(0.0, float(last))
    left = place.detach().floor().long().clamp(max=last - 1)
    weight = (place - left).to(ys.dtype).unsqueeze(-1)
    start, end = take_items(ys, left, -2), take_items(ys, left + 1, -2)
    return torch.lerp(start, end, weight.expand(start.shape))


def integral(nodes: Tensor, ys: Tensor, integrand: Callable[[Tensor, Tensor], Tensor], ts: Tensor, dt: float) -> Tensor:
    """Integrals from the first node to `ts`, `(*lead, *batch, time, k)`, along the straight lines between the nodes.

    A function of the state is a straight line between the nodes as well, which is exact for an affine one; before the
    first node the state stands still.

    Args:
        nodes: `(*batch, step + 1)`.
        ys: states at the nodes, `(*lead, *batch, step + 1, state)`.
        integrand: of times and states.
        ts: `(*batch, time)`.
        dt: from node to node.
    """
    rates = integrand(nodes.to(ys.dtype).expand(ys.shape[:-1]), ys)
    whole = torch.zeros_like(rates)
    whole[..., 1:, :] = 0.5 * dt * (rates[..., 1:, :] + rates[..., :-1, :]).cumsum(-2)
    elapsed = ts - nodes[..., :1]
    last = nodes.shape[-1] - 1
    left = (elapsed / dt).detach().floor().long().clamp(min=0, max=max(last - 1, 0))
    first, second = take_items(rates, left, -2), take_items(rates, (left + 1).clamp(max=last), -2)
    share = (elapsed / dt - left).to(rates.dtype).unsqueeze(-1)
    inside = dt * share * (first + 0.5 * share * (second - first))
    return torch.where(elapsed.unsqueeze(-1) >= 0, take_items(whole, left, -2) + inside, dt * share * rates[..., :1, :])


@dataclass(frozen=True)
class Walk:
    """How an equation is walked along.

    Args:
        dt: length of the steps.
        solver: the method; None for Euler-Maruyama.
        adjoint: how gradients are computed; None for the default of `solve`.
    """

    dt: float
    solver: Solver | None = None
    adjoint: Adjoint | None = None

    def __post_init__(self) -> None:
        if not 0 < self.dt < float("inf"):
            raise ValueError(f"dt, the length of a step on the clock of the series, must be positive; got {self.dt}.")

    def explain(self, field: SDEField) -> str:
        """Which way the walk is taken, and why."""
        solver = EulerMaruyama() if self.solver is None else self.solver
        return explain(field, solver=solver, controller=ConstantStep(self.dt), adjoint=self.adjoint)

    def run(
        self, field: SDEField, z0: Tensor, nodes: Tensor, held: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        """States at the nodes, `(sample, *batch, step + 1, state)`, and the Brownian increments between them.

        Args:
            field: drift and diffusion.
            z0: states at the first node, `(sample, *batch, state)`.
            nodes: `(*batch, step + 1)`, from `nodes_until`.
            held: inputs of the field, each for one step, `(*batch, step, input)`; None where there are none.
            generator: the source of randomness.
        """
        count = nodes.shape[-1] - 1
        if count == 0:
            return z0.unsqueeze(-2), z0.new_zeros(*z0.shape[:-1], 0, z0.shape[-1])
        grid = torch.movedim(nodes, -1, 0).unsqueeze(1).expand(count + 1, *z0.shape[:-1])
        first = None if held is None else held[..., 0, :].expand(*z0.shape[:-1], held.shape[-1])
        size = brownian_size(field, grid[0].to(z0.dtype), z0.detach(), first)
        motion = StoredBrownian.draw(grid, size, generator=generator, dtype=z0.dtype)
        # Other gradients than `Direct` want to know a tensor by itself; pieces of it only cost less.
        cut = isinstance(self.adjoint, Direct | None)
        path = None if held is None else _Held(nodes[..., 0], self.dt, held, cut=cut)
        solution = solve(
            SDETerm(field, motion, path),
            z0,
            nodes,
            solver=EulerMaruyama() if self.solver is None else self.solver,
            controller=ConstantStep(self.dt),
            adjoint=self.adjoint,
            max_steps=count + 1,
        )
        return solution.ys, torch.movedim(motion.dW, 0, -2)


class _Held(Path):
    """Inputs that stand still during each step: unlike a path with knots they cut no step, and cost no search."""

    def __init__(self, t0: Tensor, dt: float, values: Tensor, *, cut: bool) -> None:
        self.t0, self.dt, self.values = t0, dt, values
        # Cut at once, the gradients of all pieces cost one of the whole; cut one by one, one of the whole each.
        self._steps = values.unbind(-2) if cut else None

    @property
    def batch_shape(self) -> torch.Size:
        return self.values.shape[:-2]

    def _number(self, t: Tensor) -> Tensor:
        return ((t.detach() - self.t0) / self.dt + 1e-6).floor().long().clamp(0, self.values.shape[-2] - 1)

    def evaluate(self, t: Time) -> State:
        return take_items(self.values, self._number(t)[..., None], -2).squeeze(-2)

    def derivative(self, t: Time) -> State:
        return torch.zeros_like(self.evaluate(t))

    def restrict(self, t0: Time, t1: Time) -> Path:
        number = self._number(torch.minimum(t0, t1))
        first = int(number.min())
        if first != int(number.max()):
            return self
        # All series take their steps together.
        return ConstantPath(self.values[..., first, :] if self._steps is None else self._steps[first])

    def knots(self) -> Times | None:
        return None

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.values,)

    def replace(self, tensors: tuple[Tensor, ...]) -> Path:
        (values,) = tensors
        return _Held(self.t0, self.dt, values, cut=self._steps is not None)
