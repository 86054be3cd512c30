"""The evidence lower bound."""

from dataclasses import dataclass
from math import inf
from numbers import Real

from torch import Tensor

from ..._checks import check_count, check_instance
from ..._options import with_suggestions
from ...processes import LatentSample
from .base import Anneal, Objective, divergences, total


__all__ = ["ELBO"]


@with_suggestions
@dataclass(frozen=True)
class ELBO(Objective):
    r"""The evidence lower bound, with the divergence in closed form where there is one.

    .. math:: \log p(x) \ge \mathbb{E}_{q(z)} \log p(x \mid z) - \beta \operatorname{KL}(q \,\|\, p)

    Sums run over time and channels and are never averaged, so with :math:`\beta = 1` it is a bound. Free bits replace
    the divergence of each latent dimension by at least `free_bits`, below which nothing is gained by shrinking it.

    Args:
        beta: weight of the divergence: a number, or `Anneal(steps)`.
        free_bits: nats per latent dimension that cost nothing extra.
        num_samples: samples of the latent that estimate the expectation.

    Raises:
        ValueError: a weight or `free_bits` is negative or not finite, or fewer than one sample.
        TypeError: `num_samples` is no whole number, or `beta` no weight.

    References:
        Auto-Encoding Variational Bayes, Kingma, Welling, 2014. https://arxiv.org/abs/1312.6114
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016 (free bits).
        https://arxiv.org/abs/1606.04934

    Example:
        >>> import torch
        >>> latent = LatentSample(torch.zeros(1, 1, 2, 3), {"z0": torch.zeros(1, 1)}, {"z0": torch.tensor([2.0])})
        >>> ELBO(beta=Anneal(10)).bound(torch.tensor([[-5.0]]), latent, step=5)
        tensor([-6.])
        >>> ELBO(beta=Anneal(10)).bound(torch.tensor([[-5.0]]), latent)
        tensor([-7.])
    """

    beta: float | Anneal = 1.0
    free_bits: float = 0.0
    num_samples: int = 1

    def __post_init__(self) -> None:
        weight = 0.0 if isinstance(self.beta, Anneal) else self.beta
        check_instance("beta", weight, Real, "1.0 or Anneal(steps)")
        check_count("num_samples", self.num_samples)
        # NaN passes no comparison.
        if not (0 <= weight < inf and 0 <= self.free_bits < inf):
            raise ValueError(
                f"ELBO needs beta >= 0 and free_bits >= 0, both finite; got beta={self.beta}, "
                f"free_bits={self.free_bits}."
            )

    def bound(self, log_prob: Tensor, latent: LatentSample, step: int | None = None) -> Tensor:
        """See `Objective.bound`."""
        expected, costs = log_prob.mean(0), divergences(latent)
        if step is None:
            return expected - total(costs, expected)
        if self.free_bits > 0:
            if latent.kl_by_dimension is None:
                raise ValueError(
                    "free bits need a divergence per latent dimension; this posterior has none (free_bits=0)."
                )
            costs["z0"] = latent.kl_by_dimension.clamp(min=self.free_bits).sum(-1)
        beta = self.beta(step) if isinstance(self.beta, Anneal) else self.beta
        return expected - beta * total(costs, expected)
