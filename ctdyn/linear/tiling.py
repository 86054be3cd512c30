"""A long series in tiles of times, so that what is between its inputs and its outputs never exists at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


__all__ = ["over_tiles"]


def over_tiles(
    body: Callable[..., tuple[Tensor, Tensor]],
    h0: Tensor,
    series: tuple[Tensor, ...],
    tile: int,
    *,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Run a recurrent computation tile by tile and make each tile again in the backward pass.

    For layers that widen their inputs, scan and read out: only the state at the ends of the tiles is kept, and the
    memory is that of one tile beside the inputs and outputs.

    .. math:: (y_i, h_i) = \mathrm{body}(h_{i-1}, x_i), \qquad i = 1 \dots \lceil L / \mathrm{tile} \rceil

    Args:
        body: takes the state before a tile and the parts of the series, returns outputs `(*batch, time, channel)` and
            the state after it. It runs twice and must do the same both times.
        h0: the state before the first tile; with `reverse`, after the last.
        series: tensors that are cut along time, their second axis from the end.
        tile: times per tile.
        reverse: from the last tile to the first.

    Returns:
        Outputs, `(*batch, time, channel)`, and the last state.

    Raises:
        ValueError: `tile` is not positive, there is no series, or lengths differ.

    Reference:
        Tianqi Chen, Bing Xu, Chiyuan Zhang, Carlos Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016,
        https://arxiv.org/abs/1604.06174

    Example:
        >>> from ctdyn.linear import linear_recurrence
        >>> def body(h, x):
        ...     states = linear_recurrence(torch.tensor([0.5]), x, h)
        ...     return states.square(), states[..., -1, :]
        >>> ys, last = over_tiles(body, torch.zeros(1), (torch.ones(5, 1),), tile=2)
        >>> ys.flatten(), last
        (tensor([1.0000, 2.2500, 3.0625, 3.5156, 3.7539]), tensor([1.9375]))
    """
    if tile < 1:
        raise ValueError(f"tile must be a positive number of times; got {tile}.")
    lengths = {x.shape[-2] for x in series}
    if len(lengths) != 1:
        raise ValueError(f"series must have one length along (*batch, time, channel); got {sorted(lengths)}.")
    # One split per series: the gradient of a slice would be as long as the series, once per tile.
    parts = list(zip(*(x.split(tile, -2) for x in series), strict=True))
    outputs, h = [], h0
    for part in reversed(parts) if reverse else parts:
        if torch.is_grad_enabled():
            y, h = checkpoint(body, h, *part, use_reentrant=False)
        else:
            y, h = body(h, *part)
        outputs.append(y)
        # As a view it would hold on to the states of the whole tile.
        h = h.clone()
    return torch.cat(outputs[::-1] if reverse else outputs, -2), h
