"""The evidence lower bound with a capacity for each latent."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from torch import Tensor

from ..._checks import check_count, check_instance
from ..._options import with_suggestions
from ...processes import LatentSample
from .base import Objective, divergences, total


__all__ = ["CapacityELBO"]


@with_suggestions
@dataclass(frozen=True)
class CapacityELBO(Objective):
    r"""An evidence lower bound in which chosen latents carry as much as you say: no more, and no less.

    .. math::
        \mathbb{E}_{q(z)} \log p(x \mid z) - \sum_i \gamma \left| \operatorname{KL}_i - C_i(k) \right|
        - \sum_j \operatorname{KL}_j, \qquad C_i(k) = C_i \min(1, k / K)

    where the divergences in the first sum are means over the series of a batch. :math:`i` runs over the latents with a
    capacity, :math:`j` over the others, by the names of their divergences (`z0`, `sites`, `static`, `class` ...). A
    latent that would otherwise be ignored is used: a class carries at most the logarithm of the number of classes, so
    that is its capacity. The reported bound is the true one.

    Args:
        capacities: :math:`C`, by the name of the divergence, in nats per series.
        gamma: how hard they are held.
        steps: optimiser steps :math:`K` over which they grow from 0; they force themselves on the model gently.
        num_samples: samples of the latent that estimate the expectation.

    Raises:
        ValueError: there is no capacity, one is negative or not finite, `gamma` is not positive and finite, or fewer
            than one step or sample.
        TypeError: `num_samples` is no whole number, or `capacities` no mapping.

    References:
        Learning Disentangled Joint Continuous and Discrete Representations, E. Dupont, 2018,
        https://arxiv.org/abs/1804.00104
        Understanding disentangling in beta-VAE, C. P. Burgess et al., 2018, https://arxiv.org/abs/1804.03599

    Example:
        >>> import torch
        >>> latent = LatentSample(torch.zeros(1, 1, 2, 3), {}, {"static": torch.tensor([2.0])})
        >>> CapacityELBO({"static": 3.0}, gamma=10.0).bound(torch.tensor([[-5.0]]), latent, step=10_000)
        tensor([-15.])
        >>> CapacityELBO({"static": 3.0}, gamma=10.0).bound(torch.tensor([[-5.0]]), latent)
        tensor([-7.])
    """

    capacities: Mapping[str, float]
    gamma: float = 30.0
    steps: int = 1000
    num_samples: int = 1

    def __post_init__(self) -> None:
        check_instance("capacities", self.capacities, Mapping, '{"z0": 3.0}')
        check_count("num_samples", self.num_samples)
        # NaN passes no comparison.
        weighed = self.capacities and all(0 <= x < inf for x in self.capacities.values()) and 0 < self.gamma < inf
        if not (weighed and self.steps >= 1):
            raise ValueError(
                "CapacityELBO needs at least one capacity, none below 0, and gamma > 0, all of them finite, and steps "
                f">= 1; got {dict(self.capacities)}, gamma={self.gamma}, steps={self.steps}."
            )

    def bound(self, log_prob: Tensor, latent: LatentSample, step: int | None = None) -> Tensor:
        """See `Objective.bound`."""
        expected, costs = log_prob.mean(0), divergences(latent)
        unknown = sorted(set(self.capacities) - set(costs))
        if unknown:
            raise ValueError(f"there is no divergence {unknown[0]!r} to give a capacity; there are {sorted(costs)}.")
        if step is None:
            return expected - total(costs, expected)
        grown = min(1.0, step / self.steps)
        for name, capacity in self.capacities.items():
            costs[name] = self.gamma * (costs[name].mean() - grown * capacity).abs()
        return expected - total(costs, expected)
