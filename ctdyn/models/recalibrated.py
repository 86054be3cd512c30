"""Predictions whose spread is learned from the errors that were made on training windows."""

from collections.abc import Iterable
from math import log

import torch
from torch import Generator, Tensor
from torch.distributions import StudentT

from .._checks import check_instance
from .._types import Times, Values
from ..data import IrregularBatch, Window
from ..likelihoods import masked_log_prob
from ..paths import Path
from .base import Aggregates, ExactlyFitted, Loss, Model, Predictive


__all__ = ["Recalibrated"]

#: Degrees of freedom above 2, and how many observations the usual scale counts for, before anything is known.
_DF, _WEIGHT = 4.0, 8.0
#: One outlier says little about the others: beyond three standard deviations its square counts no more.
_MOST = 9.0
#: The widest range of the logarithms: errors that are all zero would have them run off.
_RANGE = 5.0
#: Iterations of L-BFGS.
_STEPS = 60


class Recalibrated(Model, ExactlyFitted):
    r"""A Gaussian answer with the tails that errors have, wider for the series that were hard to explain.

    .. math::
        x \sim t_{\nu_d}\left(\mu,\; g_d^2\, \sigma^2\,
        \frac{k_d + \sum_i r_i^2 / \rho_d}{k_d + n}\right), \qquad
        r_i = \min\left(\left|\frac{x_i - \mu_i}{\sigma_i}\right|, 3\right)

    with :math:`\mu, \sigma` of the model that is corrected, and :math:`n` observations of the channel in the context.
    Their errors :math:`r_i` are those of the model that sees every other observed row, on those between. The fraction
    is that of a Student-t process, which does not know the scale of a series. Width :math:`g_d`, tails :math:`\nu_d`
    and the trust in the usual scale :math:`k_d` are fitted for each channel to the errors on the targets of training
    windows; :math:`\rho_d` is the mean of :math:`r^2`. Means stay what they are. Channels that were rarely seen keep
    near six degrees of freedom and a width of 1.

    For data with outliers, and for series some of which are noisier than others.

    Args:
        model: what is corrected; it is fitted in closed form.

    Raises:
        TypeError: the model is trained by gradient steps: its errors on the windows it was trained on are too small.

    References:
        Calibrated Probabilistic Forecasting Using Ensemble Model Output Statistics and Minimum CRPS Estimation,
        T. Gneiting, A. E. Raftery, A. H. Westveld, T. Goldman, 2005, https://doi.org/10.1175/MWR2904.1
        Student-t Processes as Alternatives to Gaussian Processes, A. Shah, A. G. Wilson, Z. Ghahramani, 2014,
        https://proceedings.mlr.press/v33/shah14.html

    Example:
        >>> from ctdyn.data import Channel
        >>> from ctdyn.models import MaternGP
        >>> model = Recalibrated(MaternGP([Channel("x")]))
        >>> times, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[[1.0], [1.0]]])
        >>> context = IrregularBatch(times, values, torch.ones(1, 2, 1, dtype=torch.bool))
        >>> model.predict(context, torch.tensor([[0.5]])).distribution.df[0]
        tensor([[[6.]]])
    """

    log_width: Tensor
    log_df: Tensor
    log_weight: Tensor
    usual: Tensor

    def __init__(self, model: Model) -> None:
        check_instance("model", model, Model, "MaternGP(series.channels)")
        super().__init__(model.channels)
        if not isinstance(model, ExactlyFitted):
            raise TypeError(
                f"Recalibrated corrects models that are fitted in closed form; {type(model).__name__} is trained by "
                "gradient steps, whose errors on training windows are not those on others. Give it a likelihood with "
                "heavy tails, such as StudentT."
            )
        self.model = model
        count = len(self.channels)
        self.register_buffer("log_width", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("log_df", torch.full((count,), log(_DF), dtype=torch.float64))
        self.register_buffer("log_weight", torch.full((count,), log(_WEIGHT), dtype=torch.float64))
        self.register_buffer("usual", torch.ones(count, dtype=torch.float64))

    @property
    def reads(self) -> frozenset[str]:
        """See `Model.reads`: what its model does."""
        return self.model.reads

    def fit_exact(self, windows: Iterable[Window]) -> None:
        """Fit the model, then the spread to its errors on the targets.

        Args:
            windows: batches of windows in model units, with targets of their own.

        Raises:
            ValueError: as the model says; or no target is observed.
        """
        windows = list(windows)
        assert isinstance(self.model, ExactlyFitted)
        self.model.fit_exact(windows)
        errors = [self._errors(window) for window in windows]
        channel, error, surprise, count = (torch.cat(column) for column in zip(*errors, strict=True))
        if not len(channel):
            raise ValueError(
                "Recalibrated.fit_exact got no observed target that the context does not show: errors are learned from "
                "what was not seen. Use Interpolate or Extrapolate windows, or longer series."
            )
        # Each target of a series counts its context once more: the series are weighed as the targets are.
        size = len(self.channels)
        total, seen = (torch.bincount(channel, x, minlength=size) for x in (surprise, count))
        self.usual.copy_(torch.where(seen > 0, total / seen.clamp(min=1), 1.0).clamp(min=1e-6))
        start = torch.tensor([[0.0], [log(_DF)], [log(_WEIGHT)]]).to(error).repeat(1, size)
        with torch.enable_grad():
            free = start.clone().requires_grad_()
            optimiser = torch.optim.LBFGS([free], max_iter=_STEPS, line_search_fn="strong_wolfe")

            def objective() -> Tensor:
                optimiser.zero_grad()
                own = free.clamp(-_RANGE, _RANGE)[:, channel]
                variance = _inflation(own[2], surprise / self.usual[channel], count)
                law = StudentT(2.0 + own[1].exp(), 0.0, own[0].exp() * variance.sqrt(), validate_args=False)
                # A standard normal around the start keeps channels of few observations there.
                nats = 0.5 * (free - start).square().sum() - law.log_prob(error).sum()
                mean = nats / len(error)
                mean.backward()
                return mean

            optimiser.step(objective)  # type: ignore[arg-type]
        for buffer, value in zip(
            (self.log_width, self.log_df, self.log_weight), free.detach().clamp(-_RANGE, _RANGE), strict=True
        ):
            buffer.copy_(value)

    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """The negative log density of the target, entry by entry. There is nothing to train: see `fit_exact`."""
        target = window.target
        law = self._law(*self._moments(window.context, target), window.context)
        nats = -masked_log_prob(law, target.values, target.mask)
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
        """See `Model.predict`: `num_samples` times the same distribution of each entry."""
        answer = self.model.predict(context, ts, inputs, noise=noise, num_samples=1, generator=generator)
        law = self._law(answer.mean, answer.stddev, context)
        return Predictive(law.expand(torch.Size((num_samples, *law.batch_shape))))

    def _law(self, mean: Tensor, stddev: Tensor, context: IrregularBatch) -> StudentT:
        surprise, count = self._surprise(context)
        variance = _inflation(self.log_weight, surprise / self.usual, count).unsqueeze(-2)
        scale = stddev * (self.log_width.exp() * variance.sqrt()).to(stddev.dtype)
        return StudentT((2.0 + self.log_df.exp()).to(scale.dtype), mean, scale, validate_args=False)

    def _surprise(self, context: IrregularBatch) -> tuple[Tensor, Tensor]:
        """Squared errors on each half of a context given the other, summed, and their number, `(*batch, channel)`."""
        if not context.times.shape[-1]:
            # Nothing was seen, so nothing surprises.
            nothing = torch.zeros_like(self.usual).expand(*context.batch_shape, -1)
            return nothing, nothing
        # Rows without an observation, as those of other models beside this one, do not count.
        first = context.observed.unsqueeze(-1).cumsum(-2) % 2 == 1
        known = [part if part is None else part.expand(2, *part.shape) for part in (context.noise, context.start)]
        times, values = (part.expand(2, *part.shape) for part in (context.times, context.values))
        mask = torch.stack([context.mask & first, context.mask & ~first])
        halves = IrregularBatch(times, values, mask, noise=known[0], start=known[1])
        mean, stddev = self._moments(halves, halves)
        error = torch.where(first, *((values - mean) / stddev).flip(0))
        squared = torch.where(context.mask, error.square().clamp(max=_MOST), 0.0)
        return squared.sum(-2).double(), context.mask.sum(-2).double()

    def _moments(self, context: IrregularBatch, asked: IrregularBatch) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of observations; the model knows what their known errors add to it."""
        if asked.start is None or not bool((asked.start < asked.times).any()):
            answer = self.model.predict(context, asked.times, noise=asked.noise, num_samples=1)
        elif isinstance(self.model, Aggregates):
            answer = self.model.predict_means(context, asked.start, asked.times, noise=asked.noise, num_samples=1)
        else:
            raise ValueError(
                f"the windows hold means over intervals, which {type(self.model).__name__} does not know; "
                "LinearGaussianSSM does."
            )
        return answer.mean, answer.stddev

    @torch.no_grad()
    def _errors(self, window: Window) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each observed target: channel, error, and what `_surprise` says of its context, flat."""
        target = window.target
        mean, stddev = self._moments(window.context, target)
        asked = target.mask & ~_shown(window)
        channel = torch.arange(len(self.channels), device=target.mask.device)
        error = ((target.values - mean) / stddev).double()
        columns = (channel, error, *(x.unsqueeze(-2) for x in self._surprise(window.context)))
        channel, error, surprise, count = (x.expand(asked.shape)[asked] for x in columns)
        return channel, error, surprise, count


def _inflation(log_weight: Tensor, surprise: Tensor, count: Tensor) -> Tensor:
    """The variance of a series in units of the usual one."""
    weight = log_weight.exp()
    return (weight + surprise) / (weight + count)


def _shown(window: Window) -> Tensor:
    """Which entries of a target stand in the context too, `(*batch, time, channel)`: they are no test of an answer."""
    context, target = window.context, window.target
    same = target.times.unsqueeze(-1) == context.times.unsqueeze(-2)
    if context.start is not None and target.start is not None:
        same = same & (target.start.unsqueeze(-1) == context.start.unsqueeze(-2))
    return same.float() @ context.mask.float() > 0
