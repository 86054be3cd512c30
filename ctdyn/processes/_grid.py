"""The grid that a solver walks for queries in any order."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import Time, Times


__all__ = ["own_grid"]


def own_grid(t0: Time, ts: Times) -> tuple[Tensor, Tensor]:
    """The distinct times of each series from `t0` on, and where each query finds itself among them.

    A solver wants strictly increasing times with nothing but repeats of the last one behind them; queries come in any
    order, repeat, and may lie before `t0` (these find themselves at `t0`).
    """
    with torch.no_grad():
        start = t0.unsqueeze(-1)
        ordered = torch.cat([start, torch.maximum(ts, start)], -1).sort(-1).values
        repeated = torch.zeros_like(ordered, dtype=torch.bool)
        repeated[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
        last = ordered[..., -1:]
        # Repeats are sent behind the last time, which is what padding looks like.
        grid = torch.where(repeated, last, ordered).sort(-1).values
        width = int((~repeated).sum(-1).max()) if repeated.numel() else 1
        grid = grid[..., :width].contiguous()
        return grid, torch.searchsorted(grid, torch.maximum(ts, start).contiguous())
