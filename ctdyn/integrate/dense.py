"""Reading the steps of every series at its own times: one search, one gather, one polynomial."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from .._types import State, States, Time, Times
from ..solvers.base import Solver
from ..terms import Term


__all__ = ["Record", "Trajectory", "inner_steps", "locate", "rows_of"]


def locate(grid: Tensor, ts: Times, direction: Time) -> Tensor:
    """The number of the first grid node at or beyond each time, `(*batch, time)`.

    Args:
        grid: ends of the steps of each series, `(step + 1, *batch)`.
        ts: times within the grid of their series, `(*batch, time)`.
        direction: 1 forward, -1 backward, `(*batch,)`.

    Example:
        >>> locate(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.5, 2.0]), torch.tensor(1.0))
        tensor([0, 1, 2])
    """
    nodes = torch.movedim(grid.detach(), 0, -1) * direction[..., None]
    times = ts.detach() * direction[..., None]
    return torch.searchsorted(nodes.contiguous(), times.contiguous()).clamp(max=grid.shape[0] - 1)


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """One row per series and query.

    Args:
        table: `(step, *batch, *entry)`.
        index: number of the step, `(*batch, query)`.

    Returns:
        `(*batch, query, *entry)`.

    Example:
        >>> table = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
        >>> rows_of(table, torch.tensor([[0, 1], [1, 1]])).squeeze(-1)
        tensor([[1., 3.],
                [4., 4.]])
    """
    return _take(table, _places(index), index.shape)


def _places(index: Tensor) -> Tensor:
    """Where the row of each series and query lies in a table whose steps and series are one axis."""
    batch = index.shape[:-1]
    series = torch.arange(batch.numel(), device=index.device).reshape(*batch, 1)
    return (index * batch.numel() + series).reshape(-1)


def _take(table: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    # Whole rows: the backward pass is an addition of rows, far cheaper than a scatter of entries.
    entry = table.shape[len(shape) :]
    rows = table.reshape(table.shape[0] * shape[:-1].numel(), entry.numel())
    return rows.index_select(0, places).reshape(*shape, *entry)


@dataclass(frozen=True)
class Trajectory:
    r"""The dense output of a solve: for every step of every series a polynomial in :math:`\theta \in [0, 1]`.

    Args:
        grid: ends of the steps, `(step + 1, *batch)`.
        coefficients: lowest power first, `(row, *batch, degree + 1, state)`.
        rows: which row holds each step, `(step, *batch)`; None where step k is row k.

    Example:
        >>> ramp = Trajectory(torch.tensor([0.0, 2.0]), torch.tensor([[[1.0], [3.0]]]))
        >>> ramp.read(torch.tensor([1.0]), torch.tensor([0]))
        tensor([[2.5000]])
    """

    grid: Tensor
    coefficients: Tensor
    rows: Tensor | None = None

    def read(self, ts: Times, step: Tensor, row: Tensor | None = None) -> States:
        """The states at `ts`, `(*batch, time, state)`.

        Args:
            ts: times, `(*batch, time)`.
            step: the number of the step that holds each time, `(*batch, time)`.
            row: the row that holds that step's polynomial, where it is known.
        """
        places = _places(step)
        start, end = (_take(grid, places, step.shape) for grid in (self.grid[:-1], self.grid[1:]))
        span = end - start
        theta = ((ts - start) / torch.where(span == 0, 1.0, span)).clamp(0.0, 1.0)
        if row is None and self.rows is not None:
            row = _take(self.rows, places, step.shape)
        places = places if row is None else _places(row)
        theta = theta.to(self.coefficients.dtype).unsqueeze(-1)
        # Power by power: each table is contiguous, and nothing of the size of all coefficients is made.
        *lower, value = (_take(power, places, step.shape) for power in self.coefficients.unbind(-2))
        for coefficient in reversed(lower):
            value = torch.addcmul(coefficient, value, theta)
        return value


@dataclass(frozen=True)
class Record:
    """What the steps of a solve left behind, before anything is interpolated.

    Args:
        term: the equation.
        solver: the method that took the steps.
        grid: ends of the steps, `(step + 1, *batch)`.
        t0: start of each recorded step, `(row, *batch)`.
        t1: its end.
        y0: state at its start, `(row, *batch, state)`.
        parts: what `Step.interpolant` said, `(row, part, *batch, state)`.
        y1: state at the end of the grid, `(*batch, state)`.
        rows: which row holds each step, `(step, *batch)`; None where step k is row k.

    Example:
        >>> from ctdyn.solvers import Euler
        >>> from ctdyn.terms import ODETerm
        >>> grid, y0, slopes = torch.tensor([[0.0], [2.0]]), torch.ones(1, 1, 1), torch.full((1, 2, 1, 1), 3.0)
        >>> record = Record(ODETerm(lambda t, y: 3 + 0 * y), Euler(), grid, grid[:1], grid[1:], y0, slopes, 7 * y0[0])
        >>> record.read(torch.tensor([[1.0]]), torch.tensor([[1]]))
        tensor([[[4.]]])
    """

    term: Term
    solver: Solver
    grid: Tensor
    t0: Tensor
    t1: Tensor
    y0: Tensor
    parts: Tensor
    y1: State
    rows: Tensor | None = None

    def read(self, ts: Times, node: Tensor) -> States:
        """The states at `ts`, `(*batch, time, state)`.

        Args:
            ts: times, `(*batch, time)`.
            node: the node at the end of the step of each time, as `locate` finds it.
        """
        step = (node - 1).clamp(min=0)
        if not self.solver.extra_stages:
            return self._trajectory.read(ts, step)
        new = inner_steps(self.grid, ts, node)
        if not bool(new.any()):
            return self._at_nodes(ts, node)
        # Each step that holds an output once, `(held, *batch)`, and where each output's step stands among them.
        place = (new.cumsum(-1) - 1).clamp(min=0)
        width = int(place[..., -1].amax()) + 1
        held = step.new_zeros(*step.shape[:-1], width).scatter_reduce(-1, place, torch.where(new, step, 0), "amax")
        held = torch.movedim(held, -1, 0)
        held = held if self.rows is None else self.rows.gather(0, held)
        ys = Trajectory(self.grid, self._polynomials(held)).read(ts, step, place)
        if _moves(self.grid, ts):
            return ys
        return torch.where(_on_node(self.grid, ts, node)[..., None], self._at_nodes(ts, node), ys)

    def _at_nodes(self, ts: Times, node: Tensor) -> States:
        """The states at the nodes, `(*batch, time, state)`."""
        row = node.clamp(max=len(self.grid) - 2)
        row = row if self.rows is None else rows_of(self.rows, row)
        last = (ts == self.grid[-1][..., None])[..., None]
        return torch.where(last, self.y1.unsqueeze(-2), rows_of(self.y0, row))

    @functools.cached_property
    def _trajectory(self) -> Trajectory:
        return Trajectory(self.grid, self._polynomials(None), self.rows)

    def trajectory(self) -> Trajectory:
        """The dense output of every step."""
        if self.rows is None or not self.solver.extra_stages:
            return self._trajectory
        return Trajectory(self.grid, self._polynomials(self.rows))

    def _polynomials(self, rows: Tensor | None) -> Tensor:
        """The polynomials of all recorded steps, or of those that are named, `(row, *batch, degree + 1, state)`."""
        t0, t1, y0, parts = self.t0, self.t1, self.y0, self.parts
        if rows is not None:
            t0, t1 = t0.gather(0, rows), t1.gather(0, rows)
            y0 = y0.gather(0, rows[..., None].expand(*rows.shape, y0.shape[-1]))
            index = rows[:, None, ..., None].expand(-1, parts.shape[1], *parts.shape[2:])
            parts = parts.gather(0, index)
        term = self.term if self.term.knots() is None else self.term.restrict(t0, t1)
        return torch.movedim(self.solver.coefficients(term, t0, t1, y0, parts), 1, -2)


def inner_steps(grid: Tensor, ts: Times, node: Tensor) -> Tensor:
    """Where a step is the first time asked for a state inside it, `(*batch, time)`; at its ends the state is known.

    Args:
        grid: ends of the steps, `(step + 1, *batch)`.
        ts: times, `(*batch, time)`.
        node: the node at or beyond each time, as `locate` finds it.

    Example:
        >>> grid, ts = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.3, 0.6, 2.0])
        >>> inner_steps(grid, ts, locate(grid, ts, torch.tensor(1.0)))
        tensor([False,  True, False, False])
    """
    step = (node - 1).clamp(min=0)
    if not _moves(grid, ts):
        step = torch.where(_on_node(grid, ts, node), -1, step).cummax(-1).values
    return step.diff(dim=-1, prepend=torch.full_like(step[..., :1], -1)) != 0


def _moves(grid: Tensor, ts: Times) -> bool:
    """Whether a gradient to the times is wanted: a state that is read as it is has none."""
    return torch.is_grad_enabled() and (grid.requires_grad or ts.requires_grad)


def _on_node(grid: Tensor, ts: Times, node: Tensor) -> Tensor:
    return ts == rows_of(grid, node)
