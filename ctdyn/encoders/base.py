"""What an encoder is, and what it tells a process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .._config import Configurable
from .._types import Mask, Time, Times, Values
from ..data import IrregularBatch
from ..paths import Path


__all__ = ["Encoder", "Encoding", "Sites", "start_time"]


@dataclass(frozen=True)
class Sites:
    """Gaussian pseudo-observations of the latent state.

    Args:
        times: `(*batch, site)`.
        mean: `(*batch, site, latent)`.
        precision: `(*batch, site, latent)`.
        mask: True where a site is real, `(*batch, site, latent)`.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 3, 2)
        >>> Sites(torch.zeros(1, 3), mean=ones, precision=ones, mask=ones.bool()).times.shape
        torch.Size([1, 3])
    """

    times: Times
    mean: Values
    precision: Values
    mask: Mask


@dataclass(frozen=True)
class Encoding:
    """What an encoder has read; each encoder fills what it can, and says so in `Encoder.provides`.

    Args:
        q0: the distribution of the latent state at `start_time(batch)`, of batch shape `(*batch,)` and event shape
            `(latent,)`; any distribution with reparametrised samples will do.
        context: a path that drives a posterior process.
        sites: Gaussian pseudo-observations.
        static: a description of the whole series, `(*batch, feature)`.

    Example:
        >>> import torch
        >>> from torch.distributions import Independent, Normal
        >>> encoding = Encoding(q0=Independent(Normal(torch.zeros(5, 2), 1.0), 1))
        >>> encoding.q0.batch_shape, encoding.q0.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    q0: Distribution | None = None
    context: Path | None = None
    sites: Sites | None = None
    static: Tensor | None = None


def start_time(batch: IrregularBatch) -> Time:
    """When the latent state of each series begins: at its first observation, or where the earliest of them begins.

    Args:
        batch: observations, with at least one row of times.

    Returns:
        Times, `(*batch,)`; where nothing was observed, the first time of the series.

    Raises:
        ValueError: the batch has no row of times at all.

    Example:
        >>> values = torch.zeros(1, 2, 1)
        >>> start_time(IrregularBatch(torch.tensor([[1.0, 2.0]]), values, torch.tensor([[[False], [True]]])))
        tensor([2.])
    """
    if batch.times.shape[-1] == 0:
        raise ValueError(
            "the batch has no times, so its latent state has no start; pass at least one (unobserved) row."
        )
    first = batch.observed.to(torch.uint8).argmax(-1, keepdim=True)
    time = batch.times.gather(-1, first).squeeze(-1)
    if batch.start is None:
        return time
    return torch.minimum(time, torch.where(batch.observed, batch.start, torch.inf).amin(-1))


class Encoder(nn.Module, Configurable, ABC):
    """Reads the context of each series; padding and what stands under the mask must not matter.

    Args:
        num_channels: how many channels it reads; None where any number will do.
        input_size: how many inputs it reads; None where it does not say.
        static_size: how many static covariates; None where it does not say.

    Example:
        >>> import torch
        >>> from torch.distributions import Independent, Normal
        >>> class MeanEncoder(Encoder):
        ...     provides = frozenset({"q0"})
        ...
        ...     def forward(self, batch):
        ...         seen = torch.where(batch.mask, batch.values, 0).sum(-2)
        ...         return Encoding(q0=Independent(Normal(seen / (1 + batch.mask.sum(-2)), 1.0), 1))
        >>> batch = IrregularBatch(torch.zeros(1, 1), torch.ones(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool))
        >>> MeanEncoder()(batch).q0.mean
        tensor([[0.5000, 0.5000]])
    """

    #: The fields of `Encoding` that this encoder fills.
    provides: frozenset[str]
    #: Of these the size of the last axis, where it is known.
    sizes: Mapping[str, int] = MappingProxyType({})

    def __init__(
        self, num_channels: int | None = None, *, input_size: int | None = None, static_size: int | None = None
    ) -> None:
        super().__init__()
        self.num_channels, self.input_size, self.static_size = num_channels, input_size, static_size

    @abstractmethod
    def forward(self, batch: IrregularBatch) -> Encoding:
        """Read a batch of contexts."""
