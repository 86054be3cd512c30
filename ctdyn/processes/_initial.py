"""What an initial state costs against its prior."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, kl_divergence


__all__ = ["closed_form_kl", "kl_by_dimension"]


def closed_form_kl(q: Distribution, p: Distribution) -> Tensor | None:
    """The divergence, `(*batch,)`; None where no formula is known."""
    if isinstance(q, MultivariateNormal):
        p = MultivariateNormal(p.mean, scale_tril=torch.diag_embed(p.stddev), validate_args=False)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def kl_by_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    """The divergence of each dimension, `(*batch, latent)`; None where they depend on each other."""
    if isinstance(q, Independent) and isinstance(p, Independent) and len(q.base_dist.event_shape) == 0:
        return kl_divergence(q.base_dist, p.base_dist)
    return None
