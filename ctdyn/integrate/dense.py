"""Reading the steps of every series at its own times: one search, one gather, one polynomial."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._types import States, Time, Times
from ..solvers.base import Solver


__all__ = ["Trajectory", "locate", "rows_of"]


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
    batch, entry = index.shape[:-1], table.shape[index.dim() :]
    series = torch.arange(batch.numel(), device=index.device).reshape(*batch, 1)
    flat = (index * batch.numel() + series).reshape(-1)
    # Whole rows: the backward pass is an addition of rows, far cheaper than a scatter of entries.
    rows = table.reshape(table.shape[0] * batch.numel(), entry.numel())
    return rows.index_select(0, flat).reshape(*index.shape, *entry)


@dataclass(frozen=True)
class Trajectory:
    r"""The dense output of a solve: for every step of every series a polynomial in :math:`\theta \in [0, 1]`.

    Args:
        grid: ends of the steps, `(step + 1, *batch)`.
        coefficients: lowest power first, `(row, *batch, degree + 1, state)`.
        rows: which row holds each step, `(step, *batch)`; None where step k is row k.

    Example:
        >>> ramp = Trajectory(torch.tensor([0.0, 2.0]), torch.tensor([[[1.0], [3.0]]]))
        >>> ramp.read(torch.tensor([1.0]), torch.tensor([1]))
        tensor([[2.5000]])
    """

    grid: Tensor
    coefficients: Tensor
    rows: Tensor | None = None

    @classmethod
    def create(
        cls,
        solver: Solver,
        grid: Tensor,
        spans: Tensor,
        starts: list[Tensor],
        interpolants: list[tuple[Tensor, ...]],
        rows: Tensor | None = None,
    ) -> Trajectory:
        """Stack what the steps left behind.

        Args:
            solver: the method that took the steps.
            grid: ends of the steps, `(step + 1, *batch)`.
            spans: signed length of each row's step, `(row, *batch)`.
            starts: states at the beginnings, one `(*batch, state)` per row.
            interpolants: what `Step.interpolant` said, one per row.
            rows: which row holds each step.
        """
        y0 = torch.stack(starts)
        parts = torch.stack([part for interpolant in interpolants for part in interpolant])
        parts = parts.unflatten(0, (len(interpolants), len(interpolants[0])))
        coefficients = solver.coefficients(spans.to(y0.dtype).unsqueeze(-1), y0, parts)
        return cls(grid, torch.movedim(coefficients, 1, -2), rows)

    def read(self, ts: Times, node: Tensor) -> States:
        """The states at `ts`, `(*batch, time, state)`.

        Args:
            ts: times, `(*batch, time)`.
            node: the node at the end of the step of each time, as `locate` finds it.
        """
        step = (node - 1).clamp(min=0)
        start, end = rows_of(self.grid, step), rows_of(self.grid, step + 1)
        span = end - start
        theta = ((ts - start) / torch.where(span == 0, 1.0, span)).clamp(0.0, 1.0)
        row = step if self.rows is None else rows_of(self.rows, step)
        polynomial = rows_of(self.coefficients, row)
        theta = theta.to(polynomial.dtype).unsqueeze(-1)
        *lower, value = polynomial.unbind(-2)
        for coefficient in reversed(lower):
            value = torch.addcmul(coefficient, value, theta)
        return value
