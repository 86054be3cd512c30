"""The importance-weighted bound."""

from dataclasses import dataclass
from math import log

from torch import Tensor

from ..._checks import check_count
from ..._options import with_suggestions
from ...processes import LatentSample
from .base import Objective, total


__all__ = ["IWAE"]


@with_suggestions
@dataclass(frozen=True)
class IWAE(Objective):
    r"""The importance-weighted bound: tighter than the ELBO, and exact in the limit of many samples.

    .. math::
        \log p(x) \ge \mathbb{E} \log \frac{1}{K} \sum_{k=1}^{K} p(x \mid z_k) \frac{p(z_k)}{q(z_k)},
        \qquad z_k \sim q

    With one sample it is the ELBO with a sampled divergence; at the exact posterior every single sample gives the log
    evidence.

    Args:
        num_samples: samples `K` of the latent.

    Raises:
        ValueError: fewer than one sample.
        TypeError: `num_samples` is no whole number.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016. https://arxiv.org/abs/1509.00519

    Example:
        >>> import torch
        >>> latent = LatentSample(torch.zeros(2, 1, 2, 3), {"z0": torch.tensor([[0.0], [-1.0]])})
        >>> IWAE(num_samples=2).bound(torch.tensor([[-3.0], [-2.0]]), latent)
        tensor([-3.])
    """

    num_samples: int = 8

    def __post_init__(self) -> None:
        check_count("num_samples", self.num_samples)

    def bound(self, log_prob: Tensor, latent: LatentSample, step: int | None = None) -> Tensor:
        """See `Objective.bound`; nothing depends on the step."""
        unknown = sorted(set(latent.kl) - set(latent.log_terms))
        if unknown:
            raise ValueError(
                f"IWAE weighs samples by their density ratio prior / posterior, and this posterior has none for "
                f"{unknown}: it knows its divergence alone, which is what ELBO() needs."
            )
        log_weights = total(latent.log_terms, log_prob) + log_prob
        return log_weights.logsumexp(0) - log(len(log_weights))
