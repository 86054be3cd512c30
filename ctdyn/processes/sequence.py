"""The process of LS4: a sequence of latent states whose law depends on all of its past."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from .._checks import DataWarning
from .._types import State, Time, Times
from ..encoders import Encoding
from ..linear.holds import Hold, Impulse
from ..linear.layers import SequenceLayer, SequenceStack, StateSpaceLayer
from ..nn import MLP, repeat_last, rsample, take_items
from ..paths import Path
from ..paths._counter import key_of, normals
from ._initial import Start
from ._knots import Knots
from .base import LatentProcess, LatentSample


__all__ = ["SequenceProcess", "check_dt"]

#: The narrowest distribution of a latent state at a knot.
_MIN_STD = 1e-3
_NOISE = 11
#: How many usual gaps wide `dt` may be in silence.
_COARSE = 4.0
#: How many knots there may be in silence, and how many for each row of the context.
_MANY, _FINE = 1000, 16


class SequenceProcess(LatentProcess):
    r"""Latent states at knots, each drawn given all before it; carried between the knots by state-space layers.

    .. math::
        \text{prior:}\quad & z_n \sim \mathcal{N}(\mu_n, \sigma_n^2), \qquad
        (\mu_n, \sigma_n) = \mathrm{SSM}_p(z_{<n};\, t_0, \dots, t_n) \\
        \text{posterior:}\quad & z_n \sim \mathcal{N}(m(c(t_n)), s(c(t_n))^2), \qquad z_0 \sim q_0 \\
        \text{between:}\quad & z(t) \text{ on straight lines}, \qquad
        h(t) = \mathrm{SSM}_d\big(z(t);\, z_n : t_n \le t\big)

    There is a knot at the start and at every knot of the context, more of them, evenly, in gaps wider than `dt`, and
    one every `dt` behind the last. So a regular series keeps its clock where observations are missing, and no knot
    depends on what is asked. From the last knot of the context on the posterior follows the prior, and nothing more is
    paid.

    A trajectory is :math:`[z(t), h(t)]`: a likelihood reads what is drawn and what the layers of the decoder carry from
    all knots before. Their state flows exactly between the knots, so that it can be read at any time; trajectories are
    continuous if the decoder holds its inputs. Given the context all knots are drawn, priced and decoded at once, by
    scans (convolutions where the layers have them and times are regular); behind it they are drawn one after another,
    at constant cost each.

    Before `t0` the state is that at `t0`.

    Args:
        latent_size: size of :math:`z`; that of a trajectory is as much and the outputs of the decoder.
        context_size: size of the encoder's context.
        transition: :math:`\mathrm{SSM}_p`. It reads, at each knot, the state drawn at the one before, the gap in units
            of `dt`, and the inputs, and gives mean and scale: `latent_size + 1 + inputs` to `2 * latent_size`. With
            `HeldAfter()` in its layers a state acts from its own time on.
        decoder: :math:`\mathrm{SSM}_d`, from `latent_size + inputs` to what a likelihood is to read beside z; of layers
            that can be read between their inputs (`HeldBefore()`, `Impulse()`).
        hidden: hidden layers of the network that maps the context to mean and scale of the posterior.
        activation: class of its activation.
        dt: the widest gap between knots, on the clock of the model: typically that between observations.

    Raises:
        ValueError: sizes or holds do not fit, `dt` is not positive; or, when sampling, the encoding has no `q0` or no
            context with knots, inputs are missing, or `dt` puts more than a million knots on a series.

    References:
        Deep Latent State Space Models for Time-Series Generation, L. Zhou, M. Poli, W. Xu, S. Massaroli, S. Ermon,
        2023, https://arxiv.org/abs/2212.12749

    Example:
        >>> from ctdyn.linear import HeldAfter
        >>> from ctdyn.linear.layers import S5
        >>> transition = SequenceStack([S5(8, state_size=8, hold=HeldAfter())], 2 + 1, 2 * 2)
        >>> decoder = SequenceStack([S5(8, state_size=8)], 2, 6)
        >>> process = SequenceProcess(2, 5, transition, decoder, dt=0.1)
        >>> process.prior(torch.zeros(3), torch.rand(3, 5), num_samples=4).zs.shape
        torch.Size([4, 3, 5, 8])
    """

    requires = frozenset({"q0", "context"})

    def __init__(
        self,
        latent_size: int,
        context_size: int,
        transition: SequenceLayer,
        decoder: SequenceStack,
        *,
        hidden: Sequence[int] = (64,),
        activation: type[nn.Module] = nn.Tanh,
        dt: float = 0.05,
    ) -> None:
        super().__init__(latent_size + decoder.output_size)
        self.sizes = {"q0": latent_size, "context": context_size}
        self.input_size = decoder.input_size - latent_size
        _check_parts(latent_size, transition, decoder, dt)
        self.drawn_size = latent_size
        self.transition = transition
        self.decoder = decoder
        self.dt = dt
        self.head = MLP(context_size + 2, 2 * latent_size, hidden, activation)
        self.first = nn.Parameter(torch.zeros(latent_size))

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
        q0, context = encoding.q0, encoding.context
        seen = None if context is None else context.knots()
        if q0 is None or context is None or seen is None:
            raise ValueError(
                "SequenceProcess needs an encoding with q0 and a context that has knots, at which latent states are "
                "drawn; use an encoder that provides them, such as BidirectionalStateSpaceEncoder."
            )
        knots = Knots.make(t0, seen, _end(t0, ts), self.dt)
        if self.training:
            _warn_of_gaps(seen, knots)
        z0 = rsample(q0, (num_samples,), generator=generator)
        keys = _keys(num_samples, t0, generator)
        q = self._given(context, seen, knots)
        number = torch.arange(knots.inner.shape[-1], device=z0.device)
        noise = _noise(keys, number.expand(knots.inner.shape), self.drawn_size, z0.dtype)
        zs = torch.cat([z0.unsqueeze(-2), (q.mean + q.std * noise)[..., 1:, :]], -2)
        zs = repeat_last(zs, knots.count, -2)
        p, state = self._taught(zs, knots, inputs)
        p0 = Independent(Normal(p.mean[0, ..., 0, :], p.std[0, ..., 0, :], validate_args=False), 1)
        divergence, ratio = _cost(q, p, zs, noise, knots.real)
        start = Start.priced(z0, q0, p0)
        return LatentSample(
            zs=self._read(knots, zs, state, keys, ts, inputs),
            log_terms={"z0": start.log_ratio, "knots": ratio},
            kl={"knots": divergence.mean(0), **start.kl},
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
        """See `LatentProcess.prior`; one step after another."""
        knots = Knots.make(t0, None, _end(t0, ts), self.dt)
        first = self.first.expand(num_samples, *t0.shape, 1, -1)
        keys = _keys(num_samples, t0, generator)
        p, state = self._taught(first, knots, inputs)
        noise = _noise(keys, torch.zeros_like(knots.count).unsqueeze(-1), self.drawn_size, first.dtype)
        return LatentSample(zs=self._read(knots, p.mean + p.std * noise, state, keys, ts, inputs))

    def conditionals(self, zs: Tensor, times: Times, inputs: Path | None = None) -> Distribution:
        """The prior of each latent state given those before it, all at once.

        Args:
            zs: latent states at the knots, `(sample, *batch, knot, latent)`.
            times: the knots, increasing, `(*batch, knot)`.
            inputs: covariates that drive the dynamics.

        Returns:
            Of the shape of `zs`.
        """
        count = torch.full(times.shape[:-1], times.shape[-1], device=times.device)
        p, _ = self._taught(zs, Knots(times.to(torch.float64), count, 0, self.dt), inputs)
        return Normal(p.mean, p.std, validate_args=False)

    def _given(self, context: Path, seen: Times, knots: Knots) -> _Moments:
        """The posterior at the inner knots, `(*batch, knot, latent)`."""
        seen, at = seen.to(torch.float64).contiguous(), knots.inner.contiguous()
        right = torch.searchsorted(seen, at, right=True)
        until = (seen.gather(-1, right.clamp(max=seen.shape[-1] - 1)) - at).clamp(min=0.0)
        since = (at - seen.gather(-1, (right - 1).clamp(min=0))).clamp(min=0.0)
        # A clock in float64 makes a context of float64.
        features = context(at).to(self.first.dtype)
        far = torch.stack([since, until], -1).div(self.dt).log1p().to(features.dtype)
        mean, raw = self.head(torch.cat([features, far], -1)).chunk(2, -1)
        # Starting below the prior's width keeps the first gradients of the decoder from drowning in noise.
        return _Moments(mean, _MIN_STD + softplus(raw - 1.0))

    def _taught(self, zs: Tensor, knots: Knots, inputs: Path | None) -> tuple[_Moments, Any]:
        """The prior at the inner knots given states there, and what the transition carries behind the last of them."""
        before = torch.cat([self.first.expand(*zs.shape[:-2], 1, -1), zs[..., :-1, :]], -2)
        features = _joined(before, knots.gaps.unsqueeze(-1), self._driven(inputs, knots.inner))
        # A repeated time with the same input is no step.
        features = repeat_last(features, knots.count, -2)
        out, state = self.transition.scan(knots.inner, features)
        return _moments(out), state

    def _read(self, knots: Knots, zs: Tensor, state: Any, keys: Tensor, ts: Times, inputs: Path | None) -> Tensor:
        """Trajectories at `ts`, of which the states at the inner knots are known."""
        if knots.more:
            zs = knots.join(zs, self._roll(knots, zs[..., -1, :], state, keys, inputs))
        times, last = knots.times, (knots.count + knots.more - 1).unsqueeze(-1)
        at = torch.maximum(ts.to(torch.float64), times[..., :1]).contiguous()
        left = torch.minimum(torch.searchsorted(times.contiguous(), at, right=True) - 1, last)
        right = torch.minimum(left + 1, last)
        gap = times.gather(-1, right) - times.gather(-1, left)
        share = ((at - times.gather(-1, left)) / torch.where(gap > 0, gap, 1.0)).clamp(0.0, 1.0)
        share = torch.where(gap > 0, share, 0.0)
        # A state that is read as it is has no gradient to the times.
        if not share.requires_grad and bool((share == 0).all()):
            carried, _ = self.decoder.scan(times, _joined(zs, self._driven(inputs, times)))
            return take_items(torch.cat([zs, carried], -1), left, -2)
        drawn = torch.lerp(take_items(zs, left, -2), take_items(zs, right, -2), share.to(zs.dtype).unsqueeze(-1))
        order_of = torch.cat([times, at], -1).sort(dim=-1, stable=True)
        merged, order = order_of.values, order_of.indices
        rows = take_items(torch.cat([zs, drawn], -2), order, -2)
        carried, _ = self.decoder.scan(merged, _joined(rows, self._driven(inputs, merged)), arrives=order <= last)
        place = torch.empty_like(order).scatter_(-1, order, torch.arange(order.shape[-1]).to(order).expand_as(order))
        return torch.cat([drawn, take_items(carried, place[..., times.shape[-1] :], -2)], -1)

    def _roll(self, knots: Knots, z: State, state: Any, keys: Tensor, inputs: Path | None) -> Tensor:
        """States of the prior behind the inner knots, `(sample, *batch, more, latent)`."""
        ahead = torch.arange(knots.more, device=z.device)
        noise = _noise(keys, knots.count.unsqueeze(-1) + ahead, self.drawn_size, z.dtype)
        times = knots.inner[..., -1:] + self.dt * (ahead + 1)
        driven = self._driven(inputs, times)
        drawn, step = [], self.transition.stepper(self.dt)
        for j, eps in enumerate(noise.unbind(-2)):
            features = _joined(z, torch.ones_like(z[..., :1]), None if driven is None else driven[..., j, :])
            out, state = step(times[..., j], features, state)
            p = _moments(out)
            z = p.mean + p.std * eps
            drawn.append(z)
        return torch.stack(drawn, -2)

    def _driven(self, inputs: Path | None, times: Times) -> Tensor | None:
        """The inputs at these times, `(*batch, time, input)`."""
        us = None if inputs is None else inputs(times)
        given = 0 if us is None else us.shape[-1]
        if given != self.input_size:
            raise ValueError(
                f"SequenceProcess was built for {self.input_size} inputs; {given} were given. They come in as a path: "
                "inputs=LinearPath(ts, xs) to predict or sample of the model."
            )
        return us


class _Moments(NamedTuple):
    mean: Tensor
    std: Tensor


def _moments(out: Tensor) -> _Moments:
    mean, raw = out.chunk(2, -1)
    # At a raw value of 0 it is 1.
    return _Moments(mean, _MIN_STD + softplus(raw + 0.5413))


def _cost(q: _Moments, p: _Moments, zs: Tensor, noise: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Behind the first knot, divergence given each past and log ratio prior / posterior, `(sample, *batch)` each."""
    wider = (p.std / q.std).log()
    divergence = wider + 0.5 * ((q.std / p.std).square() + ((q.mean - p.mean) / p.std).square() - 1.0)
    ratio = 0.5 * (noise.square() - ((zs - p.mean) / p.std).square()) - wider
    later = real.unsqueeze(-1)[..., 1:, :]
    total, weight = (torch.where(later, x[..., 1:, :], 0.0).sum((-1, -2)) for x in (divergence, ratio))
    return total, weight


