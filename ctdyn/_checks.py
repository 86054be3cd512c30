"""The errors of the library, and the few words that every message needs.

Every message says what was given, what was expected and what to do about it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator

import numpy as np


__all__ = [
    "AdjointInstabilityWarning",
    "CheckpointWriteError",
    "DataError",
    "DataWarning",
    "MaxStepsError",
    "NonFiniteError",
    "SolveError",
    "StepSizeError",
    "UnknownIdError",
    "VersionError",
    "check_count",
    "check_hidden",
    "check_instance",
    "check_list",
    "check_whole",
    "few",
    "shown",
]


class DataError(ValueError):
    """The data cannot be used as they are; the message names the series, the column and the cure.

    Example:
        >>> issubclass(DataError, ValueError)
        True
    """


class DataWarning(UserWarning):
    """The data can be used, but something in them looks wrong; the message names it.

    Example:
        >>> issubclass(DataWarning, UserWarning)
        True
    """


class UnknownIdError(DataError):
    """An id that the data, or a model with one parameter per series, does not know.

    Example:
        >>> issubclass(UnknownIdError, DataError)
        True
    """


class VersionError(ValueError):
    """A saved run was written by another major version of the format.

    Example:
        >>> issubclass(VersionError, ValueError)
        True
    """


class CheckpointWriteError(OSError):
    """A run could not be written completely; whatever stood there before is untouched.

    Example:
        >>> issubclass(CheckpointWriteError, OSError)
        True
    """


class AdjointInstabilityWarning(UserWarning):
    """A gradient of a solve cannot be had in the way that was asked for, or cannot be trusted; the message says why.

    Example:
        >>> issubclass(AdjointInstabilityWarning, UserWarning)
        True
    """


class SolveError(RuntimeError):
    """A differential equation could not be solved; the message names the series and the remedies.

    Example:
        >>> issubclass(NonFiniteError, SolveError)
        True
    """


class NonFiniteError(SolveError):
    """A field or a state became NaN or infinite.

    Example:
        >>> issubclass(NonFiniteError, SolveError)
        True
    """


class StepSizeError(SolveError):
    """The step size fell below what the clock can resolve: the equation is stiff here, or its field is discontinuous.

    Example:
        >>> issubclass(StepSizeError, SolveError)
        True
    """


class MaxStepsError(SolveError):
    """The solve used up its steps before it reached the end.

    Example:
        >>> issubclass(MaxStepsError, SolveError)
        True
    """


def check_instance(name: str, given: object, kind: type, such: str) -> None:
    """Refuse an argument of another class, or the class where an instance is meant.

    Args:
        name: what it is called.
        given: what was passed.
        kind: what it is to be an instance of.
        such: how one is written.

    Raises:
        TypeError: it is none.

    Example:
        >>> check_instance("dt", float, float, "0.1")
        Traceback (most recent call last):
        TypeError: dt must be an instance of float, such as 0.1; got the class float: call it.
    """
    if not isinstance(given, kind):
        raise TypeError(f"{name} must be an instance of {kind.__name__}, such as {such}; got {shown(given)}.")


def check_list(name: str, given: object, kind: type, such: str) -> None:
    """Refuse an argument that is no list of instances of a class.

    Args:
        name: what it is called.
        given: what was passed.
        kind: what each entry is to be an instance of.
        such: how a list of them is written.

    Raises:
        TypeError: it is none.

    Example:
        >>> check_list("dts", 0.5, float, "[0.5]")
        Traceback (most recent call last):
        TypeError: dts must be a list of float, such as [0.5]; got 0.5.
    """
    # What can be gone through only once would be empty after a look at it.
    if not isinstance(given, Iterable) or isinstance(given, Iterator):
        raise TypeError(f"{name} must be a list of {kind.__name__}, such as {such}; got {shown(given)}.")
    for number, one in enumerate(given):
        check_instance(f"{name}[{number}]", one, kind, such.removeprefix("[").removesuffix("]"))


def check_hidden(given: object) -> None:
    """Refuse what is no sequence of sizes of hidden layers, such as the size of the only one.

    Args:
        given: what was passed.

    Raises:
        TypeError: it is none, or a size is no whole number.
        ValueError: a size is below 1.

    Example:
        >>> check_hidden(64)
        Traceback (most recent call last):
        TypeError: hidden layers are given as a sequence of their sizes, (64,) for one and () for none; got 64.
    """
    # What can be gone through only once would be empty after a look at it.
    if isinstance(given, str | Iterator) or not isinstance(given, Iterable):
        raise TypeError(
            f"hidden layers are given as a sequence of their sizes, (64,) for one and () for none; got {shown(given)}."
        )
    for size in given:
        check_count(f"every hidden size of {given}", size)


def check_count(name: str, given: object) -> None:
    """Refuse what is no number of things, at least one.

    Args:
        name: what it is called.
        given: what was passed.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is less than 1.

    Example:
        >>> check_count("num_steps", 2.5)
        Traceback (most recent call last):
        TypeError: num_steps must be a whole number; got 2.5.
    """
    if check_whole(name, given) < 1:
        raise ValueError(f"{name} must be at least 1; got {given}.")


def check_whole(name: str, given: object) -> int:
    """Refuse what is no whole number.

    Args:
        name: what it is called.
        given: what was passed.

    Returns:
        What was passed.

    Raises:
        TypeError: it is none.

    Example:
        >>> check_whole("input_size", 0)
        0
    """
    try:
        number = None if isinstance(given, bool) else operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be a whole number; got {shown(given)}.")
    return number


def shown(given: object) -> str:
    """What was passed, for a message: a class is told from its instances.

    Args:
        given: what was passed.

    Example:
        >>> shown(int), shown(3), shown([3])
        ('the class int: call it', '3', 'a list')
    """
    if isinstance(given, type):
        return f"the class {given.__name__}: call it"
    # A module prints all that it is made of.
    return repr(given) if given is None or isinstance(given, str | int | float) else f"a {type(given).__name__}"


def few(items: Iterable[object], limit: int = 5) -> str:
    """The first items and how many more there are, for a message.

    Args:
        items: what to list.
        limit: how many to show.

    Example:
        >>> few(["a", "b", "c"], limit=2)
        "'a', 'b' and 1 more"
    """
    listed = list(items)
    # numpy's scalars would print as np.int64(3).
    shown = ", ".join(repr(item.item() if isinstance(item, np.number) else item) for item in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
