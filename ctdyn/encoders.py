"""From a batch of irregular series to what a latent process needs to know about each of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from ._config import Configurable
from ._types import Mask, Time, Times, Values
from .cells import Cell, ODERNNCell
from .data import IrregularBatch
from .nn import MLP
from .paths import Path


__all__ = ["Encoder", "Encoding", "GRUEncoder", "ODERNNEncoder", "Sites", "start_time"]

#: The narrowest `q0`: without a floor a confident encoder ends in infinite densities.
_MIN_STD = 1e-3


@dataclass(frozen=True)
class Sites:
    """Gaussian pseudo-observations of the latent state.

    Args:
        times: `(*batch, site)`.
        mean: `(*batch, site, latent)`.
        precision: `(*batch, site, latent)`.
        mask: True where a site is real, `(*batch, site, latent)`.

    Example:
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
        >>> encoding = Encoding(q0=Independent(Normal(torch.zeros(5, 2), 1.0), 1))
        >>> encoding.q0.batch_shape, encoding.q0.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    q0: Distribution | None = None
    context: Path | None = None
    sites: Sites | None = None
    static: Tensor | None = None


def start_time(batch: IrregularBatch) -> Time:
    """When the latent state of each series begins: at its first observation.

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
    return batch.times.gather(-1, first).squeeze(-1)


class Encoder(nn.Module, Configurable, ABC):
    """Reads the context of each series; padding and what stands under the mask must not matter.

    Example:
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
    provides: ClassVar[frozenset[str]]

    @abstractmethod
    def forward(self, batch: IrregularBatch) -> Encoding:
        """Read a batch of contexts."""


