"""Exact Gaussian processes for many short series at once: batched Cholesky factors with padding, in float64.

A series that is too long for a matrix is filtered and smoothed: a Matern process is the solution of a linear equation.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from .._types import Times
from ..data import IrregularBatch, Window
from ..linear import LinearGaussian, Matern, SumDynamics
from ..nn import as_rows


__all__ = ["Hyperparameters", "fit_hyperparameters", "posterior", "union", "with_row"]

#: Numbers in one batch of covariance matrices (32 MB), and the work (observations cubed) of one step of the fit.
_CHUNK = 4_000_000
#: Numbers in the matrices of one series (128 MB) beyond which it is filtered, and for how many times its length the
#: constant of a filtered series keeps its value.
_DENSE = 16_000_000
_FOREVER = 1e9
_WORK = 200_000_000
_MAX_JOBS = 256
_MAX_OBSERVATIONS = 512
_STEPS = 80

#: Bounds of log offset, amplitude, length scale and noise, in model units.
_LOWER = (1e-3, 1e-3, 1e-4, 1e-3)
_UPPER = (1e2, 1e2, 1e4, 1e2)


class Hyperparameters(NamedTuple):
    """One number per channel each; `offset`, `amplitude` and `noise` are standard deviations. `(channel,)`."""

    mean: Tensor
    offset: Tensor
    amplitude: Tensor
    lengthscale: Tensor
    noise: Tensor

    @classmethod
    def initial(cls, num_channels: int) -> "Hyperparameters":
        """What is assumed before any data: a total variance of 1 in model units."""
        values = (0.0, math.sqrt(0.3), math.sqrt(0.5), 1.0, math.sqrt(0.2))
        return cls(*(torch.full((num_channels,), value, dtype=torch.float64) for value in values))

    def take(self, channel: Tensor) -> "Hyperparameters":
        """Those of some channels, one row each, ready to broadcast against observations `(job, n)`."""
        return Hyperparameters(*(value[channel].unsqueeze(-1) for value in self))


class Jobs(NamedTuple):
    """One row per series and channel: its observations, packed to the front; those of the context are `given`."""

    times: Tensor
    values: Tensor
    noise: Tensor
    present: Tensor
    given: Tensor
    channel: Tensor
    series: Tensor

    def take(self, rows: Tensor) -> "Jobs":
        """Some rows, cut to the longest of them."""
        longest = int(self.present[rows].sum(-1).max()) if len(rows) else 0
        return self.map(lambda value: value[rows, :longest])._replace(
            channel=self.channel[rows], series=self.series[rows]
        )

    def map(self, change: Callable[[Tensor], Tensor]) -> "Jobs":
        """Something done to everything that has a time axis."""
        times, values, noise, present, given = (change(value) for value in self[:5])
        return Jobs(times, values, noise, present, given, self.channel, self.series)


def posterior(context: IrregularBatch, ts: Times, hyper: Hyperparameters) -> tuple[Tensor, Tensor]:
    r"""Mean and variance of a new observation at each query, given the context.

    .. math::
        m(t) = \mu + k_t^\top K^{-1} (x - \mu), \qquad v(t) = k(t, t) + \sigma^2 - k_t^\top K^{-1} k_t

    Args:
        context: the observations.
        ts: query times, `(*batch, time)`.
        hyper: one set per channel.

    Returns:
        Mean and variance, `(*batch, time, channel)` each, float64.
    """
    jobs = pack(context)
    queries = as_rows(ts, 1).double()
    shape = (len(jobs.channel), queries.shape[-1])
    mean, variance = (torch.empty(shape, dtype=torch.float64, device=ts.device) for _ in range(2))
    hyper = Hyperparameters(*(value.double() for value in hyper))
    counts = jobs.present.sum(-1)
    dense = counts * (counts + queries.shape[-1]) <= _DENSE
    short = dense.nonzero().flatten()
    for rows in map(short.__getitem__, _chunks(counts[short], queries.shape[-1])):
        mean[rows], variance[rows] = _condition(jobs.take(rows), queries[jobs.series[rows]], hyper)
    for row in (~dense).nonzero():
        mean[row], variance[row] = _filtered(jobs.take(row), queries[jobs.series[row]], hyper)
    num_channels = context.values.shape[-1]
    shape = (*ts.shape[:-1], num_channels, ts.shape[-1])
    return mean.view(shape).transpose(-1, -2), variance.view(shape).transpose(-1, -2)


def fit_hyperparameters(windows: Iterable[Window], num_channels: int) -> Hyperparameters:
    r"""The hyper-parameters of each channel that predict every target entry best, given the context of its series.

    .. math:: \max_\theta \sum_s \sum_{i \in \mathrm{target}_s} \log p_\theta(x_i \mid \mathrm{context}_s)

    A channel that has no target apart from its contexts (`Reconstruct`) is fitted to the marginal likelihood of these.

    Args:
        windows: batches of windows in model units.
        num_channels: how many channels there are.

    Returns:
        One set per channel; a channel that was never observed keeps the initial one.

    Raises:
        ValueError: there are no windows, or nothing was observed in them.
    """
    jobs = _select([pack(*union(window)) for window in windows], num_channels)
    parts = [jobs.take(rows) for rows in _chunks(jobs.present.sum(-1), 0)]
    best = _scan(parts, num_channels)
    # The mean stays that of the training values: a dense context says nothing about it, and it would drift.
    parameters = torch.stack([value.log() for value in best[1:]])
    lower, upper = (torch.tensor(bounds, dtype=torch.float64).log().unsqueeze(-1) for bounds in (_LOWER, _UPPER))
    parameters = parameters.to(jobs.times.device)
    lower, upper = lower.to(parameters.device), upper.to(parameters.device)
    least = torch.full((num_channels,), torch.inf, dtype=torch.float64, device=parameters.device)
    found, first, second = parameters.detach().clone(), torch.zeros_like(parameters), torch.zeros_like(parameters)
    # Adam moves every number by its own gradient alone, so one optimiser fits all channels without mixing them. It is
    # written out because torch.optim takes seconds to import, longer than most of these fits.
    for step in range(1, _STEPS + 1):
        loss, gradient = _gradient(parts, best.mean, parameters)
        better = loss < least
        least = torch.where(better, loss, least)
        found = torch.where(better, parameters, found)
        first = torch.lerp(gradient, first, 0.9)
        second = torch.lerp(gradient.square(), second, 0.99)
        rate = 0.1 * (0.05 + 0.95 * math.cos(0.5 * math.pi * step / _STEPS) ** 2)
        scale = (second / (1.0 - 0.99**step)).sqrt() + 1e-8
        parameters = parameters - rate * (first / (1.0 - 0.9**step)) / scale
        parameters = torch.clamp(parameters, lower, upper)
    return Hyperparameters(best.mean, *found.exp())


def pack(batch: IrregularBatch, given: Tensor | None = None) -> Jobs:
    """One job per series and channel, series first: what was observed, moved to the front.

    Args:
        batch: the observations.
        given: True for those that are not scored but conditioned on, `(*batch, time, channel)`; default: none.
    """
    batch = with_row(batch)
    shape = batch.values.shape
    mask = as_rows(batch.mask).transpose(1, 2)
    longest = int(mask.sum(-1).max()) if mask.numel() else 0
    order = mask.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., :longest]
    present = mask.gather(-1, order)
    values = as_rows(batch.values).transpose(1, 2).double().gather(-1, order)
    times = as_rows(batch.times, 1).unsqueeze(1).double().expand(mask.shape).gather(-1, order)
    noise = torch.zeros_like(values)
    if batch.noise is not None:
        noise = as_rows(batch.noise).transpose(1, 2).double().gather(-1, order)
    known = torch.zeros_like(present)
    if given is not None:
        known = as_rows(given).transpose(1, 2).gather(-1, order) & present
    times, values, noise = (torch.where(present, value, 0.0).flatten(0, 1) for value in (times, values, noise))
    job = torch.arange(len(times), device=mask.device)
    count = max(shape[-1], 1)
    return Jobs(times, values, noise, present.flatten(0, 1), known.flatten(0, 1), job % count, job // count)


def with_row(batch: IrregularBatch) -> IrregularBatch:
    """The batch with a row of padding where it has no rows, which no index could point to."""
    if batch.times.shape[-1]:
        return batch
    times = batch.times.new_zeros(*batch.batch_shape, 1)
    values = batch.values.new_zeros(*batch.batch_shape, 1, batch.values.shape[-1])
    return IrregularBatch(times, values, torch.zeros_like(values, dtype=torch.bool))


def union(window: Window) -> tuple[IrregularBatch, Tensor]:
    """Context and target as one series, and which of its entries are context; one that stands in both counts once."""
    parts = (window.context, window.target)
    times = torch.cat([part.times.double() for part in parts], -1)
    begins = torch.cat([(part.times if part.start is None else part.start).double() for part in parts], -1)
    # By time, and by where an interval begins among those that end together.
    order = begins.sort(dim=-1, stable=True).indices
    order = order.gather(-1, times.gather(-1, order).sort(dim=-1, stable=True).indices)
    times, begins = times.gather(-1, order), begins.gather(-1, order)
    rows = order.unsqueeze(-1).expand(*order.shape, window.context.values.shape[-1])
    mask, values = (
        torch.cat(pair, -2).gather(-2, rows)
        for pair in ([part.mask for part in parts], [part.values for part in parts])
    )
    noise = None
    if any(part.noise is not None for part in parts):
        known = [torch.zeros_like(part.values) if part.noise is None else part.noise for part in parts]
        noise = torch.cat(known, -2).gather(-2, rows)
    start = begins if any(part.start is not None for part in parts) else None
    seen = mask.cumsum(-2)
    anew = torch.ones_like(times, dtype=torch.bool)
    anew[..., 1:] = (times.diff(dim=-1) != 0) | (begins.diff(dim=-1) != 0)
    number = torch.arange(times.shape[-1], device=times.device)
    first = torch.where(anew, number, 0).cummax(-1).values.unsqueeze(-1).expand(rows.shape)
    earlier = (seen - mask.long()).gather(-2, first)
    # The sorts are stable, so that of an observation in both parts it is the one in the context that stays.
    given = (order < window.context.times.shape[-1]).unsqueeze(-1).expand(mask.shape)
    return IrregularBatch(times, values, mask & (seen - earlier == 1), noise=noise, start=start), given


def _select(packed: list[Jobs], num_channels: int) -> Jobs:
    """As many jobs of each channel as the work of one step allows, the same ones for the same windows."""
    longest = max((min(jobs.times.shape[-1], _MAX_OBSERVATIONS) for jobs in packed), default=0)
    if not longest:
        raise ValueError("MaternGP.fit_exact got no observation; the training series may be too short for the windows.")
    packed = [_shorten(jobs, longest) for jobs in packed]
    jobs = Jobs(*(torch.cat(column) for column in zip(*packed, strict=True)))
    scored = (jobs.present & ~jobs.given).any(-1)
    predicted = torch.zeros(num_channels, dtype=torch.bool, device=scored.device)
    predicted[jobs.channel[scored]] = True
    jobs = jobs._replace(given=torch.where(predicted[jobs.channel].unsqueeze(-1), jobs.given, jobs.present))
    usable = torch.where(predicted[jobs.channel], scored, jobs.present.any(-1)).cpu()
    counts, channel = jobs.present.sum(-1).cpu(), jobs.channel.cpu()
    shuffled = torch.randperm(len(counts), generator=torch.Generator().manual_seed(0))
    rows = []
    for index in range(num_channels):
        own = shuffled[(channel[shuffled] == index) & usable[shuffled]][:_MAX_JOBS]
        work = counts[own].double().pow(3).cumsum(0)
        rows.append(own[: max(1, int((work <= _WORK / num_channels).sum()))])
    return jobs.take(torch.cat(rows).to(jobs.times.device))


def _shorten(jobs: Jobs, longest: int) -> Jobs:
    """Each job cut to neighbouring observations around its first target; shorter ones padded."""
    width = jobs.times.shape[-1]
    if width < longest:
        pad = (0, longest - width)
        return jobs.map(lambda value: torch.nn.functional.pad(value, pad))
    room = (jobs.present.sum(-1) - longest).clamp(min=0)
    first = (jobs.present & ~jobs.given).to(torch.uint8).argmax(-1)
    start = torch.minimum((first - longest // 2).clamp(min=0), room)
    place = start.unsqueeze(-1) + torch.arange(longest, device=room.device)
    return jobs.map(lambda value: value.gather(-1, place))


def _chunks(counts: Tensor, queries: int) -> Iterator[Tensor]:
    """Rows of similar length, in batches that fit into memory."""
    order = counts.sort().indices
    lengths = counts[order].tolist()
    start = 0
    while start < len(lengths):
        end = start + 1
        # A batch is padded to its longest row, so that it must not mix short rows with long ones.
        while end < len(lengths) and lengths[end] <= 1.25 * lengths[start] + 4:
            if (end + 1 - start) * (lengths[end] + 1) * (lengths[end] + queries + 1) > _CHUNK:
                break
            end += 1
        yield order[start:end]
        start = end


def _scan(parts: list[Jobs], num_channels: int) -> Hyperparameters:
    """The best of a few length scales and noises for each channel: where the optimiser starts."""
    device = parts[0].times.device
    channel = torch.cat([part.channel for part in parts])
    total, square, count = (
        torch.bincount(channel, torch.cat(values), minlength=num_channels)
        for values in zip(
            *((p.values.sum(-1), p.values.square().sum(-1), p.present.sum(-1).double()) for p in parts), strict=True
        )
    )
    mean = total / count.clamp(min=1)
    spread = (square / count.clamp(min=1) - mean.square()).clamp(min=1e-4).sqrt()
    spans = torch.cat(
        [
            torch.where(p.present, p.times, -torch.inf).amax(-1) - torch.where(p.present, p.times, torch.inf).amin(-1)
            for p in parts
        ]
    )
    span = float(spans.max()) or 1.0
    initial = Hyperparameters.initial(num_channels)
    best, least = initial, torch.full((num_channels,), torch.inf, dtype=torch.float64, device=device)
    # There are several optima: a rough process with little noise is one, a smooth one with much noise another.
    for length, size, noise in product((0.01, 0.03, 0.1, 0.3, 1.0, 3.0), (0.1, 0.3, 1.0, 3.0), (0.02, 0.1, 0.5)):
        trial = Hyperparameters(mean, spread, spread * size, torch.full_like(spread, span * length), spread * noise)
        with torch.no_grad():
            loss = _channel_loss(parts, trial, num_channels)
        better = (loss < least) & (count > 0)
        least = torch.where(better, loss, least)
        best = Hyperparameters(*(torch.where(better, a, b.to(device)) for a, b in zip(trial, best, strict=True)))
    return best


def _channel_loss(parts: list[Jobs], hyper: Hyperparameters, num_channels: int) -> Tensor:
    """Negative log likelihood per scored observation of each channel, `(channel,)`."""
    nats = torch.zeros(num_channels, dtype=torch.float64, device=hyper.mean.device)
    for part in parts:
        nats = nats.index_add(0, part.channel, _negative_log_likelihood(part, hyper))
    return nats / _count(parts, nats).clamp(min=1)


def _gradient(parts: list[Jobs], mean: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each channel and its gradient, summed part by part, so that one graph is alive at a time."""
    loss, gradient = torch.zeros_like(parameters[0]), torch.zeros_like(parameters)
    count = _count(parts, loss)
    for part in parts:
        with torch.enable_grad():
            leaf = parameters.detach().requires_grad_()
            share = _negative_log_likelihood(part, Hyperparameters(mean, *leaf.exp())) / count[part.channel]
            gradient = gradient + torch.autograd.grad(share.sum(), leaf)[0]
        loss = loss.index_add(0, part.channel, share.detach())
    return loss, gradient


