"""From a latent state to the distribution of an observation: a decoder network and a family, pointwise in time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import expm1, log

import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.nn.functional import softplus

from ._config import Configurable
from ._types import Mask, Times, Values
from .data.channels import Channel
from .nn import MLP


__all__ = [
    "Bernoulli",
    "FixedScale",
    "Gaussian",
    "HeteroscedasticScale",
    "LearnedScale",
    "Likelihood",
    "PerKind",
    "Scale",
    "StudentT",
    "entry_log_prob",
    "masked_log_prob",
]


def entry_log_prob(distribution: Distribution, values: Values, mask: Mask) -> Tensor:
    """The log density of each observed entry, in nats; 0 where nothing was observed.

    What stands under the mask reaches neither the result nor its gradient.

    Args:
        distribution: batch shape `(..., time, channel)`.
        values: observations, `(*batch, time, channel)`; extra leading axes of the distribution broadcast.
        mask: True where observed.

    Returns:
        `(..., time, channel)`.

    Example:
        >>> mask = torch.tensor([[[True], [False]]])
        >>> entry_log_prob(td.Normal(torch.zeros(1, 2, 1), 1.0), torch.zeros(1, 2, 1), mask).flatten()
        tensor([-0.9189,  0.0000])
    """
    log_prob = distribution.log_prob(torch.where(mask, values, 0))
    return torch.where(mask, log_prob, 0)


def masked_log_prob(distribution: Distribution, values: Values, mask: Mask) -> Tensor:
    r"""The log density of the observed entries of each series, summed over time and channels, in nats.

    .. math:: \log p(x \mid z) = \sum_{i, d} m_{id} \log p(x_{id} \mid z_{t_i})

    Args:
        distribution: batch shape `(..., time, channel)`.
        values: observations, `(*batch, time, channel)`; extra leading axes of the distribution broadcast.
        mask: True where observed.

    Returns:
        One number per series (and per sample), `(...)`.

    Example:
        >>> normal = td.Normal(torch.zeros(1, 2, 1), 1.0)
        >>> mask = torch.tensor([[[True], [False]]])
        >>> masked_log_prob(normal, torch.zeros(1, 2, 1), mask)
        tensor([-0.9189])
    """
    return entry_log_prob(distribution, values, mask).sum((-1, -2))


# Above their use: the defaults of the constructors below are checked while this module is read.
def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0; got {value}.")


def _check_floor(name: str, initial: float, floor: float) -> None:
    _check_positive(f"{name}(floor)", floor)
    if not initial > floor:
        raise ValueError(f"{name}(initial) must be above its floor {floor}; got {initial}.")


class Scale(ABC):
    """How wide observations spread around the decoder's mean; an immutable description that a likelihood builds.

    Example:
        >>> issubclass(LearnedScale, Scale)
        True
    """

    @abstractmethod
    def build(self, latent_size: int, num_channels: int) -> nn.Module:
        """The module that maps latent states `(..., latent)` to scales that broadcast against `(..., channel)`."""


@dataclass(frozen=True)
class FixedScale(Scale):
    """A known measurement error, the same for all channels.

    Args:
        value: standard deviation in model units, where 1 is the spread of the channel over the training series.

    Example:
        >>> likelihood = Gaussian(4, 2, scale=FixedScale(0.1))
        >>> likelihood(torch.zeros(1, 1, 4), torch.zeros(1, 1)).stddev
        tensor([[[0.1000, 0.1000]]])
    """

    value: float

    def __post_init__(self) -> None:
        _check_positive("FixedScale(value)", self.value)

    def build(self, latent_size: int, num_channels: int) -> nn.Module:
        """See `Scale.build`."""
        return _Constant(self.value, num_channels)


@dataclass(frozen=True)
class LearnedScale(Scale):
    r"""One learned standard deviation per channel; the choice to start with.

    .. math:: \sigma_d = \sigma_{\min} + e^{\rho_d}

    Args:
        initial: where training starts, in model units (1 is the spread of the channel over the training series).
        floor: the smallest standard deviation that can be learned, in model units.

    Example:
        >>> likelihood = Gaussian(4, 2, scale=LearnedScale(initial=0.3))
        >>> likelihood(torch.zeros(1, 1, 4), torch.zeros(1, 1)).stddev.detach()
        tensor([[[0.3000, 0.3000]]])
    """

    initial: float = 0.5
    floor: float = 1e-2

    def __post_init__(self) -> None:
        _check_floor("LearnedScale", self.initial, self.floor)

    def build(self, latent_size: int, num_channels: int) -> nn.Module:
        """See `Scale.build`."""
        return _Learned(self.initial, self.floor, num_channels)


@dataclass(frozen=True)
class HeteroscedasticScale(Scale):
    r"""A standard deviation that depends on the latent state, for noise that comes and goes.

    .. math:: \sigma_d(z) = \sigma_{\min} + \operatorname{softplus}(g_d(z))

    Args:
        hidden: hidden layers of the network `g`; empty for an affine map.
        initial: the scale at a latent state of zero before training, in model units.
        floor: the smallest standard deviation, in model units. Without one such a model collapses onto single points.

    Example:
        >>> likelihood = Gaussian(4, 2, scale=HeteroscedasticScale(hidden=(16,), floor=0.05))
        >>> bool((likelihood(torch.randn(1, 9, 4), torch.zeros(1, 9)).stddev > 0.05).all())
        True
    """

    hidden: Sequence[int] = ()
    initial: float = 0.5
    floor: float = 1e-2

    def __post_init__(self) -> None:
        _check_floor("HeteroscedasticScale", self.initial, self.floor)

    def build(self, latent_size: int, num_channels: int) -> nn.Module:
        """See `Scale.build`."""
        return _Heteroscedastic(MLP(latent_size, num_channels, tuple(self.hidden)), self.initial, self.floor)


class Likelihood(nn.Module, Configurable, ABC):
    """The distribution of an observation given the latent state at its time.

    Args:
        num_channels: how many channels are observed.

    Example:
        >>> likelihood: Likelihood = Bernoulli(latent_size=4, num_channels=2)
        >>> likelihood(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 2])
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    @abstractmethod
    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """The distribution of what is observed.

        Args:
            z: latent states, `(..., time, latent)`, where `...` may hold sample axes in front of the batch.
            ts: their times, `(*batch, time)`.
            noise: known standard error of each observation, `(*batch, time, channel)`; it adds in quadrature.

        Returns:
            A distribution of batch shape `(..., time, channel)` without event axes.
        """


