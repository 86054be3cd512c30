"""The encoder of the ODE-RNN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .._checks import check_instance
from ..cells import Cell, ODERNNCell
from ..data import IrregularBatch
from ._reading import NormalHead, backwards, read_values
from .base import Encoder, Encoding


__all__ = ["ODERNNEncoder"]


class ODERNNEncoder(Encoder):
    r"""A cell that reads the observations backwards in time and flows over the gaps between them; any cell will do.

    It covers exactly :math:`t_i - t_{i-1}` between neighbouring observations, ends at the first one, and costs one step
    of a loop per observation: slower than `GRUEncoder`, and better where gaps differ by orders of magnitude. A
    `CfCCell` reads faster than the default, an `ODERNNCell`. The head sees what the cell reads.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        hidden_size: size of the hidden state; the size of `cell` where that is given.
        head_hidden: hidden layers of the head that maps the last hidden state to the mean and scale of `q0`.
        cell: what flows and jumps; default: `ODERNNCell(num_channels, hidden_size)`.
        static_size: how many static covariates the head sees.

    References:
        Latent ODEs for Irregularly-Sampled Time Series, Rubanova, Chen, Duvenaud, 2019.
        https://arxiv.org/abs/1907.03907

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> ODERNNEncoder(num_channels=2, latent_size=4)(batch).q0.mean.shape
        torch.Size([1, 4])
    """

    provides = frozenset({"q0"})

    def __init__(
        self,
        num_channels: int,
        latent_size: int,
        hidden_size: int = 64,
        head_hidden: Sequence[int] = (64,),
        *,
        cell: Cell | None = None,
        static_size: int = 0,
    ) -> None:
        super().__init__(num_channels, input_size=0, static_size=static_size)
        self.sizes = {"q0": latent_size}
        self.cell = ODERNNCell(num_channels, hidden_size) if cell is None else cell
        check_instance("cell", self.cell, Cell, "CfCCell(num_channels, units)")
        self.h0 = nn.Parameter(torch.zeros(self.cell.hidden_size))
        self.head = NormalHead(self.cell.read_size, latent_size, head_hidden, static_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = backwards(batch)
        times = batch.times.gather(-1, rows)
        # A series that has been read to its end waits at its own last time, so that it evolves over nothing.
        end = times.gather(-1, valid.sum(-1, keepdim=True).sub(1).clamp(min=0))
        times = torch.where(valid, times, end)
        values, mask = read_values(batch, rows)
        seen = mask.bool() & valid.unsqueeze(-1)
        h = self.h0.expand(*batch.batch_shape, -1)
        # On a clock that runs backwards every cell moves forwards: what decays would explode on the way back.
        _, states = self.cell.scan(h, -times, values, seen)
        return Encoding(q0=self.head(self.cell.read(states[..., -1, :]), batch.static))
