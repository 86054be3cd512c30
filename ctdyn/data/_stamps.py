"""Reading the user's column of times, whatever it is made of: numbers, durations, or datetimes of any unit and zone."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._checks import DataError


__all__ = [
    "BadTimeError",
    "Stamps",
    "localized",
    "looks_like_epoch",
    "parse_times",
    "refuse_packed_dates",
    "unit_seconds",
]

NS_PER_DAY = 86_400_000_000_000

_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
    "week": 604800.0,
    "year": 31557600.0,  # the Julian year of 365.25 days
}
_SHORT = {
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
    "d": "day",
    "w": "week",
    "y": "year",
}
_EPOCHS = {"s": (3e8, 5e9), "ms": (3e11, 5e12), "us": (3e14, 5e15), "ns": (3e17, 5e18)}


class BadTimeError(DataError):
    """A time that cannot be read, and its row, so that whoever knows the series can name it."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def unit_seconds(unit: str | None) -> float | None:
    """The length of a unit of time in seconds; None for a name that is not a unit of time.

    Example:
        >>> unit_seconds("hours"), unit_seconds("h"), unit_seconds("frame")
        (3600.0, 3600.0, None)
    """
    if unit is None:
        return None
    name = unit.strip().lower()
    singular = name.removesuffix("s") if len(name) > 2 else name
    return _SECONDS.get(_SHORT.get(singular, singular))


def looks_like_epoch(times: np.ndarray) -> str | None:
    """How `times` would be read if they are a calendar date packed into a number: a pandas unit, "%Y%m%d", or None.

    Only integers are suspected below nanoseconds: a float in seconds since 1970 is precise enough to be meant.

    Example:
        >>> looks_like_epoch(np.array([1_600_000_000_000_000_000]))
        'ns'
        >>> looks_like_epoch(np.array([0, 1, 2])) is None
        True
    """
    if times.dtype.kind not in "iuf" or not np.isfinite(times).any():
        return None
    low, high = float(np.nanmin(times)), float(np.nanmax(times))
    integral = times.dtype.kind in "iu"
    for unit, (start, end) in _EPOCHS.items():
        if start <= low and high <= end and (integral or unit == "ns"):
            return unit
    if integral and low >= 15000101 and high <= 22001231:
        month, day = times // 100 % 100, times % 100
        if bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all()):
            return "%Y%m%d"
    return None


def refuse_packed_dates(times: np.ndarray) -> None:
    """Whole numbers that hide a date are refused, since a horizon in days would then be off by a factor of 1e14.

    Raises:
        DataError: see `looks_like_epoch`.
    """
    packed = looks_like_epoch(times)
    if packed is None:
        return
    if packed == "%Y%m%d":
        what, cure = "dates (YYYYMMDD)", 'pandas.to_datetime(column.astype(str), format="%Y%m%d")'
    else:
        what, cure = f"an epoch in {packed}", f'pandas.to_datetime(column, unit="{packed}")'
    raise DataError(
        f"times are numbers that look like {what}, the first being {times.flat[0]:.0f}; convert them with {cure}. If "
        "they are plain numbers, subtract the first one, or pass them as floats."
    )


@dataclass(frozen=True)
class Stamps:
    """Datetimes as whole days and nanoseconds of the day, UTC where there is a zone: no unit of datetime64 overflows.

    Args:
        days: days since 1970-01-01, `(n,)` int64.
        ns: nanoseconds since midnight, `(n,)` int64.
        missing: True where the time is NaT, `(n,)`.
        zone: the time zone that they came in; None for naive ones.
    """

    days: np.ndarray
    ns: np.ndarray
    missing: np.ndarray
    zone: str | None = None

    @staticmethod
    def of(stamps: np.ndarray, zone: str | None = None) -> Stamps:
        """From datetime64 of any unit."""
        missing = np.isnat(stamps)
        days = np.where(missing, np.datetime64(0, "D"), stamps.astype("datetime64[D]"))
        within = np.where(missing, np.timedelta64(0, "ns"), (stamps - days).astype("timedelta64[ns]"))
        return Stamps(days.astype(np.int64), within.astype(np.int64), missing, zone)

    def earliest(self) -> str:
        """The first instant as an ISO string."""
        present = ~self.missing
        days, ns = self.days[present], self.ns[present]
        first = np.lexsort((ns, days))[0]
        return _iso(int(days[first]), int(ns[first]))

    def since(self, origin: str, unit: float) -> np.ndarray:
        """Time since an instant, in units of `unit` seconds, rounded once; NaN where missing."""
        zero = Stamps.of(np.asarray([np.datetime64(origin)]))
        days, ns = self.days - zero.days[0], self.ns - zero.ns[0]
        # Nanoseconds fit 292 years in int64; a longer span cannot resolve them in float64 anyway.
        short = np.abs(days) < 100_000
        total = np.where(short, (np.where(short, days, 0) * NS_PER_DAY + ns) / 1e9, days * 86400.0 + ns / 1e9)
        return np.where(self.missing, np.nan, total / unit)


