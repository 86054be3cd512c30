"""One irregular series in the user's units: times, values, and whatever is known beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._checks import DataError


__all__ = ["Series"]


@dataclass(frozen=True, eq=False)
class Series:
    """One series on its own clock. NaN in `values` means that the channel was not observed at that time.

    Args:
        id: what the series is called.
        times: times of the rows on the float clock, non-decreasing, `(n,)` float64.
        values: observed values in the units of the data, `(n, channel)` float64.
        noise: standard error of each observation, in the unit of the value, `(n, channel)`.
        inputs: covariates known at `times`, the future included, `(n, input)`.
        static: covariates of the series, `(feature,)`; NaN where unknown.
        labels: what a labelled series is to be mapped to, `(label,)`.
        start: where an aggregated observation (a mean, a sum) begins, `(n,)`; default: at its time.

    Raises:
        DataError: the shapes disagree, or the times decrease or are not finite.

    Example:
        >>> series = Series("a", np.array([0.0, 1.0, 2.5]), np.array([[1.0], [np.nan], [3.0]]))
        >>> len(series), series.observed.tolist(), series.before(1.0).times.tolist()
        (3, [True, False, True], [0.0])
    """

    id: object
    times: np.ndarray
    values: np.ndarray
    noise: np.ndarray | None = None
    inputs: np.ndarray | None = None
    static: np.ndarray | None = None
    labels: np.ndarray | None = None
    start: np.ndarray | None = None

    def __post_init__(self) -> None:
        rows = self.times.shape[0] if self.times.ndim == 1 else -1
        if rows < 0 or self.values.ndim != 2 or len(self.values) != rows:
            raise DataError(
                f"series {self.id!r}: values must be (time, channel) on times (time,); got values of shape "
                f"{self.values.shape} and times of shape {self.times.shape}."
            )
        for name, shape in (("noise", self.values.shape), ("start", self.times.shape)):
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise DataError(f"series {self.id!r}: {name} must have shape {shape}; got {value.shape}.")
        if self.inputs is not None and (self.inputs.ndim != 2 or len(self.inputs) != rows):
            raise DataError(
                f"series {self.id!r}: inputs must be (time, input) on {rows} times; got {self.inputs.shape}."
            )
        # One comparison finds NaN as well: it is neither below nor above anything. What is infinite stands at an end.
        ends = (self.times[0], self.times[-1]) if rows else ()
        if not bool((self.times[1:] >= self.times[:-1]).all()) or not all(map(math.isfinite, ends)):
            raise DataError(f"series {self.id!r}: times must be finite and must not decrease; sort them first.")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def observed(self) -> np.ndarray:
        """True at rows where at least one channel was observed, `(n,)`."""
        return np.asarray(~np.isnan(self.values).all(axis=1))

    @property
    def span(self) -> float:
        """The time from the first row to the last; 0 for a series of one row or none."""
        return float(self.times[-1] - self.times[0]) if len(self.times) else 0.0

    def before(self, time: float | int) -> Series:
        """The rows with times < `time`."""
        return self._rows(slice(0, int(np.searchsorted(self.times, time, side="left"))))

    def after(self, time: float | int) -> Series:
        """The rows with times >= `time`."""
        return self._rows(slice(int(np.searchsorted(self.times, time, side="left")), None))

    def between(self, start: float | int, end: float | int) -> Series:
        """The rows with `start` <= times < `end`."""
        low, high = np.searchsorted(self.times, [start, end], side="left")
        return self._rows(slice(int(low), int(high)))

    def take(self, rows: Any) -> Series:
        """Some rows, in their order.

        Args:
            rows: a boolean mask `(n,)`, a slice, or increasing row numbers.
        """
        return self._rows(rows)

    def _rows(self, index: Any) -> Series:
        def cut(value: np.ndarray | None) -> np.ndarray | None:
            return None if value is None else value[index]

        return replace(
            self,
            times=self.times[index],
            values=self.values[index],
            noise=cut(self.noise),
            inputs=cut(self.inputs),
            start=cut(self.start),
        )
