"""The linear-Gaussian state-space model: exact inference and exact likelihood, the classical model of the field."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import exp, gcd, log

import torch
from torch import Generator, Tensor
from torch.distributions import Normal
from torch.nn.functional import pad

from .._checks import check_instance
from .._options import with_suggestions
from .._types import Times, Values
from ..data import IrregularBatch, Window
from ..data.channels import Channel
from ..likelihoods import masked_log_prob
from ..linear import (
    LinearDynamics,
    LinearGaussian,
    Matern,
    SumDynamics,
    expectation_maximisation,
    maximum_likelihood,
)
from ..linear._tensors import concrete
from ..nn import take_items
from ..paths import Path
from ._gaussian_process import union, with_row
from ._parts import size_of
from .base import Aggregates, ExactlyFitted, Generative, Loss, Model, Predictive, Scorable


__all__ = ["ExpectationMaximisation", "Fitting", "LinearGaussianSSM", "MaximumLikelihood"]

#: The share of a channel's variance that is noise at the start.
_NOISE = 0.01

#: Times that differ by less, as a share of the length of their series, are the same.
_SAME = 1e-9


class Fitting(ABC):
    """How a linear-Gaussian model is fitted to series; an immutable description.

    Example:
        >>> issubclass(MaximumLikelihood, Fitting)
        True
    """

    @abstractmethod
    def fit(self, model: LinearGaussian, batch: IrregularBatch) -> float:
        """Change the model in place; the log-likelihood reached, in nats."""


@with_suggestions
@dataclass(frozen=True)
class MaximumLikelihood(Fitting):
    """By maximum likelihood, with a quasi-Newton method: see `ctdyn.linear.maximum_likelihood`.

    Args:
        max_steps: iterations of L-BFGS.

    Example:
        >>> MaximumLikelihood(max_steps=50).max_steps
        50
    """

    max_steps: int = 200

    def fit(self, model: LinearGaussian, batch: IrregularBatch) -> float:
        """See `Fitting.fit`."""
        return maximum_likelihood(model, batch, max_steps=self.max_steps)


@with_suggestions
@dataclass(frozen=True)
class ExpectationMaximisation(Fitting):
    """By expectation maximisation, for rough dynamics alone: see `ctdyn.linear.expectation_maximisation`.

    Args:
        max_steps: steps; fewer if the likelihood rises no more.

    Example:
        >>> ExpectationMaximisation(max_steps=5).max_steps
        5
    """

    max_steps: int = 50

    def fit(self, model: LinearGaussian, batch: IrregularBatch) -> float:
        """See `Fitting.fit`."""
        return expectation_maximisation(model, batch, max_steps=self.max_steps)[-1]


class LinearGaussianSSM(Model, Aggregates, ExactlyFitted, Generative, Scorable):
    r"""A linear state-space model with Gaussian noise: what a latent model with a linear decoder is, without a bound.

    .. math::
        dy = A y\,dt + dW, \qquad x_{t} = H y(t) + c + \epsilon_t, \quad
        \epsilon_t \sim \mathcal{N}(0, \operatorname{diag} \sigma^2)

    By default the state holds independent Matern processes of different length scales together with their derivatives,
    and every channel reads all of it: a Gaussian process over several channels that inform each other, where one may be
    the derivative of another. A filter and a smoother answer exactly, in time linear in the length of a series; a
    missing channel, irregular times and known standard errors cost nothing extra, and a mean over an interval (`start`
    of the batch) costs its integral in the state: weekly and monthly figures inform each other exactly. Arithmetic is
    in float64.

    `fit_exact` starts from the principal components of the observations. Its answers are exact marginal distributions,
    so that all components of a `Predictive` are the same one; `sample` gives trajectories.

    Args:
        channels: what is observed, in the order of the last axis of the values.
        latent_size: number of processes; default: 4.
        dynamics: your own, without batch axes and stationary, in place of the Matern processes.
        fitting: how `fit_exact` fits: `MaximumLikelihood()`; or `ExpectationMaximisation()`, for rough dynamics of your
            own.

    Raises:
        TypeError: `dynamics` or `fitting` are of another sort, or a class where an instance is wanted.
        ValueError: the dynamics are not stationary, or have batch axes; both `latent_size` and `dynamics` are given.

    References:
        Kalman filtering and smoothing solutions to temporal Gaussian process regression models, J. Hartikainen,
        S. Sarkka, 2010, https://doi.org/10.1109/MLSP.2010.5589113
        Kernels for vector-valued functions: a review (the linear model of coregionalization), M. A. Alvarez,
        L. Rosasco, N. D. Lawrence, 2012, https://arxiv.org/abs/1106.6251

    Example:
        >>> from ctdyn.data import Channel
        >>> times, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[[1.0], [1.0]]])
        >>> context = IrregularBatch(times, values, torch.ones(1, 2, 1, dtype=torch.bool))
        >>> stddev = LinearGaussianSSM([Channel("x")], 2).predict(context, torch.tensor([[0.5, 9.0]])).stddev
        >>> bool(stddev[0, 0, 0] < stddev[0, 1, 0])
        True
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        latent_size: int | None = None,
        *,
        dynamics: LinearDynamics | None = None,
        fitting: Fitting = MaximumLikelihood(),
    ) -> None:
        super().__init__(channels)
        check_instance("fitting", fitting, Fitting, "MaximumLikelihood()")
        size = size_of("LinearGaussianSSM", "latent_size", latent_size, dynamics, 4)
        dynamics = _matern(size) if dynamics is None else dynamics
        check_instance("dynamics", dynamics, LinearDynamics, "Matern(2.5, lengthscale=0.3)")
        # A fit changes them, and they may be part of another model.
        dynamics = deepcopy(dynamics)
        if dynamics.batch_shape:
            raise ValueError(f"the dynamics must have no batch axes; got parameters of shape {dynamics.batch_shape}.")
        self.fitting = fitting
        count = len(self.channels)
        # What the user's dynamics hold fixed, such as known frequencies, is not fitted.
        self._fixed = frozenset(f"dynamics.{name}" for name, p in dynamics.named_parameters() if not p.requires_grad)
        with concrete():
            H, R = _start(dynamics.double(), torch.eye(count, dtype=torch.float64))
            self.core = LinearGaussian(dynamics.double(), H=H, R=R, offset=torch.zeros(count, dtype=torch.float64))
        # There is nothing to train by gradient steps on the loss.
        self.core.requires_grad_(False)

    @property
    def reads(self) -> frozenset[str]:
        """See `Model.reads`: none."""
        return frozenset()

    def fit_exact(self, windows: Iterable[Window]) -> None:
        """Fit all parameters to all observations of the windows, contexts and targets alike.

        Windows that hold the same series, cut in another way, say the same: where each of them comes as often, once is
        enough.

        Args:
            windows: batches of windows in model units.

        Raises:
            ValueError: there are no windows, or nothing was observed in them.
        """
        batch = _distinct(_together([_packed(union(window)[0]) for window in windows]))
        mean, covariance = _moments(batch)
        H, R = _start(self.core.dynamics, covariance)
        assert self.core.offset is not None
        assert self.core.log_noise is not None
        with torch.no_grad():
            self.core.H.copy_(H)
            self.core.log_noise.copy_(R.log())
            self.core.offset.copy_(mean)
        try:
            for name, parameter in self.core.named_parameters():
                # The size of a process is that of the rows which read it.
                parameter.requires_grad_(name not in self._fixed and not name.endswith(("log_variance", "log_sigma")))
            with torch.enable_grad():
                self.fitting.fit(self.core, batch)
        finally:
            self.core.requires_grad_(False)

    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """The negative log density of the target, entry by entry. There is nothing to train: see `fit_exact`."""
        target = window.target
        mean, variance = self._marginals(window.context, target.times, target.start)
        if target.noise is not None:
            variance = variance + target.noise.square()
        nats = -masked_log_prob(Normal(mean, variance.sqrt(), validate_args=False), target.values, target.mask)
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
        """See `Model.predict`: the exact distribution of each entry, `num_samples` times the same one."""
        return self.predict_means(context, ts, ts, inputs, noise=noise, num_samples=num_samples, generator=generator)

    def predict_means(
        self,
        context: IrregularBatch,
        start: Times,
        ts: Times,
        inputs: Path | None = None,
        *,
        noise: Values | None = None,
        num_samples: int = 100,
        generator: Generator | None = None,
    ) -> Predictive:
        """See `Aggregates.predict_means`: exact, `num_samples` times the same distribution."""
        mean, variance = self._marginals(context, ts, start)
        variance = variance if noise is None else variance + noise.square()
        shape = torch.Size((num_samples, *mean.shape))
        return Predictive(Normal(mean.expand(shape), variance.sqrt().expand(shape), validate_args=False))

    def sample(
        self,
        ts: Times,
        inputs: Path | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Predictive:
        """See `Generative.sample`."""
        order = ts.sort(dim=-1)
        states = self.core.sample(order.values, num_samples, generator=generator)
        states = take_items(states, order.indices.argsort(-1), -2)
        assert self.core.offset is not None
        mean = states @ self.core.H.to(states.dtype).mT + self.core.offset.to(states.dtype)
        noise = self.core.R.diagonal(dim1=-2, dim2=-1).sqrt().to(states.dtype)
        return Predictive(Normal(mean, noise.expand(mean.shape), validate_args=False))

    def log_prob(self, window: Window, *, num_samples: int = 100, generator: Generator | None = None) -> Tensor:
        r"""See `Scorable.log_prob`: the exact joint density of what the context does not hold already.

        .. math:: \log p(\text{target} \mid \text{context}) = \log p(\text{target}, \text{context}) -
            \log p(\text{context})
        """
        nats = self.core.log_prob(union(window)[0]) - self.core.log_prob(with_row(window.context))
        return nats.to(window.target.values.dtype)

    def _marginals(self, context: IrregularBatch, ts: Times, start: Times | None = None) -> tuple[Tensor, Tensor]:
        """Mean and variance of a new observation at each time, or over each interval, `(*batch, time, channel)`."""
        rows = _packed(with_row(context))
        seen = IrregularBatch(rows.times, rows.values, rows.mask, noise=rows.noise, start=rows.start)
        if start is None or not bool((start < ts).any()):
            found = self.core.emit(self.core.predict(seen, ts))
        else:
            found = self.core.aggregate(seen, start, ts)
        return found.mean, found.variance


def _matern(count: int) -> SumDynamics:
    """Matern processes whose length scales spread evenly over sizes, in units of the model's clock."""
    low, high = log(0.1), log(1.0)
    steps = [exp(high + (low - high) * index / max(count - 1, 1)) for index in range(count)]
    return SumDynamics([Matern(2.5, lengthscale=step) for step in steps])


def _start(dynamics: LinearDynamics, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that give the processes the principal components of the channels, and a little noise."""
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp(min=0.0), vectors.flip(-1)
    n, count = dynamics.state_size, len(values)
    row = dynamics.readout
    leading = torch.arange(n) if row is None else row.detach().nonzero().flatten()
    H = 0.05 * torch.randn(count, n, dtype=torch.float64, generator=Generator().manual_seed(0)).to(covariance.device)
    for number, column in enumerate(leading.tolist()):
        # More processes than channels share a component.
        shares = len(range(number % count, len(leading), count))
        H[:, column] += vectors[:, number % count] * (values[number % count] / shares).sqrt()
    H = H / dynamics.stationary().detach().diagonal().sqrt().to(H)
    return H, _NOISE * covariance.diagonal().clamp(min=1e-12)


def _moments(batch: IrregularBatch) -> tuple[Tensor, Tensor]:
    """Mean of each channel, and covariance of those that were observed together."""
    mask = batch.mask.flatten(0, -2).double()
    values = batch.values.flatten(0, -2).double() * mask
    if not bool(mask.any()):
        raise ValueError("fit_exact got no observation; the training series may be too short for the windows.")
    mean = values.sum(0) / mask.sum(0).clamp(min=1)
    away = (values - mean) * mask
    # Zero where two channels were never seen together; shrinking keeps the matrix positive.
    covariance = (away.mT @ away) / (mask.mT @ mask).clamp(min=1)
    floor = covariance.diagonal().clamp(min=1e-6)
    eigenvalues, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.mT))
    return mean, (vectors * eigenvalues.clamp(min=0.0)) @ vectors.mT + 1e-9 * torch.diag(floor)


def _packed(batch: IrregularBatch) -> IrregularBatch:
    """The observed rows alone: the filter pays for every row."""
    observed = batch.observed
    count = observed.sum(-1, keepdim=True)
    length = max(int(count.max()) if count.numel() else 0, 1)
    order = observed.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., :length]
    # A short series is padded by its last observed row, with an empty mask.
    real = torch.arange(length, device=count.device) < count
    order = torch.where(real, order, order.gather(-1, (count - 1).clamp(min=0)))
    mask = take_items(batch.mask, order, -2) & real[..., None]
    noise = None if batch.noise is None else take_items(batch.noise, order, -2)
    start = None if batch.start is None else batch.start.gather(-1, order)
    values = take_items(batch.values, order, -2)
    return IrregularBatch(batch.times.gather(-1, order), values, mask, noise=noise, start=start)


def _together(parts: list[IrregularBatch]) -> IrregularBatch:
    """Batches of any lengths as one."""
    if not parts:
        raise ValueError("fit_exact got no windows; the training series may be too short for them.")
    length = max(part.times.shape[-1] for part in parts)

    def rows(x: Tensor) -> Tensor:
        x = x.reshape(-1, *x.shape[-2:])
        return pad(x, (0, 0, 0, length - x.shape[-2]))

    def times(x: Tensor) -> Tensor:
        x = x.reshape(-1, x.shape[-1])
        return torch.cat([x, x[:, -1:].expand(-1, length - x.shape[-1])], -1)

    noise = None
    if any(part.noise is not None for part in parts):
        known = [torch.zeros_like(part.values) if part.noise is None else part.noise for part in parts]
        noise = torch.cat([rows(x) for x in known])
    start = None
    if any(part.start is not None for part in parts):
        start = torch.cat([times(part.times if part.start is None else part.start) for part in parts])
    return IrregularBatch(
        torch.cat([times(part.times) for part in parts]),
        torch.cat([rows(part.values) for part in parts]),
        torch.cat([rows(part.mask) for part in parts]),
        noise=noise,
        start=start,
    )


def _distinct(batch: IrregularBatch) -> IrregularBatch:
    """The series without what all of them are repeated; their clocks may begin at different times."""
    clock = batch.times[:, :1]
    begins = batch.times if batch.start is None else batch.start
    clocks = torch.cat([batch.times - clock, begins - clock], -1)
    near = _SAME * (batch.times[:, -1:] - clock)
    parts = [batch.values] if batch.noise is None else [batch.values, batch.noise]
    content = torch.stack([batch.mask.double(), *(torch.where(batch.mask, part, 0.0) for part in parts)]).transpose(
        0, 1
    )
    # Of each kind of series the rows where it stands, by what was observed and then by when.
    kinds: dict[bytes, list[list[int]]] = {}
    for row, key in enumerate(one.cpu().numpy().tobytes() for one in content):
        alike = kinds.setdefault(key, [])
        for rows in alike:
            if bool(((clocks[row] - clocks[rows[0]]).abs() <= near[rows[0]]).all()):
                rows.append(row)
                break
        else:
            alike.append([row])
    groups = [rows for alike in kinds.values() for rows in alike]
    repeats = gcd(*map(len, groups))
    return batch if repeats <= 1 else batch[sorted(row for rows in groups for row in rows[: len(rows) // repeats])]
