"""What is looked at before any model answers: the one place for questions that none of them can answer."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Generator, Tensor, nn

from .._checks import check_count, check_instance
from ..data import IrregularBatch, Window
from ..data.channels import Channel
from ..nn import all_finite


__all__ = ["checks_questions"]

#: The methods with which a model is asked.
_ASKED = ("predict", "predict_means", "sample", "log_prob", "loss", "encode", "encode_context", "predict_label")
#: What their arguments are, and how one is written.
_KINDS = {
    "window": (Window, "Window(context, target)"),
    "context": (IrregularBatch, "IrregularBatch(times, values, mask)"),
    "ts": (Tensor, "torch.tensor([[0.5, 1.0]])"),
    "start": (Tensor, "ts - 0.1"),
    "noise": (Tensor, "torch.full_like(values, 0.1)"),
    "generator": (Generator, "torch.Generator().manual_seed(0)"),
}


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
        for name, value in given.items():
            if name in _KINDS and value is not signature.parameters[name].default:
                check_instance(name, value, *_KINDS[name])
        _check(args[0].channels, given)
        _check_precision(args[0], given)
        return method(*args, **kwargs)

    return checked


def _batches(given: Mapping[str, Any]) -> list[IrregularBatch]:
    """What is read of the arguments."""
    window = given.get("window")
    parts = [given.get("context")] if window is None else [window.context, window.target]
    return [part for part in parts if part is not None]


def _check_precision(model: nn.Module, given: Mapping[str, Any]) -> None:
    """Refuse values of another precision than the weights that they meet."""
    # Weights that are not trained belong to models in closed form, which see to it themselves.
    weights = {p.dtype for p in model.parameters() if p.requires_grad and p.is_floating_point()}
    for values in (part.values for part in _batches(given)):
        if weights and values.dtype not in weights:
            found = ", ".join(map(str, weights))
            raise ValueError(
                f"the weights of the model are {found} and the values of the batch {values.dtype}; give it "
                f"batch.to({found}), or change the model by model.to({values.dtype})."
            )


def _check(channels: Sequence[Channel], given: Mapping[str, Any]) -> None:
    """Refuse, by the names of the arguments, what does not fit the channels of a model, or each other."""
    context, ts = given.get("context"), given.get("ts")
    for part in _batches(given):
        if part.values.shape[-1] != len(channels):
            raise ValueError(
                f"the model was built for {len(channels)} channels {[channel.name for channel in channels]}; the batch "
                f"has {part.values.shape[-1]}."
            )
    check_count("num_samples", given.get("num_samples", 1))
    if ts is None:
        return
    if not all_finite(ts):
        raise ValueError("ts holds NaN or infinite entries; every time must be finite.")
    if context is None:
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
    start, noise, shape = given.get("start"), given.get("noise"), (*ts.shape, len(channels))
    if start is not None and (start.shape != ts.shape or not bool((start <= ts).all())):
        raise ValueError(
            f"start must have the shape of ts {tuple(ts.shape)}, and lie nowhere after it, nor be NaN; got "
            f"{tuple(start.shape)}. That of an observation at one instant is its time."
        )
    if noise is not None and (noise.shape != shape or not bool((noise >= 0).all())):
        raise ValueError(
            f"noise must be (*batch, time, channel) as what is asked for, {shape}, and nowhere negative or NaN; got "
            f"{tuple(noise.shape)}. Where no standard error is known it is 0."
        )
