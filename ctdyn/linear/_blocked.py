"""Scans in plain torch: time tiles that fit into the cache, and inside a tile many chunks at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._tiled import TiledScan


__all__ = ["BlockedScan"]

# Elements of a call below which its dispatch costs more than its work, and at which a plain loop over times does as
# well as chunks; elements of a tile that stays in a cache, for loops and for chunks; times per chunk.
_CALL, _LOOP = 1 << 15, 1 << 10
_LOOP_TILE, _TILE = 1 << 16, 1 << 18
_SPAN = 8


@dataclass(frozen=True)
class BlockedScan(TiledScan):
    r"""Scans in plain torch on any device and in any dtype: the reference, and the default where nothing is compiled.

    A tile of times is cut into chunks. All chunks advance together, one step per call, to find what each makes of a
    zero state and by what it multiplies its first state; a scan over the chunks links them, and a second pass fills in
    the states. Where rows and states are many, a plain loop over the times has full calls already and is used instead.

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
            return rows, self.tile or max(_LOOP_TILE // (rows * states), 64)
        span = min(max(_TILE // states, 64), length)
        return max(_TILE // (span * states), 1), self.tile or span

    def _fill(self, a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, reverse: bool) -> None:
        _scan(a, b, h0, out, reverse)


def _scan(a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, reverse: bool) -> None:
    """Fill `out`, which may be `b` itself."""
    rows, length, states = b.shape
    if rows * states >= _LOOP or length < 4 * _SPAN:
        return _loop(a, b, h0, out, reverse)
    # An odd span, because strides of a power of two meet in few sets of a cache; the one below, which such a length
    # divides almost without a rest.
    span = (max(length * rows * states // _CALL, _SPAN) - 1) | 1
    chunks = length // span
    # The steps that do not fill a chunk come last in the direction of the scan.
    rest = length - chunks * span
    bulk = slice(rest, None) if reverse else slice(None, length - rest)
    shape = (chunks, span)
    varies = a.shape[1] > 1
    chunked = a[:, bulk].unflatten(1, shape) if varies else a[:, None]
    _chunks(chunked, b[:, bulk].unflatten(1, shape), h0, out[:, bulk].unflatten(1, shape), reverse)
    if rest:
        tail, before = (slice(None, rest), rest) if reverse else (slice(length - rest, None), length - rest - 1)
        _loop(a[:, tail] if varies else a, b[:, tail], out[:, before], out[:, tail], reverse)
    return None


def _chunks(a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, reverse: bool) -> None:
    """The two passes over `(row, chunk, step, state)`."""
    factors, inputs, results = _steps(a, b.shape[2], 2, reverse), _steps(b, 0, 2, reverse), _steps(out, 0, 2, reverse)
    ends, product = torch.addcmul(inputs[1], factors[1], inputs[0]), factors[0] * factors[1]
    for factor, x in zip(factors[2:], inputs[2:], strict=True):
        torch.addcmul(x, factor, ends, out=ends)
        product *= factor
    entries = torch.empty_like(ends)
    _scan(product, ends, h0, ends, reverse)
    shifted, kept = (entries[:, :-1], ends[:, 1:]) if reverse else (entries[:, 1:], ends[:, :-1])
    shifted.copy_(kept)
    edge = entries[:, -1 if reverse else 0]
    edge.zero_() if h0 is None else edge.copy_(h0)
    before = entries
    for factor, x, result in zip(factors, inputs, results, strict=True):
        before = torch.addcmul(x, factor, before, out=result)


def _loop(a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, reverse: bool) -> None:
    factors, inputs, results = _steps(a, b.shape[1], 1, reverse), _steps(b, 0, 1, reverse), _steps(out, 0, 1, reverse)
    before = results[0].copy_(inputs[0]) if h0 is None else torch.addcmul(inputs[0], factors[0], h0, out=results[0])
    for factor, x, result in zip(factors[1:], inputs[1:], results[1:], strict=True):
        before = torch.addcmul(x, factor, before, out=result)


def _steps(x: Tensor, times: int, dim: int, reverse: bool) -> list[Tensor]:
    """The slices along `dim` in the order of the scan; one that serves for all is repeated."""
    steps = list(x.unbind(dim))
    if len(steps) == 1 and times > 1:
        return steps * times
    return steps[::-1] if reverse else steps
