"""What a model is: the two verbs that every model has, and the capabilities that only some have."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from .._checks import few
from .._config import Configurable
from .._types import Mask, Times, Values
from ..data import IrregularBatch, Window
from ..data.channels import Channel
from ..likelihoods import entry_log_prob, masked_log_prob
from ..nn import sample, take_items
from ..paths import LinearPath, Path
from ..structure import Explained
from ._questions import checks_questions


__all__ = [
    "Aggregates",
    "Encodes",
    "ExactlyFitted",
    "Generative",
    "Labels",
    "Loss",
    "Model",
    "Predictive",
    "Scorable",
    "input_path",
    "modelled",
]

#: What can be known of a series beside its observations.
COVARIATES = frozenset({"inputs", "static"})


@dataclass(frozen=True)
class Loss:
    """What `Model.loss` returns.

    Args:
        total: the scalar to minimise: the mean over the series of the batch, in nats per series.
        parts: scalars worth logging, detached. Every model reports `nats_per_observation`; the rest are its own.

    Example:
        >>> loss = Loss(torch.tensor(2.0), {"nats_per_observation": torch.tensor(0.5)})
        >>> sorted(loss.parts)
        ['nats_per_observation']
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictive:
    r"""What a model says about unseen observations: an equal mixture over samples of its latent state.

    .. math:: p(x_{t}) = \frac{1}{S} \sum_s p(x_t \mid z^{(s)}_t)

    One sample of the latent state is one coherent trajectory where the model's state is stochastic; entries of one
    sample are independent given it.

    Args:
        distribution: one component per sample, of batch shape `(sample, *batch, time, channel)` and no event axes.

    Raises:
        ValueError: the distribution has event axes, or no leading sample axis.

    Example:
        >>> from torch.distributions import Normal
        >>> predictive = Predictive(Normal(torch.tensor([-1.0, 1.0]).view(2, 1, 1), torch.ones(2, 1, 1)))
        >>> predictive.mean, predictive.stddev
        (tensor([[0.]]), tensor([[1.4142]]))
    """

    distribution: Distribution

    def __post_init__(self) -> None:
        shape, event = tuple(self.distribution.batch_shape), tuple(self.distribution.event_shape)
        if event or len(shape) < 3:
            raise ValueError(
                "a predictive distribution needs batch shape (sample, *batch, time, channel) and no event axes; got "
                f"batch shape {shape} and event shape {event}."
            )

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture, `(*batch, time, channel)`."""
        return self.distribution.mean.mean(0)

    @property
    def stddev(self) -> Tensor:
        """The standard deviation of the mixture (law of total variance), `(*batch, time, channel)`."""
        between = self.distribution.mean.var(0, correction=0)
        return (self.distribution.variance.mean(0) + between).sqrt()

    def sample(self, generator: Generator | None = None, draws: int = 1) -> Tensor:
        """Observations: `draws` of each component.

        Args:
            generator: the source of randomness; None uses torch's global one.
            draws: observations drawn per latent sample; more of them make smoother quantiles.

        Returns:
            Samples, `(draws * sample, *batch, time, channel)`.
        """
        return sample(self.distribution, (draws,), generator=generator).flatten(0, 1)

    def quantile(self, levels: Sequence[float], generator: Generator | None = None, draws: int = 10) -> Tensor:
        """Quantiles of the mixture at each time and channel, estimated from samples.

        Args:
            levels: probabilities between 0 and 1.
            generator: the source of randomness.
            draws: observations drawn per latent sample.

        Returns:
            Quantiles, `(level, *batch, time, channel)`.

        Raises:
            ValueError: a level is no probability.
        """
        wrong = [level for level in levels if not 0 <= level <= 1]
        if wrong:
            raise ValueError(f"levels are probabilities in [0, 1], such as 0.05 for 5 %; got {few(wrong)}.")
        samples = self.sample(generator, draws)
        # torch.quantile refuses large tensors; sorting once and interpolating does not.
        ordered = samples.sort(0).values
        position = torch.as_tensor(levels, dtype=samples.dtype, device=samples.device) * (len(ordered) - 1)
        low = position.floor().long()
        high = (low + 1).clamp(max=len(ordered) - 1)
        weight = (position - low).view(-1, *[1] * (samples.dim() - 1))
        return torch.lerp(ordered[low], ordered[high], weight)

    def log_prob(self, values: Values, mask: Mask) -> Tensor:
        """The log density of each observed entry by itself (marginal over the samples), in nats.

        Args:
            values: observations, `(*batch, time, channel)`.
            mask: True where observed.

        Returns:
            Log densities, `(*batch, time, channel)`; 0 where nothing was observed.
        """
        return _log_mean_exp(entry_log_prob(self.distribution, values, mask))

    def joint_log_prob(self, values: Values, mask: Mask) -> Tensor:
        """The log density of all observed entries of a series together, `(*batch,)`, in nats."""
        return _log_mean_exp(masked_log_prob(self.distribution, values, mask))


class Model(nn.Module, Configurable, ABC):
    """A model of irregular series: something that can be trained on windows and asked at any time.

    Everything is in model units (standardised values, the series' own clock): `Forecaster` takes care of the data's.

    Args:
        channels: what is observed, in the order of the last axis of the values.

    Raises:
        TypeError: there is no channel, or something else than channels was given.

    Example:
        >>> from ctdyn.models import LatentODE
        >>> model: Model = LatentODE([Channel("pulse")], latent_size=2)
        >>> [channel.name for channel in model.channels]
        ['pulse']
    """

    channels: tuple[Channel, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checks_questions(cls)

    def __init__(self, channels: Sequence[Channel]) -> None:
        super().__init__()
        self.channels = modelled(channels)

    @property
    def reads(self) -> frozenset[str]:
        """Which covariates can reach it, of "inputs" and "static"; one of your own is believed to read both.

        Example:
            >>> from ctdyn.models import LatentODE, MaternGP
            >>> channels = [Channel("pulse")]
            >>> sorted(LatentODE(channels, static_size=2).reads), sorted(MaternGP(channels).reads)
            (['inputs', 'static'], [])
        """
        return COVARIATES

    @abstractmethod
    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """The training objective on a batch of windows.

        Args:
            window: what is shown and what is scored; the target never reaches the encoder.
            generator: the source of randomness.
            step: the optimiser step, for annealed objectives; None gives the objective without annealing, which is
                the number to validate on.
        """

    @abstractmethod
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
        """The distribution of what would be observed at any times, given the context.

        Args:
            context: the observations to condition on.
            ts: query times, before, within or after the context, in any order, `(*batch, time)`.
            inputs: the covariates as a path on the model's clock, where the model is driven by any.
            noise: standard errors of what would be observed, where they are known, `(*batch, time, channel)`; None for
                an observation that is as noisy as the model knows them to be.
            num_samples: samples of the latent state.
            generator: the source of randomness.

        Raises:
            TypeError: an argument is of another sort, such as a seed in place of a generator.
            ValueError: `ts` are not finite, or not those of the series of the context; the context has other channels,
                or there are no samples. A subclass need not look: whatever it defines of the methods with which models
                are asked is checked before it runs.
        """

    def explain(self) -> str:
        """Which way the equations inside of the model are solved, and why: one line per part that has one.

        Example:
            >>> from ctdyn.models import LatentODE, OwnMean
            >>> print(OwnMean([Channel("pulse")]).explain())
            OwnMean: there is no equation to solve
        """
        told: dict[str, str] = {}
        for name, part in self.named_modules():
            # What a part is made of is its own business.
            if isinstance(part, Explained) and not any(name.startswith(f"{owner}.") for owner in told):
                told[name] = f"{name}: {part.explain()}"
        return "\n".join(told.values()) if told else f"{type(self).__name__}: there is no equation to solve"


class Generative(ABC):
    """Capability: makes new series without seeing any.

    Example:
        >>> from ctdyn import models
        >>> issubclass(models.LatentODE, models.Generative)
        True
    """

    @abstractmethod
    def sample(
        self,
        ts: Times,
        inputs: Path | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Predictive:
        """The distribution of new series at `ts` `(*batch, time)`, whose first time is the start of each series."""


class Scorable(ABC):
    """Capability: says how probable a target is, given its context.

    Example:
        >>> from ctdyn import models
        >>> issubclass(models.LatentODE, models.Scorable)
        True
    """

    @abstractmethod
    def log_prob(self, window: Window, *, num_samples: int = 100, generator: Generator | None = None) -> Tensor:
        """The log predictive density of the whole target of each series, `(*batch,)`, in nats."""


class Aggregates(ABC):
    r"""Capability: conditions on means over intervals (the `start` of a batch), and predicts them.

    .. math:: x = \frac{1}{t - s} \int_s^t \mu(\tau)\,d\tau + \epsilon

    A sum over an interval is such a mean, times the length of the interval. The encoder of a latent-variable model
    reads one as a value at its end: the bound remains a bound of what was observed, the posterior a coarser guess.

    Example:
        >>> from ctdyn import models
        >>> issubclass(models.LinearGaussianSSM, models.Aggregates)
        True
    """

    @abstractmethod
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
        """The distribution of what would be observed as means over intervals, given the context.

        Args:
            context: the observations to condition on.
            start: where the intervals begin, `(*batch, time)`; where it is `ts`, a point is meant.
            ts: where they end, in any order, `(*batch, time)`.
            inputs: as in `Model.predict`.
            noise: as in `Model.predict`.
            num_samples: samples of the latent state.
            generator: the source of randomness.
        """


class Encodes(ABC):
    """Capability: turns a series of any length into one vector.

    Example:
        >>> from ctdyn import models
        >>> issubclass(models.LatentODE, models.Encodes)
        True
    """

    @abstractmethod
    def encode(self, context: IrregularBatch) -> Tensor:
        """A fixed-size description of each series, `(*batch, feature)`."""


class Labels(ABC):
    """Capability: maps a whole series to labels.

    Example:
        >>> from ctdyn import models
        >>> issubclass(models.SequenceModel, models.Labels), issubclass(models.LatentODE, models.Labels)
        (True, False)
    """

    @abstractmethod
    def predict_label(self, context: IrregularBatch) -> Distribution:
        """The distribution of the labels of each series, of batch shape `(*batch, label)` and no event axes."""


class ExactlyFitted(ABC):
    """Capability: is fitted in closed form or by its own procedure, not by gradient steps on `loss`.

    Example:
        >>> from ctdyn import models
        >>> issubclass(models.MaternGP, models.ExactlyFitted), issubclass(models.LatentODE, models.ExactlyFitted)
        (True, False)
    """

    @abstractmethod
    def fit_exact(self, windows: Iterable[Window]) -> None:
        """Fit to all windows at once.

        Args:
            windows: re-iterable batches of windows in model units.
        """


def modelled(channels: Sequence[Channel]) -> tuple[Channel, ...]:
    """The channels of a model, before any part is built for them.

    Args:
        channels: what is observed.

    Raises:
        TypeError: there is no channel, or something else than channels was given.

    Example:
        >>> modelled([Channel("pulse")])
        (Channel(name='pulse', unit=None, kind='real'),)
    """
    found = tuple(channels) if isinstance(channels, Iterable) else ()
    if not found or not all(isinstance(channel, Channel) for channel in found):
        raise TypeError(
            f'a model needs the channels that it models, such as series.channels or [Channel("x")]; got {channels!r}.'
        )
    return found


def input_path(context: IrregularBatch, target: IrregularBatch | None = None) -> LinearPath | None:
    """The inputs known at the times of a window, as one path per series.

    Args:
        context: observations, with inputs or without.
        target: more of the same series.

    Returns:
        A path through the inputs of both, or None where there are none. A repeated time counts once: its first row
        is the real one, the others are padding.

    Raises:
        ValueError: one part has inputs and the other has not.

    Example:
        >>> times, values = torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2, 1)
        >>> batch = IrregularBatch(times, values, values.bool(), inputs=torch.tensor([[[3.0], [5.0]]]))
        >>> input_path(batch).evaluate(torch.tensor([0.5]))
        tensor([[4.]])
    """
    parts = [part for part in (context, target) if part is not None]
    if all(part.inputs is None for part in parts):
        return None
    given = [part.inputs for part in parts if part.inputs is not None]
    if len(given) < len(parts):
        raise ValueError("inputs are known for only one of context and target; give both or neither.")
    ts, order = torch.cat([part.times for part in parts], -1).sort(dim=-1, stable=True)
    values = torch.cat(given, -2)
    repeated = torch.zeros_like(ts, dtype=torch.bool)
    repeated[..., 1:] = ts[..., 1:] == ts[..., :-1]
    place = repeated.sort(dim=-1, stable=True).indices
    last = (~repeated).sum(-1, keepdim=True) - 1
    place = torch.where(torch.arange(ts.shape[-1], device=ts.device) <= last, place, place.gather(-1, last))
    rows = order.gather(-1, place)
    return LinearPath(ts.gather(-1, place), take_items(values, rows, -2))


def _log_mean_exp(x: Tensor) -> Tensor:
    return x.logsumexp(0) - torch.tensor(x.shape[0], dtype=x.dtype).log()
