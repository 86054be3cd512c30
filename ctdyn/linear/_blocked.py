"""Scans in plain torch: time tiles that fit into the cache, and inside a tile many chunks at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._backends import ScanBackend, Steps, ZohGradients
from ._coefficients import decay, held_gain, held_gain_slope
from ._recycling import empty_like


__all__ = ["BlockedScan"]

# Elements of a call below which its dispatch costs more than its work, and at which a plain loop over times does as
# well as chunks; elements of a tile that stays in a cache, for loops and for chunks; times per chunk.
_CALL, _LOOP = 1 << 13, 1 << 10
_LOOP_TILE, _TILE = 1 << 16, 1 << 17
_SPAN = 8


@dataclass(frozen=True)
class BlockedScan(ScanBackend):
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

    def recurrence(self, a: Tensor, b: Tensor, h0: Tensor | None, *, reverse: bool) -> Tensor:
        out = empty_like(b)
        for rows, tiles in self._tiles(b, reverse):
            factors, inputs, states, before = _row(a, rows), b[rows], out[rows], _row(h0, rows)
            for tile in tiles:
                _scan(_cut(factors, tile), inputs[:, tile], before, states[:, tile], reverse)
                before = states[:, tile][:, 0 if reverse else -1]
        return out

    def recurrence_gradients(
        self, a: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, reverse: bool, needs_a: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        to_b = empty_like(g)
        to_h0 = torch.zeros_like(g[:, 0], memory_format=torch.contiguous_format)
        whole = a.shape == h.shape
        to_a = None if not needs_a else empty_like(a) if whole else torch.zeros_like(a)
        for rows, tiles in self._tiles(h, not reverse):
            factors, cotangents, states, carry = _row(a, rows), g[rows], to_b[rows], to_h0[rows]
            for tile in tiles:
                part = states[:, tile]
                carry.copy_(_scan_back(_cut(factors, tile), cotangents[:, tile], carry, part, reverse))
                if to_a is not None:
                    change = to_a[rows, tile] if whole else torch.empty_like(part)
                    _conjugate_before(h[rows], _row(h0, rows), tile, reverse, change)
                    change *= part
                    if not whole:
                        _add_reduced(_cut(_row(to_a, rows), tile), change)
        return to_a, to_b, to_h0

    def zoh(self, steps: Steps, v: Tensor, h0: Tensor | None) -> Tensor:
        out = empty_like(v)
        for rows, tiles in self._tiles(v, steps.reverse):
            before = _row(h0, rows)
            for tile in tiles:
                lam, dt, _, kept = _coefficients(steps, rows, tile)
                states = out[rows, tile]
                x = v[rows, tile]
                if not steps.impulse:
                    x = torch.mul(held_gain(lam, dt), x, out=states)
                _scan(kept, x, before, states, steps.reverse)
                before = states[:, 0 if steps.reverse else -1]
        return out

    def zoh_gradients(
        self, steps: Steps, v: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, needs: tuple[bool, bool, bool]
    ) -> ZohGradients:
        needs_lam, needs_dt, needs_v = needs
        to_lam = torch.zeros_like(steps.lam) if needs_lam else None
        to_dt = torch.zeros_like(steps.dt, memory_format=torch.contiguous_format) if needs_dt else None
        to_v = empty_like(v) if needs_v else None
        to_h0 = torch.zeros_like(g[:, 0], memory_format=torch.contiguous_format)
        for rows, tiles in self._tiles(h, not steps.reverse):
            carry = to_h0[rows]
            for tile in tiles:
                lam, dt, full, kept = _coefficients(steps, rows, tile)
                x = v[rows, tile]
                states = torch.empty_like(x, memory_format=torch.contiguous_format)
                carry.copy_(_scan_back(kept, g[rows, tile], carry, states, steps.reverse))
                gain = None if steps.impulse else held_gain(lam, dt)
                if to_v is not None:
                    part = to_v[rows, tile]
                    part.copy_(states) if gain is None else torch.mul(states, torch.conj_physical(gain), out=part)
                if to_lam is None and to_dt is None:
                    continue
                before = torch.empty_like(states)
                _conjugate_before(h[rows], _row(h0, rows), tile, steps.reverse, before)
                flow = before.conj_physical_().mul_(kept)
                states.conj_physical_()
                if to_lam is not None:
                    change = flow * dt
                    if gain is not None:
                        change += held_gain_slope(lam, dt, full, gain) * x
                    _add_reduced(_row(to_lam, rows), (states * change).sum(1).conj_physical_())
                if to_dt is not None:
                    flow = flow.mul_(lam)
                    if gain is not None:
                        flow += full * x
                    _add_reduced(_cut(_row(to_dt, rows)[..., None], tile), _real(states * flow).sum(-1, keepdim=True))
        return to_lam, to_dt, to_v, to_h0

    def _tiles(self, x: Tensor, reverse: bool) -> Iterator[tuple[slice, list[slice]]]:
        """Groups of rows, and for each of them the tiles of times in the order of the scan."""
        rows, length, states = x.shape
        if rows * states >= _LOOP:
            group, span = rows, max(_LOOP_TILE // (rows * states), 64)
        else:
            span = min(max(_TILE // states, 64), length)
            group = max(_TILE // (span * states), 1)
        span = self.tile or span
        tiles = [slice(start, min(start + span, length)) for start in range(0, length, span)]
        for start in range(0, rows, group):
            yield slice(start, min(start + group, rows)), tiles[::-1] if reverse else tiles


def _coefficients(steps: Steps, rows: slice, tile: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eigenvalues `(row, 1, state)`, steps `(row, time, 1)`, and the decay without and with resets."""
    lam, dt = _row(steps.lam, rows)[:, None], _cut(_row(steps.dt, rows)[..., None], tile)
    full = kept = decay(lam, dt)
    if steps.reset is not None:
        kept = torch.where(_row(steps.reset, rows)[:, tile, None], 0.0, full)
    return lam, dt, full, kept


