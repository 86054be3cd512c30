"""The trivial predictors that every table prints beside a model. They are hard to beat; start with them."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from .._types import Times, Values
from ..data import Channel, IrregularBatch, Window
from ..likelihoods import masked_log_prob
from ..nn import take_items
from ..paths import Path
from ._gaussian_process import Hyperparameters, fit_hyperparameters, posterior, with_row
from ._residuals import NUM_LEVELS, Residuals, residual_quantiles
from .base import ExactlyFitted, Loss, Model, Predictive


__all__ = ["Baseline", "Guess", "HoldLast", "LinearInterpolation", "MaternGP", "OwnMean", "PointBaseline"]

#: Distance bins per channel, and the least number of training residuals in each.
NUM_BINS = 16
MIN_RESIDUALS = 30

#: Distances that differ by less, as a share of the longest, are the same.
_SAME = 1e-9


class Guess(NamedTuple):
    """A point forecast, and the distance to the observation that it rests on (inf: none); `(*batch, time, channel)`."""

    value: Tensor
    distance: Tensor


class _Entries(NamedTuple):
    """The target entries of training windows, flat."""

    channel: Tensor
    distance: Tensor
    point: Tensor
    truth: Tensor


class Baseline(Model, ExactlyFitted):
    """A predictor without a latent state: its predictive distribution has a single component.

    Example:
        >>> issubclass(HoldLast, Baseline) and issubclass(MaternGP, Baseline)
        True
    """

    @property
    def reads(self) -> frozenset[str]:
        """See `Model.reads`: none."""
        return frozenset()

    @abstractmethod
    def distribution(self, context: IrregularBatch, ts: Times, noise: Values | None = None) -> Distribution:
        """The predictive distribution at any times.

        Args:
            context: the observations to condition on.
            ts: query times, `(*batch, time)`.
            noise: as in `Model.predict`; residuals of the training hold such errors already.

        Returns:
            A distribution of batch shape `(1, *batch, time, channel)`.
        """

    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """The negative log density of the target, entry by entry. There is nothing to train: see `fit_exact`."""
        target = window.target
        nats = -masked_log_prob(
            self.distribution(window.context, target.times, target.noise), target.values, target.mask
        )
        count = target.mask.sum().clamp(min=1)
        return Loss(nats.mean(), {"nats_per_observation": (nats.sum() / count).detach()})

    def predict(
        self,
        context: IrregularBatch,
        ts: Times,
        inputs: Path | None = None,
        *,
        noise: Values | None = None,
        num_samples: int = 100,
        generator: Generator | None = None,
    ) -> Predictive:
        """See `Model.predict`. There is no latent state, so that all `num_samples` components are the same one."""
        distribution = self.distribution(context, ts, noise)
        return Predictive(distribution.expand(torch.Size((num_samples, *distribution.batch_shape[1:]))))


class PointBaseline(Baseline):
    r"""A point forecast with intervals from its residuals on training windows.

    .. math:: x_{td} = \hat{x}_{td} + r, \qquad r \sim \text{residuals of channel } d \text{ at a similar distance}

    The residuals are binned by the distance to the observation that the forecast rests on: up to 16 quantile bins per
    channel, each with at least 30 residuals and a quantile function of its own. Their mean is held at 0, so that the
    point is the textbook one; a bias seen in training widens the intervals on both sides instead. A channel that the
    context never observed is forecast by its training mean and spread. Before `fit_exact` the spread is a standard
    normal in model units. Binary channels are treated as numbers.

    Args:
        channels: what is observed, in the order of the last axis of the values.

    Example:
        >>> issubclass(HoldLast, PointBaseline), issubclass(MaternGP, PointBaseline)
        (True, False)
    """

    mean: Tensor
    edges: Tensor
    quantiles: Tensor
    tails: Tensor

    def __init__(self, channels: Sequence[Channel]) -> None:
        super().__init__(channels)
        count = len(self.channels)
        levels = torch.arange(1, NUM_LEVELS + 1, dtype=torch.float64) / (NUM_LEVELS + 1)
        self.register_buffer("mean", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("edges", torch.full((count, NUM_BINS - 1), torch.inf, dtype=torch.float64))
        self.register_buffer("quantiles", torch.special.ndtri(levels).repeat(count, NUM_BINS + 1, 1))
        # The mean excess of a standard normal beyond its quantile at 0.98.
        self.register_buffer("tails", torch.full((count, NUM_BINS + 1, 2), 0.367, dtype=torch.float64))

    @abstractmethod
    def guess(self, context: IrregularBatch, ts: Times) -> Guess:
        """The point forecast; its value is not used where the distance is infinite."""

    def distribution(self, context: IrregularBatch, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Baseline.distribution`."""
        value, distance = self.guess(context, ts)
        dtype, unobserved = value.dtype, distance.isinf()
        loc = torch.where(unobserved, self.mean.to(dtype), value)
        by_channel = distance.to(self.edges.dtype).movedim(-1, 0).flatten(1).contiguous()
        bins = torch.searchsorted(self.edges.contiguous(), by_channel, right=True)
        bins = bins.view(len(self.channels), *loc.shape[:-1]).movedim(0, -1)
        row = torch.where(unobserved, NUM_BINS, bins)
        row = row + (NUM_BINS + 1) * torch.arange(len(self.channels), device=row.device)
        tables = self.quantiles.flatten(0, 1).to(dtype), self.tails.flatten(0, 1).to(dtype)
        return Residuals(loc.unsqueeze(0), row.unsqueeze(0), *tables)

    @torch.no_grad()
    def fit_exact(self, windows: Iterable[Window]) -> None:
        """Collect the residuals of the point forecast on the targets of training windows.

        Args:
            windows: batches of windows in model units. Targets at the time of a context observation of the same channel
                are left out: they say nothing about a gap.

        Raises:
            ValueError: there are no windows, or no target lies away from its context.
        """
        entries = self._entries(windows)
        count = torch.bincount(entries.channel, minlength=len(self.channels)).clamp(min=1)
        self.mean.copy_(torch.bincount(entries.channel, entries.truth, minlength=len(self.channels)) / count)
        spread = entries.truth - self.mean[entries.channel]
        residual = torch.where(entries.distance.isinf(), spread, entries.truth - entries.point)
        away, finite = entries.distance > 0, entries.distance.isfinite()
        if not bool(away.any()):
            raise ValueError(
                f"{type(self).__name__} learns its intervals from targets away from the context, and these windows "
                "have none; use windows=Interpolate() or Extrapolate()."
            )
        for index in range(len(self.channels)):
            own = entries.channel == index
            # Model units are standardised, so the other channels say how wide a rarely seen one is likely to be.
            seen = _first_with_enough(own & away & finite, away & finite, away)
            self.edges[index], bins = _bin(entries.distance[seen])
            for place in range(NUM_BINS + 1):
                chosen = residual[seen][bins == place]
                if len(chosen):
                    self.quantiles[index, place], self.tails[index, place] = residual_quantiles(chosen)
            blind = _first_with_enough(own & ~finite, own, torch.ones_like(own))
            self.quantiles[index, -1], self.tails[index, -1] = residual_quantiles(spread[blind])

    def _entries(self, windows: Iterable[Window]) -> _Entries:
        parts: list[_Entries] = []
        for window in windows:
            target, mask = window.target, window.target.mask
            value, distance = self.guess(window.context, target.times)
            channel = torch.arange(len(self.channels), device=mask.device).expand(mask.shape)
            parts.append(
                _Entries(channel[mask], distance[mask].double(), value[mask].double(), target.values[mask].double())
            )
        if not parts or not sum(len(part.truth) for part in parts):
            raise ValueError(
                f"{type(self).__name__}.fit_exact got no observed target; the training series may be too short for the "
                "windows."
            )
        return _Entries(*(torch.cat(column).to(self.mean.device) for column in zip(*parts, strict=True)))


