"""Scans in plain torch: time tiles that fit into the cache, and inside a tile many chunks at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._backends import ScanBackend, Steps, ZohGradients
from ._coefficients import decay, held_gain, held_gain_slope


__all__ = ["BlockedScan"]

# Elements of a call below which its dispatch costs more than its work, and of a tile that stays in a cache.
_CALL = 1 << 13
_TILE = 1 << 17


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
        out = torch.empty_like(b, memory_format=torch.contiguous_format)
        for start, stop in self._tiles(b, reverse):
            _scan(_cut(a, start, stop), b[:, start:stop], h0, out[:, start:stop], reverse)
            h0 = out[:, start if reverse else stop - 1]
        return out

    def recurrence_gradients(
        self, a: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, reverse: bool, needs_a: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        to_b = torch.empty_like(g, memory_format=torch.contiguous_format)
        to_a = torch.zeros_like(a, memory_format=torch.contiguous_format) if needs_a else None
        whole = to_a is not None and to_a.shape == h.shape
        carry = torch.zeros_like(g[:, 0])
        for start, stop in self._tiles(h, not reverse):
            kept = torch.conj_physical(_cut(a, start, stop))
            states = to_b[:, start:stop]
            carry = _scan_back(kept, g[:, start:stop], carry, states, reverse)
            if to_a is not None:
                part = torch.empty_like(states) if not whole else to_a[:, start:stop]
                _before(h, h0, start, stop, reverse, part)
                torch.mul(states, part.conj_physical_(), out=part)
                if not whole:
                    _add_reduced(_cut(to_a, start, stop), part)
        return to_a, to_b, carry

    def zoh(self, steps: Steps, v: Tensor, h0: Tensor | None) -> Tensor:
        out = torch.empty_like(v, memory_format=torch.contiguous_format)
        for start, stop in self._tiles(v, steps.reverse):
            lam, dt, kept = _kept(steps, start, stop)
            states = out[:, start:stop]
            x = v[:, start:stop]
            if not steps.impulse:
                x = torch.mul(held_gain(lam, dt), x, out=states)
            _scan(kept, x, h0, states, steps.reverse)
            h0 = states[:, 0 if steps.reverse else -1]
        return out

    def zoh_gradients(
        self, steps: Steps, v: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, needs: tuple[bool, bool, bool]
    ) -> ZohGradients:
        needs_lam, needs_dt, needs_v = needs
        to_lam = torch.zeros_like(steps.lam) if needs_lam else None
        to_dt = torch.zeros_like(steps.dt, memory_format=torch.contiguous_format) if needs_dt else None
        to_v = torch.empty_like(v, memory_format=torch.contiguous_format) if needs_v else None
        carry = torch.zeros_like(g[:, 0])
        for start, stop in self._tiles(h, not steps.reverse):
            lam, dt, kept = _kept(steps, start, stop)
            x = v[:, start:stop]
            states = torch.empty_like(x, memory_format=torch.contiguous_format)
            carry = _scan_back(torch.conj_physical(kept), g[:, start:stop], carry, states, steps.reverse)
            gain = None if steps.impulse else held_gain(lam, dt)
            if to_v is not None:
                part = to_v[:, start:stop]
                part.copy_(states) if gain is None else torch.mul(states, torch.conj_physical(gain), out=part)
            if to_lam is None and to_dt is None:
                continue
            states.conj_physical_()
            flow = _before(h, h0, start, stop, steps.reverse, torch.empty_like(states)).mul_(kept)
            if to_lam is not None:
                change = flow * dt
                if gain is not None:
                    change += held_gain_slope(lam, dt, decay(lam, dt), gain) * x
                _add_reduced(to_lam, (states * change).conj_physical_().sum(1))
            if to_dt is not None:
                flow = flow.mul_(lam)
                if gain is not None:
                    flow += decay(lam, dt) * x
                _add_reduced(_cut(to_dt[..., None], start, stop), _real(states * flow).sum(-1, keepdim=True))
        return to_lam, to_dt, to_v, carry

    def _tiles(self, x: Tensor, reverse: bool) -> list[tuple[int, int]]:
        rows, length, states = x.shape
        tile = self.tile or max(_TILE // (rows * states), 64)
        tiles = [(start, min(start + tile, length)) for start in range(0, length, tile)]
        return tiles[::-1] if reverse else tiles


def _kept(steps: Steps, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    # lam (row, 1, state), dt (row, time, 1), and the decay with its resets.
    lam, dt = steps.lam[:, None], _cut(steps.dt[..., None], start, stop)
    kept = decay(lam, dt)
    if steps.reset is not None:
        kept = torch.where(steps.reset[:, start:stop, None], 0.0, kept)
    return lam, dt, kept


def _real(x: Tensor) -> Tensor:
    return x.real if x.is_complex() else x


def _cut(x: Tensor, start: int, stop: int) -> Tensor:
    return x if x.shape[1] == 1 else x[:, start:stop]


def _add_reduced(total: Tensor, part: Tensor) -> None:
    total += part.sum_to_size(total.shape)


def _before(h: Tensor, h0: Tensor | None, start: int, stop: int, reverse: bool, out: Tensor) -> Tensor:
    """The states that the steps from `start` to `stop` began with."""
    if reverse:
        last = min(stop, h.shape[1] - 1)
        out[:, : last - start].copy_(h[:, start + 1 : last + 1])
        edge = out[:, -1] if last < stop else None
    else:
        first = max(start, 1)
        out[:, first - start :].copy_(h[:, first - 1 : stop - 1])
        edge = out[:, 0] if first > start else None
    if edge is not None:
        edge.zero_() if h0 is None else edge.copy_(h0)
    return out


def _scan_back(kept: Tensor, g: Tensor, carry: Tensor, out: Tensor, reverse: bool) -> Tensor:
    """The cotangents of the states of a tile; `carry` and the result: what the tile behind it hands on."""
    length = g.shape[1]
    at = -1 if not reverse else 0
    first = torch.add(g[:, at], carry, out=out[:, at])
    if length > 1:
        ahead, here = (slice(1, None), slice(None, -1)) if not reverse else (slice(None, -1), slice(1, None))
        factors = kept if kept.shape[1] == 1 else kept[:, ahead]
        _scan(factors, g[:, here], first, out[:, here], not reverse)
    end = 0 if not reverse else -1
    return out[:, end] * kept[:, end]


def _scan(a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, reverse: bool) -> None:
    """Fill `out`, which may be `b` itself."""
    rows, length, states = b.shape
    chunks = min(_CALL // max(rows * states, 1), length // 8)
    if chunks < 4:
        return _loop(a, b, h0, out, reverse)
    span = length // chunks
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
