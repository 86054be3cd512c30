"""The tensors that a model sees: a batch of irregular series, each on its own clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..nn import all_finite


__all__ = ["IrregularBatch", "Window"]


@dataclass(frozen=True)
class IrregularBatch:
    r"""A padded batch of irregularly sampled series. There is no common grid: `times` has one row per series.

    NaN never enters: an entry that was not observed holds 0 in `values` and False in `mask`. A series that is shorter
    than the longest is padded by repeating its last time, with an empty mask; padding changes no result.

    Args:
        times: observation times, non-decreasing along the last axis, `(*batch, time)`.
        values: observed values, `(*batch, time, channel)`.
        mask: True where a value was observed, `(*batch, time, channel)`.
        inputs: covariates known at `times`, the future included, `(*batch, time, input)`.
        static: covariates of the series, `(*batch, feature)`.
        noise: standard error of each observation, in the unit of the value, `(*batch, time, channel)`.
        start: where an aggregated observation (a mean, a sum) begins; default: at its time. `(*batch, time)`.
        labels: what a labelled series is to be mapped to, `(*batch, label)`.

    Raises:
        ValueError: the shapes disagree, the times decrease or are not finite, or an observed value is not finite.

    Example:
        >>> times = torch.tensor([[0.0, 0.4, 1.0]])
        >>> values = torch.tensor([[[1.0], [0.0], [3.0]]])
        >>> mask = torch.tensor([[[True], [False], [True]]])
        >>> IrregularBatch(times, values, mask).observed
        tensor([[ True, False,  True]])
    """

    times: Tensor
    values: Tensor
    mask: Tensor
    inputs: Tensor | None = None
    static: Tensor | None = None
    noise: Tensor | None = None
    start: Tensor | None = None
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        time_shape, value_shape = tuple(self.times.shape), tuple(self.values.shape)
        if value_shape[:-1] != time_shape:
            raise ValueError(
                f"values must be (*batch, time, channel) on times (*batch, time); got values {value_shape} and times "
                f"{time_shape}."
            )
        if self.mask.shape != self.values.shape or self.mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be boolean and have the shape of values {value_shape}; got shape "
                f"{tuple(self.mask.shape)}, dtype {self.mask.dtype}. Use mask=~values.isnan()."
            )
        if self.noise is not None and self.noise.shape != self.values.shape:
            raise ValueError(f"noise must have the shape of values {value_shape}; got {tuple(self.noise.shape)}.")
        if self.inputs is not None and tuple(self.inputs.shape[:-1]) != time_shape:
            raise ValueError(
                f"inputs must be (*batch, time, input) on times {time_shape}; got {tuple(self.inputs.shape)}."
            )
        if self.start is not None and self.start.shape != self.times.shape:
            raise ValueError(f"start must have the shape of times {time_shape}; got {tuple(self.start.shape)}.")
        if self.start is not None and not bool((self.start <= self.times).all()):
            raise ValueError(
                "start must not lie after its time, nor be NaN: an aggregated observation begins before it is made; "
                "that of an observation at one instant is its time."
            )
        for name in ("static", "labels"):
            value = getattr(self, name)
            if value is not None and tuple(value.shape[:-1]) != time_shape[:-1]:
                raise ValueError(
                    f"{name} must be (*batch, feature) with batch {time_shape[:-1]}; got {tuple(value.shape)}."
                )
        if not all_finite(self.times):
            raise ValueError("times hold NaN or infinite entries; pad a series by repeating its last time.")
        if bool((self.times.diff(dim=-1) < 0).any()):
            raise ValueError("times must not decrease along the last axis; sort the observations of each series.")
        if not all_finite(self.values):
            raise ValueError("values hold NaN or infinite entries; put 0 there and False into the mask.")

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes, one entry per series."""
        return self.times.shape[:-1]

    @property
    def observed(self) -> Tensor:
        """True at times where at least one channel was observed, `(*batch, time)`."""
        # On a CPU `any` takes seven times as long.
        return self.mask.sum(-1) > 0

    def to(self, *args: object, **kwargs: object) -> IrregularBatch:
        """The batch on another device or in another floating dtype (as `torch.Tensor.to`; the mask keeps its dtype)."""

        def move(value: Tensor) -> Tensor:
            if value.is_floating_point():
                return value.to(*args, **kwargs)  # pyright: ignore[reportCallIssue, reportArgumentType]
            device = torch._C._nn._parse_to(*args, **kwargs)[0]  # pyright: ignore[reportAttributeAccessIssue]
            return value if device is None else value.to(device)

        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value if value is None else move(value) for name, value in moved.items()})

    def __getitem__(self, index: object) -> IrregularBatch:
        """A part of the batch: the index goes to the first batch axis of every tensor."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value if value is None else value[index] for name, value in parts.items()})


@dataclass(frozen=True)
class Window:
    """What a model is shown and what it is asked: the target never reaches the encoder.

    Args:
        context: the observations that the model may condition on.
        target: the observations that the loss scores. Its batch axes are those of `context`.

    Raises:
        ValueError: the batch axes differ.

    Example:
        >>> def batch(*times: float) -> IrregularBatch:
        ...     ones = torch.ones(1, len(times), 1)
        ...     return IrregularBatch(torch.tensor([times]), ones, ones.bool())
        >>> Window(batch(0.0, 1.0), batch(2.0)).target.times
        tensor([[2.]])
    """

    context: IrregularBatch
    target: IrregularBatch

    def __post_init__(self) -> None:
        if self.context.batch_shape != self.target.batch_shape:
            raise ValueError(
                f"context and target must hold the same series; got batch shapes {tuple(self.context.batch_shape)} "
                f"and {tuple(self.target.batch_shape)}."
            )

    def to(self, *args: object, **kwargs: object) -> Window:
        """Both parts on another device or in another floating dtype (as `torch.Tensor.to`)."""
        return self.map(lambda part: part.to(*args, **kwargs))

    def map(self, change: Callable[[IrregularBatch], IrregularBatch]) -> Window:
        """Both parts changed; where they are one batch it is changed once, and they stay one."""
        context = change(self.context)
        return Window(context, context if self.target is self.context else change(self.target))
