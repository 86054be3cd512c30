"""What a latent process is asked for: states at times, means over intervals, and when it would be observed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from .._types import Times, Values
from ..data import IrregularBatch, Window
from ..encoders import Encoding, start_time
from ..likelihoods import Likelihood, Located, PoissonTimes, masked_log_prob
from ..paths import Path
from ..processes import IntegratingProcess, LatentProcess, LatentSample
from .base import input_path


__all__ = ["Question", "Reading"]


@dataclass(frozen=True)
class Question:
    """At which times, where the interval of each begins (None: nowhere before it), and with which standard errors.

    Args:
        ts: `(*batch, time)`.
        start: `(*batch, time)`.
        noise: `(*batch, time, channel)`.
    """

    ts: Times
    start: Times | None = None
    noise: Values | None = None

    @property
    def has_intervals(self) -> bool:
        """Whether a mean is asked for."""
        return self.start is not None and bool((self.start < self.ts).any())


@dataclass(frozen=True)
class Reading:
    """How a latent process and a likelihood answer.

    Args:
        process: the latent dynamics.
        likelihood: decodes a latent state.
        times: what observation times tell; None where they tell nothing.

    Raises:
        ValueError: observation times are to tell something, and the process does not integrate.
    """

    process: LatentProcess
    likelihood: Likelihood
    times: PoissonTimes | None = None

    def __post_init__(self) -> None:
        if self.times is not None:
            self._integrating("the compensator of PoissonTimes")

    def answer(
        self,
        encoding: Encoding,
        context: IrregularBatch,
        question: Question,
        num_samples: int,
        generator: Generator | None,
        inputs: Path | None,
    ) -> tuple[LatentSample, Distribution]:
        """The latent sample at the asked times, and what is observed there."""
        t0, ts = start_time(context), question.ts
        if not question.has_intervals:
            latent = self.process.posterior(encoding, t0, ts, num_samples, generator, inputs)
            return latent, self.likelihood(latent.zs, ts, question.noise)
        process, location = self._integrating("an observation over an interval"), _Location(self._located())
        asked = torch.cat([ts, _begins(question)], -1)
        latent = process.posterior(encoding, t0, asked, num_samples, generator, inputs, (location,))
        return self._means(latent, question)

    def score(
        self, encoding: Encoding, window: Window, num_samples: int, generator: Generator | None
    ) -> tuple[LatentSample, Tensor, dict[str, Tensor]]:
        """The latent sample at the times of the target, its log likelihood `(sample, *batch)`, and parts of that."""
        context, target = window.context, window.target
        question = Question(target.times, target.start, target.noise)
        path = input_path(context, target)
        if self.times is None:
            latent, distribution = self.answer(encoding, context, question, num_samples, generator, path)
            return latent, masked_log_prob(distribution, target.values, target.mask), {}
        t0, ts = start_time(context), target.times
        begin, end, seen = self.times.interval((ts, target.observed), (context.times, context.observed), t0)
        process = self._integrating("the compensator of PoissonTimes")
        integrands = [self.times, *([_Location(self._located())] if question.has_intervals else [])]
        count = ts.shape[-1]
        # Before a forecast no row of the context counts, and its states are of no use.
        known = context.times.shape[-1] if bool(seen[..., count:].any()) else 0
        counted = torch.cat([context.times[..., :known], begin.unsqueeze(-1), end.unsqueeze(-1)], -1)
        asked = torch.cat([ts, *([_begins(question)] if question.has_intervals else []), counted], -1)
        latent = process.posterior(encoding, t0, asked, num_samples, generator, path, integrands)
        compensator = latent.integrals[0][..., -1, 0] - latent.integrals[0][..., -2, 0]
        states = torch.cat([latent.zs[..., :count, :], latent.zs[..., -known - 2 : -2, :]], -2)
        told = self.times.log_prob(states, seen[..., : count + known], compensator)
        if question.has_intervals:
            latent, distribution = self._means(replace(latent, integrals=latent.integrals[1:]), question)
        else:
            latent = replace(latent, zs=latent.zs[..., :count, :], integrals=())
            distribution = self.likelihood(latent.zs, ts, target.noise)
        return latent, masked_log_prob(distribution, target.values, target.mask) + told, {"times": told.mean().detach()}

    def _means(self, latent: LatentSample, question: Question) -> tuple[LatentSample, Distribution]:
        """From integrals to the times and to the beginnings behind them."""
        ts, count = question.ts, question.ts.shape[-1]
        likelihood = self._located()
        total = latent.integrals[0][..., :count, :] - latent.integrals[0][..., count : 2 * count, :]
        latent = replace(latent, zs=latent.zs[..., :count, :], integrals=())
        length = (ts - _begins(question)).unsqueeze(-1).to(total.dtype)
        mean = total / torch.where(length > 0, length, 1.0)
        location = torch.where(length > 0, mean, likelihood.location(latent.zs))
        return latent, likelihood.around(location, latent.zs, question.noise)

    def _integrating(self, what: str) -> IntegratingProcess:
        if isinstance(self.process, IntegratingProcess):
            return self.process
        raise ValueError(
            f"{what} needs a process that integrates along its trajectories, and {type(self.process).__name__} does "
            "not; use ODEProcess or SDEProcess (LatentODE, LatentSDE), or LinearGaussianSSM for means over intervals."
        )

    def _located(self) -> Located:
        if isinstance(self.likelihood, Located):
            return self.likelihood
        raise ValueError(
            f"a mean over an interval needs a likelihood around a location, and {type(self.likelihood).__name__} is "
            "none; use Gaussian, StudentT or Laplace for all channels."
        )


class _Location(nn.Module):
    """Where observations lie, as an integrand."""

    def __init__(self, likelihood: Located) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.likelihood.location(z)


def _begins(question: Question) -> Times:
    assert question.start is not None
    return question.start
