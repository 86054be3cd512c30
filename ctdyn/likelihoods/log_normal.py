"""Observations that are positive."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from .._types import Times, Values
from ..nn import MLP
from .base import Likelihood
from .scales import LearnedScale, Scale


__all__ = ["LogNormal"]

#: The smallest median, as a negative logarithm, that a known standard error is divided by: squares stay finite.
_MOST = 40.0


class LogNormal(Likelihood):
    r"""Channels that are positive and vary by factors: concentrations, brightness, waiting times.

    .. math:: \log x_t \mid z_t \sim \mathcal{N}\left(W(z_t), \sigma^2 + r_t^2\right), \qquad
        r_t^2 = \log\left(1 + \left(s_t e^{-W(z_t)}\right)^2\right)

    A known standard error :math:`s_t` becomes the relative one :math:`r_t`, to first order at the median.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.
        scale: of the logarithm: `FixedScale`, `LearnedScale` (the default) or `HeteroscedasticScale`.

    Example:
        >>> import torch
        >>> bool((LogNormal(4, 2)(torch.randn(3, 7, 4), torch.zeros(3, 7)).sample() > 0).all())
        True
    """

    kinds = frozenset({"positive"})

    def __init__(
        self, latent_size: int, num_channels: int, hidden: Sequence[int] = (), scale: Scale | None = None
    ) -> None:
        super().__init__(num_channels, latent_size)
        self.log_median = MLP(latent_size, num_channels, hidden)
        self.scale = (LearnedScale() if scale is None else scale).build(latent_size, num_channels)

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`."""
        loc = self.log_median(z)
        scale = self.scale(z)
        if noise is not None:
            # Variances are added: the root of one that is 0 has no derivative.
            relative = noise * (-loc).clamp(max=_MOST).exp()
            scale = (scale.square() + relative.square().log1p()).sqrt()
        return td.LogNormal(loc, scale, validate_args=False)
