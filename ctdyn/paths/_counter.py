"""Random numbers from counters: a number that depends on its key alone, whatever was asked before and on any device."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


__all__ = ["inside", "key_of", "normals"]


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


# SplitMix64 (Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014), in wrapping int64 arithmetic.
_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_CHUNK = 1 << 15


def _mix(x: Tensor) -> Tensor:
    """Scramble 64 bits; a one-to-one map."""
    x = x.bitwise_xor((x >> 30) & ((1 << 34) - 1)).mul_(_FIRST)
    x = x.bitwise_xor_((x >> 27) & ((1 << 37) - 1)).mul_(_SECOND)
    return x.bitwise_xor_((x >> 31) & ((1 << 33) - 1))


def key_of(key: Tensor | int, number: Tensor) -> Tensor:
    """The key of the child `number` of a key, int64; the two broadcast."""
    return _mix(number * _GAMMA + key)


def normals(key: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two independent standard normals per key, by Box and Muller."""
    first = ((key >> 32) & 0xFFFFFFFF).to(dtype).add_(0.5).mul_(2.0**-32)
    angle = (key & 0xFFFFFFFF).to(dtype).mul_(2.0 * math.pi * 2.0**-32)
    radius = first.log_().mul_(-2.0).sqrt_()
    return radius * angle.cos(), radius * angle.sin_()


def inside(key: Tensor, x: Tensor, depth: Tensor | int, dtype: torch.dtype, integral: bool) -> tuple[Tensor, Tensor]:
    r"""A Brownian motion on [0, 1] with :math:`W_1 = 0` and :math:`\int_0^1 W = 0`, and its integral from 0.

    Halving a cell of length h whose increment and area are known needs two normals, :math:`Z \sim N(0, h/16)` and
    :math:`N \sim N(0, h/12)` (Foster's midpoint rule). What they add to the path vanishes outside the cell, and so does
    its integral: with :math:`s` the hat function of the cell the path is a plain sum over the levels,

    .. math:: W(x) = \sum_l Z_l\, s (3 s - 2) \pm 3 N_l\, s (1 - s)

    Args:
        key: int64 keys, `(*query, size)`.
        x: places, float64, `(*query,)`.
        depth: number of halvings; per query, or one for all.
        dtype: of the normals.
        integral: whether the integral is wanted; it is empty otherwise.

    Returns:
        Value and integral, float64, `(*query, size)` each.
    """
    if key.numel() > 2 * _CHUNK and x.dim() > 0 and x.shape[0] > 1:
        # What is worked on at a time is to stay in the processor's cache.
        rows = max(1, x.shape[0] * _CHUNK // key.numel())
        depths = depth.split(rows) if isinstance(depth, Tensor) else itertools.repeat(depth)
        parts = zip(key.split(rows), x.split(rows), depths, strict=False)
        values, integrals = zip(*(inside(*part, dtype, integral) for part in parts), strict=True)
        return torch.cat(values), torch.cat(integrals)
    deepest = int(depth.amax()) if isinstance(depth, Tensor) else depth
    value = torch.zeros(key.shape, dtype=torch.float64, device=key.device)
    total = torch.zeros_like(value) if integral else value.new_zeros(0)
    many = max(1, _CHUNK // max(key.numel(), 1))
    for first in range(0, deepest, many):
        level = torch.arange(first, min(first + many, deepest), device=x.device).reshape(-1, *[1] * x.dim())
        cells = torch.pow(2.0, level.to(torch.float64))
        scaled = x * cells
        number = scaled.floor()
        odd = (scaled - number) * 2.0 - 1.0
        hat = 1.0 - odd.abs()
        size = cells.rsqrt() if isinstance(depth, int) else torch.where(level < depth, cells.rsqrt(), 0.0)
        side = torch.where(odd < 0, size, -size)
        z, n = normals(key_of(key, (cells + number).to(torch.int64).unsqueeze(-1)), dtype)
        square = hat * (1.0 - hat)
        _add(value, size * hat * (3.0 * hat - 2.0) / 4.0, z, side * square * (3.0 / math.sqrt(12.0)), n)
        if integral:
            by_n = size * hat.square() * (1.5 - hat) / (2.0 * math.sqrt(12.0) * cells)
            _add(total, side * hat * square / (-8.0 * cells), z, by_n, n)
    return value, total


def _add(out: Tensor, by_z: Tensor, z: Tensor, by_n: Tensor, n: Tensor) -> None:
    """`out += by_z * z + by_n * n`, summed over the levels in front."""
    for one_z, row, one_n, other in zip(by_z, z, by_n, n, strict=True):
        out.addcmul_(one_z.unsqueeze(-1), row).addcmul_(one_n.unsqueeze(-1), other)
