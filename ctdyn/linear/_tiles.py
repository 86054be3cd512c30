"""A sum over a long series, tile by tile, with the memory of one tile in both directions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


__all__ = ["differentiable_tensors", "sum_over_tiles"]

#: From where to where, and mean and covariance before; gives nats, and mean and covariance at the end.
Tile = Callable[[int, int, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def differentiable_tensors(module: nn.Module) -> list[Tensor]:
    """The parameters of a module and the tensors that it was given with a graph behind them."""
    given = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    return [x for x in (*module.parameters(), *given) if x.requires_grad]


def sum_over_tiles(run: Tile, ends: list[int], m: Tensor, P: Tensor, tensors: list[Tensor]) -> Tensor:
    """The sum of what the tiles give. The backward pass runs each again, from the last to the first.

    `torch.utils.checkpoint` would do, but the graph that it keeps of every tile leaves holes in the memory that add up
    to the length of the series.

    Args:
        run: one tile.
        ends: where the tiles begin and end, one more than there are tiles.
        m: mean before the first tile.
        P: covariance before the first tile.
        tensors: everything else that a gradient must reach.
    """
    total = _Tiles.apply(run, ends, m, P, *tensors)
    assert isinstance(total, Tensor)
    return total


class _Tiles(Function):
    @staticmethod
    def forward(ctx: Any, run: Tile, ends: list[int], *tensors: Tensor) -> Tensor:
        m, P = tensors[:2]
        entering, total = [], None
        for start, end in pairwise(ends):
            entering += [m, P]
            nats, m, P = run(start, end, m, P)
            total = nats if total is None else total + nats
            # Views would hold on to the states of the whole tile.
            m, P = m.clone(), P.clone()
        assert total is not None
        ctx.run, ctx.ends = run, ends
        ctx.save_for_backward(*entering, *tensors[2:])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        saved, ends = ctx.saved_tensors, ctx.ends
        count = len(ends) - 1
        entering, tensors = saved[: 2 * count], list(saved[2 * count :])
        sums: list[Tensor | None] = [None] * len(tensors)
        to_m = to_P = None
        for tile in range(count - 1, -1, -1):
            with torch.enable_grad():
                m, P = (x.detach().requires_grad_() for x in entering[2 * tile : 2 * tile + 2])
                nats, m1, P1 = ctx.run(ends[tile], ends[tile + 1], m, P)
            outputs, seeds = [nats], [gradients[0]]
            for output, seed in ((m1, to_m), (P1, to_P)):
                if seed is not None:
                    outputs.append(output)
                    seeds.append(seed)
            to_m, to_P, *found = torch.autograd.grad(outputs, [m, P, *tensors], seeds, allow_unused=True)
            sums = [
                new if old is None else old if new is None else old + new for old, new in zip(sums, found, strict=True)
            ]
        return None, None, to_m, to_P, *sums