def _count(parts: list[Jobs], like: Tensor) -> Tensor:
    """How many entries of each channel are scored."""
    count = torch.zeros_like(like)
    for part in parts:
        scored = (part.present & ~part.given).sum(-1)
        count = count.index_add(0, part.channel, torch.where(scored > 0, scored, part.present.sum(-1)).double())
    return count


def _kernel(distance: Tensor, hyper: Hyperparameters) -> Tensor:
    """Covariance of the noise-free process at a distance, `(job, n, m)`."""
    scaled = math.sqrt(3.0) * distance / hyper.lengthscale.unsqueeze(-1)
    matern = (1.0 + scaled) * torch.exp(-scaled)
    return hyper.offset.square().unsqueeze(-1) + hyper.amplitude.square().unsqueeze(-1) * matern


def _factor(jobs: Jobs, hyper: Hyperparameters) -> tuple[Tensor, Tensor]:
    """The Cholesky factor of the covariance of the observations, and the whitened observations."""
    kernel = _kernel((jobs.times.unsqueeze(-1) - jobs.times.unsqueeze(-2)).abs(), hyper)
    pairs = jobs.present.unsqueeze(-1) & jobs.present.unsqueeze(-2)
    # A missing entry is a unit vector of its own: it changes neither the determinant nor the others.
    diagonal = torch.where(jobs.present, hyper.noise.square() + jobs.noise.square(), 1.0)
    factor = torch.linalg.cholesky(torch.where(pairs, kernel, 0.0) + torch.diag_embed(diagonal))
    centred = torch.where(jobs.present, jobs.values - hyper.mean, 0.0)
    return factor, torch.linalg.solve_triangular(factor, centred.unsqueeze(-1), upper=False).squeeze(-1)


