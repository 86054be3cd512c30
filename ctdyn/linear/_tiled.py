"""Scans in tiles of times, whatever fills the states of a tile."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ._backends import ScanBackend, Steps, ZohGradients
from ._coefficients import StepValues, step_values
from ._recycling import empty_like


__all__ = ["Room", "TiledScan", "cut"]

#: What a backend keeps from one tile of a call to the next: whatever it wants, by names of its own.
Room = dict[Any, Any]


class TiledScan(ScanBackend):
    r"""All that a backend must do, from a way to fill in the states of one tile; temporaries are those of one tile.

    Example:
        >>> from ctdyn.linear import BlockedScan
        >>> issubclass(BlockedScan, TiledScan)
        True
    """

    @abstractmethod
    def _fill(self, a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, reverse: bool, room: Room) -> None:
        """Fill `out`, which may be `b` itself, with the states of a tile; any strides."""

    @abstractmethod
    def _sizes(self, rows: int, length: int, states: int) -> tuple[int, int]:
        """Rows and times of a tile."""

    def recurrence(self, a: Tensor, b: Tensor, h0: Tensor | None, *, reverse: bool) -> Tensor:
        out, room = empty_like(b), Room()
        for rows, tiles in self._tiles(b, reverse):
            factors, inputs, states, before = _row(a, rows), b[rows], out[rows], _row(h0, rows)
            for tile in tiles:
                self._fill(cut(factors, tile), inputs[:, tile], before, states[:, tile], reverse, room)
                before = states[:, tile][:, 0 if reverse else -1]
        return out

    def recurrence_gradients(
        self, a: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, reverse: bool, needs_a: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        to_b, room = empty_like(g), Room()
        to_h0 = torch.zeros_like(g[:, 0], memory_format=torch.contiguous_format)
        whole = a.shape == h.shape
        to_a = None if not needs_a else empty_like(a) if whole else torch.zeros_like(a)
        for rows, tiles in self._tiles(h, not reverse):
            factors, cotangents, states, carry = _row(a, rows), g[rows], to_b[rows], to_h0[rows]
            for tile in tiles:
                part = states[:, tile]
                carry.copy_(self._fill_back(cut(factors, tile), cotangents[:, tile], carry, part, reverse, room))
                if to_a is not None:
                    change = to_a[rows, tile] if whole else torch.empty_like(part)
                    for here, before in _before(h[rows], _row(h0, rows), tile, reverse):
                        torch.conj_physical(before.expand_as(change[:, here]), out=change[:, here])
                    change *= part
                    if not whole:
                        _add_reduced(cut(_row(to_a, rows), tile), change)
        return to_a, to_b, to_h0

    def zoh(self, steps: Steps, v: Tensor, h0: Tensor | None) -> Tensor:
        out, room = empty_like(v), Room()
        for rows, tiles in self._tiles(v, steps.reverse):
            before = _row(h0, rows)
            for tile in tiles:
                kept, values = _coefficients(steps, rows, tile, slope=False)
                states = out[rows, tile]
                x = v[rows, tile]
                if values.gain is not None:
                    x = torch.mul(values.gain, x, out=states)
                self._fill(kept, x, before, states, steps.reverse, room)
                before = states[:, 0 if steps.reverse else -1]
        return out

    def zoh_gradients(
        self, steps: Steps, v: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, needs: tuple[bool, bool, bool]
    ) -> ZohGradients:
        needs_lam, needs_dt, needs_v = needs
        room = Room()
        to_lam = torch.zeros_like(steps.lam) if needs_lam else None
        to_dt = torch.zeros_like(steps.dt, memory_format=torch.contiguous_format) if needs_dt else None
        to_v = empty_like(v) if needs_v else None
        to_h0 = torch.zeros_like(g[:, 0], memory_format=torch.contiguous_format)
        for rows, tiles in self._tiles(h, not steps.reverse):
            carry = to_h0[rows]
            for tile in tiles:
                kept, (full, gain, slope) = _coefficients(steps, rows, tile, slope=needs_lam)
                x = v[rows, tile]
                states = torch.empty_like(x, memory_format=torch.contiguous_format)
                carry.copy_(self._fill_back(kept, g[rows, tile], carry, states, steps.reverse, room))
                if to_v is not None:
                    part = to_v[rows, tile]
                    part.copy_(states) if gain is None else torch.mul(states, torch.conj_physical(gain), out=part)
                if to_lam is None and to_dt is None:
                    continue
                lam, dt = _row(steps.lam, rows)[:, None], cut(_row(steps.dt, rows)[..., None], tile)
                flow = torch.empty_like(states)
                for here, before in _before(h[rows], _row(h0, rows), tile, steps.reverse):
                    torch.mul(cut(kept, here), before, out=flow[:, here])
                states.conj_physical_()
                if to_lam is not None:
                    change = flow * dt
                    if slope is not None:
                        change.addcmul_(slope, x)
                    _add_reduced(_row(to_lam, rows), change.mul_(states).sum(1).conj_physical_())
                if to_dt is not None:
                    flow.mul_(lam)
                    if gain is not None:
                        flow.addcmul_(full, x)
                    _add_reduced(
                        cut(_row(to_dt, rows)[..., None], tile), _real(flow.mul_(states).sum(-1, keepdim=True))
                    )
        return to_lam, to_dt, to_v, to_h0

    def _tiles(self, x: Tensor, reverse: bool) -> Iterator[tuple[slice, list[slice]]]:
        """Groups of rows, and for each of them the tiles of times in the order of the scan."""
        rows, length, states = x.shape
        group, span = self._sizes(rows, length, states)
        tiles = [slice(start, min(start + span, length)) for start in range(0, length, span)]
        for start in range(0, rows, group):
            yield slice(start, min(start + group, rows)), tiles[::-1] if reverse else tiles

    def _fill_back(self, a: Tensor, g: Tensor, carry: Tensor, out: Tensor, reverse: bool, room: Room) -> Tensor:
        """The cotangents of the states of a tile; `carry` and the result: what the tile behind it hands on."""
        at, end = (0, -1) if reverse else (-1, 0)
        a = a.conj()
        first = torch.add(g[:, at], carry, out=out[:, at])
        if g.shape[1] > 1:
            ahead, here = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
            self._fill(cut(a, ahead), g[:, here], first, out[:, here], not reverse, room)
        return out[:, end] * a[:, end]


def _coefficients(steps: Steps, rows: slice, tile: slice, *, slope: bool) -> tuple[Tensor, StepValues]:
    """The decay with resets, and all coefficients without."""
    lam, dt = _row(steps.lam, rows)[:, None], cut(_row(steps.dt, rows)[..., None], tile)
    values = step_values(lam, dt, impulse=steps.impulse, slope=slope)
    if steps.reset is None:
        return values.kept, values
    return torch.where(_row(steps.reset, rows)[:, tile, None], 0.0, values.kept), values


def _real(x: Tensor) -> Tensor:
    return x.real if x.is_complex() else x


def _row(x: Tensor | None, rows: slice) -> Any:
    return x if x is None or x.shape[0] == 1 else x[rows]


def cut(x: Tensor, tile: slice) -> Tensor:
    """A part of the second axis; all of it where one entry serves for all.

    Example:
        >>> cut(torch.ones(2, 1, 3), slice(4, 8)).shape
        torch.Size([2, 1, 3])
    """
    return x if x.shape[1] == 1 else x[:, tile]


def _add_reduced(total: Tensor, part: Tensor) -> None:
    total += part.sum_to_size(total.shape)


def _before(h: Tensor, h0: Tensor | None, tile: slice, reverse: bool) -> Iterator[tuple[slice, Tensor]]:
    """Parts of a tile, and the states that their steps began with."""
    start, stop = tile.start, tile.stop
    edge = h.new_zeros(1, 1, 1) if h0 is None else h0[:, None]
    if reverse:
        last = min(stop, h.shape[1] - 1)
        yield slice(0, last - start), h[:, start + 1 : last + 1]
        if last < stop:
            yield slice(last - start, None), edge
    else:
        first = max(start, 1)
        yield slice(first - start, None), h[:, first - 1 : stop - 1]
        if first > start:
            yield slice(0, 1), edge