class Gaussian(Likelihood):
    r"""Real-valued observations with Gaussian noise.

    .. math:: x_t \mid z_t \sim \mathcal{N}\left(W(z_t), \sigma^2 + s_t^2\right)

    with :math:`s_t` the known standard error of the observation, where there is one.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.
        scale: `FixedScale`, `LearnedScale` or `HeteroscedasticScale`.

    Example:
        >>> Gaussian(4, 2)(torch.zeros(10, 3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([10, 3, 7, 2])
    """

    def __init__(
        self,
        latent_size: int,
        num_channels: int,
        hidden: Sequence[int] = (),
        scale: Scale = LearnedScale(),
    ) -> None:
        super().__init__(num_channels)
        self.mean = MLP(latent_size, num_channels, hidden)
        self.scale = scale.build(latent_size, num_channels)

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`."""
        return td.Normal(self.mean(z), _quadrature(self.scale(z), noise), validate_args=False)


class StudentT(Likelihood):
    r"""Real-valued observations with heavy tails, for data with outliers.

    .. math:: x_t \mid z_t \sim t_{\nu_d}\left(W(z_t), \sigma^2 + s_t^2\right), \qquad \nu_d = 2 + e^{\eta_d}

    The degrees of freedom are learned per channel and stay above 2, so that the variance exists. A known standard
    error :math:`s_t` adds to the scale in quadrature, which is an approximation away from the Gaussian limit.

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.
        scale: `FixedScale`, `LearnedScale` or `HeteroscedasticScale`.
        initial_df: degrees of freedom before training, above 2.

    Raises:
        ValueError: `initial_df` is not above 2.

    Example:
        >>> StudentT(4, 2)(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 2])
    """

    def __init__(
        self,
        latent_size: int,
        num_channels: int,
        hidden: Sequence[int] = (),
        scale: Scale = LearnedScale(),
        initial_df: float = 6.0,
    ) -> None:
        super().__init__(num_channels)
        if initial_df <= 2:
            raise ValueError(f"initial_df must be above 2, where the variance exists; got {initial_df}.")
        self.mean = MLP(latent_size, num_channels, hidden)
        self.scale = scale.build(latent_size, num_channels)
        self.log_df = nn.Parameter(torch.full((num_channels,), log(initial_df - 2)))

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`."""
        return td.StudentT(2 + self.log_df.exp(), self.mean(z), _quadrature(self.scale(z), noise), validate_args=False)


class Bernoulli(Likelihood):
    r"""Channels that are 0 or 1; they are not standardised, and have no measurement error.

    .. math:: x_t \mid z_t \sim \operatorname{Bernoulli}\left(\operatorname{logit}^{-1}(W(z_t))\right)

    Args:
        latent_size: size of the latent state.
        num_channels: how many channels are observed.
        hidden: hidden layers of the decoder; empty for an affine map.

    Example:
        >>> Bernoulli(4, 2)(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 2])
    """

    def __init__(self, latent_size: int, num_channels: int, hidden: Sequence[int] = ()) -> None:
        super().__init__(num_channels)
        self.logits = MLP(latent_size, num_channels, hidden)

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`; `noise` has no meaning for a binary channel and is ignored."""
        return td.Bernoulli(logits=self.logits(z), validate_args=False)