def _negative_log_likelihood(jobs: Jobs, hyper: Hyperparameters) -> Tensor:
    """Of each target entry given the context, summed; of the context together where there is no target. `(job,)`."""
    scored = jobs.present & ~jobs.given
    own = hyper.take(jobs.channel)
    factor, white = _factor(jobs._replace(present=jobs.given), own)
    cross = _kernel((jobs.times.unsqueeze(-1) - jobs.times.unsqueeze(-2)).abs(), own)
    weights = torch.linalg.solve_triangular(factor, torch.where(jobs.given.unsqueeze(-1), cross, 0.0), upper=False)
    mean, variance = _moments(weights, white, own)
    variance = torch.where(scored, variance + jobs.noise.square(), 1.0)
    residual = torch.where(scored, jobs.values - mean, 0.0)
    entries = 0.5 * (residual.square() / variance + variance.log() + math.log(2.0 * math.pi) * scored.double()).sum(-1)
    logarithms = factor.diagonal(dim1=-2, dim2=-1).log() + 0.5 * math.log(2.0 * math.pi) * jobs.given.double()
    return torch.where(scored.any(-1), entries, 0.5 * white.square().sum(-1) + logarithms.sum(-1))


def _moments(weights: Tensor, white: Tensor, hyper: Hyperparameters) -> tuple[Tensor, Tensor]:
    """Mean and variance of new observations from the whitened cross-covariances and observations."""
    prior = hyper.offset.square() + hyper.amplitude.square() + hyper.noise.square()
    # Rounding can take a variance slightly below the noise, which is its floor.
    variance = torch.maximum(prior - weights.square().sum(-2), hyper.noise.square())
    return hyper.mean + (weights * white.unsqueeze(-1)).sum(-2), variance


