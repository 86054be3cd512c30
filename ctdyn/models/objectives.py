"""What a latent-variable model maximises: bounds on the log evidence, in nats per series."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from ..processes import LatentSample


__all__ = ["ELBO", "IWAE", "Anneal", "Objective"]


@dataclass(frozen=True)
class Anneal:
    r"""A weight that grows linearly from `start` to 1 over the first steps of training.

    .. math:: \beta(k) = \min\left(1,\; \beta_0 + (1 - \beta_0)\, k / K\right)

    Args:
        steps: optimiser steps until the weight is 1.
        start: the weight at step 0.

    Raises:
        ValueError: `steps` is below 1, or `start` is outside [0, 1].

    Example:
        >>> Anneal(100, start=0.5)(50)
        0.75
    """

    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.start <= 1:
            raise ValueError(
                f"Anneal needs steps >= 1 and start in [0, 1]; got steps={self.steps}, start={self.start}."
            )

    def __call__(self, step: int) -> float:
        """The weight at a step."""
        return min(1.0, self.start + (1 - self.start) * step / self.steps)


class Objective(ABC):
    """What is maximised, as a pure function of sampled latents and of the optimiser step.

    Example:
        >>> isinstance(ELBO(), Objective), ELBO().num_samples
        (True, 1)
    """

    num_samples: int

    @abstractmethod
    def bound(self, log_prob: Tensor, latent: LatentSample, step: int | None = None) -> Tensor:
        """The objective of each series.

        Args:
            log_prob: log likelihood of the target given each sample, summed over time and channels,
                `(sample, *batch)`, in nats.
            latent: the samples and their divergence from the prior.
            step: the optimiser step; None gives the true bound, without annealing or free bits.

        Returns:
            One number per series, `(*batch,)`, in nats.
        """


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
        ValueError: a negative weight, or fewer than one sample.

    References:
        Auto-Encoding Variational Bayes, Kingma, Welling, 2014. https://arxiv.org/abs/1312.6114
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016 (free bits).
        https://arxiv.org/abs/1606.04934

    Example:
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
        if (not isinstance(self.beta, Anneal) and self.beta < 0) or self.free_bits < 0 or self.num_samples < 1:
            raise ValueError(
                "ELBO needs beta >= 0, free_bits >= 0 and num_samples >= 1; got "
                f"beta={self.beta}, free_bits={self.free_bits}, num_samples={self.num_samples}."
            )

    def bound(self, log_prob: Tensor, latent: LatentSample, step: int | None = None) -> Tensor:
        """See `Objective.bound`."""
        expected = log_prob.mean(0)
        if step is None:
            return expected - _total(_divergences(latent), expected)
        divergences = _divergences(latent)
        if self.free_bits > 0:
            if latent.kl_by_dimension is None:
                raise ValueError(
                    "free bits need a divergence per latent dimension; this posterior has none (free_bits=0)."
                )
            divergences["z0"] = latent.kl_by_dimension.clamp(min=self.free_bits).sum(-1)
        beta = self.beta(step) if isinstance(self.beta, Anneal) else self.beta
        return expected - beta * _total(divergences, expected)


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

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016. https://arxiv.org/abs/1509.00519

    Example:
        >>> latent = LatentSample(torch.zeros(2, 1, 2, 3), {"z0": torch.tensor([[0.0], [-1.0]])})
        >>> IWAE(num_samples=2).bound(torch.tensor([[-3.0], [-2.0]]), latent)
        tensor([-3.])
    """

    num_samples: int = 8

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"IWAE needs num_samples >= 1; got {self.num_samples}.")

    def bound(self, log_prob: Tensor, latent: LatentSample, step: int | None = None) -> Tensor:
        """See `Objective.bound`; nothing depends on the step."""
        unknown = sorted(set(latent.kl) - set(latent.log_terms))
        if unknown:
            raise ValueError(
                f"IWAE weighs samples by their density ratio prior / posterior, and this posterior has none for "
                f"{unknown}: it knows its divergence alone, which is what ELBO() needs."
            )
        log_weights = _total(latent.log_terms, log_prob) + log_prob
        return log_weights.logsumexp(0) - log(len(log_weights))


def _divergences(latent: LatentSample) -> dict[str, Tensor]:
    """By source, the divergence of each series: in closed form, or estimated from the samples where there is none."""
    return {**{name: -ratio.mean(0) for name, ratio in latent.log_terms.items()}, **latent.kl}


def _total(terms: Mapping[str, Tensor], like: Tensor) -> Tensor:
    return sum(terms.values(), start=torch.zeros_like(like))