class HoldLast(PointBaseline):
    r"""The last observation of the channel, held: the baseline for forecasts.

    .. math:: \hat{x}_{td} = x_{id}, \qquad i = \max \{ j : t_j \le t,\ m_{jd} = 1 \}

    Before the first observation of a channel, that one is held backwards. The intervals widen with the time for which
    the value is held.

    Args:
        channels: what is observed, in the order of the last axis of the values.

    Example:
        >>> from ctdyn.data import Channel
        >>> times, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[[3.0], [5.0]]])
        >>> context = IrregularBatch(times, values, torch.ones(1, 2, 1, dtype=torch.bool))
        >>> HoldLast([Channel("x")]).predict(context, torch.tensor([[0.9, 7.0]])).mean
        tensor([[[3.],
                 [5.]]])
    """

    def guess(self, context: IrregularBatch, ts: Times) -> Guess:
        """See `PointBaseline.guess`."""
        before, after = _neighbours(context, ts)
        return Guess(
            torch.where(before.distance.isfinite(), before.value, after.value),
            torch.where(before.distance.isfinite(), before.distance, after.distance),
        )


class LinearInterpolation(PointBaseline):
    r"""A straight line between the neighbouring observations of the channel: the baseline for filling gaps.

    .. math:: \hat{x}_{td} = x_{id} + \frac{t - t_i}{t_j - t_i} (x_{jd} - x_{id}), \qquad t_i \le t < t_j

    Outside the observations of a channel, the nearest one is held.

    Args:
        channels: what is observed, in the order of the last axis of the values.

    Example:
        >>> from ctdyn.data import Channel
        >>> times, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[[3.0], [5.0]]])
        >>> context = IrregularBatch(times, values, torch.ones(1, 2, 1, dtype=torch.bool))
        >>> LinearInterpolation([Channel("x")]).predict(context, torch.tensor([[0.5, 7.0]])).mean
        tensor([[[4.],
                 [5.]]])
    """

    def guess(self, context: IrregularBatch, ts: Times) -> Guess:
        """See `PointBaseline.guess`."""
        before, after = _neighbours(context, ts)
        between = before.distance.isfinite() & after.distance.isfinite()
        gap = torch.where(between, before.distance + after.distance, 1.0)
        weight = torch.where(between & (gap > 0), before.distance / gap.clamp(min=torch.finfo(gap.dtype).tiny), 0.0)
        line = before.value + weight.to(before.value.dtype) * (after.value - before.value)
        held = torch.where(before.distance.isfinite(), before.value, after.value)
        return Guess(torch.where(between, line, held), torch.minimum(before.distance, after.distance))


