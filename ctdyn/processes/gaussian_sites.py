"""Linear-Gaussian dynamics, whose posterior given Gaussian pseudo-observations is exact."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from .._checks import shown
from .._types import Time, Times
from ..encoders import Encoding, Sites
from ..linear import Chain, Gaussian, LinearDynamics, Solved, StationaryPath
from ..nn import take_items
from ..paths import Path
from ..paths._counter import key_of, normals
from .base import LatentProcess, LatentSample


__all__ = ["LinearGaussianProcess"]

_SURPRISE = 7


class LinearGaussianProcess(LatentProcess):
    r"""Gaussian processes of linear dynamics as a prior, Gaussian sites as a posterior: exact inference, linear time.

    .. math::
        dx = A x\,dt + dW, \quad z(t) = H x(t), \qquad
        q(z) \propto p(z) \prod_i \mathcal{N}\left(\tilde{y}_i \mid z(t_i), \tilde{v}_i\right)

    The prior is any stationary `LinearDynamics`: `Matern`, `OU`, `Oscillators`, `Periodic`, sums and products.
    Each latent dimension is a process of its own if the dynamics' parameters have a batch axis of that size
    (`lengthscale=[0.1, 0.3, 1.0]`); dynamics without one are a single process that all latent dimensions read, by `H`.
    Processes that never meet are inferred side by side: `Oscillators` cost two numbers per rotation and no more.

    The posterior is that of a Kalman filter and smoother between irregular times, so trajectories are joint samples,
    and the divergence is exact, in nats per series:

    .. math::
        \operatorname{KL}(q \,\|\, p) = \sum_i \mathrm{E}_q \log \mathcal{N}\left(\tilde{y}_i \mid z(t_i),
        \tilde{v}_i\right) - \log \int p(z) \prod_i \mathcal{N}\left(\tilde{y}_i \mid z(t_i), \tilde{v}_i\right) dz

    Computed in float64; results have the dtype of the sites.

    Args:
        dynamics: what evolves, with batch axes `(latent,)` or none.
        H: the rows that read the latent dimensions from the state, `(latent, state)`, learned from there. None: the
            `readout` of the dynamics, or their whole state where they have no batch axis.
        resolution: the length below which trajectories are straight lines, in units of time; a power of 2.

    Raises:
        ValueError: the dynamics are not stationary, have more than one batch axis, or `H` does not fit.

    Reference:
        Markovian Gaussian Process Variational Autoencoders, H. Zhu, C. Balsells-Rodas, Y. Li, 2023,
        https://proceedings.mlr.press/v202/zhu23k.html

    Example:
        >>> from ctdyn.linear import Matern
        >>> process = LinearGaussianProcess(Matern(1.5, lengthscale=[0.3, 1.0]))
        >>> one = torch.ones(1, 1, 2)
        >>> sites = Sites(torch.zeros(1, 1), mean=one, precision=99.0 * one, mask=one.bool())
        >>> process.marginals(sites, torch.tensor([[0.0, 100.0]])).variance.squeeze(0).detach()
        tensor([[0.0100, 0.0100],
                [1.0000, 1.0000]])
    """

    requires = frozenset({"sites"})
    driven = False

    H: Tensor

    def __init__(
        self,
        dynamics: LinearDynamics,
        *,
        H: Sequence[Sequence[float]] | None = None,
        resolution: float = 2.0**-14,
    ) -> None:
        if not isinstance(dynamics, LinearDynamics):
            raise TypeError(
                f"LinearGaussianProcess needs LinearDynamics, such as Matern; got {shown(dynamics)}. "
                "ODEProcess and SDEProcess take fields."
            )
        batch = dynamics.batch_shape
        if len(batch) > 1:
            raise ValueError(f"the parameters of the dynamics may have one batch axis, (latent,); got {tuple(batch)}.")
        if dynamics.dtype.is_complex:
            raise TypeError("the dynamics must have a real state; for complex eigenvalues use Rotations.")
        dynamics.stationary()
        rows = _rows(dynamics, H)
        super().__init__(len(rows) * math.prod(_independent(dynamics, learned=H is not None).batch_shape))
        self.sizes = {"sites": self.latent_size}
        self.dynamics = dynamics
        self.resolution = resolution
        if H is None:
            self.register_buffer("H", rows, persistent=False)
        else:
            self.H = nn.Parameter(rows)

    @property
    def _processes(self) -> LinearDynamics:
        """The dynamics as processes that stay independent of each other given sites, `(group,)` of them or one."""
        return _independent(self.dynamics, learned=isinstance(self.H, nn.Parameter))

    @property
    def _groups(self) -> int:
        return self.latent_size // len(self.H)

    def posterior(
        self,
        encoding: Encoding,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.posterior`; inputs do not reach these dynamics."""
        sites = _sites(encoding)
        path = self._draw(t0, num_samples, generator)
        merged, place = _merge(sites, ts)
        chain = self._chain(merged)
        prior = path.evaluate(merged.times[..., None, :])
        seen = (chain.H @ prior[..., None]).squeeze(-1)
        noise = self._site_noise(path.keys, place, chain.y.shape[-1], seen.shape)
        # Matheron's rule: a trajectory of the prior, corrected by what it and the sites disagree on.
        surprise = torch.where((chain.H != 0).any(-1), chain.y - seen - noise, 0.0)
        solved = chain.solve()
        drawn = self._read(prior + solved.correction(surprise))
        count = sites.times.shape[-1]
        evidence, divergence = _divergence(solved)
        at_sites = _site_log_density(sites, take_items(drawn, place[..., :count], -2))
        dtype = sites.mean.dtype
        return LatentSample(
            zs=take_items(drawn, _asked(place, ts), -2).to(dtype),
            log_terms={"sites": (evidence - at_sites).to(dtype)},
            kl={"sites": divergence.to(dtype)},
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
        states = self._draw(t0, num_samples, generator).evaluate(ts[..., None, :])
        return LatentSample(zs=self._read(states).to(self.H.dtype))

    def summary(self, encoding: Encoding) -> Tensor:
        """The posterior mean at the last observation, `(*batch, latent)`: where the future starts from."""
        sites = _sites(encoding)
        last = torch.where(sites.mask.any(-1), sites.times, sites.times[..., :1]).amax(-1, keepdim=True)
        return self.marginals(sites, last).mean.squeeze(-2)

    def marginals(self, sites: Sites, ts: Times) -> Gaussian:
        """The exact posterior of the latent state at each time by itself.

        Args:
            sites: pseudo-observations.
            ts: times, in any order, `(*batch, time)`.

        Returns:
            Mean `(*batch, time, latent)` and covariance; between independent processes it is 0.
        """
        merged, place = _merge(sites, ts)
        mean, P, _ = self._chain(merged).solve().smooth()
        H = self.H.to(P.dtype)
        # Side by side along the diagonal: one block per group.
        blocks = (H @ P @ H.mT).movedim(-4, -3)
        eye = torch.eye(self._groups, dtype=P.dtype, device=P.device)
        covariance = (blocks[..., :, None, :] * eye[:, None, :, None]).flatten(-4)
        asked = _asked(place, ts)
        size = self.latent_size
        found = Gaussian(
            take_items(self._read(mean), asked, -2), take_items(covariance, asked, -2).unflatten(-1, (size, size))
        )
        return Gaussian(found.mean.to(sites.mean.dtype), found.covariance.to(sites.mean.dtype))

    def log_evidence(self, sites: Sites) -> Tensor:
        """The log density of the sites as observations of the prior, `(*batch,)`, in nats."""
        return self._chain(sites).filter()[2].sum((-1, -2))

    def _chain(self, sites: Sites) -> Chain:
        """The prior and the sites, step by step, one chain per series and group, `(*batch, group)`."""
        times = sites.times.to(torch.float64)[..., None, :]
        dynamics = self._processes
        dt = dynamics.elapsed(torch.cat([times[..., :1], times[..., :-1]], -1), times)
        made = dynamics.discretize(dt, noise=True)
        F = torch.diag_embed(made.A_bar) if made.diagonal else made.A_bar
        assert made.Q is not None
        mask, precision, mean = (self._grouped(x) for x in (sites.mask, sites.precision, sites.mean))
        precision = torch.where(mask, precision.to(torch.float64), 1.0)
        scale = torch.where(mask, precision.sqrt(), 0.0)
        nats = torch.where(mask, 0.5 * (precision / (2.0 * math.pi)).log(), 0.0).sum(-1)
        P = dynamics.stationary().to(torch.float64)
        H = scale[..., None] * self.H.to(torch.float64)
        y = scale * torch.where(mask, mean.to(torch.float64), 0.0)
        zero = torch.zeros(F.shape[-1], dtype=torch.float64, device=F.device)
        return Chain(F, zero.expand(F.shape[:-1]), made.Q.expand_as(F), H, y, nats, zero, P)

    def _grouped(self, x: Tensor) -> Tensor:
        """`(*batch, site, latent)` as `(*batch, group, site, row)`."""
        return x.unflatten(-1, (self._groups, -1)).movedim(-2, -3)

    def _read(self, states: Tensor) -> Tensor:
        """Latent dimensions `(*, time, latent)` of states `(*, group, time, state)`."""
        return (states @ self.H.to(states.dtype).mT).movedim(-3, -2).flatten(-2)

    def _draw(self, t0: Time, num_samples: int, generator: Generator | None) -> StationaryPath:
        shape = (num_samples, *t0.shape, self._groups)
        dynamics, start = self._processes, t0[..., None]
        return StationaryPath.draw(dynamics, shape, start, resolution=self.resolution, generator=generator)

    def _site_noise(self, keys: Tensor, place: Tensor, rows: int, shape: torch.Size) -> Tensor:
        """What a site is observed with: numbers that belong to the trajectory and the site."""
        number = torch.empty_like(place)
        number.scatter_(-1, place, torch.arange(place.shape[-1], device=place.device).expand_as(place))
        own = key_of(key_of(keys, torch.full_like(keys, _SURPRISE))[..., None], number[..., None, :])
        row = torch.arange(rows, device=place.device)
        return normals(key_of(own[..., None], row), torch.float64)[0].expand(shape)


def _independent(dynamics: LinearDynamics, *, learned: bool) -> LinearDynamics:
    """A matrix that is learned reads all of the state; one that is not reads a dimension of it or a group."""
    return dynamics if learned or dynamics.batch_shape else dynamics.apart()


def _rows(dynamics: LinearDynamics, H: Sequence[Sequence[float]] | None) -> Tensor:
    """The matrix that reads the latent dimensions of one group, `(row, state)`."""
    n = dynamics.state_size
    dtype = dynamics.dtype
    if H is None:
        row = dynamics.readout
        if not dynamics.batch_shape:
            return torch.eye(dynamics.apart().state_size, dtype=dtype)
        if row is None:
            raise ValueError(f"{type(dynamics).__name__} has no readout; give the matrix H, (1, {n}).")
        return row.detach()[None].clone()
    rows = torch.as_tensor(H, dtype=dtype)
    wanted = "1" if dynamics.batch_shape else "latent"
    if rows.dim() != 2 or rows.shape[-1] != n or (dynamics.batch_shape and rows.shape[0] != 1):
        raise ValueError(f"H must be ({wanted}, state) = ({wanted}, {n}); got shape {tuple(rows.shape)}.")
    return rows


def _sites(encoding: Encoding) -> Sites:
    if encoding.sites is None:
        raise ValueError(
            "LinearGaussianProcess needs an encoding with sites; use an encoder that provides them, such as "
            "SiteEncoder."
        )
    return encoding.sites


def _merge(sites: Sites, ts: Times) -> tuple[Sites, Tensor]:
    """Sites and queries in the order of time, and where each of them went, `(*batch, site + time)`.

    Queries at the times of the sites, as of a window whose target is its context, are the sites themselves.
    """
    queries = ts.shape[-1]
    if ts.shape == sites.times.shape and torch.equal(ts, sites.times) and bool((ts.diff(dim=-1) >= 0).all()):
        return sites, torch.arange(queries, device=ts.device).expand(ts.shape)
    times = torch.cat([sites.times.to(torch.float64), ts.to(torch.float64)], -1)
    ordered, order = times.sort(dim=-1, stable=True)
    place = torch.empty_like(order)
    place.scatter_(-1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order))

    def arrange(x: Tensor, filler: float | bool) -> Tensor:
        rows = x.new_full((*x.shape[:-2], queries, x.shape[-1]), filler)
        return take_items(torch.cat([x, rows], -2), order, -2)

    return Sites(ordered, arrange(sites.mean, 0.0), arrange(sites.precision, 1.0), arrange(sites.mask, False)), place


