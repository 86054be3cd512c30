"""The encoder of state-space layers that describes every time by what lies before it and after it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data import IrregularBatch
from ..linear.layers import S5, SequenceLayer, SequenceStack
from ..nn import repeat_last, take_items
from ..paths import LinearPath
from ._reading import NormalHead, Reading, backwards, turned, with_gaps
from .base import Encoder, Encoding, start_time


__all__ = ["BidirectionalStateSpaceEncoder"]


class BidirectionalStateSpaceEncoder(Encoder):
    r"""State-space layers that read forwards and backwards in time: a context for long series; for `SequenceProcess`.

    .. math::
        x_i = [t_i - t_{i \pm 1},\; m_i \odot x_i,\; m_i], \qquad
        c(t_i) = W [\mathrm{SSM}_{\rightarrow}(x)_i,\; \mathrm{SSM}_{\leftarrow}(x)_i,\; m_i \odot x_i,\; m_i], \qquad
        q_0 = \mathcal{N}\big(\mu(c(t_1)), \operatorname{diag} \sigma(c(t_1))^2\big)

    Rows with an observation are read at their true times, and what is missing in them is said by the mask; rows without
    one are not read. The whole series is a few scans. Between observations the context is a straight line.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        context_size: size of the context.
        hidden_size: width of the default layers.
        ahead: your own layers that read forwards, one per block and all of one width; default: two of `S5`.
        back: the same for those that read backwards.
        input_size: how many inputs are read beside the values.
        static_size: how many static covariates the head of `q0` sees.

    Raises:
        ValueError: there is no layer in one direction, or their widths differ.

    References:
        Deep Latent State Space Models for Time-Series Generation, L. Zhou, M. Poli, W. Xu, S. Massaroli, S. Ermon,
        2023, https://arxiv.org/abs/2212.12749

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> encoding = BidirectionalStateSpaceEncoder(num_channels=2, latent_size=4, context_size=5)(batch)
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
        ahead: Sequence[SequenceLayer] | None = None,
        back: Sequence[SequenceLayer] | None = None,
        input_size: int = 0,
        static_size: int = 0,
    ) -> None:
        super().__init__(num_channels, input_size=input_size, static_size=static_size)
        self.sizes = {"q0": latent_size, "context": context_size}
        self.reading = Reading(num_channels, input_size)
        self.ahead = _stack(ahead, self.reading.size, hidden_size)
        self.back = _stack(back, self.reading.size, hidden_size)
        self.context = nn.Linear(self.ahead.output_size + self.back.output_size + self.reading.size, context_size)
        self.head = NormalHead(context_size, latent_size, (context_size,), static_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = backwards(batch)
        count = valid.sum(-1)
        # Read to its end a series waits there; what is read behind it reaches no output that is used.
        rows, some = repeat_last(rows, count, -1), (count > 0).unsqueeze(-1)
        times = torch.where(some, batch.times.gather(-1, rows), start_time(batch).unsqueeze(-1))
        read = torch.where(some.unsqueeze(-1), self.reading.of(batch, rows), 0.0)
        turn = turned(valid)
        knots, forth = times.gather(-1, turn), take_items(read, turn, -2)
        before = _scan(self.ahead, knots, forth)
        after = take_items(_scan(self.back, -times, read), turn, -2)
        context = self.context(torch.cat([before, after, forth], -1))
        context = repeat_last(context, count, -2)
        return Encoding(q0=self.head(context[..., 0, :], batch.static), context=LinearPath(knots, context))


def _stack(layers: Sequence[SequenceLayer] | None, features: int, width: int) -> SequenceStack:
    layers = [S5(width, state_size=width) for _ in range(2)] if layers is None else layers
    return SequenceStack(layers, 1 + features, layers[0].output_size if layers else width)


def _scan(stack: SequenceStack, times: Tensor, read: Tensor) -> Tensor:
    return stack(times, with_gaps(times, read))[0]
