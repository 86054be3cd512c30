"""Channels of several kinds side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from .._types import Times, Values
from ..data.channels import Channel
from .base import HasAtoms, Likelihood, atoms
from .bernoulli import Bernoulli
from .gaussian import Gaussian
from .log_normal import LogNormal
from .negative_binomial import NegativeBinomial


__all__ = ["Columns", "PerKind"]


class PerKind(Likelihood):
    """Channels of several kinds side by side: each kind has its own family.

    Args:
        channels: the channels in their order; `Channel.kind` says who decodes them.
        families: a likelihood for each kind, for as many channels as there are of it.

    Raises:
        ValueError: a kind has no family, a family has no channel, the numbers of channels differ, or the families
            decode latent states of different sizes.

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
        sizes = {kind: family.latent_size for kind, family in families.items() if family.latent_size is not None}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"all families decode one latent state; they are built for latent sizes {sizes}.")
        self.latent_size = next(iter(sizes.values()), None)
        self.families = nn.ModuleDict(dict(families))
        self.columns = {kind: columns[kind] for kind in families}

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`."""
        parts = [
            family(z, ts, None if noise is None else noise[..., self.columns[kind]])
            for kind, family in self.families.items()
        ]
        return Columns(parts, list(self.columns.values()))

    @classmethod
    def default(cls, latent_size: int, channels: Sequence[Channel], hidden: Sequence[int] = ()) -> Likelihood:
        """The family to start with for each kind; side by side where there are several kinds.

        `Gaussian` for real channels, `LogNormal` for positive ones, the same in a `ZeroInflated` for nonnegative ones,
        `NegativeBinomial` for counts, `Bernoulli` for binary channels. A categorical one has none, because its number
        of classes must be said.

        Args:
            latent_size: size of the latent state.
            channels: the channels in their order.
            hidden: hidden layers of each decoder.
        """
        from .zero_inflated import ZeroInflated  # which knows this module

        def with_zeros(latent_size: int, num_channels: int, hidden: Sequence[int]) -> Likelihood:
            return ZeroInflated(LogNormal(latent_size, num_channels, hidden), latent_size, hidden)

        builders: dict[str, Callable[..., Likelihood]] = {
            "real": Gaussian,
            "positive": LogNormal,
            "nonnegative": with_zeros,
            "count": NegativeBinomial,
            "binary": Bernoulli,
        }
        kinds = [channel.kind for channel in channels]
        unknown = sorted(set(kinds) - builders.keys())
        if unknown:
            raise ValueError(
                f"no default family for channels of kind {unknown}; pass likelihood=PerKind(channels, {{...}}) with a "
                "family for each kind."
            )
        families = {kind: builders[kind](latent_size, kinds.count(kind), hidden) for kind in dict.fromkeys(kinds)}
        return families[kinds[0]] if len(families) == 1 else cls(channels, families)


class Columns(Distribution, HasAtoms):
    """Independent columns of several families as one distribution over `(..., channel)`.

    Args:
        parts: the families, of batch shape `(..., own channel)` each.
        columns: which channels each of them has.

    Example:
        >>> from torch.distributions import Laplace, Normal
        >>> both = Columns([Normal(torch.zeros(2), 1.0), Laplace(torch.ones(1), 1.0)], [[0, 2], [1]])
        >>> both.mean
        tensor([0., 1., 0.])
    """

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
        """None."""
        return {}

    @property
    def mean(self) -> Tensor:
        """`(..., channel)`."""
        return self._join([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        """`(..., channel)`."""
        return self._join([part.variance for part in self.parts])

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, `(*sample_shape, ..., channel)`."""
        return self._join([part.sample(torch.Size(sample_shape)) for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of each entry, in nats."""
        pieces = [part.log_prob(value[..., columns]) for part, columns in zip(self.parts, self.columns, strict=True)]
        return self._join(pieces)

    def is_atom(self, value: Tensor) -> Tensor:
        """Where the family of an entry has an atom."""
        pieces = [atoms(part, value[..., columns]) for part, columns in zip(self.parts, self.columns, strict=True)]
        return self._join(pieces)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability below each entry."""
        pieces = [part.cdf(value[..., columns]) for part, columns in zip(self.parts, self.columns, strict=True)]
        return self._join(pieces)
