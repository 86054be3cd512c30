"""Observations with sharp centres and exponential tails."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from .._types import Times, Values
from ..data.channels import AMOUNTS
from ..nn import MLP
from .base import Likelihood, Located
from .scales import LearnedScale, Scale, quadrature


__all__ = ["Laplace"]


class Laplace(Likelihood, Located):
    r"""Real-valued observations with exponential tails: the error that the mean absolute error is the score of.

    .. math:: x_t \mid z_t \sim \operatorname{Laplace}\left(W(z_t), b\right), \qquad 2 b^2 = \sigma^2 + s_t^2

    The scale :math:`\sigma` is a standard deviation, as in the other families. A known standard error :math:`s_t` adds
    to it in quadrature: the variance is right, the shape that of a Laplace distribution.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.
        scale: `FixedScale`, `LearnedScale` (the default) or `HeteroscedasticScale`.

    Example:
        >>> import torch
        >>> from ctdyn.likelihoods import FixedScale
        >>> Laplace(4, 1, scale=FixedScale(2.0))(torch.zeros(1, 1, 4), torch.zeros(1, 1)).stddev.round()
        tensor([[[2.]]])
    """

    kinds = frozenset(AMOUNTS)

    def __init__(
        self, latent_size: int, num_channels: int, hidden: Sequence[int] = (), scale: Scale | None = None
    ) -> None:
        super().__init__(num_channels, latent_size)
        self.mean = MLP(latent_size, num_channels, hidden)
        self.scale = (LearnedScale() if scale is None else scale).build(latent_size, num_channels)

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`."""
        return self.around(self.location(z), z, noise)

    def location(self, z: Tensor) -> Tensor:
        """See `Located.location`."""
        return self.mean(z)

    def around(self, location: Tensor, z: Tensor, noise: Values | None = None) -> Distribution:
        """See `Located.around`."""
        return td.Laplace(location, quadrature(self.scale(z), noise) / 2**0.5, validate_args=False)