def _real(x: Tensor) -> Tensor:
    return x.real if x.is_complex() else x


def _row(x: Tensor | None, rows: slice) -> Any:
    return x if x is None or x.shape[0] == 1 else x[rows]


def _cut(x: Tensor, tile: slice) -> Tensor:
    return x if x.shape[1] == 1 else x[:, tile]


def _add_reduced(total: Tensor, part: Tensor) -> None:
    total += part.sum_to_size(total.shape)


def _conjugate_before(h: Tensor, h0: Tensor | None, tile: slice, reverse: bool, out: Tensor) -> None:
    """The conjugates of the states that the steps of a tile began with."""
    start, stop = tile.start, tile.stop
    if reverse:
        last = min(stop, h.shape[1] - 1)
        inner, source, edge = out[:, : last - start], h[:, start + 1 : last + 1], out[:, -1] if last < stop else None
    else:
        first = max(start, 1)
        inner, source, edge = out[:, first - start :], h[:, first - 1 : stop - 1], out[:, 0] if first > start else None
    torch.conj_physical(source, out=inner)
    if edge is not None:
        edge.zero_() if h0 is None else torch.conj_physical(h0, out=edge)


def _scan_back(a: Tensor, g: Tensor, carry: Tensor, out: Tensor, reverse: bool) -> Tensor:
    """The cotangents of the states of a tile; `carry` and the result: what the tile behind it hands on."""
    at, end = (0, -1) if reverse else (-1, 0)
    a = torch.conj_physical(a)
    first = torch.add(g[:, at], carry, out=out[:, at])
    if g.shape[1] > 1:
        ahead, here = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
        _scan(_cut(a, ahead), g[:, here], first, out[:, here], not reverse)
    return out[:, end] * a[:, end]


def _scan(a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, reverse: bool) -> None:
    """Fill `out`, which may be `b` itself."""
    rows, length, states = b.shape
    if rows * states >= _LOOP or length < 4 * _SPAN:
        return _loop(a, b, h0, out, reverse)
    # An odd span, because strides of a power of two meet in few sets of a cache.
    span = max(length * rows * states // _CALL, _SPAN) | 1
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
    ends, product = inputs[0].clone(memory_format=torch.contiguous_format), factors[0].clone()
    for factor, x in zip(factors[1:], inputs[1:], strict=True):
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
