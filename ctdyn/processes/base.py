"""What a latent process is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Generator, Tensor, nn

from .._config import Configurable
from .._types import Time, Times
from ..encoders import Encoding
from ..paths import Path


__all__ = ["IntegratingProcess", "LatentProcess", "LatentSample", "check_state_size"]


@dataclass(frozen=True)
class LatentSample:
    """Sampled latent trajectories, and what they cost against the prior, in nats.

    Args:
        zs: latent states, `(sample, *batch, time, latent)`.
        log_terms: by source, the log density ratio prior / posterior of what was sampled, `(sample, *batch)`; empty
            for samples from the prior.
        kl: by the same names, the Kullback-Leibler divergence, `(*batch,)`, in closed form or by a better estimate than
            the mean of the ratio. A name that `log_terms` lacks is a divergence without a density ratio.
        kl_by_dimension: the divergence of the initial state by latent dimension, `(*batch, latent)`, where the
            dimensions are independent; free bits need it.
        integrals: of what was to be integrated along the trajectories, from the start to each time,
            `(sample, *batch, time, k)` each; see `IntegratingProcess`.

    Example:
        >>> import torch
        >>> latent = LatentSample(torch.zeros(8, 3, 5, 2), log_terms={"z0": torch.zeros(8, 3)})
        >>> latent.kl
        {}
    """

    zs: Tensor
    log_terms: Mapping[str, Tensor] = field(default_factory=dict)
    kl: Mapping[str, Tensor] = field(default_factory=dict)
    kl_by_dimension: Tensor | None = None
    integrals: tuple[Tensor, ...] = ()


class LatentProcess(nn.Module, Configurable, ABC):
    """A latent state that evolves in continuous time, with a prior and an approximate posterior.

    Args:
        latent_size: size of the latent state.

    Example:
        >>> from ctdyn.processes import ODEProcess
        >>> sorted(ODEProcess.requires)
        ['q0']
    """

    #: The fields of `Encoding` that the posterior is made of.
    requires: frozenset[str]
    #: Whether inputs can drive it.
    driven: bool = True
    #: Of what is required the size of the last axis, where it is known.
    sizes: Mapping[str, int] = MappingProxyType({})

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        self.latent_size = latent_size

    @abstractmethod
    def posterior(
        self,
        encoding: Encoding,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """Trajectories given what an encoder has read.

        Args:
            encoding: what the encoder has read.
            t0: where the latent state begins, `(*batch,)`.
            ts: times to sample at, before or after `t0` and in any order, `(*batch, time)`. Asking for more times
                does not move the answers at the others.
            num_samples: trajectories per series.
            generator: the source of randomness.
            inputs: covariates that drive the dynamics.
        """

    @abstractmethod
    def prior(
        self,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """Trajectories given nothing; the arguments are those of `posterior`."""

    def summary(self, encoding: Encoding) -> Tensor:
        """The posterior of a series as one vector, `(*batch, feature)`, without sampling.

        The mean of the initial state, or what the encoder says of the whole series, unless a process knows better.

        Args:
            encoding: what the encoder has read.

        Raises:
            ValueError: the encoding has neither, and the process does not know better.
        """
        found = encoding.static if encoding.q0 is None else encoding.q0.mean
        if found is None:
            raise ValueError(
                f"{type(self).__name__} has no summary of its own, and the encoding neither q0 nor static to take its "
                "place; define summary(encoding)."
            )
        return found


def check_state_size(field: nn.Module, latent_size: int) -> None:
    """Refuse a field of another state than the latent one, where it says of which.

    Raises:
        ValueError: the sizes differ.
    """
    size = getattr(field, "state_size", latent_size)
    if size != latent_size:
        raise ValueError(
            f"the field moves the latent state, so both have one size; {type(field).__name__} has state_size={size}, "
            f"and latent_size is {latent_size}."
        )


class IntegratingProcess(LatentProcess, ABC):
    r"""Capability: integrates functions of the latent state along its trajectories, as further entries of the state.

    .. math:: I(t) = \int_{t_0}^t q(\tau, z(\tau))\,d\tau

    Observations that are means over intervals need it, and so do observation times that tell something.

    Example:
        >>> from ctdyn.processes import ODEProcess
        >>> issubclass(ODEProcess, IntegratingProcess)
        True
    """

    @abstractmethod
    def posterior(
        self,
        encoding: Encoding,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
        integrands: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
    ) -> LatentSample:
        """See `LatentProcess.posterior`.

        Args:
            encoding: what the encoder has read.
            t0: where the latent state begins, `(*batch,)`.
            ts: times to sample at, and to integrate to, `(*batch, time)`.
            num_samples: trajectories per series.
            generator: the source of randomness.
            inputs: covariates that drive the dynamics.
            integrands: functions `q(t, z)` of times `(...)` and states `(..., latent)`, with values `(..., k)`; their
                integrals are the `integrals` of the sample. Modules, where they have parameters.
        """
