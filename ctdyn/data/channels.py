"""What is observed: the name, the unit and the kind of each channel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .._checks import DataError, few


__all__ = ["AMOUNTS", "CLASSES", "CONTINUOUS", "KINDS", "Channel", "check_unit", "unique_channels"]

KINDS = ("real", "positive", "nonnegative", "count", "binary", "categorical")

#: The kinds whose values fill an interval.
CONTINUOUS = ("real", "positive")

#: The kinds whose values are amounts of a unit, which a scaler may change.
AMOUNTS = (*CONTINUOUS, "nonnegative")

#: The kinds whose values are names, coded as 0, 1, 2 ...
CLASSES = ("binary", "categorical")


@dataclass(frozen=True)
class Channel:
    """One observed quantity. Models match channels by name, never by position.

    Args:
        name: the name of the channel, unique within a set.
        unit: the unit of its values, for tables and plots.
        kind: "real"; "positive" for values above 0; "nonnegative" for values above 0 among which are zeros that mean
            none at all, as of rain; "count" for 0, 1, 2 ...; "binary" for 0 or 1; "categorical" for
            classes coded as 0, 1, 2 ... It is a fact about the data; models choose the likelihood.

    Raises:
        DataError: the name is empty or the kind is unknown.

    Example:
        >>> Channel("heart rate", unit="1/min")
        Channel(name='heart rate', unit='1/min', kind='real')
    """

    name: str
    unit: str | None = None
    kind: str = "real"

    @property
    def continuous(self) -> bool:
        """Whether the values fill an interval, so that forecast intervals can be judged by what they cover."""
        return self.kind in CONTINUOUS

    def __post_init__(self) -> None:
        if not self.name:
            raise DataError("a channel needs a name; got ''.")
        if self.kind not in KINDS:
            raise DataError(f"channel {self.name!r} has kind {self.kind!r}; the kinds are {KINDS}.")


def check_unit(given: Channel, wanted: Channel, what: str = "") -> None:
    """Refuse a channel whose values are in another unit than wanted, if both units are known.

    Args:
        given: a channel of the data.
        wanted: the one of that name that was expected.
        what: what the data are, for the message.

    Raises:
        DataError: the units differ.

    Example:
        >>> check_unit(Channel("CO2", unit="ppm"), Channel("CO2"))
    """
    if given.unit is not None and wanted.unit is not None and given.unit != wanted.unit:
        of = f" of the {what}" if what else ""
        raise DataError(
            f"channel {given.name!r}{of} is in {given.unit}, but {wanted.unit} was expected; convert the column first."
        )


def unique_channels(channels: Iterable[Channel | str]) -> tuple[Channel, ...]:
    """The channels as a tuple; a bare name stands for a real channel without a unit.

    Raises:
        DataError: a name occurs twice, or there is no channel.

    Example:
        >>> [channel.name for channel in unique_channels(["hr", Channel("bp", unit="mmHg")])]
        ['hr', 'bp']
    """
    found = tuple(channel if isinstance(channel, Channel) else Channel(str(channel)) for channel in channels)
    names = [channel.name for channel in found]
    if not names:
        raise DataError("there is no channel; name at least one column of values.")
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise DataError(f"channel names must be unique; {few(repeated)} occurs more than once.")
    return found
