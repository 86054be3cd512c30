"""What comes out: samples per series and time, and the tidy frames made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import few
from ..data import Channel, Series, SeriesSet
from ..data.channels import CLASSES


if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Forecast"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Forecast:
    """The predictive distribution of every series at its own times, as samples in the units of the data.

    Every frame is long: one row per series, time and channel, with the times on the user's clock (datetimes come back
    as datetimes, in their zone). A sample is one coherent trajectory of the model with one draw of observation noise:
    quantiles are those of what would be *measured*.

    Args:
        context: what the forecast was conditioned on.
        times: query times of each series on the float clock of `context`, `(time,)` each.
        samples: samples of each series, `(sample, time, channel)` each.
        means: the mean of each series, `(time, channel)` each. It averages the model's own means, which is less noisy
            than the mean of the samples.

    Example:
        >>> from ctdyn.data import from_ragged
        >>> context = from_ragged([([0.0, 1.0], [1.0, 2.0])], channels=["level"])
        >>> samples = np.arange(3.0).reshape(3, 1, 1)
        >>> Forecast(context, (np.array([2.0]),), (samples,), (np.array([[1.0]]),)).quantile(0.5)
           id  time channel  quantile  value
        0   0   2.0   level       0.5    1.0
    """

    context: SeriesSet
    times: tuple[Array, ...]
    samples: tuple[Array, ...]
    means: tuple[Array, ...]

    def __post_init__(self) -> None:
        counts = {len(self.context), len(self.times), len(self.samples), len(self.means)}
        if len(counts) > 1:
            raise ValueError(
                f"a forecast of {len(self.context)} series needs as many times, samples and means; got "
                f"{len(self.times)}, {len(self.samples)} and {len(self.means)}."
            )

    def __len__(self) -> int:
        """How many series there are."""
        return len(self.context)

    def __repr__(self) -> str:
        rows = sum(len(times) for times in self.times)
        names = ", ".join(channel.name for channel in self.channels)
        return f"Forecast({len(self)} series, {rows} times, channels: {names})"

    @property
    def ids(self) -> tuple[object, ...]:
        """What the series are called, in order."""
        return self.context.ids

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What is forecast, in the order of the last axis of the samples."""
        return self.context.channels

    def mean(self) -> pd.DataFrame:
        """The mean: a frame with the columns id, time, channel, mean."""
        return self._table({"mean": list(self.means)})

    def quantile(self, levels: float | Sequence[float]) -> pd.DataFrame:
        """Quantiles: a frame with the columns id, time, channel, quantile, value.

        Args:
            levels: one probability between 0 and 1, or several.

        Raises:
            ValueError: a level is not between 0 and 1, or there is none.
        """
        import pandas as pd

        asked = _check_levels(levels)
        columns = self._quantile_columns(asked)
        index = self._index()
        parts = [index.assign(quantile=level, value=column) for level, column in zip(asked, columns, strict=True)]
        # Stable: the levels of one entry stay together and in the order asked.
        order = np.arange(len(index) * len(asked)).reshape(len(asked), -1).T.ravel()
        return pd.concat(parts, ignore_index=True).iloc[order].reset_index(drop=True)

    def interval(self, level: float = 0.9) -> pd.DataFrame:
        """The central interval: a frame with the columns id, time, channel, lower, upper.

        Args:
            level: its probability.

        Raises:
            ValueError: the level is not strictly between 0 and 1.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"the level of an interval lies strictly between 0 and 1, as 0.9; got {level}.")
        lower, upper = self._quantile_columns([(1 - level) / 2, (1 + level) / 2])
        return self._index().assign(lower=lower, upper=upper)

    def probabilities(self) -> pd.DataFrame:
        """How probable each class is, in binary and categorical channels: id, time, channel, class, probability.

        A probability is the share of the samples that are of the class: ask for more (`num_samples`) to tell rare ones
        apart. Classes are those that were drawn or observed, and all below them.

        Raises:
            ValueError: no channel holds classes, or the model draws other numbers for one that does.

        Example:
            >>> from ctdyn.data import from_ragged
            >>> context = from_ragged([([0.0], [1.0])], channels=[Channel("alive", kind="binary")])
            >>> drawn = np.array([1.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1)
            >>> Forecast(context, (np.array([2.0]),), (drawn,), (drawn.mean(0),)).probabilities()
               id  time channel  class  probability
            0   0   2.0   alive      0         0.25
            1   0   2.0   alive      1         0.75
        """
        import pandas as pd

        columns = [column for column, channel in enumerate(self.channels) if channel.kind in CLASSES]
        if not columns:
            kinds = ", ".join(f"{channel.name!r} is {channel.kind}" for channel in self.channels)
            raise ValueError(f"only channels of classes ({few(CLASSES)}) have probabilities; {kinds}. See quantile().")
        index, parts = self._index(), []
        for column in columns:
            drawn = [samples[..., column] for samples in self.samples]
            observed = [one.values[:, column] for one in self.context]
            codes = np.concatenate([np.zeros(0), *[each[~np.isnan(each)] for each in (*drawn, *observed)]])
            if (codes != np.round(codes)).any():
                raise ValueError(
                    f"channel {self.channels[column].name!r} holds classes, and the model draws other numbers for it; "
                    "use one with a likelihood of classes (Bernoulli, Categorical)."
                )
            rows = index.iloc[column :: len(self.channels)]
            for code in range(int(codes.max(initial=1.0)) + 1):
                share = np.concatenate([np.zeros(0), *[(each == code).mean(0) for each in drawn]])
                parts.append(rows.assign(**{"class": code, "probability": share}))
        # Stable: the classes of one entry stay together and in their order.
        return pd.concat(parts).sort_index(kind="stable", ignore_index=True)

    def to_frame(self, levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> pd.DataFrame:
        """Everything in one frame, for a file: id, time, channel, mean, sd, one column per quantile, extrapolation.

        `extrapolation` is True where the time lies outside of what was observed of the series: after its last
        observation, or before its first, where a model that runs forwards in time has to run backwards.

        Args:
            levels: the quantiles; the column of 0.05 is called q0.05.
        """
        asked = _check_levels(levels)
        frame = self._table({"mean": list(self.means), "sd": self._map(lambda x: x.std(0, ddof=1))})
        columns = zip(asked, self._quantile_columns(asked), strict=True)
        frame = frame.assign(**{f"q{level:.12g}": column for level, column in columns})
        outside = [
            np.repeat(_outside(one, times), len(self.channels))
            for one, times in zip(self.context, self.times, strict=True)
        ]
        return frame.assign(extrapolation=np.concatenate([np.zeros(0, dtype=bool), *outside]))

    def select(self, ids: Sequence[object]) -> Forecast:
        """The forecasts of some series.

        Args:
            ids: what they are called.

        Raises:
            UnknownIdError: there is no such series.
        """
        where = {one: position for position, one in enumerate(self.ids)}
        context = self.context.select(ids)
        places = [where[one] for one in context.ids]
        parts = (tuple(part[place] for place in places) for part in (self.times, self.samples, self.means))
        return Forecast(context, *parts)

    def plot(self, truth: SeriesSet | None = None, **options: Any) -> Figure:
        """Draw the fan of quantiles, the observations and, where known, the truth (see `ctdyn.plot.plot_forecast`).

        Args:
            truth: what was observed later.
            **options: what `plot_forecast` takes (`ids`, `channels`, `levels`, `max_panels`).

        Returns:
            A matplotlib figure.
        """
        from .. import plot

        return plot.plot_forecast(self, truth, **options)

    def _quantile_columns(self, levels: Sequence[float]) -> list[Array]:
        from ..metrics import quantiles

        found = self._map(lambda x: quantiles(x, np.asarray(levels)))
        empty = np.zeros((len(levels), 0))
        return list(np.concatenate([empty, *[each.reshape(len(levels), -1) for each in found]], axis=1))

    def _table(self, columns: dict[str, list[Array]]) -> pd.DataFrame:
        flat = {name: np.concatenate([np.zeros(0), *[x.ravel() for x in parts]]) for name, parts in columns.items()}
        return self._index().assign(**flat)

    def _map(self, function: Callable[[Array], Array]) -> list[Array]:
        """Applied per series, in float64; samples may be stored in float32."""
        return [function(samples.astype(np.float64)) for samples in self.samples]

    def _index(self) -> pd.DataFrame:
        import pandas as pd

        width = len(self.channels)
        counts = [len(times) * width for times in self.times]
        places = np.repeat(np.arange(len(self)), counts)
        times = np.concatenate([np.zeros(0), *[np.repeat(times, width) for times in self.times]])
        names = np.tile(np.arange(width), sum(len(times) for times in self.times))
        return pd.DataFrame(
            {
                "id": pd.Series(list(self.ids)).take(places).to_numpy(),
                "time": self.context.axis.to_user(times),
                "channel": np.array([channel.name for channel in self.channels], dtype=object)[names],
            }
        )


def _check_levels(levels: float | Sequence[float]) -> list[float]:
    asked = [float(level) for level in np.atleast_1d(np.asarray(levels, dtype=np.float64))]
    if not asked or not all(0.0 <= level <= 1.0 for level in asked):
        raise ValueError(f"quantiles are probabilities between 0 and 1, as [0.05, 0.5, 0.95]; got {levels!r}.")
    return asked


def _outside(one: Series, times: Array) -> Array:
    seen = one.times[one.observed]
    if not len(seen):
        return np.ones(len(times), dtype=bool)
    return (times < seen[0]) | (times > seen[-1])
