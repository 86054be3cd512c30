"""What is looked at before any model answers: the one place for questions that none of them can answer."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._types import Times
from ..data import IrregularBatch


__all__ = ["check_question", "checks_questions"]

#: The methods with which a model is asked.
_ASKED = ("predict", "predict_means", "sample", "log_prob")


def checks_questions(cls: type) -> None:
    """Have what a class defines of the methods with which models are asked look at its arguments first.

    Args:
        cls: a model.
    """
    for name in _ASKED:
        method = cls.__dict__.get(name)
        if inspect.isfunction(method):
            setattr(cls, name, _checked(method))


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments
        check_question(given.get("context"), given.get("ts"), given.get("num_samples", 1))
        return method(*args, **kwargs)

    return checked


def check_question(context: IrregularBatch | None, ts: Times | None, num_samples: int) -> None:
    """Refuse times that are not those of the series of the context, and no samples.

    Args:
        context: what is conditioned on; None where there is nothing.
        ts: what is asked for.
        num_samples: how many samples.

    Raises:
        ValueError: the batch axes differ, or there is no sample.
    """
    if not num_samples >= 1:
        raise ValueError(f"num_samples must be at least 1; got {num_samples}.")
    if not isinstance(context, IrregularBatch) or not isinstance(ts, Tensor):
        return
    batch = context.batch_shape
    if ts.shape[:-1] != batch or not ts.dim():
        raise ValueError(
            f"ts must be (*batch, time) with the batch axes {tuple(batch)} of the context; got {tuple(ts.shape)}. "
            f"The same times for all series are ts.expand({', '.join(map(str, batch))}{', ' if batch else ''}-1)."
        )