class PerKind(Likelihood):
    """Channels of several kinds side by side: each kind has its own family.

    Args:
        channels: the channels in their order; `Channel.kind` says who decodes them.
        families: a likelihood for each kind, for as many channels as there are of it.

    Raises:
        ValueError: a kind has no family, a family has no channel, or the numbers of channels differ.

    Example:
        >>> channels = [Channel("pulse"), Channel("alive", kind="binary"), Channel("pressure")]
        >>> likelihood = PerKind(channels, {"real": Gaussian(4, 2), "binary": Bernoulli(4, 1)})
        >>> likelihood(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 3])
    """

    def __init__(self, channels: Sequence[Channel], families: Mapping[str, Likelihood]) -> None:
        super().__init__(len(channels))
        columns = {kind: [i for i, c in enumerate(channels) if c.kind == kind] for kind in {c.kind for c in channels}}
        if columns.keys() != families.keys():
            raise ValueError(
                f"each kind of channel needs its family: the channels are of kind {sorted(columns)}, and families were "
                f"given for {sorted(families)}."
            )
        for kind, family in families.items():
            if family.num_channels != len(columns[kind]):
                raise ValueError(
                    f"{len(columns[kind])} channels are of kind {kind!r}, but its family decodes {family.num_channels}."
                )
        self.families = nn.ModuleDict(dict(families))
        self.columns = {kind: columns[kind] for kind in families}

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`."""
        parts = [
            family(z, ts, None if noise is None else noise[..., self.columns[kind]])
            for kind, family in self.families.items()
        ]
        return _SideBySide(parts, list(self.columns.values()))

    @classmethod
    def default(cls, latent_size: int, channels: Sequence[Channel], hidden: Sequence[int] = ()) -> Likelihood:
        """`Gaussian` for real channels and `Bernoulli` for binary ones; side by side where there are both.

        Args:
            latent_size: size of the latent state.
            channels: the channels in their order.
            hidden: hidden layers of each decoder.
        """
        builders = {"real": Gaussian, "binary": Bernoulli}
        kinds = [channel.kind for channel in channels]
        unknown = sorted(set(kinds) - builders.keys())
        if unknown:
            raise ValueError(f"no default family for channels of kind {unknown}; pass likelihood=PerKind(...).")
        families = {kind: builders[kind](latent_size, kinds.count(kind), hidden) for kind in dict.fromkeys(kinds)}
        return families[kinds[0]] if len(families) == 1 else cls(channels, families)


class _SideBySide(Distribution):
    """Independent columns of several families as one distribution over `(..., channel)`."""

    def __init__(self, parts: Sequence[Distribution], columns: Sequence[Sequence[int]]) -> None:
        self.parts = parts
        self.columns = columns
        order = [column for part in columns for column in part]
        self.places = [order.index(column) for column in range(len(order))]
        lead = torch.broadcast_shapes(*(part.batch_shape[:-1] for part in parts))
        super().__init__(torch.Size((*lead, len(order))), validate_args=False)

    def _join(self, pieces: Sequence[Tensor]) -> Tensor:
        lead = torch.broadcast_shapes(*(piece.shape[:-1] for piece in pieces))
        return torch.cat([piece.expand(*lead, piece.shape[-1]) for piece in pieces], -1)[..., self.places]

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    @property
    def mean(self) -> Tensor:
        return self._join([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        return self._join([part.variance for part in self.parts])

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._join([part.sample(torch.Size(sample_shape)) for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        pieces = [part.log_prob(value[..., columns]) for part, columns in zip(self.parts, self.columns, strict=True)]
        return self._join(pieces)

    def cdf(self, value: Tensor) -> Tensor:
        pieces = [part.cdf(value[..., columns]) for part, columns in zip(self.parts, self.columns, strict=True)]
        return self._join(pieces)


class _Constant(nn.Module):
    def __init__(self, value: float, num_channels: int) -> None:
        super().__init__()
        self.value = value
        self.num_channels = num_channels

    def forward(self, z: Tensor) -> Tensor:
        return z.new_full((self.num_channels,), self.value)


class _Learned(nn.Module):
    def __init__(self, initial: float, floor: float, num_channels: int) -> None:
        super().__init__()
        self.floor = floor
        self.log_scale = nn.Parameter(torch.full((num_channels,), log(initial - floor)))

    def forward(self, z: Tensor) -> Tensor:
        return self.floor + self.log_scale.exp()


class _Heteroscedastic(nn.Module):
    def __init__(self, net: MLP, initial: float, floor: float) -> None:
        super().__init__()
        self.net = net
        self.floor = floor
        # softplus(offset) = initial - floor
        self.offset = initial - floor + log(-expm1(floor - initial))

    def forward(self, z: Tensor) -> Tensor:
        return self.floor + softplus(self.net(z) + self.offset)


def _quadrature(scale: Tensor, noise: Tensor | None) -> Tensor:
    return scale if noise is None else (scale.square() + noise.square()).sqrt()
