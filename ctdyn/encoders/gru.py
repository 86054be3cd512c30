"""The recurrent encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..data import IrregularBatch
from ..nn import as_rows
from ._reading import NormalHead, Reading, backwards, with_gaps
from .base import Encoder, Encoding


__all__ = ["GRUEncoder"]


class GRUEncoder(Encoder):
    r"""A gated recurrent unit that reads the observations backwards in time; fast, and the one to start with.

    .. math::
        h_i = \operatorname{GRU}\left([t_{i+1} - t_i,\; m_i \odot x_i,\; m_i],\; h_{i+1}\right), \qquad
        q(z_{t_1}) = \mathcal{N}\left(\mu(h_1), \operatorname{diag} \sigma(h_1)^2\right)

    Rows without an observation are skipped. A series without any is described by the initial hidden state.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        hidden_size: size of the hidden state.
        head_hidden: hidden layers of the head that maps the last hidden state to the mean and scale of `q0`.
        input_size: how many inputs are read beside the values.
        static_size: how many static covariates the head sees.
        reads_noise: whether the known standard errors of the observations are read as well.
        reads_rates: whether the rate of change of each channel to its next observation is read as well, as
            :math:`\operatorname{arsinh}(\Delta x / \Delta t)`; it helps where a context is short and dense, so that
            the values hardly differ.

    References:
        Neural Ordinary Differential Equations, Chen, Rubanova, Bettencourt, Duvenaud, 2018.
        https://arxiv.org/abs/1806.07366

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> GRUEncoder(num_channels=2, latent_size=4)(batch).q0.mean.shape
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
        input_size: int = 0,
        static_size: int = 0,
        reads_noise: bool = False,
        reads_rates: bool = False,
    ) -> None:
        super().__init__(num_channels, input_size=input_size, static_size=static_size)
        self.sizes = {"q0": latent_size}
        self.reading = Reading(num_channels, input_size, noise=reads_noise, rates=reads_rates)
        self.gru = nn.GRU(1 + self.reading.size, hidden_size, batch_first=True)
        self.h0 = nn.Parameter(torch.zeros(hidden_size))
        self.head = NormalHead(hidden_size, latent_size, head_hidden, static_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = backwards(batch)
        times = batch.times.gather(-1, rows)
        read = as_rows(with_gaps(times, self.reading.of(batch, rows)))
        start = self.h0.expand(1, read.shape[0], -1).contiguous()
        states = torch.cat([start.transpose(0, 1), self.gru(read, start)[0]], 1)
        count = valid.sum(-1).flatten()
        last = states[torch.arange(len(count), device=count.device), count]
        return Encoding(q0=self.head(last.view(*batch.batch_shape, last.shape[-1]), batch.static))
