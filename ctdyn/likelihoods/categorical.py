"""Observations that are classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from .._types import Times, Values
from ..nn import MLP
from .base import Likelihood


__all__ = ["Categorical"]


class Categorical(Likelihood):
    r"""Channels that hold one of several classes, coded as 0, 1, 2 ...; states of a machine, stages of a disease.

    .. math:: x_t \mid z_t \sim \operatorname{Categorical}\left(\operatorname{softmax} W(z_t)\right)

    Codes are names, not amounts: `mean` and `variance` are those of the codes and mean something only where the classes
    are ordered; judge it by log densities, and read it by `probs`. Classes are not standardised.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        num_classes: classes per channel.
        hidden: hidden layers of the decoder; empty for an affine map.

    Raises:
        ValueError: there are fewer than two classes; or, later, a value is none of them.

    Example:
        >>> import torch
        >>> stages = Categorical(4, 1, num_classes=3)(torch.zeros(1, 1, 4), torch.zeros(1, 1))
        >>> stages.probs.shape, stages.batch_shape
        (torch.Size([1, 1, 1, 3]), torch.Size([1, 1, 1]))
    """

    kinds = frozenset({"binary", "categorical"})

    def __init__(self, latent_size: int, num_channels: int, num_classes: int, hidden: Sequence[int] = ()) -> None:
        super().__init__(num_channels, latent_size)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2; got {num_classes}.")
        self.num_classes = num_classes
        self.logits = MLP(latent_size, num_channels * num_classes, hidden)

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`; `noise` has no meaning for a class and is ignored."""
        return _Codes(logits=self.logits(z).unflatten(-1, (self.num_channels, self.num_classes)), validate_args=False)


class _Codes(td.Categorical):
    """Classes as floating point codes, with the moments that torch leaves out."""

    @property
    def mean(self) -> Tensor:
        return (self.probs * self._codes).sum(-1)

    @property
    def variance(self) -> Tensor:
        return (self.probs * (self._codes - self.mean.unsqueeze(-1)).square()).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        count = self.probs.shape[-1]
        wrong = (value < 0) | (value >= count) | (value != value.round())
        if bool(wrong.any()):
            worst = float(value[wrong].max())
            raise ValueError(
                f"a value of {worst:g} was observed, and Categorical(num_classes={count}) knows the classes 0 to "
                f"{count - 1}; give as many classes as the data have, coded as 0, 1, 2 ..."
            )
        return super().log_prob(value)

    @property
    def _codes(self) -> Tensor:
        return torch.arange(self.probs.shape[-1], dtype=self.probs.dtype, device=self.probs.device)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:  # type: ignore[override]
        return super().sample(torch.Size(sample_shape)).to(self.probs.dtype)
