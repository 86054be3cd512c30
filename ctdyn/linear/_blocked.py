"""Scans in plain torch: time tiles that fit into the cache, and inside a tile many chunks at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ._recycling import empty_like
from ._tiled import Room, TiledScan, cut


__all__ = ["BlockedScan"]

# States per step from which a plain loop over the times does as well as chunks on a CPU; elements of a tile that stays
# in a cache, for loops and for chunks; times per chunk, about: one that leaves few over is taken.
_LOOP, _LONG = 1 << 8, 1 << 7
_LOOP_TILE, _TILE = 1 << 17, 1 << 18
_SPANS = range(24, 41)
# Bytes of a run of states that is long enough to be copied as it is.
_RUN = 1 << 10


@dataclass(frozen=True)
class BlockedScan(TiledScan):
    r"""Scans in plain torch on any device and in any dtype: the reference, and the default where nothing is compiled.

    A tile of times is copied to where the states of a step lie together, and the recurrence runs through the copy in
    place, all steps in one call. Where rows and states are few, the times are cut into chunks, which advance together
    from a zero state while the factors of each are multiplied up; a scan over the chunks gives what each began with,
    and one call adds what came of that. (Where the product of some forty factors overflows, a CPU goes step by step.)

    Args:
        tile: times per tile, whose temporaries are all that a scan needs beside its result; None: what fits in a cache.

    Raises:
        ValueError: `tile` is not positive.

    Reference:
        Guy E. Blelloch, "Prefix Sums and Their Applications", 1990,
        https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf

    Example:
        >>> a, b = torch.full((1, 5, 1), 0.5), torch.ones(1, 5, 1)
        >>> BlockedScan(tile=2).recurrence(a, b, None, reverse=False).flatten()
        tensor([1.0000, 1.5000, 1.7500, 1.8750, 1.9375])
    """

    tile: int | None = None

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise ValueError(f"tile must be a positive number of times; got {self.tile}.")

    def _sizes(self, rows: int, length: int, states: int) -> tuple[int, int]:
        if rows * states >= _LOOP:
            return rows, self.tile or max(_LOOP_TILE // (rows * states), 16)
        span = min(max(_TILE // states, 64), length)
        return max(_TILE // (span * states), 1), self.tile or span

    def _fill(self, a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, reverse: bool, room: Room) -> None:
        rows, length, states = b.shape
        if (b.is_cpu and rows * states >= _LOOP) or length < _LONG:
            span = length
        else:
            span = min(_SPANS, key=lambda times: length % times)
        # The steps that do not fill a chunk come last in the direction of the scan.
        rest = length % span
        bulk = slice(rest, None) if reverse else slice(length - rest)
        self._fill_chunks(cut(a, bulk), b[:, bulk], h0, out[:, bulk], span, reverse, room)
        if rest:
            tail, before = (slice(rest), rest) if reverse else (slice(length - rest, None), length - rest - 1)
            self._fill_chunks(cut(a, tail), b[:, tail], out[:, before], out[:, tail], rest, reverse, room)

    def _fill_chunks(
        self, a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, span: int, reverse: bool, room: Room
    ) -> None:
        """The same for chunks of `span` steps."""
        # One set of copies serves all tiles, but not a tile and the scan over its chunks.
        chunks = b.shape[1] // span
        varying = a if a.shape[1] > 1 else a.expand(-1, span, -1)
        products, factors = _gather(varying, span, reverse, room.setdefault(("a", chunks), {}))
        h, states = _gather(b, span, reverse, room.setdefault(("b", chunks), {}))
        if chunks == 1 and h0 is not None:
            states[0].addcmul_(factors[0], h0)
        _in_order(torch._foreach_addcmul_, Tensor.addcmul_, states[1:], factors[1:], states[:-1])  # pyright: ignore[reportPrivateImportUsage]
        if chunks > 1:
            _in_order(torch._foreach_mul_, Tensor.mul_, factors[1:], factors[:-1])  # pyright: ignore[reportPrivateImportUsage]
            if h.is_cpu and not bool(torch.isfinite(factors[-1]).all()):
                # Products that overflow make NaN of a zero state, which factors one by one leave alone.
                return self._fill_chunks(a, b, h0, out, b.shape[1], reverse, room)
            ends = states[-1].transpose(0, 1)
            self._fill(factors[-1].transpose(0, 1), ends, h0, ends, reverse, room)
            # What each chunk began with is missing in all of its states but the last, which the scan has mended.
            inner = slice(1, None) if reverse else slice(-1)
            first, later, sooner = (-1, slice(-1), slice(1, None)) if reverse else (0, slice(1, None), slice(-1))
            h[inner, later].addcmul_(cut(products[inner], later), states[-1][sooner])
            if h0 is not None:
                h[inner, first].addcmul_(products[inner, first], h0)
        _steps_first(out, span).copy_(h)
        return None


def _steps_first(x: Tensor, span: int) -> Tensor:
    """The view `(step, chunk, row, state)`."""
    return x.unflatten(1, (-1, span)).permute(2, 1, 0, 3)


def _gather(x: Tensor, span: int, reverse: bool, room: Room) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A copy in which the states of a step lie together, and its steps in the order of the scan."""
    x = _steps_first(x, span)
    if x.shape not in room:
        length, chunks, rows, states = x.shape
        if chunks == 1 and states * x.element_size() >= _RUN:
            # Long runs are copied best in the order that they have. One step too many keeps those of several rows from
            # meeting in the same few sets of a cache.
            copy = empty_like(x, (rows, length + 1, 1, states))[:, :length].permute(1, 2, 0, 3)
        else:
            copy = empty_like(x)
        steps = copy.unbind(0)
        room[x.shape] = copy, steps[::-1] if reverse else steps
    room[x.shape][0].copy_(x)
    return room[x.shape]  # type: ignore[no-any-return]


def _in_order(together: Callable[..., object], each: Callable[..., object], *lists: Sequence[Tensor]) -> None:
    """An operation on one item of the lists after the other, where the next may need what the last has written."""
    if lists[0] and lists[0][0].is_cpu and _lists_run_in_order():
        together(*lists)
    else:
        for items in zip(*lists, strict=True):
            each(*items)


@cache
def _lists_run_in_order() -> bool:
    """Whether operations on lists take one item after the other on a CPU: they do, but nothing promises it."""
    x = torch.full((64, 64), 2.0, dtype=torch.float64)
    steps = x.unbind(0)
    torch._foreach_mul_(steps[1:], steps[:-1])  # pyright: ignore[reportPrivateImportUsage]
    return bool((x[:, 0] == 2.0 ** torch.arange(1, 65, dtype=torch.float64)).all())
