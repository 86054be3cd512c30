"""The encoder that a cell makes."""

from __future__ import annotations

import torch
from torch import nn

from .._checks import check_instance
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
        check_instance("cell", cell, Cell, "GRUDCell(num_channels, units)")
        super().__init__(cell.num_channels, input_size=0, static_size=0)
        self.sizes = {"static": cell.read_size}
        self.cell = cell
        self.average = average
        self.h0 = nn.Parameter(torch.zeros(cell.hidden_size))

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        times, values, mask, real = forwards(batch)
        h = self.h0.expand(*batch.batch_shape, -1)
        read = self.cell.read(self.cell.scan(h, times, values, mask)[1])
        if not self.average:
            return Encoding(static=read[..., -1, :])
        # Of a series without any observation there is one row, in which nothing was seen.
        weight = torch.where(real.any(-1, keepdim=True), real, 1.0).to(read.dtype)
        return Encoding(static=(weight.unsqueeze(-1) * read).sum(-2) / weight.sum(-1, keepdim=True))
