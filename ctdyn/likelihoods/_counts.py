"""Distributions of counts whose log densities keep their digits: sums of terms that are large for large counts."""

from __future__ import annotations

from torch import Tensor
from torch import distributions as td


__all__ = ["PreciseNegativeBinomial", "PrecisePoisson"]


class PrecisePoisson(td.Poisson):
    """A Poisson distribution whose log density is summed in float64, and of the dtype of the rate.

    Example:
        >>> import torch
        >>> PrecisePoisson(torch.tensor([1e7])).log_prob(torch.tensor([1e7]))
        tensor([-8.9780])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability of each count, in nats."""
        wide = td.Poisson(self.rate.double(), validate_args=False)
        return wide.log_prob(value.double()).to(self.rate.dtype)


class PreciseNegativeBinomial(td.NegativeBinomial):
    """The same for a negative binomial distribution, whose terms are large for a large concentration too.

    Example:
        >>> import torch
        >>> flat = PreciseNegativeBinomial(torch.tensor([1e7]), logits=-torch.tensor([1e7]).log())
        >>> flat.log_prob(torch.tensor([1.0])).round(decimals=4)
        tensor([-1.])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability of each count, in nats."""
        wide = td.NegativeBinomial(self.total_count.double(), logits=self.logits.double(), validate_args=False)
        return wide.log_prob(value.double()).to(self.logits.dtype)
