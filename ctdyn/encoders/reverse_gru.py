"""The recurrent encoder that also says, at every time, what is still to come."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data import IrregularBatch
from ..nn import as_rows, take_items
from ..paths.piecewise import PiecewisePath
from ._reading import NormalHead, Reading, backwards, turned, with_gaps
from .base import Encoder, Encoding, start_time


__all__ = ["ReverseGRUEncoder"]


class ReverseGRUEncoder(Encoder):
    r"""A gated recurrent unit that reads backwards in time and leaves its state behind as context; for `SDEProcess`.

    .. math::
        h_i = \operatorname{GRU}\left([t_{i+1} - t_i,\; m_i \odot x_i,\; m_i],\; h_{i+1}\right), \qquad
        q(z_{t_1}) = \mathcal{N}\left(\mu(h_1), \operatorname{diag} \sigma(h_1)^2\right), \qquad
        c(t) = W h_{i+1} \;\text{ for } t_i \le t < t_{i+1}

    The context at a time is made of the observations after that time, which is all that a state at this time leaves to
    be known of its future. It is held constant between observations; from the last one on it says that nothing comes.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        context_size: size of the context.
        hidden_size: size of the hidden state.
        input_size: how many inputs are read beside the values.
        static_size: how many static covariates the head sees.
        reads_noise: whether the known standard errors of the observations are read as well.
        reads_rates: whether the rates of change are read as well; see `GRUEncoder`.

    References:
        Scalable Gradients for Stochastic Differential Equations, Li, Wong, Chen, Duvenaud, 2020.
        https://arxiv.org/abs/2001.01328

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> encoding = ReverseGRUEncoder(num_channels=2, latent_size=4, context_size=5)(batch)
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
        self.gru = nn.GRU(1 + self.reading.size, hidden_size, batch_first=True)
        self.h0 = nn.Parameter(torch.zeros(hidden_size))
        self.head = NormalHead(hidden_size, latent_size, (hidden_size,), static_size)
        self.context = nn.Linear(hidden_size, context_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = backwards(batch)
        times = batch.times.gather(-1, rows)
        read = as_rows(with_gaps(times, self.reading.of(batch, rows)))
        start = self.h0.expand(1, read.shape[0], -1).contiguous()
        states = torch.cat([start.transpose(0, 1), self.gru(read, start)[0]], 1)
        states = states.unflatten(0, batch.batch_shape) if batch.batch_shape else states[0]
        count = valid.sum(-1, keepdim=True)
        last = take_items(states, count, -2).squeeze(-2)
        knots, held = _forwards(torch.where(valid, times, start_time(batch).unsqueeze(-1)), turned(valid), states)
        return Encoding(q0=self.head(last, batch.static), context=_HeldPath(knots, self.context(held)))


class _HeldPath(PiecewisePath):
    """Each value holds until the next knot."""

    def _polynomials(self, starts: Tensor, slopes: Tensor, gaps: Tensor) -> Tensor:
        return starts.unsqueeze(-2)


def _forwards(times: Tensor, back: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """The rows from the first to the last, and what is held from each of them on; padding repeats the last row.

    Args:
        times: of the rows, latest first, `(*batch, row)`.
        back: where the rows from the first to the last stand among them, `(*batch, row)`; as many were read before.
        states: after 0, 1, ... rows have been read, `(*batch, row + 1, hidden)`.
    """
    knots = times.gather(-1, back)
    # An observation at the time that is asked about has been read there, whichever way the time was rounded.
    extent = knots.abs().amax(-1, keepdim=True) if knots.shape[-1] else knots
    return knots - 16 * torch.finfo(knots.dtype).eps * extent, take_items(states, back, -2)
