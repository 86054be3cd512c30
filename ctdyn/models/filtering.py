"""Filters: a hidden state that reads a series forwards in time and predicts what comes next."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from .._checks import check_instance
from .._types import Times, Values
from ..cells import Cell
from ..data import IrregularBatch, Window
from ..data.channels import Channel
from ..encoders._reading import forwards
from ..likelihoods import Gaussian, HeteroscedasticScale, Likelihood, PerKind, masked_log_prob
from ..nn import take_items
from ..paths import Path
from ._parts import check_channels
from .base import Encodes, Loss, Model, Predictive, input_path


__all__ = ["FilteringModel"]


class FilteringModel(Model, Encodes):
    r"""A cell between observations and a likelihood at any time: forecasts from what was seen before, and from no more.

    .. math:: p(x_t \mid x_{t_1}, \dots, x_{t_k}) = p\big(x_t \mid h(t)\big), \qquad t \ge t_k

    The hidden state flows from one observation to the next and jumps at each; every series has its own clock. A query
    between two observations is answered from the earlier one: a filter does not look ahead, so that for filling gaps a
    smoother such as `LatentODE` or `LinearGaussianSSM` knows more. Every query is reached from the last observation
    before it in one piece, never by way of other queries.

    The loss is the negative log density of the target, where each entry is predicted from the context strictly before
    it. With `Reconstruct` that is the exact log-likelihood of the series, one step ahead at a time. Predictive
    distributions are marginal: all components are the same one.

    Args:
        channels: what is observed.
        cell: the hidden state, for as many channels.
        likelihood: decodes `cell.read(h)`; default: the usual family of each kind of channel, with a spread that
            depends on the state where all channels are real, so that forecasts widen with the gap.
        static_size: how many static covariates set the initial state.

    Raises:
        ValueError: cell or likelihood are for another number of channels, or the likelihood for other kinds of them.

    References:
        Latent ODEs for Irregularly-Sampled Time Series (the ODE-RNN as an autoregressive model), Y. Rubanova,
        R. T. Q. Chen, D. Duvenaud, 2019, https://arxiv.org/abs/1907.03907
        GRU-ODE-Bayes: Continuous modeling of sporadically-observed time series, E. De Brouwer, J. Simm, A. Arany,
        Y. Moreau, 2019, https://arxiv.org/abs/1905.12374

    Example:
        >>> from ctdyn.cells import GRUDCell
        >>> model = FilteringModel([Channel("level")], GRUDCell(1, 8))
        >>> times = torch.tensor([[0.0, 0.5, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 1), torch.ones(1, 3, 1, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[1.5, 2.0]]), num_samples=1).mean.shape
        torch.Size([1, 2, 1])
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        cell: Cell,
        likelihood: Likelihood | None = None,
        *,
        static_size: int = 0,
    ) -> None:
        super().__init__(channels)
        check_instance("cell", cell, Cell, "GRUDCell(num_channels, hidden_size)")
        likelihood = _usual(cell.read_size, self.channels) if likelihood is None else likelihood
        if cell.num_channels != len(self.channels):
            raise ValueError(
                f"the cell reads {cell.num_channels} channels, and the model has {len(self.channels)}: "
                f"{[channel.name for channel in self.channels]}."
            )
        check_channels(self.channels, likelihood)
        self.cell = cell
        self.likelihood = likelihood
        self.static_size = static_size
        self.h0 = nn.Parameter(torch.zeros(cell.hidden_size))
        self.from_static = nn.Linear(static_size, cell.hidden_size, bias=False) if static_size else None

    @property
    def reads(self) -> frozenset[str]:
        """See `Model.reads`: what its cell does, and a start that static covariates set."""
        given = {"inputs": self.cell.driven, "static": self.static_size > 0}
        return frozenset(name for name, read in given.items() if read)

    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """See `Model.loss`: nothing is random."""
        target = window.target
        path = input_path(window.context, target)
        states = self._states(window.context, target.times, path, before=True)
        distribution = self.likelihood(states, target.times, target.noise)
        nats = -masked_log_prob(distribution, target.values, target.mask)
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
        """See `Model.predict`: from all observations up to and at each time, `num_samples` times the same answer."""
        states = self._states(context, ts, input_path(context) if inputs is None else inputs, before=False)
        return Predictive(self.likelihood(states.expand(num_samples, *states.shape), ts, noise))

    def encode(self, context: IrregularBatch) -> Tensor:
        """What is read of the hidden state after the last observation, `(*batch, feature)`."""
        return self.cell.read(self._filter(context, input_path(context))[1][..., -1, :])

    def _states(self, context: IrregularBatch, ts: Times, path: Path | None, *, before: bool) -> Tensor:
        """What is read of the hidden state at each time, before or after the observations made at it."""
        times, states = self._filter(context, path)
        # The number of observations that a time has seen; what is padding lies beyond every time.
        count = torch.searchsorted(times, ts.to(times.dtype).contiguous(), right=not before)
        h = take_items(states, count, -2)
        # Before the first observation nothing flows.
        since = torch.where(count > 0, times.gather(-1, (count - 1).clamp(min=0)), ts.to(times.dtype))
        h, since, at = (torch.movedim(h, -2, 0), torch.movedim(since, -1, 0), torch.movedim(ts.to(times.dtype), -1, 0))
        u = None if path is None else path.evaluate(since)
        return torch.movedim(self.cell.read(self.cell.evolve(h, since, at, u)), 0, -2)

    def _filter(self, context: IrregularBatch, path: Path | None) -> tuple[Tensor, Tensor]:
        """Times of the observed rows, infinite behind the last, `(*batch, row)`; states after 0, 1, ... of them."""
        times, values, mask, real = forwards(context)
        h = self._start(context)
        us = None if path is None else torch.stack([path.evaluate(t) for t in times.unbind(-1)], -2)
        _, states = self.cell.scan(h, times, values, mask, us)
        return torch.where(real, times, torch.inf), torch.cat([h.unsqueeze(-2), states], -2)

    def _start(self, context: IrregularBatch) -> Tensor:
        h = self.h0.expand(*context.batch_shape, -1)
        if self.from_static is None:
            return h
        given = 0 if context.static is None else context.static.shape[-1]
        if context.static is None or given != self.static_size:
            raise ValueError(
                f"the model was built for {self.static_size} static covariates; the batch has {given}. Name their "
                "columns: from_pandas(..., static=[...])."
            )
        return h + self.from_static(context.static)


def _usual(size: int, channels: Sequence[Channel]) -> Likelihood:
    if all(channel.kind == "real" for channel in channels):
        return Gaussian(size, len(channels), (size,), HeteroscedasticScale((size,)))
    return PerKind.default(size, channels, (size,))
