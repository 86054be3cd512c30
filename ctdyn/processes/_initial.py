"""The prior of an initial state, and what a posterior of it costs."""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence


__all__ = ["NormalStart", "Start", "closed_form_kl", "log_ratio"]


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
        return cls(log_ratio(z0, q0, p0), {} if kl is None else {"z0": kl}, _kl_by_dimension(q0, p0))


def log_ratio(z: Tensor, q: Distribution, p: Distribution) -> Tensor:
    """Of the densities p / q at `z`, `(sample, *batch, latent)`: `(sample, *batch)`."""
    if _by_dimension(q) and _by_dimension(p):
        return (p.base_dist.log_prob(z) - q.base_dist.log_prob(z)).sum(-1)
    return p.log_prob(z) - q.log_prob(z)


def closed_form_kl(q: Distribution, p: Distribution) -> Tensor | None:
    """The divergence, `(*batch,)`; None where no formula is known."""
    by_dimension = _kl_by_dimension(q, p)
    return _known_kl(q, p) if by_dimension is None else by_dimension.sum(-1)


def _known_kl(q: Distribution, p: Distribution) -> Tensor | None:
    if isinstance(q, MultivariateNormal):
        p = MultivariateNormal(p.mean, scale_tril=torch.diag_embed(p.stddev), validate_args=False)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _kl_by_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    """The divergence of each dimension, `(*batch, latent)`; None where they depend on each other, or as above."""
    return _known_kl(q.base_dist, p.base_dist) if _by_dimension(q) and _by_dimension(p) else None


def _by_dimension(distribution: Distribution) -> TypeGuard[Independent]:
    """Whether the dimensions are independent; summed here, they may also be those of no series at all."""
    return isinstance(distribution, Independent) and len(distribution.base_dist.event_shape) == 0
