"""The prior of an initial state, and what a posterior of it costs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence


__all__ = ["NormalStart", "Start", "closed_form_kl"]


class NormalStart(nn.Module):
    """A process whose state begins with a normal distribution."""

    prior_mean: nn.Parameter
    prior_log_std: nn.Parameter

    def _begin(self, latent_size: int, *, learned: bool = True) -> None:
        """Standard normal at first."""
        self.prior_mean = nn.Parameter(torch.zeros(latent_size), requires_grad=learned)
        self.prior_log_std = nn.Parameter(torch.zeros(latent_size), requires_grad=learned)

    @property
    def p0(self) -> Distribution:
        """The prior of the initial state, of event shape `(latent,)`."""
        return Independent(Normal(self.prior_mean, self.prior_log_std.exp(), validate_args=False), 1)


class Start(NamedTuple):
    """What initial states of a posterior cost against their prior, as `LatentSample` has it.

    Args:
        log_ratio: of prior to posterior, `(sample, *batch)`.
        kl: the divergence under the name of the term; empty where no formula is known.
        kl_by_dimension: `(*batch, latent)`; None where the dimensions depend on each other.
    """

    log_ratio: Tensor
    kl: dict[str, Tensor]
    kl_by_dimension: Tensor | None

    @classmethod
    def priced(cls, z0: Tensor, q0: Distribution, p0: Distribution) -> Start:
        """The cost of `z0`, `(sample, *batch, latent)`, drawn from `q0`."""
        kl = closed_form_kl(q0, p0)
        return cls(p0.log_prob(z0) - q0.log_prob(z0), {} if kl is None else {"z0": kl}, _kl_by_dimension(q0, p0))


def closed_form_kl(q: Distribution, p: Distribution) -> Tensor | None:
    """The divergence, `(*batch,)`; None where no formula is known."""
    if isinstance(q, MultivariateNormal):
        p = MultivariateNormal(p.mean, scale_tril=torch.diag_embed(p.stddev), validate_args=False)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _kl_by_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    """The divergence of each dimension, `(*batch, latent)`; None where they depend on each other, or as above."""
    if isinstance(q, Independent) and isinstance(p, Independent) and len(q.base_dist.event_shape) == 0:
        return closed_form_kl(q.base_dist, p.base_dist)
    return None
