"""The names of pandas' types for annotations; `import ctdyn` must not pay for pandas itself."""

from typing import TYPE_CHECKING


__all__ = ["DataFrame", "DatetimeIndex"]

if TYPE_CHECKING:
    from pandas import DataFrame, DatetimeIndex
else:
    DataFrame = DatetimeIndex = object