class GRUEncoder(Encoder):
    r"""A gated recurrent unit that reads the observations backwards in time; fast, and the one to start with.

    .. math::
        h_i = \operatorname{GRU}\left([t_{i+1} - t_i,\; m_i \odot x_i,\; m_i],\; h_{i+1}\right), \qquad
        q(z_{t_1}) = \mathcal{N}\left(\mu(h_1), \operatorname{diag} \sigma(h_1)^2\right)

    Rows without an observation are skipped. A series without any is described by the initial hidden state.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        hidden_size: size of the hidden state.
        head_hidden: hidden layers of the head that maps the last hidden state to the mean and scale of `q0`.
        input_size: how many inputs are read beside the values.
        static_size: how many static covariates the head sees.
        reads_noise: whether the known standard errors of the observations are read as well.
        reads_rates: whether the rate of change of each channel to its next observation is read as well, as
            :math:`\operatorname{arsinh}(\Delta x / \Delta t)`; it helps where a context is short and dense, so that
            the values hardly differ.

    References:
        Neural Ordinary Differential Equations, Chen, Rubanova, Bettencourt, Duvenaud, 2018.
        https://arxiv.org/abs/1806.07366

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> GRUEncoder(num_channels=2, latent_size=4)(batch).q0.mean.shape
        torch.Size([1, 4])
    """

    provides = frozenset({"q0"})

    def __init__(
        self,
        num_channels: int,
        latent_size: int,
        hidden_size: int = 64,
        head_hidden: Sequence[int] = (64,),
        *,
        input_size: int = 0,
        static_size: int = 0,
        reads_noise: bool = False,
        reads_rates: bool = False,
    ) -> None:
        super().__init__()
        self.reads_noise = reads_noise
        self.reads_rates = reads_rates
        self.input_size = input_size
        feature_size = 1 + (2 + reads_noise + reads_rates) * num_channels + input_size
        self.gru = nn.GRU(feature_size, hidden_size, batch_first=True)
        self.h0 = nn.Parameter(torch.zeros(hidden_size))
        self.head = _NormalHead(hidden_size, latent_size, head_hidden, static_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = _backwards(batch)
        times = batch.times.gather(-1, rows)
        gaps = torch.zeros_like(times)
        gaps[..., 1:] = times[..., :-1] - times[..., 1:]
        features = [gaps.unsqueeze(-1), *_values(batch, rows)]
        if self.reads_noise:
            features.append(_noise(batch, rows))
        if self.reads_rates:
            features.append(_rates(times, *_values(batch, rows)))
        if self.input_size:
            features.append(_inputs(batch, rows, self.input_size))
        read = torch.cat(features, -1).flatten(0, -3)
        start = self.h0.expand(1, read.shape[0], -1).contiguous()
        states = torch.cat([start.transpose(0, 1), self.gru(read, start)[0]], 1)
        count = valid.sum(-1).flatten()
        last = states[torch.arange(len(count), device=count.device), count]
        return Encoding(q0=self.head(last.view(*batch.batch_shape, -1), batch.static))


class ODERNNEncoder(Encoder):
    r"""A cell that reads the observations backwards in time and flows over the gaps between them.

    It integrates exactly :math:`t_i - t_{i-1}` between neighbouring observations, ends at the first one, and costs one
    step of a loop per observation: slower than `GRUEncoder`, and better where gaps differ by orders of magnitude.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        hidden_size: size of the hidden state; the size of `cell` where that is given.
        head_hidden: hidden layers of the head that maps the last hidden state to the mean and scale of `q0`.
        cell: what flows and jumps; default: `ODERNNCell(num_channels, hidden_size)`.
        static_size: how many static covariates the head sees.

    References:
        Latent ODEs for Irregularly-Sampled Time Series, Rubanova, Chen, Duvenaud, 2019.
        https://arxiv.org/abs/1907.03907

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> ODERNNEncoder(num_channels=2, latent_size=4)(batch).q0.mean.shape
        torch.Size([1, 4])
    """

    provides = frozenset({"q0"})

    def __init__(
        self,
        num_channels: int,
        latent_size: int,
        hidden_size: int = 64,
        head_hidden: Sequence[int] = (64,),
        *,
        cell: Cell | None = None,
        static_size: int = 0,
    ) -> None:
        super().__init__()
        self.cell = ODERNNCell(num_channels, hidden_size) if cell is None else cell
        self.h0 = nn.Parameter(torch.zeros(self.cell.hidden_size))
        self.head = _NormalHead(self.cell.hidden_size, latent_size, head_hidden, static_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        rows, valid = _backwards(batch)
        times = batch.times.gather(-1, rows)
        # A series that has been read to its end waits at its own last time, so that it evolves over nothing.
        end = times.gather(-1, valid.sum(-1, keepdim=True).sub(1).clamp(min=0))
        times = torch.where(valid, times, end)
        values, mask = _values(batch, rows)
        seen = mask.bool() & valid.unsqueeze(-1)
        h = self.h0.expand(*batch.batch_shape, -1)
        for i in range(rows.shape[-1]):
            if i > 0:
                h = self.cell.evolve(h, times[..., i - 1], times[..., i])
            h = self.cell.update(h, values[..., i, :], seen[..., i, :])
        return Encoding(q0=self.head(h, batch.static))


class _NormalHead(nn.Module):
    """A hidden state and static covariates to a diagonal normal distribution."""

    def __init__(self, in_size: int, latent_size: int, hidden: Sequence[int], static_size: int) -> None:
        super().__init__()
        self.static_size = static_size
        self.net = MLP(in_size + static_size, 2 * latent_size, hidden)

    def forward(self, h: Tensor, static: Tensor | None) -> Distribution:
        if self.static_size:
            given = 0 if static is None else static.shape[-1]
            if static is None or given != self.static_size:
                raise ValueError(
                    f"the encoder was built for {self.static_size} static covariates; the batch has {given}."
                )
            h = torch.cat([h, static], -1)
        mean, raw = self.net(h).chunk(2, -1)
        # Starting below the prior's width keeps the first gradients of the decoder from drowning in noise.
        return Independent(Normal(mean, _MIN_STD + softplus(raw - 1.0), validate_args=False), 1, validate_args=False)


def _backwards(batch: IrregularBatch) -> tuple[Tensor, Tensor]:
    """Where the observed rows are, latest first, `(*batch, row)`, and which of these entries are real."""
    observed = batch.observed
    length = observed.shape[-1]
    if length == 0:
        raise ValueError("the batch has no times to read; pass at least one (unobserved) row.")
    count = observed.sum(-1, keepdim=True)
    width = max(int(count.max()) if count.numel() else 0, 1)
    order = observed.flip(-1).sort(dim=-1, descending=True, stable=True).indices[..., :width]
    return length - 1 - order, torch.arange(width, device=observed.device) < count


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    return x.gather(-2, rows.unsqueeze(-1).expand(*rows.shape, x.shape[-1]))


def _values(batch: IrregularBatch, rows: Tensor) -> tuple[Tensor, Tensor]:
    mask = _rows(batch.mask, rows)
    return torch.where(mask, _rows(batch.values, rows), 0), mask.to(batch.values.dtype)


def _rates(times: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """How fast each channel moves towards its next observation, the one that was read before; 0 where there is none."""
    number = torch.arange(times.shape[-1], device=times.device).unsqueeze(-1)
    latest = torch.where(mask.bool(), number, -1).cummax(-2).values
    before = torch.nn.functional.pad(latest, (0, 0, 1, 0), value=-1)[..., :-1, :]
    known = mask.bool() & (before >= 0)
    at = before.clamp(min=0)
    gaps = times.unsqueeze(-1).expand_as(values).gather(-2, at) - times.unsqueeze(-1)
    known = known & (gaps > 0)
    rates = (values.gather(-2, at) - values) / torch.where(known, gaps, 1)
    return torch.where(known, rates, 0).asinh()


def _noise(batch: IrregularBatch, rows: Tensor) -> Tensor:
    if batch.noise is None:
        return torch.zeros_like(_rows(batch.values, rows))
    return torch.where(_rows(batch.mask, rows), _rows(batch.noise, rows), 0)


def _inputs(batch: IrregularBatch, rows: Tensor, size: int) -> Tensor:
    if batch.inputs is None or batch.inputs.shape[-1] != size:
        given = 0 if batch.inputs is None else batch.inputs.shape[-1]
        raise ValueError(f"the encoder was built for {size} inputs; the batch has {given}.")
    return _rows(batch.inputs, rows)
