"""Filling missing values, all series and channels at once: what a path needs before it can pass through them."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import Mask, Values


__all__ = ["fill_forward", "fill_linear", "neighbours", "observed"]


def fill_linear(ts: Tensor, xs: Tensor, mask: Tensor | None = None) -> Values:
    r"""Fill missing values by a straight line in time between the neighbours of the same channel.

    Before the first value of a channel and after its last, the nearest one is kept; a channel that was never observed
    is 0 throughout. `LinearPath(ts, fill_linear(ts, xs))` is then the linear interpolant of what was observed, channel
    by channel. A filled value knows the later neighbour: use `fill_forward` where nothing may look ahead.

    Args:
        ts: times, non-decreasing, `(*batch, time)`; trailing repeats of the last time are padding.
        xs: values, `(*batch, time, channel)`; anything, NaN too, where they are missing.
        mask: where there is a value; None: wherever `xs` is not NaN.

    Returns:
        The filled values, `(*batch, time, channel)`, with gradients to `ts` and to the observed `xs`.

    Raises:
        ValueError: the shapes disagree, or an observed value is not finite.

    Example:
        >>> xs = torch.tensor([[[1.0], [torch.nan], [4.0], [torch.nan]]])
        >>> fill_linear(torch.tensor([[0.0, 1.0, 3.0, 4.0]]), xs).flatten().tolist()
        [1.0, 2.0, 4.0, 4.0]
    """
    mask = observed(ts, xs, mask)
    left, right = neighbours(mask)
    # The junk of a missing entry must not reach a gradient through a product with zero.
    xs = torch.where(mask, xs, 0.0)
    clock = ts.unsqueeze(-1).expand(xs.shape)
    before, after = clock.gather(-2, left), clock.gather(-2, right)
    start, end = xs.gather(-2, left), xs.gather(-2, right)
    gap = after - before
    weight = torch.where(gap > 0, (clock - before) / torch.where(gap > 0, gap, 1.0), 0.0).clamp(0.0, 1.0)
    filled = start + weight.to(xs.dtype) * (end - start)
    return torch.where(mask, xs, filled)


def fill_forward(xs: Tensor, mask: Tensor | None = None, *, before: float | None = 0.0) -> Values:
    r"""Fill missing values with the last one of the same channel: what is known without looking ahead.

    Args:
        xs: values, `(*batch, time, channel)`; anything, NaN too, where they are missing.
        mask: where there is a value; None: wherever `xs` is not NaN.
        before: what a channel is before its first value; None to take that first value back to the beginning, which
            looks ahead. A channel that was never observed is 0 then.

    Returns:
        The filled values, `(*batch, time, channel)`.

    Raises:
        ValueError: the shapes disagree, or an observed value is not finite.

    Example:
        >>> xs = torch.tensor([[[torch.nan], [1.0], [torch.nan], [4.0]]])
        >>> fill_forward(xs).flatten().tolist()
        [0.0, 1.0, 1.0, 4.0]
    """
    mask = _present(xs, mask)
    last = _last(mask)
    index = last.clamp(min=0) if before is not None else torch.where(last < 0, _next(mask), last)
    xs = torch.where(mask, xs, 0.0)
    filled = xs.gather(-2, index)
    return filled if before is None else torch.where(last < 0, before, filled)


def observed(ts: Tensor, xs: Tensor, mask: Tensor | None) -> Mask:
    """Where there is a value that counts: padding does not, `(*batch, time, channel)`.

    Args:
        ts: times, non-decreasing, `(*batch, time)`.
        xs: values, `(*batch, time, channel)`.
        mask: where there is a value; None: wherever `xs` is not NaN.

    Raises:
        ValueError: the shapes disagree, or an observed value is not finite.

    Example:
        >>> observed(torch.tensor([0.0, 1.0, 1.0]), torch.zeros(3, 1), None).flatten().tolist()
        [True, True, False]
    """
    if xs.dim() < 2 or xs.shape[:-1] != ts.shape:
        raise ValueError(
            f"values xs must be (*batch, time, channel) on times ts (*batch, time); got xs {tuple(xs.shape)} and ts "
            f"{tuple(ts.shape)}."
        )
    present = _present(xs, mask)
    repeats = torch.zeros_like(ts, dtype=torch.bool)
    repeats[..., 1:] = ts[..., 1:] == ts[..., -1:]
    repeats[..., 1:] &= ts[..., :-1] == ts[..., -1:]
    return present & ~repeats.unsqueeze(-1)


def neighbours(mask: Mask) -> tuple[Tensor, Tensor]:
    """The nearest observed entries at or before, and at or after, each entry; beyond the ends the nearest on this side.

    Args:
        mask: where there is a value, `(*batch, time, channel)`.

    Returns:
        Two tensors of positions along the time axis, of the shape of `mask`.

    Example:
        >>> left, right = neighbours(torch.tensor([[False], [True], [False]]))
        >>> left.flatten().tolist(), right.flatten().tolist()
        ([1, 1, 1], [1, 1, 1])
    """
    last, following = _last(mask), _next(mask)
    left = torch.where(last < 0, following, last)
    right = torch.where(mask.flip(-2).cummax(-2).values.flip(-2), following, left)
    return left, right


def _last(mask: Tensor) -> Tensor:
    """The position of the last value at or before each entry; -1 where there is none."""
    place = torch.arange(mask.shape[-2], device=mask.device).unsqueeze(-1)
    return torch.where(mask, place, -1).cummax(-2).values


def _next(mask: Tensor) -> Tensor:
    """The position of the first value at or after each entry; the last position where there is none."""
    size = mask.shape[-2]
    place = torch.arange(size, device=mask.device).unsqueeze(-1)
    return torch.where(mask, place, size - 1).flip(-2).cummin(-2).values.flip(-2)


def _present(xs: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        mask = ~torch.isnan(xs)
    elif mask.shape != xs.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be boolean, of the shape of xs, {tuple(xs.shape)}; got {mask.dtype} of {tuple(mask.shape)}."
        )
    wrong = mask & ~torch.isfinite(xs)
    if bool(wrong.any()):
        index = tuple(torch.nonzero(wrong)[0].tolist())
        raise ValueError(f"xs is {float(xs[index].detach())} at index {index}, where the mask says there is a value.")
    return mask
