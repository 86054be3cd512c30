"""Scalers: from the units of the data to those of a model, and back. Fitted on training series only."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .._checks import DataError, DataWarning, few
from .._options import with_suggestions
from .batch import IrregularBatch
from .channels import AMOUNTS, Channel
from .clock import Length, as_length
from .series import Series
from .series_set import SeriesSet
from .windows import WindowMaker


__all__ = ["Scaler", "Standardize", "Statistics", "Units"]

_CONSTANT = 1e-8
_SAMPLED_WINDOWS = 512
_PULLS = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])[:, None]


@dataclass(frozen=True)
class Units:
    r"""One batch's way into the units of a model and back: `t' = (t - origin) / time_scale`, `x' = (x - loc) / scale`.

    Args:
        origin: the instant 0 of the model's clock, `(*batch,)`.
        time_scale: the length of the model's unit of time, in that of the data.
        loc: what is subtracted from each channel, `(*batch, channel)`.
        scale: what each channel is divided by, `(channel,)`.
        input_loc: the same for the inputs, `(input,)`; None without inputs.
        input_scale: the same for the inputs, `(input,)`.
        static_loc: the same for the static covariates, `(feature,)`; a missing one becomes 0, the training mean.
        static_scale: the same for the static covariates, `(feature,)`.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> units = Units(origin=10 * one, time_scale=2.0, loc=5 * one[None], scale=4 * one)
        >>> units.times_to_model(torch.tensor([[10.0, 14.0]], dtype=torch.float64))
        tensor([[0., 2.]], dtype=torch.float64)
        >>> units.values_to_data(torch.tensor([[[0.5]]], dtype=torch.float64))
        tensor([[[7.]]], dtype=torch.float64)
    """

    origin: Tensor
    time_scale: float | int
    loc: Tensor
    scale: Tensor
    input_loc: Tensor | None = None
    input_scale: Tensor | None = None
    static_loc: Tensor | None = None
    static_scale: Tensor | None = None

    def to_model(self, batch: IrregularBatch) -> IrregularBatch:
        """A raw float64 batch in model units; the noise is scaled too, labels are left alone."""
        values = torch.where(batch.mask, (batch.values - self.loc.unsqueeze(-2)) / self.scale, 0.0)
        inputs, static = batch.inputs, batch.static
        if inputs is not None and self.input_loc is not None and self.input_scale is not None:
            inputs = (inputs - self.input_loc) / self.input_scale
        if static is not None and self.static_loc is not None and self.static_scale is not None:
            static = ((static - self.static_loc) / self.static_scale).nan_to_num(nan=0.0)
        return replace(
            batch,
            times=self.times_to_model(batch.times),
            values=values,
            inputs=inputs,
            static=static,
            noise=None if batch.noise is None else torch.where(batch.mask, batch.noise / self.scale, 0.0),
            start=None if batch.start is None else self.times_to_model(batch.start),
        )

    def times_to_model(self, times: Tensor) -> Tensor:
        """Times of the data `(*batch, time)` on the model's clock, float64."""
        return (times.to(torch.float64) - self.origin.unsqueeze(-1)) / self.time_scale

    def times_to_data(self, times: Tensor) -> Tensor:
        """Times of the model's clock `(*batch, time)` on that of the data, float64."""
        return times.to(torch.float64) * self.time_scale + self.origin.unsqueeze(-1)

    def inputs_to_model(self, inputs: Tensor) -> Tensor:
        """Inputs `(*batch, time, input)` in model units."""
        if self.input_loc is None or self.input_scale is None:
            return inputs
        return (inputs.to(torch.float64) - self.input_loc) / self.input_scale

    def values_to_data(self, values: Tensor) -> Tensor:
        """Values `(..., *batch, time, channel)`, samples in front, in the units of the data, float64."""
        return values.to(torch.float64) * self.scale + self.loc.unsqueeze(-2)

    def scale_to_data(self, scale: Tensor) -> Tensor:
        """A standard deviation `(..., *batch, time, channel)` in the units of the data, float64."""
        return scale.to(torch.float64) * self.scale


class Scaler(ABC):
    """Learns the units of a model from training series. A frozen dataclass of plain numbers, which can be saved.

    Example:
        >>> issubclass(Standardize, Scaler)
        True
    """

    @abstractmethod
    def fit(self, train: SeriesSet, windows: WindowMaker | None = None) -> Scaler:
        """A fitted copy.

        Args:
            train: the training series; nothing else is ever looked at.
            windows: how they will be cut, where the units depend on it.
        """

    @abstractmethod
    def units(self, context: IrregularBatch) -> Units:
        """The units for a batch, from its raw context alone: a target cannot leak into them."""


