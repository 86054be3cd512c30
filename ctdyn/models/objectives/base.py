"""What an objective is: a bound on the log evidence, in nats per series."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._options import with_suggestions
from ...processes import LatentSample


__all__ = ["Anneal", "Objective", "divergences", "total"]


@with_suggestions
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
        if not self.steps >= 1 or not 0 <= self.start <= 1:
            raise ValueError(
                f"Anneal needs steps >= 1 and start in [0, 1]; got steps={self.steps}, start={self.start}."
            )

    def __call__(self, step: int) -> float:
        """The weight at a step."""
        return min(1.0, self.start + (1 - self.start) * step / self.steps)


class Objective(ABC):
    """What is maximised, as a pure function of sampled latents and of the optimiser step.

    Example:
        >>> from ctdyn.models import ELBO
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


def divergences(latent: LatentSample) -> dict[str, Tensor]:
    """By source, the divergence of each series: in closed form, or estimated from the samples where there is none."""
    return {**{name: -ratio.mean(0) for name, ratio in latent.log_terms.items()}, **latent.kl}


def total(terms: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """The sum of terms by name, of the shape of `like`."""
    return sum(terms.values(), start=torch.zeros_like(like))
