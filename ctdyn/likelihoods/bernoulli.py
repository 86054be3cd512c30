"""Observations that are 0 or 1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from .._types import Times, Values
from ..nn import MLP
from .base import Likelihood


__all__ = ["Bernoulli"]


class Bernoulli(Likelihood):
    r"""Channels that are 0 or 1; they are not standardised, and have no measurement error.

    .. math:: x_t \mid z_t \sim \operatorname{Bernoulli}\left(\operatorname{logit}^{-1}(W(z_t))\right)

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.

    Example:
        >>> import torch
        >>> Bernoulli(4, 2)(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 2])
    """

    kinds = frozenset({"binary"})

    def __init__(self, latent_size: int, num_channels: int, hidden: Sequence[int] = ()) -> None:
        super().__init__(num_channels, latent_size)
        self.logits = MLP(latent_size, num_channels, hidden)

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`; `noise` has no meaning for a binary channel and is ignored."""
        return td.Bernoulli(logits=self.logits(z), validate_args=False)