def _keys(num_samples: int, t0: Time, generator: Generator | None) -> Tensor:
    """A key per sample and series, `(sample, *batch)`: how many numbers follow from it does not matter."""
    device = t0.device if generator is None else generator.device
    keys = torch.randint(2**62, (num_samples, *t0.shape), dtype=torch.int64, device=device, generator=generator)
    return keys.to(t0.device)


def _end(t0: Time, ts: Times) -> Time:
    return torch.cat([ts, t0.unsqueeze(-1)], -1).amax(-1)


def _noise(keys: Tensor, number: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Standard normals that belong to a trajectory, `(sample, *batch)`, and a knot, `(*batch, knot)`."""
    own = key_of(key_of(keys, torch.full_like(keys, _NOISE)).unsqueeze(-1), number)
    pairs = key_of(own.unsqueeze(-1), torch.arange((size + 1) // 2, device=keys.device))
    return torch.cat(normals(pairs, dtype), -1)[..., :size]


def _joined(z: Tensor, *parts: Tensor | None) -> Tensor:
    """Features of one dtype, of which all but the first are shared by the samples."""
    shape = z.shape[:-1]
    return torch.cat([z, *(x.to(z.dtype).expand(*shape, x.shape[-1]) for x in parts if x is not None)], -1)


def _check_parts(latent_size: int, transition: SequenceLayer, decoder: SequenceStack, dt: float) -> None:
    input_size = decoder.input_size - latent_size
    if input_size < 0:
        raise ValueError(
            f"the decoder reads the latent state of size {latent_size}, and inputs; it has {decoder.input_size} input "
            "channels."
        )
    wanted = (latent_size + 1 + input_size, 2 * latent_size)
    given = (transition.input_size, transition.output_size)
    if given != wanted:
        raise ValueError(
            f"for a latent state of size {latent_size} and {input_size} inputs (by the decoder) the transition needs "
            f"{wanted[0]} inputs and {wanted[1]} outputs; it has {given[0]} and {given[1]}."
        )
    if any(isinstance(hold, Impulse) for hold in _holds(transition)):
        raise ValueError("the transition must hold its inputs, by HeldAfter() or HeldBefore(); it has Impulse().")
    unread = {
        type(part).__name__
        for part in decoder.modules()
        if isinstance(part, SequenceLayer) and not isinstance(part, StateSpaceLayer | SequenceStack)
    }
    if unread or not all(hold.causal for hold in _holds(decoder)):
        raise ValueError(
            "the decoder must be asked at new times, between its inputs, which takes layers of HeldBefore() "
            f"such as S5(...); it has {', '.join(sorted(unread)) or 'layers of HeldAfter()'}."
        )
    check_dt(dt)


def check_dt(dt: float) -> None:
    """Refuse a widest gap that is none.

    Raises:
        ValueError: it is not positive and finite.
    """
    if not 0 < dt < float("inf"):
        raise ValueError(f"dt, the widest gap between knots on the clock of the series, must be positive; got {dt}.")


def _warn_of_gaps(seen: Times, knots: Knots) -> None:
    """Say where knots are far further apart than observations, or far more than these."""
    dt, most, rows = knots.dt, int(knots.count.max()) if knots.count.numel() else 0, seen.shape[-1]
    gaps = seen.detach().diff(dim=-1)
    gaps = gaps[gaps > 0]
    usual = float(gaps.median()) if gaps.numel() else dt
    # Between bursts of observations a clock as fine as their usual gap has knots for nothing.
    told, wider = None, usual if usual >= 2.0 * dt else _COARSE * usual
    if dt > _COARSE * usual:
        wider = usual
        told = (
            f"dt={dt:.3g} is {dt / usual:.0f} times the usual gap between observations, on the clock of the model: new "
            "series and futures would have far fewer knots than those that are learned from"
        )
    elif most > max(_MANY, _FINE * rows) and wider >= 2.0 * dt:
        told = (
            f"dt={dt:.3g} puts {most:,} knots on series of up to {rows} rows: memory and time are those of the knots. "
            f"The usual gap between observations, on the clock of the model, is {usual:.2g}"
        )
    if told is not None:
        warnings.warn(f"{told}. Give dt={wider:.2g}.", DataWarning, stacklevel=4)


def _holds(module: nn.Module) -> list[Hold]:
    return [part.hold for part in module.modules() if isinstance(part, StateSpaceLayer)]
