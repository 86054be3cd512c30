"""The encoder of state-space layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..data import IrregularBatch
from ..linear.holds import Impulse
from ..linear.layers import S5, SequenceLayer, SequenceStack
from ..nn import take_items
from ._reading import NormalHead, backwards, read_values, with_gaps
from .base import Encoder, Encoding


__all__ = ["StateSpaceEncoder"]


class StateSpaceEncoder(Encoder):
    r"""State-space layers that read the observations backwards, at their true times: for long series.

    .. math:: h_i = \operatorname{SSM}\big([t_{i+1} - t_i,\; m_i \odot x_i,\; m_i]\big)_i, \qquad
              q(z_{t_1}) = \mathcal{N}\left(\mu(h_1), \operatorname{diag} \sigma(h_1)^2\right)

    The whole series is a few scans, with no step per observation. Observations act as impulses; gaps enter by the
    clocks of the layers, and once more as a channel.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        hidden_size: width of the layers.
        head_hidden: hidden layers of the head that maps the last output to the mean and scale of `q0`.
        layers: your own layers, one per block and all of one width; default: two of `S5`.
        static_size: how many static covariates the head sees.

    Raises:
        ValueError: there is no layer, or their widths differ.

    References:
        Simplified State Space Layers for Sequence Modeling, J. T. H. Smith, A. Warrington, S. W. Linderman, 2023,
        https://arxiv.org/abs/2208.04933

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> StateSpaceEncoder(num_channels=2, latent_size=4)(batch).q0.mean.shape
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
        layers: Sequence[SequenceLayer] | None = None,
        static_size: int = 0,
    ) -> None:
        super().__init__(num_channels, input_size=0, static_size=static_size)
        self.sizes = {"q0": latent_size}
        if layers is None:
            layers = [S5(hidden_size, state_size=hidden_size, hold=Impulse()) for _ in range(2)]
        # The stack says what is wrong with no layer at all.
        width = layers[0].output_size if layers else hidden_size
        self.stack = SequenceStack(layers, 1 + 2 * num_channels, width)
        self.empty = nn.Parameter(torch.zeros(width))
        self.head = NormalHead(width, latent_size, head_hidden, static_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = backwards(batch)
        times = batch.times.gather(-1, rows)
        count = valid.sum(-1, keepdim=True)
        # A series that has been read to its end waits there; what is read behind it reaches no earlier output.
        times = torch.where(valid, times, times.gather(-1, (count - 1).clamp(min=0)))
        read = with_gaps(times, torch.cat(read_values(batch, rows), -1))
        states, _ = self.stack(-times, read)
        state = take_items(states, (count - 1).clamp(min=0), -2).squeeze(-2)
        state = torch.where(count > 0, state, self.empty)
        return Encoding(q0=self.head(state, batch.static))
