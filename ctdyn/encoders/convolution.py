"""The encoder that describes every observation by its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..data import IrregularBatch
from ..nn import as_rows, take_items
from ..paths import LinearPath
from ._reading import NormalHead, Reading, backwards, turned, with_gaps
from .base import Encoder, Encoding, start_time


__all__ = ["ConvolutionEncoder"]


class ConvolutionEncoder(Encoder):
    r"""Convolutions over the observed rows and the gaps between them: a continuous context; for `MatchedSDEProcess`.

    .. math::
        h_i = \phi\left([x_i, m_i, t_i - t_{i-1}]\right), \qquad
        c(t_i) = W \sum_{|j| \le r} K_j\, h_{i+j}, \qquad q(z_{t_1}) = \mathcal{N}(\mu(c(t_1)), \sigma(c(t_1))^2)

    No step waits for another, so it is much faster than a recurrent encoder, and it sees `kernel_size // 2` rows to
    each side: enough where series are dense and most channels are observed together. Rows without an
    observation are skipped. Between observations the context is a straight line, so that it has a rate of change.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        context_size: size of the context.
        hidden_size: channels of the convolutions.
        kernel_size: rows that a convolution sees, an odd number.
        stride: rows from knot to knot of the context; the first and the last row are knots always. With more than one
            the context, and with it a posterior, moves more smoothly than the noise of single observations.
        input_size: how many inputs are read beside the values.
        static_size: how many static covariates the head sees.

    Raises:
        ValueError: `kernel_size` is not odd, or `stride` is below 1.

    References:
        An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling, Bai, Kolter,
        Koltun, 2018. https://arxiv.org/abs/1803.01271

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> encoding = ConvolutionEncoder(num_channels=2, latent_size=4, context_size=5)(batch)
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
        kernel_size: int = 5,
        stride: int = 1,
        input_size: int = 0,
        static_size: int = 0,
    ) -> None:
        super().__init__(num_channels, input_size=input_size, static_size=static_size)
        self.sizes = {"q0": latent_size, "context": context_size}
        if kernel_size < 1 or kernel_size % 2 == 0 or stride < 1:
            raise ValueError(
                "a ConvolutionEncoder needs an odd kernel_size and a stride of at least 1; got "
                f"kernel_size={kernel_size}, stride={stride}."
            )
        self.stride = stride
        self.reading = Reading(num_channels, input_size)
        self.point = nn.Linear(1 + self.reading.size, hidden_size)
        self.convolution = nn.Conv1d(hidden_size, hidden_size, kernel_size, stride)
        self.context = nn.Linear(hidden_size, context_size)
        self.head = NormalHead(context_size, latent_size, (hidden_size,), static_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = backwards(batch)
        count = valid.sum(-1, keepdim=True)
        rows = rows.gather(-1, turned(valid))
        times = torch.where(count > 0, batch.times.gather(-1, rows), start_time(batch).unsqueeze(-1))
        features = with_gaps(times, self.reading.of(batch, rows))
        # Every so many rows up to the last, which is also what pads a short series.
        steps = torch.arange(-(-(rows.shape[-1] - 1) // self.stride) + 1, device=rows.device) * self.stride
        chosen = torch.minimum(steps, (count - 1).clamp(min=0))
        context = self.context(self._convolved(features, valid.unsqueeze(-1), chosen))
        path = LinearPath(times.gather(-1, chosen), context)
        return Encoding(q0=self.head(context[..., 0, :], batch.static), context=path)

    def _convolved(self, features: Tensor, valid: Tensor, chosen: Tensor) -> Tensor:
        """At the chosen rows, `(*batch, knot, hidden)`; rows that are not real are 0 for their neighbours."""
        h = torch.where(valid, torch.tanh(self.point(features)), 0.0)
        rows, knots = as_rows(chosen, 1), chosen.shape[-1]
        (width,) = self.convolution.kernel_size
        # From here on a row stands `width // 2` places before the middle of what its convolution sees.
        padded = pad(as_rows(h).mT, (width // 2, width // 2 + self.stride))
        regular = self.convolution(padded)[..., :knots].mT
        # The last row of a series is a knot as well, and mostly between two of the regular ones.
        around = rows[:, -1:] + torch.arange(width, device=rows.device)
        last = self.convolution(torch.take_along_dim(padded, around.unsqueeze(-2), -1)).mT
        between = rows < torch.arange(knots, device=rows.device) * self.stride
        seen = torch.where(between.unsqueeze(-1), last, regular).view(*chosen.shape, h.shape[-1])
        return torch.tanh(take_items(h, chosen, -2) + seen)