def _asked(place: Tensor, ts: Times) -> Tensor:
    """Where the queries went: they come last, and there may be none."""
    return place[..., place.shape[-1] - ts.shape[-1] :]


def _divergence(solved: Solved) -> tuple[Tensor, Tensor]:
    """The log evidence of the sites, and the divergence of the posterior from the prior, `(*batch,)` each."""
    chain, nats = solved.chain, solved.nats.sum((-1, -2))
    mean, P, _ = solved.smooth()
    # In units of the sites' own spread, in which `H` is given.
    spread = (chain.H @ P @ chain.H.mT).diagonal(dim1=-2, dim2=-1)
    away = chain.y - (chain.H @ mean[..., None]).squeeze(-1)
    expected = (chain.nats - 0.5 * (away.square() + spread).sum(-1)).sum((-1, -2))
    return nats, expected - nats


def _site_log_density(sites: Sites, zs: Tensor) -> Tensor:
    """The log density of the sites given latent states at their times, `(sample, *batch)`."""
    precision = torch.where(sites.mask, sites.precision.to(zs.dtype), 1.0)
    away = torch.where(sites.mask, sites.mean.to(zs.dtype) - zs, 0.0)
    log_density = 0.5 * (precision / (2.0 * math.pi)).log() - 0.5 * precision * away.square()
    return torch.where(sites.mask, log_density, 0.0).sum((-1, -2))