def _condition(jobs: Jobs, queries: Tensor, hyper: Hyperparameters) -> tuple[Tensor, Tensor]:
    """Mean and variance of new observations at the queries, `(job, time)` each."""
    own = hyper.take(jobs.channel)
    factor, white = _factor(jobs, own)
    cross = _kernel((jobs.times.unsqueeze(-1) - queries.unsqueeze(-2)).abs(), own)
    weights = torch.linalg.solve_triangular(factor, torch.where(jobs.present.unsqueeze(-1), cross, 0.0), upper=False)
    mean, variance = _moments(weights, white, own)
    return mean.expand(queries.shape), variance.expand(queries.shape)


def _filtered(job: Jobs, queries: Tensor, hyper: Hyperparameters) -> tuple[Tensor, Tensor]:
    """As `_condition`, for one job: in time and memory linear in its length."""
    own = hyper.take(job.channel)
    every = torch.cat([job.times, queries], -1)
    span = torch.maximum(every.amax(-1) - every.amin(-1), own.lengthscale[:, 0])
    process = Matern(1.5, lengthscale=own.lengthscale[:, 0], variance=own.amplitude[:, 0].square())
    level = Matern(0.5, lengthscale=_FOREVER * span, variance=own.offset[:, 0].square())
    model = LinearGaussian(SumDynamics([process, level]), R=own.noise.square(), offset=own.mean).requires_grad_(False)
    values, present, noise = (x.unsqueeze(-1) for x in (job.values, job.present, job.noise))
    found = model.emit(model.predict(IrregularBatch(job.times, values, present, noise=noise), queries))
    return found.mean.squeeze(-1), found.variance.squeeze(-1)