class OwnMean(PointBaseline):
    r"""The mean of the channel over the context of the same series: the baseline for series that hover around a level.

    .. math:: \hat{x}_{td} = \frac{\sum_i m_{id} x_{id}}{\sum_i m_{id}}

    Args:
        channels: what is observed, in the order of the last axis of the values.

    Example:
        >>> from ctdyn.data import Channel
        >>> times, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[[3.0], [5.0]]])
        >>> context = IrregularBatch(times, values, torch.ones(1, 2, 1, dtype=torch.bool))
        >>> OwnMean([Channel("x")]).predict(context, torch.tensor([[7.0]])).mean
        tensor([[[4.]]])
    """

    def guess(self, context: IrregularBatch, ts: Times) -> Guess:
        """See `PointBaseline.guess`."""
        before, after = _neighbours(context, ts)
        total = torch.where(context.mask, context.values, 0.0).sum(-2, keepdim=True)
        mean = total / context.mask.sum(-2, keepdim=True).clamp(min=1)
        return Guess(mean.expand_as(before.value), torch.minimum(before.distance, after.distance))


class MaternGP(Baseline):
    r"""A Gaussian process per series and channel with a Matern-3/2 kernel: the strongest of the baselines.

    .. math::
        x_d(t_i) = \mu_d + c_d + g_d(t_i) + \varepsilon_i, \quad c_d \sim N(0, \kappa_d^2), \quad
        \operatorname{Cov}[g_d(t), g_d(t')] = a_d^2 (1 + r) e^{-r}, \quad r = \sqrt{3}\, |t - t'| / \ell_d

    with :math:`\varepsilon_i \sim N(0, \sigma_d^2 + \mathrm{noise}_i^2)`, where noise is the standard error of an
    observation if known. The constant :math:`c_d` lets every series have a level of its own. The hyper-parameters of a
    channel are shared by all series and found by `fit_exact`, by maximum likelihood; the prediction is the exact
    posterior, including :math:`\sigma_d`. Channels do not inform each other. Arithmetic is in float64.

    Args:
        channels: what is observed, in the order of the last axis of the values.

    Reference:
        Gaussian Processes for Machine Learning (Rasmussen & Williams, 2006, http://gaussianprocess.org/gpml), sections
        2.2, 4.2.1 and 5.4.

    Example:
        >>> from ctdyn.data import Channel
        >>> times, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[[1.0], [1.0]]])
        >>> context = IrregularBatch(times, values, torch.ones(1, 2, 1, dtype=torch.bool))
        >>> stddev = MaternGP([Channel("x")]).predict(context, torch.tensor([[0.5, 9.0]])).stddev
        >>> bool(stddev[0, 0, 0] < stddev[0, 1, 0])
        True
    """

    mean: Tensor
    offset: Tensor
    amplitude: Tensor
    lengthscale: Tensor
    noise: Tensor

    def __init__(self, channels: Sequence[Channel]) -> None:
        super().__init__(channels)
        for name, value in Hyperparameters.initial(len(self.channels))._asdict().items():
            self.register_buffer(name, value)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The hyper-parameters of each channel, in model units."""
        return Hyperparameters(self.mean, self.offset, self.amplitude, self.lengthscale, self.noise)

    def distribution(self, context: IrregularBatch, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Baseline.distribution`."""
        mean, variance = posterior(context, ts, self.hyperparameters)
        variance = variance if noise is None else variance + noise.square()
        dtype = context.values.dtype
        return Normal(mean.to(dtype).unsqueeze(0), variance.sqrt().to(dtype).unsqueeze(0), validate_args=False)

    def fit_exact(self, windows: Iterable[Window]) -> None:
        """Maximise the predictive likelihood of each target entry given its context, channel by channel.

        It asks of the hyper-parameters what will be asked of the process, as the loss of every other model does; the
        marginal likelihood would be taken up with the short range. Windows without a target of their own
        (`Reconstruct`) are fitted by marginal likelihood. At most 256 windows per channel are used, and at most 512
        neighbouring observations of each: the hyper-parameters are few, and an exact process costs the cube of the
        observations. The mean is that of the training values.

        Args:
            windows: batches of windows in model units.

        Raises:
            ValueError: there are no windows, or nothing was observed in them.
        """
        fitted = fit_hyperparameters(windows, len(self.channels))
        for name, value in fitted._asdict().items():
            getattr(self, name).copy_(value)