def _iso(days: int, ns: int) -> str:
    """An instant as an ISO string, as short as it can be written.

    Example:
        >>> _iso(0, 0), _iso(0, 1500)
        ('1970-01-01', '1970-01-01T00:00:00.000001500')
    """
    day = str(np.datetime64(days, "D"))
    if ns == 0:
        return day
    seconds, rest = divmod(ns, 1_000_000_000)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{day}T{clock}" if rest == 0 else f"{day}T{clock}.{rest:09d}"


def parse_times(times: Any) -> np.ndarray | Stamps:
    """The user's times as int64, float64, timedelta64 or `Stamps`.

    Args:
        times: a column, an array, a tensor or a list.

    Raises:
        DataError: the times are neither numbers, durations nor datetimes.
        BadTimeError: one of them cannot be read, or naive and zoned datetimes are mixed.

    Example:
        >>> parse_times([0, 1]).tolist(), parse_times(["2020-01-02"]).earliest()
        ([0, 1], '2020-01-02')
    """
    import pandas as pd
    from pandas.api import types

    if isinstance(times, torch.Tensor):
        times = times.detach().cpu().numpy()
    series = times if isinstance(times, pd.Series) else pd.Series(times if len(times) else np.empty(0))
    dtype = series.dtype
    if types.is_bool_dtype(dtype) or types.is_complex_dtype(dtype):
        raise DataError(f"times must be numbers or datetimes; got {dtype}.")
    if isinstance(dtype, pd.PeriodDtype):
        raise DataError("times are periods; say which instant of each is meant: column.dt.to_timestamp().")
    if types.is_datetime64_any_dtype(dtype):
        return _zoned(pd.DatetimeIndex(series))
    if types.is_timedelta64_dtype(dtype):
        return series.to_numpy()
    if types.is_numeric_dtype(dtype):
        whole = types.is_integer_dtype(dtype) and not bool(series.isna().any())
        return series.to_numpy(dtype=np.int64) if whole else series.to_numpy(dtype=np.float64, na_value=np.nan)
    return _parse_objects(series)


def localized(texts: list[str], zone: str) -> Stamps:
    """Text without a zone, read as the wall clock of one.

    Raises:
        DataError: a text is no datetime, or no instant of that zone (the hour that summer time skips or repeats).

    Example:
        >>> localized(["2020-07-01 02:00"], "Europe/Paris").earliest()
        '2020-07-01'
    """
    import pandas as pd

    try:
        return _zoned(pd.DatetimeIndex(pd.to_datetime(texts, format="ISO8601")).tz_localize(zone))
    except (ValueError, TypeError) as error:
        raise DataError(f"{texts[0]!r} is not an instant in {zone}: {error}.") from error


def _zoned(index: Any) -> Stamps:
    if index.tz is None:
        return Stamps.of(index.to_numpy())
    zone = str(index.tz)
    try:
        index[:0].tz_convert(zone)
    except (ValueError, KeyError):
        zone = "UTC"  # a zone object without a name that would bring it back
    return Stamps.of(index.tz_convert("UTC").tz_localize(None).to_numpy(), zone)


def _parse_objects(series: Any) -> np.ndarray | Stamps:
    """Text or objects: ISO 8601 only, since 01/02/2020 is two different days."""
    import pandas as pd

    present = series.dropna()
    numbers = int | float | np.integer | np.floating
    if len(present) and all(isinstance(value, numbers) and not isinstance(value, bool) for value in present):
        return np.array([np.nan if pd.isna(value) else float(value) for value in series])
    text = any(isinstance(value, str) for value in present)
    aware = np.array([_is_aware(value) for value in present], dtype=bool)
    if aware.any() and not aware.all():
        row = int(np.flatnonzero(series.notna())[np.argmin(aware)])
        raise BadTimeError(
            f"times mix naive datetimes with ones that have a time zone ({series.iloc[row]!r} has none); bring them "
            "to one zone with tz_localize before the data are read.",
            row,
        )
    try:
        # Different offsets (summer time, several sites) are the same clock in UTC.
        index = pd.DatetimeIndex(pd.to_datetime(series, format="ISO8601" if text else None, utc=bool(aware.any())))
    except (ValueError, TypeError, OverflowError) as error:
        row = _first_bad(series)
        raise BadTimeError(
            f"{series.iloc[row]!r} could not be read as a number or as an ISO 8601 datetime; convert the times with "
            "pandas.to_datetime(column, format=...) or pandas.to_numeric(column).",
            row,
        ) from error
    return _zoned(index)


def _is_aware(value: Any) -> bool:
    if isinstance(value, datetime.datetime):
        return value.tzinfo is not None
    if not isinstance(value, str):
        return False
    clock = value[10:]
    return clock.endswith(("Z", "z")) or "+" in clock or "-" in clock


def _first_bad(series: Any) -> int:
    import pandas as pd

    for row, value in enumerate(series):
        try:
            pd.to_datetime([value], format="ISO8601" if isinstance(value, str) else None)
        except (ValueError, TypeError, OverflowError):
            return row
    return 0
