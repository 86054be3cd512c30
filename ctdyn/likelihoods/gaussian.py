"""Gaussian observations."""

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


__all__ = ["Gaussian"]


class Gaussian(Likelihood, Located):
    r"""Real-valued observations with Gaussian noise.

    .. math:: x_t \mid z_t \sim \mathcal{N}\left(W(z_t), \sigma^2 + s_t^2\right)

    with :math:`s_t` the known standard error of the observation, where there is one.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.
        scale: `FixedScale`, `LearnedScale` (the default) or `HeteroscedasticScale`.

    Example:
        >>> import torch
        >>> Gaussian(4, 2)(torch.zeros(10, 3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([10, 3, 7, 2])
    """

    kinds = frozenset(AMOUNTS)

    def __init__(
        self,
        latent_size: int,
        num_channels: int,
        hidden: Sequence[int] = (),
        scale: Scale | None = None,
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
        return td.Normal(location, quadrature(self.scale(z), noise), validate_args=False)
