"""Observations that are counts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Distribution

from .._types import Times, Values
from ..nn import MLP
from ._counts import PrecisePoisson
from .base import Likelihood


__all__ = ["Poisson"]


class Poisson(Likelihood):
    r"""Counts of independent events: their variance is their mean.

    .. math:: x_t \mid z_t \sim \operatorname{Poisson}\left(e^{W(z_t)}\right)

    Where counts spread wider than that, take `NegativeBinomial`. Counts are not standardised, and have no measurement
    error.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.

    Example:
        >>> import torch
        >>> Poisson(4, 2)(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 2])
    """

    kinds = frozenset({"count"})

    def __init__(self, latent_size: int, num_channels: int, hidden: Sequence[int] = ()) -> None:
        super().__init__(num_channels, latent_size)
        self.log_rate = MLP(latent_size, num_channels, hidden)

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`; `noise` has no meaning for a count and is ignored."""
        return PrecisePoisson(self.log_rate(z).exp(), validate_args=False)