@dataclass(frozen=True)
class Statistics:
    """What `Standardize` has learnt. Plain numbers, one per column.

    Args:
        channels: the names of the channels.
        loc: the mean of each channel.
        scale: the standard deviation of each channel.
        time_scale: the length of the model's unit of time.
        first: the earliest time.
        uncentred: True for the channels that keep their zero: all but the real ones.
        pull: how many observations the training mean counts for in the centre of a context, per channel.
        input_loc: the mean of each input.
        input_scale: the standard deviation of each input.
        static_loc: the mean of each static covariate.
        static_scale: the standard deviation of each static covariate.

    Example:
        >>> from .arrays import from_ragged
        >>> learnt = Standardize().fit(from_ragged([([0.0, 4.0], [1.0, 3.0])])).statistics
        >>> learnt.loc, learnt.scale, learnt.time_scale
        ((2.0,), (1.0,), 4.0)
    """

    channels: tuple[str, ...]
    loc: tuple[float, ...]
    scale: tuple[float, ...]
    time_scale: float
    first: float
    uncentred: tuple[bool, ...]
    pull: tuple[float, ...]
    input_loc: tuple[float, ...] = ()
    input_scale: tuple[float, ...] = ()
    static_loc: tuple[float, ...] = ()
    static_scale: tuple[float, ...] = ()


@with_suggestions
@dataclass(frozen=True)
class Standardize(Scaler):
    r"""Mean 0 and standard deviation 1 per channel, over a unit of time as long as a series; the default scaler.

    Binary channels are left as they are. A channel whose standard deviation is below 1e-8 of its largest magnitude is
    constant: its scale is 1, and a warning names it.

    Args:
        center: what is subtracted from each channel: "train", its mean over the training series, or "context", the mean
            of the series' own context, pulled towards the training mean as far as that centres the training targets
            better (the training mean where the context has none). "context" suits series that keep a level of their
            own, or that drift away from it; the scale is then the spread around that level.
        origin: the instant 0 of the model's clock: "first", the first row of the context; "shared", the first training
            time, the same for all; "given", the 0 of the data's own clock.
        time_scale: the length of the model's unit of time: a number in the unit of the clock, or a timedelta, or text
            as "1D". None: the median length of the training windows, or series.
        common: one scale, the root mean square of all, for all channels that are scaled, the positive ones and those
            that are constant included (no warning names them): where they share a unit, so that the small ones are
            small because they matter less (coordinates, principal components).
        statistics: what was learnt; set by `fit`.

    Raises:
        ValueError: an argument is none of those above.

    Example:
        >>> series = Series("a", np.array([0.0, 5.0, 10.0]), np.array([[1.0], [2.0], [3.0]]))
        >>> data = SeriesSet((series,), (Channel("x"),))
        >>> scaler = Standardize().fit(data)
        >>> batch = data.batch()
        >>> scaler.units(batch).to_model(batch).times
        tensor([[0.0000, 0.5000, 1.0000]], dtype=torch.float64)
    """

    center: str = "train"
    origin: str = "first"
    time_scale: Length | None = None
    common: bool = False
    statistics: Statistics | None = None

    def __post_init__(self) -> None:
        if self.center not in ("train", "context"):
            raise ValueError(f'center must be "train" or "context"; got {self.center!r}.')
        if self.origin not in ("first", "shared", "given"):
            raise ValueError(f'origin must be "first", "shared" or "given"; got {self.origin!r}.')
        if self.time_scale is not None:
            object.__setattr__(self, "time_scale", as_length("time_scale", self.time_scale))

    def fit(self, train: SeriesSet, windows: WindowMaker | None = None) -> Standardize:
        """See `Scaler`.

        Raises:
            DataError: there are no training series, or a channel is never observed in them.
        """
        if not any(len(one) for one in train):
            raise DataError("a scaler needs at least one training series with an observation; the set is empty.")
        values = np.concatenate([one.values for one in train])
        _check_observed(values, train.channels)
        pairs = _windows(train, windows)
        loc = np.nanmean(values, axis=0)
        spread = np.nanstd(values, axis=0)
        constant = spread <= _CONSTANT * np.nanmax(np.abs(values), axis=0)
        pull = np.zeros(len(loc))
        if self.center == "context":
            pull, own = _pull_and_spread(pairs, loc)
            spread = np.where(own > _CONSTANT * np.nanmax(np.abs(values), axis=0), own, spread)
        uncentred = np.array([channel.kind != "real" for channel in train.channels])
        kept = np.array([channel.kind not in AMOUNTS for channel in train.channels])
        if self.common and not (kept | constant).all():
            spread = np.full(len(spread), np.sqrt(np.mean(spread[~kept & ~constant] ** 2)))
            constant = np.zeros_like(constant)
        _warn_constant([train.channel_names[position] for position in np.flatnonzero(constant & ~kept)])
        spans = [_length(context, target) for context, target in pairs]
        span = float(np.median([span for span in spans if span > 0] or [1.0]))
        inputs = _moments([one.inputs for one in train])
        static = _moments([None if one.static is None else one.static[None] for one in train])
        learnt = Statistics(
            channels=train.channel_names,
            loc=tuple(np.where(uncentred, 0.0, loc).tolist()),
            scale=tuple(np.where(kept | constant, 1.0, spread).tolist()),
            time_scale=span if self.time_scale is None else train.axis.duration(self.time_scale),
            first=float(min(one.times[0] for one in train if len(one))),
            uncentred=tuple(uncentred.tolist()),
            pull=tuple(pull.tolist()),
            input_loc=inputs[0],
            input_scale=inputs[1],
            static_loc=static[0],
            static_scale=static[1],
        )
        return replace(self, statistics=learnt)

    def units(self, context: IrregularBatch) -> Units:
        """See `Scaler`.

        Raises:
            RuntimeError: the scaler is not fitted.
            DataError: the batch has another number of channels.
        """
        learnt = self.statistics
        if learnt is None:
            raise RuntimeError("the scaler is not fitted; use scaler = scaler.fit(train).")
        if context.values.shape[-1] != len(learnt.loc):
            raise DataError(
                f"expected {len(learnt.loc)} channels {few(learnt.channels)}; got {context.values.shape[-1]}."
            )

        def tensor(numbers: tuple[float, ...]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.float64, device=context.values.device)

        loc = tensor(learnt.loc).expand(*context.batch_shape, -1)
        if self.center == "context":
            seen, pull = context.mask.sum(-2), tensor(learnt.pull)
            total = torch.where(context.mask, context.values, 0.0).to(torch.float64).sum(-2)
            real = ~torch.tensor(learnt.uncentred, device=loc.device)
            loc = torch.where((seen > 0) & real, (total + pull * loc) / (seen + pull).clamp(min=1), loc)
        origins = {
            "first": context.times[..., 0].to(torch.float64),
            "shared": torch.full(context.batch_shape, learnt.first, dtype=torch.float64, device=context.times.device),
            "given": torch.zeros(context.batch_shape, dtype=torch.float64, device=context.times.device),
        }
        return Units(
            origin=origins[self.origin],
            time_scale=learnt.time_scale,
            loc=loc,
            scale=tensor(learnt.scale),
            input_loc=tensor(learnt.input_loc) if learnt.input_loc else None,
            input_scale=tensor(learnt.input_scale) if learnt.input_scale else None,
            static_loc=tensor(learnt.static_loc) if learnt.static_loc else None,
            static_scale=tensor(learnt.static_scale) if learnt.static_scale else None,
        )


