"""What is looked at before any model answers: the one place for questions that none of them can answer."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .._types import Times
from ..data import IrregularBatch, Window
from ..data.channels import Channel
from ..nn import all_finite


__all__ = ["check_question", "checks_questions"]

#: The methods with which a model is asked.
_ASKED = ("predict", "predict_means", "sample", "log_prob", "loss", "encode", "encode_context", "predict_label")


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
        context, window = given.get("context"), given.get("window")
        parts = (window.context, window.target) if isinstance(window, Window) else (context,)
        _check_channels(args[0].channels, *(part for part in parts if isinstance(part, IrregularBatch)))
        check_question(context, given.get("ts"), given.get("start"), given.get("num_samples", 1))
        return method(*args, **kwargs)

    return checked


def _check_channels(channels: Sequence[Channel], *batches: IrregularBatch) -> None:
    """Refuse batches of another number of channels than a model was built for."""
    for given in (batch.values.shape[-1] for batch in batches):
        if given != len(channels):
            raise ValueError(
                f"the model was built for {len(channels)} channels {[channel.name for channel in channels]}; the batch "
                f"has {given}."
            )


def check_question(context: IrregularBatch | None, ts: Times | None, start: Times | None, num_samples: int) -> None:
    """Refuse times that are none, or not those of the series of the context, and no samples.

    Args:
        context: what is conditioned on; None where there is nothing.
        ts: what is asked for.
        start: where the interval of each time begins; None where instants are meant.
        num_samples: how many samples.

    Raises:
        ValueError: the batch axes differ, a time is not finite, an interval ends before it begins, there is no sample,
            or no time at which a new series could start.
    """
    if not num_samples >= 1:
        raise ValueError(f"num_samples must be at least 1; got {num_samples}.")
    if not isinstance(ts, Tensor):
        return
    if not all_finite(ts):
        raise ValueError("ts holds NaN or infinite entries; every time must be finite.")
    if not isinstance(context, IrregularBatch):
        if not ts.dim() or not ts.shape[-1]:
            raise ValueError(
                f"ts must be (*batch, time) with at least one time, where each series starts; got {tuple(ts.shape)}."
            )
        return
    batch = context.batch_shape
    if ts.shape[:-1] != batch or not ts.dim():
        raise ValueError(
            f"ts must be (*batch, time) with the batch axes {tuple(batch)} of the context; got {tuple(ts.shape)}. "
            f"The same times for all series are ts.expand({', '.join(map(str, batch))}{', ' if batch else ''}-1)."
        )
    if isinstance(start, Tensor) and (start.shape != ts.shape or not bool((start <= ts).all())):
        raise ValueError(
            f"start must have the shape of ts {tuple(ts.shape)}, and lie nowhere after it, nor be NaN; got "
            f"{tuple(start.shape)}. That of an observation at one instant is its time."
        )
