"""Window makers: how a training series is cut into what a model sees and what it is asked.

A maker is called with one series and a numpy generator; it returns (context, target), or None where the series is too
short for it. Its lengths are numbers in the unit of the clock, or timedeltas, or text as "3D"; its times are numbers,
datetimes or their text. What is not a number is put on the float clock of a set by `on(axis)`, as everything that is
given a `SeriesSet` does by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._checks import DataError
from .._options import with_suggestions
from .clock import Instant, Length, TimeAxis, as_instant, as_length
from .series import Series


__all__ = ["AnyOf", "Extrapolate", "Interpolate", "OneStep", "Reconstruct", "TimeWarp", "WindowMaker"]

_TRIES = 8


class WindowMaker(ABC):
    """Cuts one series into context and target.

    Example:
        >>> series = Series("a", np.arange(4.0), np.ones((4, 1)))
        >>> maker: WindowMaker = OneStep()
        >>> context, target = maker(series, np.random.default_rng(0))
        >>> len(target)
        1
    """

    @abstractmethod
    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series] | None:
        """The context and the target, or None where the series is too short.

        Args:
            series: the series to cut.
            rng: where every random choice comes from.
        """

    def on(self, axis: TimeAxis) -> WindowMaker:
        """The same with all its lengths and times as numbers on a float clock, as that of `SeriesSet.axis`.

        Args:
            axis: the clock of the series to cut.

        Raises:
            DataError: the clock has no unit of time, or no dates, that they could be converted to.
        """
        return self

    @property
    def plain(self) -> WindowMaker:
        """The same without augmentation: what the scaler is fitted to, and what a validation asks."""
        return self

    @property
    def varies(self) -> bool:
        """Whether another draw cuts the same series in another way."""
        return True

    @property
    @abstractmethod
    def bounds(self) -> str:
        """The quantity that an evidence lower bound over these windows bounds from below."""


@with_suggestions
@dataclass(frozen=True)
class Extrapolate(WindowMaker):
    """The past is the context, what follows is the target.

    Args:
        context: how long the past is. None: from the start of the series, or, without `cut`, up to a time drawn from
            the middle half of the series. Given without `cut`, the window starts at a random time.
        horizon: how long the future is. None: to the end of the series.
        cut: a fixed time at which the future begins; None: a random one.
        include_context: score the context as well as the future.
        min_observations: how many rows with an observation the context needs.

    Raises:
        DataError: a length is not positive, or what was given is no length, or no time.

    Example:
        >>> series = Series("a", np.arange(10.0), np.arange(10.0)[:, None])
        >>> context, target = Extrapolate(cut=7.0, horizon=2.0)(series, np.random.default_rng(0))
        >>> len(context), target.times.tolist()
        (7, [7.0, 8.0])
        >>> Extrapolate(cut="2024-05-01", horizon="36h").on(TimeAxis("day", origin="2024-04-24"))
        Extrapolate(context=None, horizon=1.5, cut=7.0, include_context=False, min_observations=1)
    """

    context: Length | None = None
    horizon: Length | None = None
    cut: Instant | None = None
    include_context: bool = False
    min_observations: int = 1

    def __post_init__(self) -> None:
        _keep(self, as_length, "context", "horizon")
        _keep(self, as_instant, "cut")

    def on(self, axis: TimeAxis) -> Extrapolate:
        """See `WindowMaker.on`."""
        lengths = {name: _or_none(axis.duration, getattr(self, name)) for name in ("context", "horizon")}
        return replace(self, **lengths, cut=_or_none(axis.instant, self.cut))

    @property
    def varies(self) -> bool:
        """Only where the cut is drawn."""
        return self.cut is None

    @property
    def bounds(self) -> str:
        """Joint with the context where that is scored, else the target alone."""
        return "log p(context, target)" if self.include_context else "log p(target)"

    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series] | None:
        """See `WindowMaker`."""
        for _ in range(_TRIES):
            cut = self._cut(series, rng)
            if cut is None:
                return None
            start = -np.inf if self.context is None else cut - _number(self.context)
            end = np.inf if self.horizon is None else cut + _number(self.horizon)
            context, target = series.between(start, cut), series.between(cut, end)
            if int(context.observed.sum()) >= self.min_observations and bool(target.observed.any()):
                return context, (series.between(start, end) if self.include_context else target)
            if self.cut is not None:
                return None
        return None

    def _cut(self, series: Series, rng: np.random.Generator) -> float | None:
        if self.cut is not None:
            return _number(self.cut)
        if len(series) < 2:
            return None
        first, span = float(series.times[0]), series.span
        if self.context is None:
            return first + float(rng.uniform(0.25, 0.75)) * span
        past = _number(self.context)
        if past >= span:
            return None
        # A series shorter than the whole window keeps its full context and a shorter future.
        room = max(0.0, span - past - _number(self.horizon or 0.0))
        return first + past + float(rng.uniform(0.0, 1.0)) * room


@with_suggestions
@dataclass(frozen=True)
class Interpolate(WindowMaker):
    """Rows are hidden at random; the kept ones are the context. A time stamp goes to one side with all its channels.

    Args:
        keep: the share of the observed time stamps that is kept; at least one is kept and one is hidden.
        length: cut a random stretch of this length first; None: the whole series.
        include_context: score the kept rows as well as the hidden ones.

    Raises:
        ValueError: `keep` is not inside (0, 1), or `length` is not positive, or no length.

    Example:
        >>> series = Series("a", np.arange(10.0), np.arange(10.0)[:, None])
        >>> context, target = Interpolate(keep=0.7)(series, np.random.default_rng(0))
        >>> len(context), len(target)
        (7, 3)
    """

    keep: float = 0.5
    length: Length | None = None
    include_context: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.keep < 1.0:
            raise ValueError(f"keep is the share of rows that is kept, inside (0, 1); got {self.keep}.")
        _keep(self, as_length, "length")

    def on(self, axis: TimeAxis) -> Interpolate:
        """See `WindowMaker.on`."""
        return replace(self, length=_or_none(axis.duration, self.length))

    @property
    def bounds(self) -> str:
        """Joint with the context where that is scored, else the target alone."""
        return "log p(context, target)" if self.include_context else "log p(target)"

    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series] | None:
        """See `WindowMaker`."""
        stretch = _stretch(series, self.length, rng, min_rows=2)
        if stretch is None:
            return None
        rows = np.flatnonzero(stretch.observed)
        # Aggregates of different lengths may end at one time.
        stamp = np.cumsum(np.diff(stretch.times[rows], prepend=-np.inf) > 0) - 1
        count = int(stamp[-1]) + 1
        if count < 2:
            return None
        kept = int(np.clip(round(self.keep * count), 1, count - 1))
        is_hidden = np.zeros(count, dtype=bool)
        is_hidden[rng.permutation(count)[kept:]] = True
        hidden = np.zeros(len(stretch), dtype=bool)
        hidden[rows] = is_hidden[stamp]
        return stretch.take(~hidden), (stretch if self.include_context else stretch.take(hidden))


@with_suggestions
@dataclass(frozen=True)
class OneStep(WindowMaker):
    """The next observed row after a random one, given what came before it.

    Args:
        context: how long the past is; None: from the start of the series.

    Raises:
        DataError: `context` is not positive, or no length.

    Example:
        >>> series = Series("a", np.arange(5.0), np.arange(5.0)[:, None])
        >>> context, target = OneStep()(series, np.random.default_rng(0))
        >>> len(target), bool(target.times[0] == context.times[-1] + 1)
        (1, True)
    """

    context: Length | None = None

    def __post_init__(self) -> None:
        _keep(self, as_length, "context")

    def on(self, axis: TimeAxis) -> OneStep:
        """See `WindowMaker.on`."""
        return replace(self, context=_or_none(axis.duration, self.context))

    @property
    def bounds(self) -> str:
        """The next row alone."""
        return "log p(target)"

    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series] | None:
        """See `WindowMaker`."""
        rows = np.flatnonzero(series.observed)
        rows = rows[series.times[rows] > series.times[rows[0]]] if len(rows) else rows
        for _ in range(_TRIES if len(rows) else 0):
            time = float(series.times[rng.choice(rows)])
            context = series.between(-np.inf if self.context is None else time - _number(self.context), time)
            if context.observed.any():
                return context, series.take(np.flatnonzero((series.times == time) & series.observed))
        return None


@with_suggestions
@dataclass(frozen=True)
class Reconstruct(WindowMaker):
    """The target is the context: for training only, where the bound is to be on the probability of what was seen.

    Args:
        length: cut a random stretch of this length first; None: the whole series.

    Raises:
        DataError: `length` is not positive, or no length.

    Example:
        >>> series = Series("a", np.arange(5.0), np.arange(5.0)[:, None])
        >>> context, target = Reconstruct()(series, np.random.default_rng(0))
        >>> context is target
        True
    """

    length: Length | None = None

    def __post_init__(self) -> None:
        _keep(self, as_length, "length")

    def on(self, axis: TimeAxis) -> Reconstruct:
        """See `WindowMaker.on`."""
        return replace(self, length=_or_none(axis.duration, self.length))

    @property
    def varies(self) -> bool:
        """Only where a stretch is drawn."""
        return self.length is not None

    @property
    def bounds(self) -> str:
        """The context, which is the target."""
        return "log p(context)"

    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series] | None:
        """See `WindowMaker`."""
        stretch = _stretch(series, self.length, rng, min_rows=1)
        return None if stretch is None else (stretch, stretch)


@dataclass(frozen=True, init=False)
class AnyOf(WindowMaker):
    """One of several makers, drawn anew for every window; the others are tried where the series is too short for it.

    Args:
        parts: the makers.
        makers: the same, as one tuple.

    Raises:
        ValueError: there is no maker.

    Example:
        >>> AnyOf(Interpolate(), Extrapolate()).bounds
        'log p(target)'
    """

    makers: tuple[WindowMaker, ...]

    def __init__(self, *parts: WindowMaker, makers: Any = ()) -> None:
        object.__setattr__(self, "makers", (*parts, *makers))
        if not self.makers:
            raise ValueError("AnyOf needs at least one window maker, as AnyOf(Interpolate(), Extrapolate()).")

    def on(self, axis: TimeAxis) -> AnyOf:
        """See `WindowMaker.on`."""
        return AnyOf(*(maker.on(axis) for maker in self.makers))

    @property
    def plain(self) -> AnyOf:
        """The makers without their augmentation."""
        return AnyOf(*(maker.plain for maker in self.makers))

    @property
    def varies(self) -> bool:
        """Unless there is but one maker, and it does not."""
        return len(self.makers) > 1 or any(maker.varies for maker in self.makers)

    @property
    def bounds(self) -> str:
        """What the makers bound, each named once."""
        return " or ".join(dict.fromkeys(maker.bounds for maker in self.makers))

    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series] | None:
        """See `WindowMaker`."""
        for index in rng.permutation(len(self.makers)):
            window = self.makers[index](series, rng)
            if window is not None:
                return window
        return None


@with_suggestions
@dataclass(frozen=True)
class TimeWarp(WindowMaker):
    r"""The windows of another maker from series that run faster or slower: augmentation where speeds vary.

    .. math:: t' = c\,t, \qquad \log c \sim U(\log a, \log b)

    Few training series show few speeds; a model that saw more of them forecasts an unseen speed better. Nothing is
    interpolated: the clock alone is stretched. Scalers are fitted to, and models validated on, the windows of `maker`.

    Args:
        maker: cuts the warped series; its lengths are on the warped clock.
        low: the smallest factor `a`; below 1 the series run faster.
        high: the largest factor `b`; above 1 they run slower.

    Raises:
        ValueError: the factors are not positive and in order.

    Example:
        >>> series = Series("a", np.arange(3.0), np.arange(3.0)[:, None])
        >>> context, _ = TimeWarp(Reconstruct(), 2.0, 2.0)(series, np.random.default_rng(0))
        >>> context.times.tolist()
        [0.0, 2.0, 4.0]
    """

    maker: WindowMaker
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0.0 < self.low <= self.high < np.inf:
            raise ValueError(f"TimeWarp needs factors 0 < low <= high; got low={self.low} and high={self.high}.")

    def on(self, axis: TimeAxis) -> TimeWarp:
        """See `WindowMaker.on`."""
        return replace(self, maker=self.maker.on(axis))

    @property
    def plain(self) -> WindowMaker:
        """The maker by itself."""
        return self.maker.plain

    @property
    def bounds(self) -> str:
        """What the maker bounds, for series of all these speeds."""
        return self.maker.bounds

    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series] | None:
        """See `WindowMaker`."""
        factor = float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        start = None if series.start is None else series.start * factor
        return self.maker(replace(series, times=series.times * factor, start=start), rng)


def _stretch(series: Series, given: Length | None, rng: np.random.Generator, *, min_rows: int) -> Series | None:
    """A random stretch of the series with at least `min_rows` observed rows."""
    if int(series.observed.sum()) < min_rows:
        return None
    length = np.inf if given is None else _number(given)
    if length >= series.span:
        return series
    for _ in range(_TRIES):
        start = float(series.times[0]) + float(rng.uniform(0.0, 1.0)) * (series.span - length)
        stretch = series.between(start, start + length)
        if int(stretch.observed.sum()) >= min_rows:
            return stretch
    return None


def _keep(maker: WindowMaker, read: Callable[[str, Any], Any], *names: str) -> None:
    """Arguments as they can be written down."""
    for name in names:
        given = getattr(maker, name)
        if given is not None:
            object.__setattr__(maker, name, read(name, given))


def _or_none(convert: Callable[[Any], float], given: Any) -> float | None:
    return None if given is None else convert(given)


def _number(given: Length | Instant) -> float:
    if isinstance(given, int | float | np.integer | np.floating):
        return float(given)
    raise DataError(
        f"{given!r} is a time or a length of time of a calendar, and one series knows only its float clock; cut it by "
        "windows.on(series_set.axis)."
    )
