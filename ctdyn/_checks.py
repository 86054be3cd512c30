"""The errors of the library, and the few words that every message needs.

Every message says what was given, what was expected and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    "few",
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
