"""The recurrent encoder that describes every time by what lies before it and after it."""

from __future__ import annotations

import torch
from torch import nn

from ..data import IrregularBatch
from ..nn import as_rows, repeat_last, take_items
from ..paths import LinearPath
from ._reading import NormalHead, Reading, backwards, turned, with_gaps
from .base import Encoder, Encoding, start_time


__all__ = ["BidirectionalGRUEncoder"]


class BidirectionalGRUEncoder(Encoder):
    r"""Gated recurrent units that read forwards and backwards in time: a continuous context; for `MatchedSDEProcess`.

    .. math::
        h_i = \operatorname{GRU}\left([t_{i+1} - t_i, m_i \odot x_i, m_i],\; h_{i+1}\right), \qquad
        k_i = \operatorname{GRU}\left([t_i - t_{i-1}, m_i \odot x_i, m_i],\; k_{i-1}\right), \qquad
        c(t_i) = W [h_i, k_i, m_i \odot x_i, m_i]

    Between observations the context is a straight line, so that it has a rate of change. `q0` is made of :math:`h_1`,
    as in `GRUEncoder`.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        context_size: size of the context.
        hidden_size: size of each hidden state.
        input_size: how many inputs are read beside the values.
        static_size: how many static covariates the head sees.
        reads_noise: whether the known standard errors of the observations are read as well.
        reads_rates: whether the rates of change are read as well; see `GRUEncoder`.

    References:
        Bidirectional Recurrent Neural Networks, Schuster, Paliwal, 1997. https://doi.org/10.1109/78.650093

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> encoding = BidirectionalGRUEncoder(num_channels=2, latent_size=4, context_size=5)(batch)
        >>> encoding.q0.mean.shape, encoding.context(torch.tensor([[0.1, 0.5]])).shape
        (torch.Size([1, 4]), torch.Size([1, 2, 5]))
    """

    provides = frozenset({"q0", "context"})

    def __init__(
        self,
        num_channels: int,
        latent_size: int,
        context_size: int,
        hidden_size: int = 64,
        *,
        input_size: int = 0,
        static_size: int = 0,
        reads_noise: bool = False,
        reads_rates: bool = False,
    ) -> None:
        super().__init__(num_channels, input_size=input_size, static_size=static_size)
        self.sizes = {"q0": latent_size, "context": context_size}
        self.reading = Reading(num_channels, input_size, noise=reads_noise, rates=reads_rates)
        self.backward_gru = nn.GRU(1 + self.reading.size, hidden_size, batch_first=True)
        self.forward_gru = nn.GRU(1 + self.reading.size, hidden_size, batch_first=True)
        self.h0 = nn.Parameter(torch.zeros(2, hidden_size))
        self.head = NormalHead(hidden_size, latent_size, (hidden_size,), static_size)
        self.context = nn.Linear(2 * hidden_size + self.reading.size, context_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = backwards(batch)
        times = torch.where(valid, batch.times.gather(-1, rows), start_time(batch).unsqueeze(-1))
        read = torch.where(valid.unsqueeze(-1), self.reading.of(batch, rows), 0.0)
        count = valid.sum(-1)
        turn = turned(valid)
        knots = times.gather(-1, turn)
        before = take_items(read, turn, -2)

        earlier = self._states(self.backward_gru, self.h0[0], times, read)
        later = self._states(self.forward_gru, self.h0[1], knots, before)[..., 1:, :]
        last = take_items(earlier, count.unsqueeze(-1), -2).squeeze(-2)
        both = torch.cat(
            [
                take_items(earlier[..., 1:, :], turn, -2),
                repeat_last(later, count, -2),
                before,
            ],
            -1,
        )
        return Encoding(q0=self.head(last, batch.static), context=LinearPath(knots, self.context(both)))

    def _states(self, gru: nn.GRU, h0: torch.Tensor, times: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """The states before and after each row, `(*batch, row + 1, hidden)`."""
        whole = with_gaps(times, read)
        flat = as_rows(whole)
        start = h0.expand(1, flat.shape[0], -1).contiguous()
        states = torch.cat([start.transpose(0, 1), gru(flat, start)[0]], 1)
        return states.view(*whole.shape[:-2], *states.shape[-2:])
