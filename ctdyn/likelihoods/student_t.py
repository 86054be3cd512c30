"""Observations with heavy tails."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.distributions import Distribution

from .._types import Times, Values
from ..data.channels import AMOUNTS
from ..nn import MLP
from .base import Likelihood, Located
from .scales import LearnedScale, Scale, quadrature


__all__ = ["StudentT"]


class StudentT(Likelihood, Located):
    r"""Real-valued observations with heavy tails, for data with outliers.

    .. math:: x_t \mid z_t \sim t_{\nu_d}\left(W(z_t), \sigma^2 + s_t^2\right), \qquad \nu_d = 2 + e^{\eta_d}

    The degrees of freedom are learned per channel and stay above 2, so that the variance exists. A known standard
    error :math:`s_t` adds to the scale in quadrature, which is an approximation away from the Gaussian limit.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.
        scale: `FixedScale`, `LearnedScale` (the default) or `HeteroscedasticScale`.
        initial_df: degrees of freedom before training, above 2.

    Raises:
        ValueError: `initial_df` is not above 2.

    Example:
        >>> StudentT(4, 2)(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 2])
    """

    kinds = frozenset(AMOUNTS)

    def __init__(
        self,
        latent_size: int,
        num_channels: int,
        hidden: Sequence[int] = (),
        scale: Scale | None = None,
        initial_df: float = 6.0,
    ) -> None:
        super().__init__(num_channels, latent_size)
        if initial_df <= 2:
            raise ValueError(f"initial_df must be above 2, where the variance exists; got {initial_df}.")
        self.mean = MLP(latent_size, num_channels, hidden)
        self.scale = (LearnedScale() if scale is None else scale).build(latent_size, num_channels)
        self.log_df = nn.Parameter(torch.full((num_channels,), log(initial_df - 2)))

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`."""
        return self.around(self.location(z), z, noise)

    def location(self, z: Tensor) -> Tensor:
        """See `Located.location`."""
        return self.mean(z)

    def around(self, location: Tensor, z: Tensor, noise: Values | None = None) -> Distribution:
        """See `Located.around`."""
        return td.StudentT(2 + self.log_df.exp(), location, quadrature(self.scale(z), noise), validate_args=False)
