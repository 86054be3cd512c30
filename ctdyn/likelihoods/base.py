"""What a likelihood is, and the log density of what was observed."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .._config import Configurable
from .._types import Mask, Times, Values
from ..data.channels import KINDS


__all__ = ["HasAtoms", "Likelihood", "Located", "atoms", "entry_log_prob", "masked_log_prob"]


class HasAtoms(ABC):
    """Capability of a distribution: single values have probabilities, beside a density of the others."""

    @abstractmethod
    def is_atom(self, value: Tensor) -> Tensor:
        """Where a value has a probability of its own, of the shape of `value`."""


def atoms(distribution: Distribution, values: Values) -> Mask:
    """Where `log_prob` is that of a probability beside densities: one that has no unit, and no scale changes.

    Args:
        distribution: batch shape `(..., time, channel)`.
        values: observations, `(*batch, time, channel)`.

    Returns:
        `(*batch, time, channel)`.

    Example:
        >>> atoms(torch.distributions.Normal(torch.zeros(2, 1), 1.0), torch.zeros(2, 1)).tolist()
        [[False], [False]]
    """
    if isinstance(distribution, HasAtoms):
        return distribution.is_atom(values)
    return torch.zeros_like(values, dtype=torch.bool)


def entry_log_prob(distribution: Distribution, values: Values, mask: Mask) -> Tensor:
    """The log density of each observed entry, in nats; 0 where nothing was observed.

    What stands under the mask reaches neither the result nor its gradient.

    Args:
        distribution: batch shape `(..., time, channel)`.
        values: observations, `(*batch, time, channel)`; extra leading axes of the distribution broadcast.
        mask: True where observed.

    Returns:
        `(..., time, channel)`.

    Example:
        >>> mask = torch.tensor([[[True], [False]]])
        >>> entry_log_prob(torch.distributions.Normal(torch.zeros(1, 2, 1), 1.0), torch.zeros(1, 2, 1), mask).flatten()
        tensor([-0.9189,  0.0000])
    """
    # One lies in the support of every family; what is not there makes gradients that no mask takes back.
    log_prob = distribution.log_prob(torch.where(mask, values, 1))
    return torch.where(mask, log_prob, 0)


def masked_log_prob(distribution: Distribution, values: Values, mask: Mask) -> Tensor:
    r"""The log density of the observed entries of each series, summed over time and channels, in nats.

    .. math:: \log p(x \mid z) = \sum_{i, d} m_{id} \log p(x_{id} \mid z_{t_i})

    Args:
        distribution: batch shape `(..., time, channel)`.
        values: observations, `(*batch, time, channel)`; extra leading axes of the distribution broadcast.
        mask: True where observed.

    Returns:
        One number per series (and per sample), `(...)`.

    Example:
        >>> normal = torch.distributions.Normal(torch.zeros(1, 2, 1), 1.0)
        >>> mask = torch.tensor([[[True], [False]]])
        >>> masked_log_prob(normal, torch.zeros(1, 2, 1), mask)
        tensor([-0.9189])
    """
    return entry_log_prob(distribution, values, mask).sum((-1, -2))


class Likelihood(nn.Module, Configurable, ABC):
    """The distribution of an observation given the latent state at its time.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state; None where any will do.

    Example:
        >>> from ctdyn.likelihoods import Bernoulli
        >>> likelihood: Likelihood = Bernoulli(latent_size=4, num_channels=2)
        >>> likelihood(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 2])
    """

    #: The kinds of channel whose values it can be of (`Channel.kind`). One of your own that does not say is believed.
    kinds: frozenset[str] = frozenset(KINDS)

    def __init__(self, num_channels: int, latent_size: int | None = None) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.latent_size = latent_size

    @abstractmethod
    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """The distribution of what is observed.

        Args:
            z: latent states, `(..., time, latent)`, where `...` may hold sample axes in front of the batch.
            ts: their times, `(*batch, time)`.
            noise: known standard error of each observation, `(*batch, time, channel)`; it adds in quadrature.

        Returns:
            A distribution of batch shape `(..., time, channel)` without event axes.
        """


class Located(ABC):
    r"""Capability: observations are spread around a location, and their mean over an interval around its mean.

    .. math:: x \mid z \sim p\left(x - \mu(z)\right), \qquad
        \bar x \mid z \sim p\left(\bar x - \frac{1}{t - s} \int_s^t \mu(z(\tau))\,d\tau\right)

    Example:
        >>> from ctdyn.likelihoods import Bernoulli, Gaussian
        >>> issubclass(Gaussian, Located), issubclass(Bernoulli, Located)
        (True, False)
    """

    @abstractmethod
    def location(self, z: Tensor) -> Tensor:
        """Where observations lie, `(..., channel)`, for latent states `(..., latent)`."""

    @abstractmethod
    def around(self, location: Tensor, z: Tensor, noise: Values | None = None) -> Distribution:
        """The distribution of what is observed around a location.

        Args:
            location: `(..., time, channel)`.
            z: latent states, on which the spread may depend, `(..., time, latent)`.
            noise: as in `Likelihood.forward`.
        """