def _neighbours(context: IrregularBatch, ts: Times) -> tuple[Guess, Guess]:
    """For each query and channel, the last observation at or before it and the first one at or after it."""
    context = with_row(context)
    rows = torch.arange(context.times.shape[-1], device=ts.device).unsqueeze(-1)
    count = len(rows)
    last = torch.where(context.mask, rows, -1).cummax(-2).values
    first = torch.where(context.mask, rows, count).flip(-2).cummin(-2).values.flip(-2)
    times, queries = context.times.contiguous(), ts.contiguous()
    left = torch.searchsorted(times, queries, right=True) - 1
    right = torch.searchsorted(times, queries, right=False)
    # One more row on either end says that there is no neighbour on that side.
    last = torch.cat([torch.full_like(last[..., :1, :], -1), last], -2)
    first = torch.cat([first, torch.full_like(first[..., :1, :], count)], -2)
    return (
        _neighbour(context, ts, take_items(last, left + 1, -2)),
        _neighbour(context, ts, take_items(first, right, -2)),
    )


def _neighbour(context: IrregularBatch, ts: Times, row: Tensor) -> Guess:
    exists = (row >= 0) & (row < context.times.shape[-1])
    place = row.clamp(0, context.times.shape[-1] - 1)
    times = context.times.unsqueeze(-1).expand(context.values.shape).gather(-2, place)
    value = torch.where(exists, context.values.gather(-2, place), 0.0)
    return Guess(value, torch.where(exists, (ts.unsqueeze(-1) - times).abs(), torch.inf))


def _first_with_enough(*choices: Tensor) -> Tensor:
    """The first mask with enough entries to read a distribution from; the last one that has any, failing that."""
    for choice in choices:
        if int(choice.sum()) >= MIN_RESIDUALS:
            return choice
    return next(choice for choice in reversed(choices) if bool(choice.any()))


def _bin(distance: Tensor) -> tuple[Tensor, Tensor]:
    """The inner edges of quantile bins (inf where there are fewer), and the bin of each distance."""
    edges = distance.new_full((NUM_BINS - 1,), torch.inf)
    count = min(NUM_BINS, max(1, len(distance) // MIN_RESIDUALS))
    ordered = distance.sort().values
    finite = ordered[ordered.isfinite()]
    # On a regular grid many distances are equal but for rounding, which is another one in another unit of time: they
    # fall into one bin, whose edges lie midway to the next distances. The first bin must not be left empty.
    starts = ordered.diff() > _SAME * (finite[-1] if len(finite) else 0.0)
    first = torch.where(starts, torch.arange(1, len(ordered), device=starts.device), 0).cummax(0).values
    chosen = first[[len(ordered) * place // count - 1 for place in range(1, count)]].unique()
    chosen = chosen[chosen > 0]
    edges[: len(chosen)] = 0.5 * (ordered[chosen - 1] + ordered[chosen])
    return edges, torch.searchsorted(edges, distance, right=True)
