"""The process of the latent SDE."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from .._checks import shown
from .._types import Inputs, State, Time, Times
from ..encoders import Encoding
from ..integrate import Adjoint
from ..nn import MLP, rsample
from ..paths import Path
from ..solvers import Solver
from ..structure import Explained, SDEField
from ..terms import brownian_size
from ._initial import NormalStart, Start
from ._walk import Walk, between, integral, nodes_until
from .base import IntegratingProcess, LatentSample, check_state_size


__all__ = ["SDEProcess"]


class SDEProcess(NormalStart, IntegratingProcess, Explained):
    r"""A stochastic differential equation as a prior; as a posterior, the same with a drift that is told what comes.

    .. math::
        \text{prior:}\quad & dz = f(t, z)\,dt + g(t, z)\,dW, \qquad z_{t_0} \sim \mathcal{N}(\mu, \sigma^2) \\
        \text{posterior:}\quad & dz = \big(f(t, z) + g(t, z)\,v(z, c(t))\big)\,dt + g(t, z)\,dW, \qquad
        z_{t_0} \sim q_0 \\
        \operatorname{KL} &= \operatorname{KL}(q_0 \,\|\, p_0) + \mathrm{E} \int \tfrac12 \lVert v \rVert^2\,dt

    Both have one diffusion by construction. The correction is measured in units of the noise, so that its cost
    (Girsanov) has no division that could blow up where the noise is small; it is zero at the start of training. The
    network :math:`v` sees the latent state, the context and how far the next observation is. From the last knot of the
    context on the posterior follows the prior, and nothing more is paid.

    The steps are :math:`t_0 + k\,dt`, whatever is asked for, and trajectories are straight lines within a step. With
    Euler-Maruyama the divergence and the density ratio are exactly those of the two chains of steps. Before `t0` the
    state is that at `t0`.

    Args:
        field: drift and diffusion of the prior, of any noise, such as `MLPSDEField(latent_size)`.
        latent_size: size of the latent state.
        context_size: size of the encoder's context.
        hidden: hidden layers of the correction.
        activation: class of its activation.
        dt: length of a step on the clock of the model; not longer than observations are apart.
        solver: the method; default: `EulerMaruyama()`.
        adjoint: how gradients are computed; default: that of `solve`.

    Raises:
        ValueError: `dt` is not positive, or the field has another `state_size`; or, when sampling, the encoding has no
            `q0` or no context with knots.

    References:
        Scalable Gradients for Stochastic Differential Equations, Li, Wong, Chen, Duvenaud, 2020.
        https://arxiv.org/abs/2001.01328

    Example:
        >>> from ctdyn.fields import MLPSDEField
        >>> process = SDEProcess(MLPSDEField(4), latent_size=4, context_size=8)
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
        adjoint: Adjoint | None = None,
    ) -> None:
        if not isinstance(field, SDEField):
            raise TypeError(
                f"SDEProcess needs an SDEField, with a drift and a diffusion; got {shown(field)}. "
                "ODEProcess takes a VectorField."
            )
        check_state_size(field, latent_size)
        super().__init__(latent_size)
        self.sizes = {"q0": latent_size, "context": context_size}
        self.field = field
        self.walk = Walk(dt, solver, adjoint)
        motions = brownian_size(field, torch.zeros(()), torch.zeros(latent_size))
        self.correction = MLP(latent_size + context_size + 1, motions, hidden, activation)
        last = self.correction.layers[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self._begin(latent_size)

    def explain(self) -> str:
        """See `Explained.explain`."""
        return self.walk.explain(self.field)

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
        """See `IntegratingProcess.posterior`; one Brownian motion per sample and series."""
        q0, context = encoding.q0, encoding.context
        knots = None if context is None else context.knots()
        if q0 is None or context is None or knots is None:
            raise ValueError(
                "SDEProcess needs an encoding with q0 and a context that has knots, the last of which is where the "
                "posterior ends; use an encoder that provides them, such as ReverseGRUEncoder."
            )
        z0 = rsample(q0, (num_samples,), generator=generator)
        end = torch.maximum(knots[..., -1].to(torch.float64), t0)
        nodes = nodes_until(t0, torch.cat([ts, end.unsqueeze(-1)], -1).amax(-1), self.walk.dt)
        guide = _guide(context, knots, nodes[..., :-1], end).to(z0.dtype)
        driven = guide if inputs is None else torch.cat([inputs(nodes[..., :-1]).to(z0.dtype), guide], -1)
        equation = _Posterior(self.field, self.correction, guide.shape[-1])
        path, dW = self.walk.run(equation, z0, nodes, driven, generator)
        energy, ratio = self._cost(path, dW, guide)
        start = Start.priced(z0, q0, self.p0)
        return LatentSample(
            zs=between(nodes, path, ts, self.walk.dt),
            log_terms={"z0": start.log_ratio, "path": ratio},
            kl={"path": energy.mean(0), **start.kl},
            kl_by_dimension=start.kl_by_dimension,
            integrals=tuple(integral(nodes, path, q, ts, self.walk.dt) for q in integrands),
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
        nodes = nodes_until(t0, torch.cat([ts, t0.unsqueeze(-1)], -1).amax(-1), self.walk.dt)
        driven = None if inputs is None else inputs(nodes[..., :-1]).to(z0.dtype)
        path, _ = self.walk.run(self.field, z0, nodes, driven, generator)
        return LatentSample(zs=between(nodes, path, ts, self.walk.dt))

    def _cost(self, path: Tensor, dW: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Half the squared correction, and the log density ratio prior / posterior, `(sample, *batch)` each."""
        active = guide[..., -1] > 0
        count = int(active.sum(-1).max()) if active.numel() else 0
        if count == 0:
            zero = path[..., 0, 0] * 0.0
            return zero, zero
        v = _corrected(self.correction, path[..., :count, :], guide[..., :count, :])
        energy = 0.5 * self.walk.dt * v.square().sum((-1, -2))
        return energy, -energy - (v * dW[..., :count, :]).sum((-1, -2))


class _Posterior(SDEField):
    """The prior with its noise pushed; the last inputs are the guide of the correction."""

    def __init__(self, base: SDEField, correction: nn.Module, guide_size: int) -> None:
        super().__init__()
        self.base, self.correction, self.guide_size = base, correction, guide_size
        self.noise, self.calculus = base.noise, base.calculus

    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        assert u is not None
        given, guide = self._split(u)
        f = self.base.drift(t, y, given)
        if not bool((guide[..., -1] > 0).any()):
            return f
        g = self.base.diffusion(t, y, given)
        v = _corrected(self.correction, y, guide)
        return f + (g * v if g.dim() == y.dim() else (g @ v.unsqueeze(-1)).squeeze(-1))

    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        assert u is not None
        return self.base.diffusion(t, y, self._split(u)[0])

    def _split(self, u: Tensor) -> tuple[Tensor | None, Tensor]:
        given = u.shape[-1] - self.guide_size
        return (u[..., :given] if given else None), u[..., given:]


def _corrected(correction: nn.Module, y: Tensor, guide: Tensor) -> Tensor:
    guide = guide.expand(*y.shape[:-1], guide.shape[-1])
    return correction(torch.cat([y, guide[..., :-1]], -1)) * guide[..., -1:]


def _guide(context: Path, knots: Tensor, nodes: Tensor, end: Tensor) -> Tensor:
    """For each step the context, how far the next knot is, and 1 before the last of them, `(*batch, step, ...)`."""
    following = torch.searchsorted(knots.contiguous(), nodes.contiguous(), right=True).clamp(max=knots.shape[-1] - 1)
    remaining = (knots.gather(-1, following) - nodes).clamp(min=0.0)
    active = nodes < end.unsqueeze(-1)
    seen = context(nodes)
    return torch.cat([seen, torch.stack([remaining, active], -1).to(seen.dtype)], -1)
