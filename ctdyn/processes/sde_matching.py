"""The process of the latent SDE that is trained without a solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from .._checks import check_count, shown
from .._types import Time, Times
from ..encoders import Encoding
from ..nn import MLP, rsample
from ..paths import Path
from ..solvers import Solver
from ..structure import Calculus, Explained, Noise, SDEField
from ._initial import NormalStart, Start
from ._walk import Walk, between, nodes_until
from .base import LatentProcess, LatentSample, check_state_size


__all__ = ["MatchedSDEProcess"]


class MatchedSDEProcess(NormalStart, LatentProcess, Explained):
    r"""A stochastic differential equation as a prior, and a posterior whose marginals are known: no solver to train.

    .. math::
        \text{prior:}\quad & dz = f(t, z)\,dt + g(t, z)\,dW, \qquad z_{t_0} \sim \mathcal{N}(\mu, \sigma^2) \\
        \text{posterior:}\quad & z_t = m(t) + s(t) \odot \epsilon, \qquad \epsilon \sim \mathcal{N}(0, I) \\
        & f_q = \dot m + \dot s \odot \epsilon - \tfrac12 g^2 \odot \epsilon / s + g \odot \partial_z g \\
        \operatorname{KL} &= \operatorname{KL}(q_0 \,\|\, p_0) + \mathrm{E}_{t, \epsilon}\, (t_n - t_0)\,
        \tfrac12 \lVert (f_q - f) / g \rVert^2, \qquad t \sim U(t_0, t_n)

    A network reads :math:`m` and :math:`\log s` from the context at the time, relative to those at `t0`, where `q0`
    rules; :math:`f_q` is the drift of the equation with the prior's noise and these marginals. The divergence is
    estimated without bias from random times, all at once: the depth of the computation does not grow with the length
    of the series. The context must be continuous in time, such as that of `BidirectionalGRUEncoder`.

    Posterior samples are marginal in time: a sample follows one :math:`\epsilon` through its series, so it has the
    right law at each time, and not that of a path of the equation. There is no density ratio of paths either: `ELBO` is
    the objective, and not `IWAE`. From the last knot of the context on samples follow the prior, by `solver` with the
    steps :math:`t_n + k\,dt`, straight within each. Before `t0` the state is that at `t0`.

    What is learnt is the equation, and not what a coarse step makes of it: the error of the method, which training by a
    solver would learn to make up for, is seen in long forecasts. With additive noise `SRA1` is the better method.

    Args:
        field: drift and diffusion of the prior, in the sense of Ito, with diagonal or additive noise, such as
            `MLPSDEField(latent_size)`.
        latent_size: size of the latent state.
        context_size: size of the encoder's context.
        hidden: hidden layers of the network of the marginals; empty for an affine map.
        activation: class of its activation; a smooth one.
        dt: length of a step beyond the context, on the clock of the model.
        solver: the method of these steps; default: `EulerMaruyama()`.
        num_times: random times per sample and series.

    Raises:
        ValueError: a field of another noise, calculus or `state_size`; `dt` or `num_times` is not positive; or, when
            sampling, the encoding has no diagonal normal `q0` or no context with knots.

    References:
        SDE Matching: Scalable and Simulation-Free Training of Latent Stochastic Differential Equations, Bartosh,
        Vetrov, Naesseth, 2025. https://arxiv.org/abs/2502.02472

    Example:
        >>> from ctdyn.fields import MLPSDEField
        >>> process = MatchedSDEProcess(MLPSDEField(4), latent_size=4, context_size=8)
        >>> process.prior(torch.zeros(3), torch.rand(3, 5), num_samples=2).zs.shape
        torch.Size([2, 3, 5, 4])
    """

    requires = frozenset({"q0", "context"})

    def __init__(
        self,
        field: SDEField,
        latent_size: int,
        context_size: int,
        *,
        hidden: Sequence[int] = (64,),
        activation: type[nn.Module] = nn.Tanh,
        dt: float = 0.05,
        solver: Solver | None = None,
        num_times: int = 32,
    ) -> None:
        if not isinstance(field, SDEField):
            raise TypeError(
                f"MatchedSDEProcess needs an SDEField, with a drift and a diffusion; got {shown(field)}. "
                "ODEProcess takes a VectorField."
            )
        check_state_size(field, latent_size)
        super().__init__(latent_size)
        self.sizes = {"q0": latent_size, "context": context_size}
        if field.noise not in (Noise.DIAGONAL, Noise.ADDITIVE) or field.calculus is not Calculus.ITO:
            raise ValueError(
                "MatchedSDEProcess needs a field in the sense of Ito with diagonal or additive noise; got "
                f"{field.noise.value} noise in the sense of {field.calculus.value}. SDEProcess takes any."
            )
        check_count("num_times, the random times per series,", num_times)
        self.field = field
        self.walk = Walk(dt, solver)
        self.num_times = num_times
        self.marginal = MLP(context_size + 1, 2 * latent_size, hidden, activation)
        # Only differences from the value at t0 count.
        self.marginal.layers[-1].register_parameter("bias", None)
        self._begin(latent_size)

    def explain(self) -> str:
        """See `Explained.explain`."""
        return f"no solver within the context, where the marginals are known; beyond it {self.walk.explain(self.field)}"

    def posterior(
        self,
        encoding: Encoding,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.posterior`; samples are marginal in time."""
        marginals = self._marginals(encoding, t0)
        q0 = marginals.q0
        z0 = rsample(q0, (num_samples,), generator=generator)
        noise = (z0 - q0.mean) / q0.stddev
        rate = self._rate(marginals, num_samples, generator, inputs)
        path = rate.mean(-1) * (marginals.end - t0).to(rate.dtype)
        start = Start.priced(z0, q0, self.p0)
        return LatentSample(
            zs=self._trajectories(marginals, noise, ts, generator, inputs),
            log_terms={"z0": start.log_ratio},
            kl={"path": path.mean(0), **start.kl},
            kl_by_dimension=start.kl_by_dimension,
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
        return LatentSample(zs=self._forward(z0, t0, ts, generator, inputs))

    def divergence_rate(
        self, encoding: Encoding, t0: Time, ts: Times, noise: Tensor, inputs: Path | None = None
    ) -> Tensor:
        r"""What the posterior costs per unit of time, :math:`\tfrac12 \lVert (f_q - f) / g \rVert^2`, in nats.

        Args:
            encoding: what the encoder has read.
            t0: where the latent state begins, `(*batch,)`.
            ts: times within the context, `(*batch, time)`.
            noise: the :math:`\epsilon` that say where, `(sample, *batch, time, latent)`.
            inputs: covariates that drive the dynamics.

        Returns:
            `(sample, *batch, time)`; its mean over normal noise, integrated, is the divergence of the paths.
        """
        return self._rate_at(self._marginals(encoding, t0), ts, noise, inputs)

    def _rate(
        self, marginals: _Marginals, num_samples: int, generator: Generator | None, inputs: Path | None
    ) -> Tensor:
        """At random times, one in each of equal parts of the context, `(sample, *batch, time)`."""
        t0, end = marginals.t0, marginals.end
        shape = (num_samples, *t0.shape, self.num_times)
        mean = marginals.q0.mean
        place = torch.rand(shape[1:], generator=generator, dtype=mean.dtype, device=_source(mean, generator))
        number = torch.arange(self.num_times, device=mean.device)
        place = (place.to(mean.device) + number) / self.num_times
        ts = t0.unsqueeze(-1) + (end - t0).unsqueeze(-1) * place
        noise = torch.randn(
            (*shape, self.latent_size), generator=generator, dtype=mean.dtype, device=_source(mean, generator)
        )
        return self._rate_at(marginals, ts, noise.to(mean.device), inputs)

    def _rate_at(self, marginals: _Marginals, ts: Tensor, noise: Tensor, inputs: Path | None) -> Tensor:
        mean, log_std, mean_rate, log_std_rate = marginals.moving(ts)
        std = log_std.exp()
        z = mean + std * noise
        time = ts.to(z.dtype).expand(z.shape[:-1])
        u = None if inputs is None else inputs(ts).to(z.dtype)
        u = None if u is None else u.expand(*z.shape[:-1], u.shape[-1])
        g = self.field.diffusion(time, z, u)
        if g.dim() != z.dim():
            raise ValueError(
                "MatchedSDEProcess needs one Brownian motion per latent dimension; the diffusion is a matrix."
            )
        drift = mean_rate + std * log_std_rate * noise - 0.5 * g.square() * noise / std
        if self.field.noise is Noise.DIAGONAL:
            # Entry i of the diffusion depends on entry i of the state alone, so one product gives all derivatives.
            slope = torch.func.jvp(lambda z: self.field.diffusion(time, z, u), (z,), (torch.ones_like(z),))[1]
            drift = drift + g * slope
        return 0.5 * ((drift - self.field.drift(time, z, u)) / g).square().sum(-1)

    def _trajectories(
        self, marginals: _Marginals, noise: Tensor, ts: Tensor, generator: Generator | None, inputs: Path | None
    ) -> Tensor:
        """States of the marginals within the context, of the prior beyond it."""
        end = marginals.end.unsqueeze(-1)
        inside = torch.minimum(torch.maximum(ts, marginals.t0.unsqueeze(-1)), end)
        mean, log_std = marginals.at(torch.cat([inside, end], -1))
        known = mean + log_std.exp() * noise.unsqueeze(-2)
        zs, last = known[..., :-1, :], known[..., -1, :]
        beyond = ts > end
        if not bool(beyond.any()):
            return zs
        return torch.where(beyond.unsqueeze(-1), self._forward(last, marginals.end, ts, generator, inputs), zs)

    def _forward(self, z0: Tensor, t0: Tensor, ts: Tensor, generator: Generator | None, inputs: Path | None) -> Tensor:
        nodes = nodes_until(t0, torch.cat([ts, t0.unsqueeze(-1)], -1).amax(-1), self.walk.dt)
        driven = None if inputs is None else inputs(nodes[..., :-1]).to(z0.dtype)
        path, _ = self.walk.run(self.field, z0, nodes, driven, generator)
        return between(nodes, path, ts, self.walk.dt)

    def _marginals(self, encoding: Encoding, t0: Time) -> _Marginals:
        q0, context = encoding.q0, encoding.context
        knots = None if context is None else context.knots()
        diagonal = isinstance(q0, Independent) and isinstance(q0.base_dist, Normal)
        if q0 is None or context is None or knots is None or not diagonal:
            raise ValueError(
                "MatchedSDEProcess needs an encoding with a diagonal normal q0 and a context that is continuous and "
                "has knots, the last of which is where the posterior ends; use an encoder that provides them, such as "
                "BidirectionalGRUEncoder."
            )
        start = t0.to(torch.promote_types(t0.dtype, knots.dtype))
        return _Marginals(q0, context, knots, start, torch.maximum(knots[..., -1], start), self.marginal)


@dataclass(frozen=True)
class _Marginals:
    """The normal distributions of the latent state at each time."""

    q0: Distribution
    context: Path
    knots: Tensor
    t0: Tensor
    end: Tensor
    net: MLP

    def at(self, ts: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, `(*batch, time, latent)`."""
        return self._relative(self.net(self._features(ts)[0]))

    def moving(self, ts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same, and how fast they change."""
        features, rates = self._features(ts)
        moved = torch.func.jvp(self.net, (features,), (rates,))
        return *self._relative(moved[0]), *moved[1].chunk(2, -1)

    @cached_property
    def start(self) -> Tensor:
        """What the network says of `t0`, where `q0` rules."""
        return self.net(self._features(self.t0.unsqueeze(-1))[0])

    def _relative(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = (moments - self.start).chunk(2, -1)
        q0 = self.q0
        return q0.mean.unsqueeze(-2) + mean, q0.stddev.log().unsqueeze(-2) + log_std

    def _features(self, ts: Tensor) -> tuple[Tensor, Tensor]:
        """Context and how far from its knots the time is, and their derivatives, `(*batch, time, context + 1)`.

        The distance is the variance of a Brownian bridge between the knots: what is known of the state between
        observations is less than at them.
        """
        knots = self.knots.contiguous()
        right = torch.searchsorted(knots, ts.to(knots.dtype).contiguous(), right=True).clamp(
            1, max(1, knots.shape[-1] - 1)
        )
        right = right.clamp(max=knots.shape[-1] - 1)
        a = (ts - knots.gather(-1, (right - 1).clamp(min=0))).clamp(min=0.0)
        b = (knots.gather(-1, right) - ts).clamp(min=0.0)
        span = torch.where(a + b > 0, a + b, 1.0)
        first = torch.movedim(ts, -1, 0)
        seen, change = self.context(ts), torch.movedim(self.context.derivative(first), 0, -2)
        bridge, slope = (a * b / span).unsqueeze(-1), ((b - a) / span).unsqueeze(-1)
        # Times may be finer than states are.
        found = torch.cat([seen, bridge], -1), torch.cat([change, slope], -1)
        return found[0].to(self.q0.mean.dtype), found[1].to(self.q0.mean.dtype)


def _source(like: Tensor, generator: Generator | None) -> torch.device:
    return like.device if generator is None else generator.device
