"""Observations with several modes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from .._checks import check_count
from .._types import Times, Values
from ..data.channels import AMOUNTS
from ..nn import MLP
from .base import Likelihood
from .scales import LearnedScale, Scale, quadrature


__all__ = ["GaussianMixture"]


class GaussianMixture(Likelihood):
    r"""Real-valued observations that cluster: several modes, or a tail on one side.

    .. math:: x_t \mid z_t \sim \sum_k \pi_k(z_t)\, \mathcal{N}\left(W_k(z_t), \sigma_k^2 + s_t^2\right)

    Each channel has a mixture of its own. Weights and means depend on the latent state; the known standard error
    :math:`s_t` adds to every component, which is exact.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        num_components: Gaussians per channel.
        hidden: hidden layers of the decoder; empty for an affine map.
        scale: `FixedScale`, `LearnedScale` (the default) or `HeteroscedasticScale`, of each component.

    Raises:
        ValueError: `num_components` is below 1.

    Reference:
        Mixture Density Networks, C. M. Bishop, 1994, https://publications.aston.ac.uk/id/eprint/373/

    Example:
        >>> import torch
        >>> GaussianMixture(4, 2, num_components=3)(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 2])
    """

    kinds = frozenset(AMOUNTS)

    def __init__(
        self,
        latent_size: int,
        num_channels: int,
        num_components: int,
        hidden: Sequence[int] = (),
        scale: Scale | None = None,
    ) -> None:
        super().__init__(num_channels, latent_size)
        check_count("num_components", num_components)
        self.num_components = num_components
        count = num_channels * num_components
        self.heads = MLP(latent_size, 2 * count, hidden)
        self.scale = (LearnedScale() if scale is None else scale).build(latent_size, count)

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`."""
        shape = (self.num_channels, self.num_components)
        logits, means = (x.unflatten(-1, shape) for x in self.heads(z).chunk(2, -1))
        scale = self.scale(z).unflatten(-1, shape)
        scale = quadrature(scale, None if noise is None else noise.unsqueeze(-1)).expand_as(means)
        normal = td.Normal(means, scale, validate_args=False)
        return td.MixtureSameFamily(td.Categorical(logits=logits, validate_args=False), normal, validate_args=False)
