"""The contracts of the parts of latent-variable models, as checks that raise AssertionError with the reason.

Call them in the tests of your own cell, encoder, process or likelihood: a part is done when its check passes.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from ..cells import Cell
from ..data import IrregularBatch, Window
from ..encoders import Encoder, Encoding, start_time
from ..likelihoods import Likelihood
from ..processes import LatentProcess
from ._judging import alone, padded, poisoned, reached, require, same, shifted, within


__all__ = ["check_cell", "check_encoder", "check_likelihood", "check_process", "example_window"]


def example_window(
    num_channels: int, *, input_size: int = 0, static_size: int = 0, binary: Sequence[int] = (), seed: int = 0
) -> Window:
    """A small batch of awkward irregular series in float64, to hand to the checks.

    Four series of different length on their own clocks, with channels missing at random and rows without any
    observation; the last series of the context has no observation at all.

    Args:
        num_channels: how many channels.
        input_size: how many inputs.
        static_size: how many static covariates.
        binary: the channels whose values are 0 or 1.
        seed: of the random numbers.

    Returns:
        A context of up to 6 times and a target of up to 5 later ones.

    Example:
        >>> window = example_window(2, static_size=1)
        >>> window.context.values.shape, window.target.values.shape
        (torch.Size([4, 6, 2]), torch.Size([4, 5, 2]))
    """
    generator = Generator().manual_seed(seed)

    def part(length: int, start: Tensor, has_data: Tensor) -> IrregularBatch:
        def draw(*shape: int) -> Tensor:
            return torch.rand(4, *shape, generator=generator, dtype=torch.float64)

        lengths = torch.tensor([length, length - 2, length - 1, length - 1]).unsqueeze(-1)
        real = torch.arange(length) < lengths
        times = start + (0.05 + 0.2 * draw(length)).cumsum(-1)
        times = torch.where(real, times, times.gather(-1, lengths - 1))
        values = torch.sin(3 * times.unsqueeze(-1) + torch.arange(num_channels)) + 0.1 * draw(length, num_channels)
        for column in binary:
            values[..., column] = (values[..., column] > 0).to(values.dtype)
        mask = (draw(length, num_channels) < 0.7) & real.unsqueeze(-1) & has_data
        mask[:, 1] = False
        mask[:3, 2] = True
        return IrregularBatch(
            times,
            torch.where(mask, values, 0),
            mask,
            inputs=torch.where(real.unsqueeze(-1), draw(length, input_size), 0) if input_size else None,
            static=draw(static_size) if static_size else None,
        )

    some = torch.tensor([True, True, True, False]).view(-1, 1, 1)
    context = part(6, torch.rand(4, 1, generator=generator, dtype=torch.float64), some)
    target = part(5, context.times[:, -1:], torch.ones_like(some))
    return Window(context, dataclasses.replace(target, static=context.static))


def check_cell(cell: Cell, *, tolerance: float = 1e-9) -> None:
    """The contract of a `Cell`.

    No time and no observation leave the state exactly as it is; what stands under the mask does not matter; series do
    not mix, each on its own interval; `scan` is the loop over `evolve` and `update`; every parameter has a gradient.

    Args:
        cell: what to check; it is copied and checked in float64.
        tolerance: largest difference that counts as equal, relative to 1.

    Raises:
        AssertionError: the contract is broken, with the reason.

    Example:
        >>> from ctdyn.cells import ODERNNCell
        >>> check_cell(ODERNNCell(num_channels=2, hidden_size=3))
    """
    cell = copy.deepcopy(cell).double()
    rng = Generator().manual_seed(0)
    h = torch.randn(4, cell.hidden_size, generator=rng, dtype=torch.float64)
    x = torch.randn(4, cell.num_channels, generator=rng, dtype=torch.float64)
    t0 = torch.tensor([0.0, 1.0, 2.0, 0.5], dtype=torch.float64)
    t1 = torch.tensor([0.3, 1.0, 1.0, 4.0], dtype=torch.float64)
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[1] = False
    seen[2, 0] = False

    require(torch.equal(cell.evolve(h, t0, t0), h), "evolving over no time must return the state exactly")
    nothing = cell.update(h, x, torch.zeros_like(seen))
    require(torch.equal(nothing, h), "an observation with an empty mask must return the state exactly")
    evolved, updated = cell.evolve(h, t0, t1), cell.update(h, x, seen)
    require(torch.equal(updated[1], h[1]), "a series with an empty mask must keep its state while others are updated")
    poisoned = cell.update(h, torch.where(seen, x, 1e3), seen)
    same(poisoned, updated, tolerance, "values under the mask change the update")
    for i in range(len(h)):
        one = slice(i, i + 1)
        same(cell.evolve(h[one], t0[one], t1[one]), evolved[one], tolerance, "series mix in evolve")
        same(cell.update(h[one], x[one], seen[one]), updated[one], tolerance, "series mix in update")
    require(cell.read(evolved).shape == (len(h), cell.read_size), "what is read is not (*batch, read_size)")
    reached(cell, cell.update(evolved, x, seen).square().sum() + cell.read(evolved).square().sum())
    ts = torch.stack([t0, t0 + 0.3, t0 + 0.3, t0 + 2.0], -1)
    xs, observed = x.unsqueeze(-2).expand(-1, 4, -1), torch.stack([seen, ~seen, seen, torch.zeros_like(seen)], -2)
    for found, expected in zip(cell.scan(h, ts, xs, observed), Cell.scan(cell, h, ts, xs, observed), strict=True):
        same(found, expected, tolerance, "scan is not evolve and update in turns")


def check_encoder(encoder: Encoder, batch: IrregularBatch, *, tolerance: float = 1e-8) -> None:
    """The contract of an `Encoder`.

    It fills what it says it provides; what stands under the mask, padding, the other series of the batch and a shift
    of the clock change nothing; a series without any observation is encoded to something finite; every parameter has
    a gradient.

    Args:
        encoder: what to check; it is copied and checked in float64.
        batch: series to read, for example `example_window(num_channels).context`.
        tolerance: largest difference that counts as equal, relative to 1.

    Raises:
        AssertionError: the contract is broken, with the reason.

    Example:
        >>> from ctdyn.encoders import GRUEncoder
        >>> check_encoder(GRUEncoder(num_channels=2, latent_size=3), example_window(2).context)
    """
    encoder = copy.deepcopy(encoder).double()
    batch = batch.to(torch.float64)
    encoding = encoder(batch)
    filled = {f.name for f in dataclasses.fields(encoding) if getattr(encoding, f.name) is not None}
    require(
        filled == encoder.provides,
        f"the encoder provides {sorted(encoder.provides)} by its own account, and fills {sorted(filled)}",
    )
    expected = _numbers(encoding, batch)
    require(all(bool(torch.isfinite(x).all()) for x in expected), "the encoding is not finite")
    empty = dataclasses.replace(batch, mask=torch.zeros_like(batch.mask))
    finite = all(bool(torch.isfinite(x).all()) for x in _numbers(encoder(empty), empty))
    require(finite, "a series without observations is not encoded to something finite")

    for changed, reason in (
        (poisoned(batch), "values under the mask change the encoding"),
        (padded(batch, 3), "three padded times change the encoding"),
        (shifted(batch, 10.0), "shifting the clock changes the encoding"),
    ):
        for got, want in zip(_numbers(encoder(changed), changed, batch.times), expected, strict=True):
            same(got, want, tolerance, reason)
    for i in range(batch.times.shape[0]):
        single = alone(batch, i)
        for got, want in zip(_numbers(encoder(single), single, batch.times[i : i + 1]), expected, strict=True):
            same(got, want[i : i + 1], tolerance, f"series {i} alone is encoded differently from the same in a batch")
    reached(encoder, torch.stack([x.square().sum() for x in expected]).sum())


def check_process(
    process: LatentProcess,
    *,
    encoding: Callable[[Tensor, Tensor], Encoding] | None = None,
    carried: int = 0,
    start: Tensor | None = None,
    tolerance: float = 1e-4,
) -> None:
    """The contract of a `LatentProcess`.

    Times may come in any order and lie before the start; asking for more of them does not move the old answers; the
    generator decides everything; series do not mix; the closed divergence agrees with its estimate from the samples,
    and so does the importance weight with 1 (within five standard errors); every parameter has a gradient.

    Args:
        process: what to check; it is copied and checked in float64.
        encoding: from mean and standard deviation `(*batch, latent)` to an encoding whose latent state has them at the
            start; default: `q0` as a diagonal normal.
        carried: how many of the last latent dimensions are a memory that the process carries along, of which an
            encoding says nothing.
        start: three initial states, `(3, latent)`, for a process that can take some alone; default: random ones.
        tolerance: largest difference that counts as equal, relative to 1: the accuracy of the solver.

    Raises:
        AssertionError: the contract is broken, with the reason.

    Example:
        >>> from ctdyn.fields import MLPField
        >>> from ctdyn.processes import ODEProcess
        >>> check_process(ODEProcess(MLPField(2, hidden=(8,)), latent_size=2))
    """
    process = copy.deepcopy(process).double()
    build = _diagonal if encoding is None else encoding
    rng = Generator().manual_seed(0)
    mean = 0.3 * torch.randn(3, process.latent_size, generator=rng, dtype=torch.float64)
    mean = mean if start is None else start.to(torch.float64)
    std = torch.full_like(mean, 0.9)
    t0 = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    ts = t0.unsqueeze(-1) + torch.tensor([0.0, 0.2, 0.7, 0.7, 1.1], dtype=torch.float64)

    def zs(times: Tensor, seed: int = 1, code: Encoding | None = None) -> Tensor:
        code = build(mean, std) if code is None else code
        return process.posterior(code, t0, times, 2, Generator().manual_seed(seed)).zs

    expected = zs(ts)
    shape = (2, *ts.shape, process.latent_size)
    require(
        expected.shape == shape, f"zs must be (sample, *batch, time, latent) = {shape}; got {tuple(expected.shape)}"
    )
    require(torch.equal(zs(ts), expected), "the same generator gives other samples")
    require(not torch.equal(zs(ts, seed=2), expected), "another generator gives the same samples")
    flipped = zs(ts.flip(-1)).flip(-2)
    same(flipped, expected, tolerance, "the order of the query times matters")
    more = torch.cat([t0.unsqueeze(-1) + torch.tensor([-0.4, 0.1, 0.95, 1.3], dtype=torch.float64), ts], -1)
    same(zs(more)[..., -5:, :], expected, tolerance, "adding query times moves the answers at the old ones")
    same(zs(ts[..., :1]), expected[..., :1, :], tolerance, "asking for fewer times moves the answers")

    sharp = zs(ts, code=build(mean, 1e-9 * std))
    told = process.latent_size - carried
    same(sharp[0, :, 0, :told], mean[:, :told], 1e-6, "the latent state does not start where the encoding says")
    for i in range(3):
        # Copies of one series keep the shape of the random draws.
        copies = [i] * 3
        code = build(mean[copies], 1e-9 * std[copies])
        single = process.posterior(code, t0[copies], ts[copies], 2, Generator().manual_seed(1)).zs
        same(single[:, i], sharp[:, i], max(tolerance, 1e-6), "series mix: one alone has another trajectory")
    _check_divergence(process, build(mean, std), t0)

    latent = process.posterior(build(mean, std), t0, ts, 2, Generator().manual_seed(1))
    terms = [latent.zs.square().sum(), *(x.sum() for x in latent.log_terms.values())]
    reached(process, torch.stack(terms).sum())
    prior = process.prior(t0, ts, 2, Generator().manual_seed(1))
    require(prior.zs.shape == shape, f"prior zs must be (sample, *batch, time, latent) = {shape}")
    require(not prior.log_terms and not prior.kl, "samples from the prior must cost nothing")


def _check_divergence(process: LatentProcess, encoding: Encoding, t0: Tensor) -> None:
    latent = process.posterior(encoding, t0, t0.unsqueeze(-1), 4000, Generator().manual_seed(3))
    require(bool(latent.log_terms), "a posterior sample must say what it costs: log_terms is empty")
    for name, ratio in latent.log_terms.items():
        require(
            ratio.shape == (4000, *t0.shape), f"log_terms[{name!r}] must be (sample, *batch); got {tuple(ratio.shape)}"
        )
    for name in latent.kl.keys() & latent.log_terms.keys():
        kl = latent.kl[name]
        estimate = -latent.log_terms[name]
        within(estimate, kl, f"the closed form of the divergence {name!r} disagrees with its estimate from samples")
    if latent.kl_by_dimension is not None and "z0" in latent.kl:
        same(latent.kl_by_dimension.sum(-1), latent.kl["z0"], 1e-8, "kl_by_dimension does not sum to the divergence")
    if latent.kl.keys() - latent.log_terms.keys():
        return
    weights = torch.stack(list(latent.log_terms.values())).sum(0).exp()
    within(weights, torch.ones_like(t0), "importance weights prior / posterior do not average to 1")


def check_likelihood(likelihood: Likelihood, latent_size: int, *, tolerance: float = 1e-9) -> None:
    """The contract of a `Likelihood`.

    The distribution is over `(..., time, channel)` without event axes; it is pointwise in time; samples of the latent
    state are one more leading axis; each entry has total probability 1 and the mean that it says; a known standard
    error never narrows it; every parameter has a gradient.

    Args:
        likelihood: what to check; it is copied and checked in float64.
        latent_size: size of the latent state that it decodes.
        tolerance: largest difference that counts as equal, relative to 1.

    Raises:
        AssertionError: the contract is broken, with the reason.

    Example:
        >>> from ctdyn.likelihoods import Gaussian
        >>> check_likelihood(Gaussian(latent_size=3, num_channels=2), latent_size=3)
    """
    likelihood = copy.deepcopy(likelihood).double()
    rng = Generator().manual_seed(0)
    z = torch.randn(2, 3, 4, latent_size, generator=rng, dtype=torch.float64)
    ts = torch.arange(4, dtype=torch.float64).expand(3, 4)
    distribution = likelihood(z, ts)
    shape = (2, 3, 4, likelihood.num_channels)
    require(
        tuple(distribution.batch_shape) == shape and not distribution.event_shape,
        f"batch shape must be (..., time, channel) = {shape} without event axes; got "
        f"{tuple(distribution.batch_shape)} and {tuple(distribution.event_shape)}",
    )
    mean, variance = distribution.mean.expand(shape), distribution.variance.expand(shape)
    require(bool((variance >= 0).all()) and bool(torch.isfinite(mean + variance).all()), "moments must be finite")
    same(likelihood(z[0], ts).mean.expand(shape[1:]), mean[0], tolerance, "leading sample axes change the result")
    moved = z.clone()
    moved[:, :, 2] += 1.0
    changed = likelihood(moved, ts)
    others = [0, 1, 3]
    for got, want in ((changed.mean, mean), (changed.variance, variance)):
        same(
            got.expand(shape)[:, :, others],
            want[:, :, others],
            tolerance,
            "the latent state at one time changes another",
        )
    noise = torch.full((3, 4, likelihood.num_channels), 0.5, dtype=torch.float64)
    wider = likelihood(z, ts, noise).variance.expand(shape)
    require(bool((wider >= variance - 1e-12).all()), "a known standard error narrows the distribution")

    mass = _mass(distribution, shape)
    require(bool(((mass - 1).abs() < 1e-3).any(0).all()), "the density of an entry has total probability other than 1")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        draws = distribution.sample(torch.Size((4000,)))
    within(draws, mean, "samples do not have the mean of the distribution")
    reached(likelihood, distribution.log_prob(torch.ones(shape, dtype=torch.float64)).square().sum())


def _diagonal(mean: Tensor, std: Tensor) -> Encoding:
    return Encoding(q0=Independent(Normal(mean, std), 1))


def _numbers(encoding: Encoding, batch: IrregularBatch, ts: Tensor | None = None) -> list[Tensor]:
    """All that an encoding says, as tensors; a context path is read relative to the start of the series."""
    found = [] if encoding.q0 is None else [encoding.q0.mean, encoding.q0.stddev]
    if encoding.static is not None:
        found.append(encoding.static)
    if encoding.sites is not None:
        sites = encoding.sites
        found += [torch.where(sites.mask, x, 0).sum(-2) for x in (sites.mean * sites.precision, sites.precision)]
    if encoding.context is not None:
        ts = batch.times if ts is None else ts
        found.append(encoding.context(ts - ts[..., :1] + start_time(batch).unsqueeze(-1)))
    return found


def _mass(distribution: Distribution, shape: Sequence[int]) -> Tensor:
    """The total probability of each entry, `(candidate, *shape)`; several where a distribution has no one support."""
    try:
        support = distribution.support
    except NotImplementedError:
        return torch.stack([_integral(distribution, shape), _sum(distribution, shape, 2)])
    if support.is_discrete:  # type: ignore[union-attr]
        last = 399
        if isinstance(support, constraints.integer_interval):
            last = int(support.upper_bound)
        return _sum(distribution, shape, 2 if support is constraints.boolean else last + 1)[None]
    if support is constraints.positive:
        x = torch.linspace(-25, 25, 4001, dtype=torch.float64).exp().view(-1, *[1] * len(shape))
        density = distribution.log_prob(x.expand(-1, *shape)).exp()
        return (torch.trapezoid(density, x, dim=0) + _sum(distribution, shape, 1))[None]
    return _integral(distribution, shape)[None]


def _integral(distribution: Distribution, shape: Sequence[int]) -> Tensor:
    mean, std = distribution.mean.expand(shape), distribution.variance.expand(shape).sqrt()
    # Steps that grow with the distance from the mean reach far into heavy tails.
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64).sinh().view(-1, *[1] * len(shape))
    x = mean + std * grid
    return torch.trapezoid(distribution.log_prob(x).exp(), x, dim=0)


def _sum(distribution: Distribution, shape: Sequence[int], count: int) -> Tensor:
    """The probability of 0, 1, ... `count - 1`; of nothing where there is none at all."""
    ones = torch.ones(tuple(shape), dtype=torch.float64)
    return sum((distribution.log_prob(k * ones).exp().nan_to_num(0.0) for k in range(count)), 0 * ones)
