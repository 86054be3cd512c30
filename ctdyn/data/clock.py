"""The clock of the data: from the user's times to float64 and back, without losing a microsecond or a time zone."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from .._checks import DataError
from ._pandas import DatetimeIndex
from ._stamps import Stamps, localized, looks_like_epoch, parse_times, refuse_packed_dates, unit_seconds


__all__ = ["Instant", "Length", "TimeAxis", "as_instant", "as_length", "between_clocks"]

#: A length of time: a number in the unit of a clock, or a timedelta, or its text as "3D".
Length = float | int | np.integer | np.floating | str | datetime.timedelta | np.timedelta64
#: A time: a number on a float clock, or a datetime, or its text in ISO 8601.
Instant = float | int | np.integer | np.floating | str | datetime.date | np.datetime64


def as_length(name: str, length: Length) -> float | int | str:
    """A positive length of time as it can be written down: a number, or text. `TimeAxis.duration` reads it.

    Args:
        name: of the argument, for the message.
        length: what was given.

    Raises:
        DataError: it is none, or not positive.

    Example:
        >>> import datetime
        >>> as_length("horizon", 2.5), as_length("horizon", datetime.timedelta(days=3))
        (2.5, '3 days 00:00:00')
    """
    size = float(length) if _is_number(length) else _seconds(length, f"{name}={length!r}")
    if not (np.isfinite(size) and size > 0):
        raise DataError(
            f"{name} must be a positive length of time: a number on the clock of the series, a timedelta, or text as "
            f"'3D'; got {length!r}."
        )
    if _is_number(length):
        return _plain(length)
    if isinstance(length, str):
        return length
    import pandas as pd

    return str(pd.Timedelta(length))


def as_instant(name: str, instant: Instant) -> float | int | str:
    """A time as it can be written down: a number, or text. `TimeAxis.instant` reads it.

    Args:
        name: of the argument, for the message.
        instant: what was given.

    Raises:
        DataError: it is none.

    Example:
        >>> as_instant("cut", 7.0), as_instant("cut", np.datetime64("2024-05-01"))
        (7.0, '2024-05-01')
    """
    if _is_number(instant):
        return _plain(instant)
    try:
        known = isinstance(parse_times([instant]), Stamps)
    except DataError:
        known = False
    if not known:
        raise DataError(
            f"{name} must be a number on the clock of the series, a datetime, or its text as '2024-05-01'; got "
            f"{instant!r}."
        )
    return instant.isoformat() if isinstance(instant, datetime.date) else str(instant)


def _is_number(given: Any) -> TypeGuard[float | int | np.integer | np.floating]:
    numbers = int | float | np.integer | np.floating
    return isinstance(given, numbers) and not isinstance(given, bool | np.timedelta64)


def _plain(number: float | int | np.integer | np.floating) -> float | int:
    """A number of python, which is written down, in place of one of numpy, which is not."""
    return number.item() if isinstance(number, np.generic) else number


def _seconds(length: Any, said: str) -> float:
    """The seconds of a timedelta or its text."""
    import pandas as pd

    # pandas takes what has no unit for nanoseconds, and reads over a comma.
    if isinstance(length, str) and not any(letter.isalpha() or letter == ":" for letter in length):
        raise DataError(f"{said} is text without a unit; give a number, or text as '3D'.")
    if isinstance(length, str) and re.search(r"\d,\d", length):
        raise DataError(f"{said} has a comma in a number; write it with a point, as '1.5D'.")
    try:
        return float(pd.to_timedelta([length]).total_seconds()[0])
    except pd.errors.OutOfBoundsTimedelta as error:
        raise DataError(f"{said} is longer than a timedelta can be; give a number.") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{said} is not a length of time; give a number, or text as '3D'.") from error


@dataclass(frozen=True)
class TimeAxis:
    """The user's clock, and the float64 clock that series keep: numbers as they are, datetimes as time since an origin.

    Args:
        unit: the unit of the float clock, as "hour" or "day". Plain numbers may have none.
        origin: None for plain numbers; for datetimes the instant 0.0, as an ISO string (UTC where there is a zone).
        zone: the time zone that datetimes came with and go out with; None for naive ones.
        resolution: what datetimes are rounded to on the way out, "us" or "ns".

    Raises:
        DataError: a datetime axis has a unit that is not a unit of time.

    Example:
        >>> axis = TimeAxis("day", origin="2020-01-01")
        >>> axis.instant("2020-01-02 12:00")
        1.5
        >>> axis.to_user(np.array([1.5]))[0]
        Timestamp('2020-01-02 12:00:00')
    """

    unit: str | None = None
    origin: str | None = None
    zone: str | None = None
    resolution: str = "us"

    def __post_init__(self) -> None:
        if self.origin is not None and unit_seconds(self.unit) is None:
            raise DataError(
                f"datetimes need a unit of time for their float clock, as 'hour' or 'day'; got {self.unit!r}."
            )

    @staticmethod
    def read(times: Any, codes: np.ndarray, unit: str | None = None) -> tuple[TimeAxis, np.ndarray]:
        """The axis of a column of times, and the times on its float clock.

        Args:
            times: numbers, timedeltas or datetimes, one per observation.
            codes: the series of each observation, `(n,)` integers.
            unit: the unit of the float clock. For datetimes and timedeltas the default is chosen from the longest
                series; for numbers it is only a name.

        Returns:
            The axis, and float64 times with NaN where one is missing.

        Raises:
            DataError: the times cannot be read (see `parse_times`), or look like a packed date.
        """
        parsed = parse_times(times)
        if isinstance(parsed, Stamps):
            if parsed.missing.all():
                return TimeAxis(unit), np.full(len(parsed.days), np.nan)
            origin = parsed.earliest()
            unit = unit or _unit_of_span(parsed.since(origin, 1.0), codes)
            axis = TimeAxis(unit, origin, parsed.zone, "ns" if bool((parsed.ns % 1000).any()) else "us")
            return axis, parsed.since(origin, unit_seconds(unit) or 1.0)
        if parsed.dtype.kind == "m":
            seconds = _in_seconds(parsed)
            unit = unit or _unit_of_span(seconds, codes)
            length = unit_seconds(unit)
            if length is None:
                raise DataError(f"times are timedeltas: time_unit must be a unit of time, as 'hour'; got {unit!r}.")
            return TimeAxis(unit), seconds / length
        refuse_packed_dates(parsed)
        return TimeAxis(unit), parsed.astype(np.float64)

    @property
    def is_datetime(self) -> bool:
        """True where the user's times are datetimes."""
        return self.origin is not None

    def __str__(self) -> str:
        if self.is_datetime:
            return f"datetimes ({self.unit}s since {self.origin}{f' UTC, shown in {self.zone}' if self.zone else ''})"
        return f"numbers ({self.unit})" if self.unit else "numbers without a unit"

    def to_float(self, times: Any) -> np.ndarray:
        """The user's times on the float clock, `(n,)` float64.

        Args:
            times: numbers, or datetimes where the axis is one (numbers are then taken as being on the float clock).
                Text without a zone is read in the zone of the axis. Timedeltas where the axis is of numbers in a unit.

        Raises:
            DataError: a time is missing or infinite, or of another sort than the axis.
        """
        parsed = parse_times(times)
        if isinstance(parsed, Stamps):
            floats = self._since_origin(parsed, times)
        elif parsed.dtype.kind == "m":
            floats = self._of_timedeltas(parsed)
        else:
            if self.is_datetime and looks_like_epoch(parsed):
                raise DataError(
                    f"the times of these data are {self}, but {parsed.flat[0]} was given, which looks like a packed "
                    f"date. Give datetimes, or numbers of {self.unit}s since {self.origin}."
                )
            floats = parsed.astype(np.float64)
        if not np.isfinite(floats).all():
            raise DataError("a time is missing (NaN or NaT) or infinite; give finite times.")
        return floats

    def instant(self, time: Any) -> float:
        """One instant on the float clock (see `to_float`)."""
        return float(self.to_float([time])[0])

    def duration(self, length: Any) -> float:
        """A length of time on the float clock: a number is in `unit`; a timedelta, or a string as "3D", is converted.

        Raises:
            DataError: the axis has no unit of time that a timedelta could be converted to, or `length` is not finite.

        Example:
            >>> TimeAxis("hour").duration("3D")
            72.0
        """
        value = float(length) if _is_number(length) else self._timedelta(length)
        if not np.isfinite(value):
            raise DataError(f"a length of time must be finite; got {length!r}.")
        return value

    def _timedelta(self, length: Any) -> float:
        seconds = unit_seconds(self.unit)
        if seconds is None:
            raise DataError(
                f"{length!r} is a length of time with a unit, but the times of these data are {self}. Give a number, "
                "or say what the numbers are where the data are read (time_unit='hour')."
            )
        return _seconds(length, repr(length)) / seconds

    def to_user(self, times: np.ndarray) -> np.ndarray | DatetimeIndex:
        """Times of the float clock as the user's: numbers stay as they are, datetimes become a `DatetimeIndex`."""
        floats = np.asarray(times, dtype=np.float64)
        if self.origin is None:
            return floats
        import pandas as pd

        per_second = 1_000_000_000 if self.resolution == "ns" else 1_000_000
        per_day, unit = 86400 * per_second, unit_seconds(self.unit) or 1.0
        days = np.floor(floats * (unit / 86400.0))
        within = np.rint((floats * unit - days * 86400.0) * per_second)
        ticks = (days.astype(np.int64) * per_day + within.astype(np.int64)).astype(f"timedelta64[{self.resolution}]")
        index = pd.DatetimeIndex(np.datetime64(self.origin).astype(f"datetime64[{self.resolution}]") + ticks)
        return index if self.zone is None else index.tz_localize("UTC").tz_convert(self.zone)

    def _of_timedeltas(self, times: np.ndarray) -> np.ndarray:
        seconds = unit_seconds(self.unit)
        if self.is_datetime or seconds is None:
            raise DataError(
                f"a duration (timedelta) was given, but the times of these data are {self}; add it to a start first."
            )
        return _in_seconds(times) / seconds

    def _since_origin(self, stamps: Stamps, given: Any) -> np.ndarray:
        if not self.is_datetime:
            raise DataError(
                f"the times of these data are {self}, but a datetime was given ({stamps.earliest()}); give numbers."
            )
        texts = [time for time in given if isinstance(time, str)]
        if stamps.zone is None and self.zone is not None and len(texts) == len(stamps.days):
            stamps = localized(texts, self.zone)
        if (stamps.zone is None) != (self.zone is None):
            have, want = ("has no time zone", f"are in {self.zone}") if self.zone else ("has a time zone", "have none")
            raise DataError(
                f"the datetime {stamps.earliest()} {have}, but the times of these data {want}; use "
                f"tz_localize({self.zone!r})."
            )
        return stamps.since(self.origin or "", unit_seconds(self.unit) or 1.0)


