"""The encoder of attention at reference points."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn

from ..data import IrregularBatch
from ..nn import as_rows
from ._reading import NormalHead, backwards, read_values
from .base import Encoder, Encoding


__all__ = ["AttentionEncoder"]


class AttentionEncoder(Encoder):
    r"""Attention over time: what each channel was near each of a few reference points, read by a recurrent unit.

    .. math:: \hat x_c(\tau) = \sum_i \frac{m_{ic}\,e^{\phi(\tau)^\top W \phi(t_i)}}
              {\sum_j m_{jc}\,e^{\phi(\tau)^\top W \phi(t_j)}}\, x_{ic}, \qquad
              \phi(t) = [a t,\; \sin(\omega t + \beta)]

    The points :math:`\tau` divide the time from the first observation to the last evenly; times are counted from the
    first. All observations are read at once, at a cost linear in their number, and each channel over its own alone.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        hidden_size: size of the hidden state of the recurrent unit.
        head_hidden: hidden layers of the head that maps the last hidden state to the mean and scale of `q0`.
        points: number of reference points.
        heads: number of attention heads.
        time_size: size of the embedding :math:`\phi` of a time.
        static_size: how many static covariates the head sees.

    Raises:
        ValueError: there are fewer than two points, no head, or nothing is made of a time.

    References:
        Multi-Time Attention Networks for Irregularly Sampled Time Series, S. N. Shukla, B. M. Marlin, 2021,
        https://arxiv.org/abs/2101.10318

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> AttentionEncoder(num_channels=2, latent_size=4)(batch).q0.mean.shape
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
        points: int = 16,
        heads: int = 2,
        time_size: int = 16,
        static_size: int = 0,
    ) -> None:
        super().__init__(num_channels, input_size=0, static_size=static_size)
        self.sizes = {"q0": latent_size}
        if points < 2 or heads < 1 or time_size < 1:
            raise ValueError(
                f"points must be at least 2, heads and time_size at least 1; got {points}, {heads} and {time_size}."
            )
        self.points, self.heads = points, heads
        # Periods from a hundredth of the unit of time to ten of it.
        self.frequency = nn.Parameter(2 * torch.pi * torch.logspace(-1, 2, time_size - 1))
        self.phase = nn.Parameter(2 * torch.pi * torch.rand(time_size - 1))
        self.slope = nn.Parameter(torch.ones(1))
        self.query = nn.Linear(time_size, heads * time_size, bias=False)
        self.key = nn.Linear(time_size, heads * time_size, bias=False)
        self.mix = nn.Linear(2 * heads * num_channels + 1, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.head = NormalHead(hidden_size, latent_size, head_hidden, static_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = backwards(batch)
        times = batch.times.gather(-1, rows)
        count = valid.sum(-1, keepdim=True)
        first = times.gather(-1, (count - 1).clamp(min=0))
        values, mask = read_values(batch, rows)
        mask = mask * valid.unsqueeze(-1)
        times = torch.where(valid, times - first, 0).to(values.dtype)
        span = times[..., :1]
        # Backwards, as the process begins at the first observation.
        at = span * torch.linspace(1.0, 0.0, self.points, dtype=values.dtype, device=values.device)
        seen = self._attend(at, times, values * mask, mask)
        read = torch.cat([seen, span[..., None].expand(*seen.shape[:-1], 1)], -1)
        states, _ = self.gru(as_rows(torch.relu(self.mix(read))))
        last = states[:, -1].view(*batch.batch_shape, states.shape[-1])
        return Encoding(q0=self.head(last, batch.static))

    def _attend(self, at: Tensor, times: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """What each head makes of each channel at each point, and whether there was any, `(*batch, point, feature)`."""
        q, k = self._split(self.query(self._embed(at))), self._split(self.key(self._embed(times)))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        # A channel is averaged over its own observations, however far they are: no weight may vanish.
        least = 0.5 * log(torch.finfo(scores.dtype).tiny)
        weights = torch.exp((scores - scores.amax(-1, keepdim=True).detach()).clamp(min=least))
        total = weights @ mask.unsqueeze(-3)
        some = total > 0
        mean = (weights @ values.unsqueeze(-3)) / torch.where(some, total, 1.0)
        features = torch.cat([torch.where(some, mean, 0.0), some.to(mean.dtype)], -1)
        return features.transpose(-3, -2).flatten(-2)

    def _embed(self, t: Tensor) -> Tensor:
        t = t.unsqueeze(-1)
        return torch.cat([self.slope * t, torch.sin(self.frequency * t + self.phase)], -1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
