"""Observations that are counts, and spread wide."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .._types import Times, Values
from ..nn import MLP
from ._counts import PreciseNegativeBinomial
from .base import Likelihood


__all__ = ["NegativeBinomial"]


class NegativeBinomial(Likelihood):
    r"""Counts that spread wider than a Poisson distribution; the choice to start with for counts.

    .. math:: \mathrm{E}[x_t \mid z_t] = \mu_t = e^{W(z_t)}, \qquad
        \mathrm{Var}[x_t \mid z_t] = \mu_t + \mu_t^2 / r_d

    The concentration :math:`r_d` is learned per channel; a large one is a Poisson distribution. Counts are not
    standardised, and have no measurement error.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.
        initial_concentration: :math:`r` before training, positive.

    Raises:
        ValueError: `initial_concentration` is not positive.

    Example:
        >>> import torch
        >>> counts = NegativeBinomial(4, 2)(torch.zeros(3, 7, 4), torch.zeros(3, 7))
        >>> bool((counts.variance > counts.mean).all())
        True
    """

    kinds = frozenset({"count"})

    def __init__(
        self, latent_size: int, num_channels: int, hidden: Sequence[int] = (), initial_concentration: float = 5.0
    ) -> None:
        super().__init__(num_channels, latent_size)
        if not initial_concentration > 0:
            raise ValueError(f"initial_concentration must be above 0; got {initial_concentration}.")
        self.log_mean = MLP(latent_size, num_channels, hidden)
        self.log_concentration = nn.Parameter(torch.full((num_channels,), log(initial_concentration)))

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`; `noise` has no meaning for a count and is ignored."""
        logits = self.log_mean(z) - self.log_concentration
        return PreciseNegativeBinomial(self.log_concentration.exp(), logits=logits, validate_args=False)
