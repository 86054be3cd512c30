"""The encoder that a cell makes."""

from __future__ import annotations

import torch
from torch import nn

from ..cells import Cell
from ..data import IrregularBatch
from ._reading import forwards
from .base import Encoder, Encoding


__all__ = ["CellEncoder"]


class CellEncoder(Encoder):
    r"""A cell that reads a series from its first observation to its last: a description for labels.

    .. math:: h(t_i^-) = \operatorname{evolve}\big(h(t_{i-1}), t_{i-1}, t_i\big), \qquad
              h(t_i) = \operatorname{update}\big(h(t_i^-), x_i, m_i\big)

    Every series has its own clock, and the gaps between its observations are what the cell flows over. Rows without an
    observation are skipped.

    Args:
        cell: what flows and jumps.
        average: describe a series by the average of what is read after each observation, instead of by the last.

    References:
        Latent ODEs for Irregularly-Sampled Time Series (ODE-RNN), Y. Rubanova, R. T. Q. Chen, D. Duvenaud, 2019,
        https://arxiv.org/abs/1907.03907

    Example:
        >>> from ctdyn.cells import GRUDCell
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> CellEncoder(GRUDCell(num_channels=2, units=4))(batch).static.shape  # the memory, and a guess per channel
        torch.Size([1, 6])
    """

    provides = frozenset({"static"})

    def __init__(self, cell: Cell, *, average: bool = False) -> None:
        super().__init__()
        self.cell = cell
        self.average = average
        self.h0 = nn.Parameter(torch.zeros(cell.hidden_size))

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        times, values, mask, real = forwards(batch)
        h = self.h0.expand(*batch.batch_shape, -1)
        at, total = times[..., 0], 0.0
        for t, x, seen, row in zip(times.unbind(-1), values.unbind(-2), mask.unbind(-2), real.unbind(-1), strict=True):
            h = self.cell.update(self.cell.evolve(h, at, t), x, seen)
            at = t
            if self.average:
                total = total + torch.where(row.unsqueeze(-1), self.cell.read(h), 0.0)
        if not self.average:
            return Encoding(static=self.cell.read(h))
        count = real.sum(-1, keepdim=True)
        return Encoding(static=torch.where(count > 0, total / count.clamp(min=1), self.cell.read(h)))