def _check_observed(values: np.ndarray, channels: tuple[Channel, ...]) -> None:
    never = np.isnan(values).all(axis=0)
    names = [channels[position].name for position in np.flatnonzero(never)]
    if names:
        raise DataError(
            f"channel {few(names)} is never observed in the training series, so it has no scale; leave it out of "
            "values=, or train on series that have it."
        )


def _warn_constant(names: list[str]) -> None:
    if names:
        warnings.warn(
            f"channel {few(names)} is constant in the training series; its scale is set to 1, and a model can learn "
            "nothing but its value.",
            DataWarning,
            stacklevel=3,
        )


def _windows(train: SeriesSet, windows: WindowMaker | None) -> list[tuple[Series, Series]]:
    """What a model will see: a sample of windows, or the series themselves. The same for the same series."""
    whole = [(one, one) for one in train if len(one)]
    if windows is None:
        return whole
    rng = np.random.default_rng(0)
    repeats = max(1, _SAMPLED_WINDOWS // len(whole))
    windows = windows.on(train.axis)
    cut = [windows(one, rng) for one, _ in whole for _ in range(repeats)]
    return [window for window in cut if window is not None] or whole


def _length(context: Series, target: Series) -> float:
    times = [part.times for part in (context, target) if len(part)]
    return float(max(time[-1] for time in times) - min(time[0] for time in times)) if times else 0.0


def _pull_and_spread(pairs: list[tuple[Series, Series]], loc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pull towards the training mean that centres the targets best, per channel, and the spread that it leaves.

    The mean of a few observations is a noisy level; how noisy depends on the channel, and the targets tell.
    """
    squared, count = np.zeros((len(_PULLS), len(loc))), np.zeros(len(loc))
    within, seen = np.zeros((len(_PULLS), len(loc))), np.zeros(len(loc))
    for context, target in pairs:
        observed = (~np.isnan(context.values)).sum(axis=0)
        total = np.nansum(context.values, axis=0)
        centre = np.where(observed > 0, (total + _PULLS * loc) / np.maximum(observed + _PULLS, 1.0), loc)
        for part, into, counter in ((target, squared, count), (context, within, seen)):
            known = ~np.isnan(part.values)
            into += np.nansum((part.values[:, None] - centre) ** 2, axis=0)
            counter += known.sum(axis=0)
    best = squared.argmin(axis=0)
    both = np.take_along_axis(squared + within, best[None], 0)[0] / np.maximum(count + seen, 1.0)
    return _PULLS[best, 0], np.sqrt(both)


def _moments(rows: list[np.ndarray | None]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per column of what is known; 0 and 1 for a column that never is."""
    present = [row for row in rows if row is not None]
    if not present:
        return (), ()
    stacked = np.concatenate(present)
    known = ~np.isnan(stacked)
    count = np.maximum(known.sum(axis=0), 1)
    loc = np.where(known, stacked, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (stacked - loc) ** 2, 0.0).sum(axis=0) / count)
    flat = spread <= _CONSTANT * np.maximum(np.where(known, np.abs(stacked), 0.0).max(axis=0, initial=0.0), 1e-300)
    return tuple(loc.tolist()), tuple(np.where(flat, 1.0, spread).tolist())
