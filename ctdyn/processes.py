"""Latent dynamics with a prior and a posterior."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from ._config import Configurable
from ._types import Time, Times
from .encoders import Encoding
from .integrate import Adjoint, StepController, solve
from .nn import rsample
from .paths import Path
from .solvers import Solver
from .structure import VectorField


__all__ = ["LatentProcess", "LatentSample", "ODEProcess"]


@dataclass(frozen=True)
class LatentSample:
    """Sampled latent trajectories, and what they cost against the prior, in nats.

    Args:
        zs: latent states, `(sample, *batch, time, latent)`.
        log_terms: by source, the log density ratio prior / posterior of what was sampled, `(sample, *batch)`; empty
            for samples from the prior.
        kl: by the same names, the Kullback-Leibler divergence in closed form, `(*batch,)`, where there is one.
        kl_by_dimension: the divergence of the initial state by latent dimension, `(*batch, latent)`, where the
            dimensions are independent; free bits need it.

    Example:
        >>> latent = LatentSample(torch.zeros(8, 3, 5, 2), log_terms={"z0": torch.zeros(8, 3)})
        >>> latent.kl
        {}
    """

    zs: Tensor
    log_terms: Mapping[str, Tensor] = field(default_factory=dict)
    kl: Mapping[str, Tensor] = field(default_factory=dict)
    kl_by_dimension: Tensor | None = None


class LatentProcess(nn.Module, Configurable, ABC):
    """A latent state that evolves in continuous time, with a prior and an approximate posterior.

    Args:
        latent_size: size of the latent state.

    Example:
        >>> sorted(ODEProcess.requires)
        ['q0']
    """

    #: The fields of `Encoding` that the posterior is made of.
    requires: ClassVar[frozenset[str]]

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


class ODEProcess(LatentProcess):
    r"""A random initial state that follows an ordinary differential equation.

    .. math:: z_{t_0} \sim p(z), \qquad \frac{dz}{dt} = f(t, z, u(t))

    The posterior replaces :math:`p(z)` by the encoder's `q0`. Times before `t0` are reached by solving backwards.

    Args:
        field: the dynamics.
        latent_size: size of the latent state.
        learned_prior: whether the mean and width of the diagonal normal prior are learned; the standard normal if not.
        solver: the method; default: that of `solve`.
        controller: the step control; default: that of `solve`.
        adjoint: how gradients are computed; default: that of `solve`.

    References:
        Neural Ordinary Differential Equations, Chen, Rubanova, Bettencourt, Duvenaud, 2018.
        https://arxiv.org/abs/1806.07366

    Example:
        >>> from ctdyn.fields import MLPField
        >>> process = ODEProcess(MLPField(4), latent_size=4)
        >>> process.prior(torch.zeros(3), torch.rand(3, 5), num_samples=2).zs.shape
        torch.Size([2, 3, 5, 4])
    """

    requires = frozenset({"q0"})

    def __init__(
        self,
        field: VectorField,
        latent_size: int,
        *,
        learned_prior: bool = False,
        solver: Solver | None = None,
        controller: StepController | None = None,
        adjoint: Adjoint | None = None,
    ) -> None:
        super().__init__(latent_size)
        self.field = field
        self.solver = solver
        self.controller = controller
        self.adjoint = adjoint
        self.prior_mean = nn.Parameter(torch.zeros(latent_size), requires_grad=learned_prior)
        self.prior_log_std = nn.Parameter(torch.zeros(latent_size), requires_grad=learned_prior)

    @property
    def p0(self) -> Distribution:
        """The prior of the initial state, of event shape `(latent,)`."""
        return Independent(Normal(self.prior_mean, self.prior_log_std.exp(), validate_args=False), 1)

    def posterior(
        self,
        encoding: Encoding,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.posterior`."""
        if encoding.q0 is None:
            raise ValueError(
                "ODEProcess needs an encoding with q0; use an encoder that provides it, such as GRUEncoder."
            )
        q0, p0 = encoding.q0, self.p0
        z0 = rsample(q0, (num_samples,), generator=generator)
        kl = _closed_form_kl(q0, p0)
        return LatentSample(
            zs=self._trajectories(z0, t0, ts, inputs),
            log_terms={"z0": p0.log_prob(z0) - q0.log_prob(z0)},
            kl={} if kl is None else {"z0": kl},
            kl_by_dimension=_kl_by_dimension(q0, p0),
        )

    def prior(
        self,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.prior`."""
        z0 = rsample(self.p0, (num_samples, *t0.shape), generator=generator)
        return LatentSample(zs=self._trajectories(z0, t0, ts, inputs))

    def _trajectories(self, z0: Tensor, t0: Time, ts: Times, inputs: Path | None) -> Tensor:
        """States at `ts` from those at `t0`: forwards in time, and backwards where a time lies before `t0`."""
        later, index = _own_grid(t0, ts)
        zs = _rows(self._solve(z0, later, inputs), index)
        before = ts < t0.unsqueeze(-1)
        if not bool(before.any()):
            return zs
        earlier, index = _own_grid(-t0, -ts)
        backwards = _rows(self._solve(z0, -earlier, inputs), index)
        return torch.where(before.unsqueeze(-1), backwards, zs)

    def _solve(self, z0: Tensor, ts: Times, inputs: Path | None) -> Tensor:
        if ts.shape[-1] == 1:
            return z0.unsqueeze(-2)
        return solve(
            self.field, z0, ts, inputs=inputs, solver=self.solver, controller=self.controller, adjoint=self.adjoint
        ).ys


def _own_grid(t0: Time, ts: Times) -> tuple[Tensor, Tensor]:
    """The distinct times of each series from `t0` on, and where each query finds itself among them.

    A solver wants strictly increasing times with nothing but repeats of the last one behind them; queries come in any
    order, repeat, and may lie before `t0` (these find themselves at `t0`).
    """
    with torch.no_grad():
        start = t0.unsqueeze(-1)
        ordered = torch.cat([start, torch.maximum(ts, start)], -1).sort(-1).values
        repeated = torch.zeros_like(ordered, dtype=torch.bool)
        repeated[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
        last = ordered[..., -1:]
        # Repeats are sent behind the last time, which is what padding looks like.
        grid = torch.where(repeated, last, ordered).sort(-1).values
        width = int((~repeated).sum(-1).max()) if repeated.numel() else 1
        grid = grid[..., :width].contiguous()
        return grid, torch.searchsorted(grid, torch.maximum(ts, start).contiguous())


def _rows(ys: Tensor, index: Tensor) -> Tensor:
    """The states at each series' own indices; the index is shared by the samples."""
    shape = (*ys.shape[:-2], index.shape[-1], ys.shape[-1])
    return ys.gather(-2, index.unsqueeze(-1).expand(shape))


def _closed_form_kl(q: Distribution, p: Distribution) -> Tensor | None:
    if isinstance(q, MultivariateNormal):
        p = MultivariateNormal(p.mean, scale_tril=torch.diag_embed(p.stddev), validate_args=False)
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _kl_by_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    if isinstance(q, Independent) and isinstance(p, Independent) and len(q.base_dist.event_shape) == 0:
        return kl_divergence(q.base_dist, p.base_dist)
    return None