def between_clocks(wanted: TimeAxis, own: TimeAxis) -> Callable[[np.ndarray], np.ndarray]:
    """From the float clock of some series to another: datetimes may have another unit and origin.

    Args:
        wanted: where to.
        own: that of the series.

    Raises:
        DataError: one is of datetimes and the other of numbers, or both are of numbers in different units.

    Example:
        >>> between_clocks(TimeAxis("day", "2020-01-01"), TimeAxis("hour", "2020-01-03"))(np.array([0.0, 12.0]))
        array([2. , 2.5])
    """
    if wanted == own:
        return lambda times: times
    differ = wanted.unit is not None and own.unit is not None and wanted.unit != own.unit
    if wanted.is_datetime != own.is_datetime or (differ and not own.is_datetime):
        raise DataError(f"the times of these series are {own}, and {wanted} were expected; convert the column first.")
    if not own.is_datetime:
        return lambda times: times
    shift = wanted.to_float(own.to_user(np.zeros(1)))[0]
    # The difference of two instants far from the origin has lost the digits of a short unit.
    stretch = (unit_seconds(own.unit) or 1.0) / (unit_seconds(wanted.unit) or 1.0)
    return lambda times: shift + stretch * times


def _in_seconds(times: np.ndarray) -> np.ndarray:
    """Of timedeltas; NaN where one is missing."""
    return np.where(np.isnat(times), np.nan, times.astype("timedelta64[ns]").astype(np.int64) / 1e9)


def _unit_of_span(seconds: np.ndarray, codes: np.ndarray) -> str:
    """The unit in which the longest series is some tens to some thousands long."""
    size = int(codes.max(initial=-1)) + 1
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    present = np.isfinite(seconds)
    np.minimum.at(low, codes[present], seconds[present])
    np.maximum.at(high, codes[present], seconds[present])
    span = float(np.max(high - low, initial=0.0))
    return next(
        (unit for unit, least in (("day", 864000.0), ("hour", 36000.0), ("minute", 600.0)) if span > least), "second"
    )
