"""Steps of a liquid network in a row, compiled."""

from __future__ import annotations

import numpy as np

from ..fields._kernels import collect, plus, trace_back
from ..linear._elementary import _exp, kernel, sum_kernel


__all__ = ["exponential_back", "exponential_steps", "fused_back", "fused_steps"]


@kernel
def _decayed(y, a, b, h, after):
    """After a time h at constant rates and drive."""
    for r in range(y.shape[0]):
        span = h[r]
        for j in range(y.shape[1]):
            rate = a[r, j]
            moved = -_exp(-span * rate)[1] / max(rate, y.dtype.type(1e-12))
            after[r, j] = y[r, j] + moved * (b[r, j] - rate * y[r, j])


@sum_kernel
def _decayed_back(y, a, b, h, g, to_y, to_a, to_b, to_h):
    """Overwrite the gradients to rate and drive, add those to state and span."""
    for r in range(y.shape[0]):
        span = h[r]
        total = span - span
        for j in range(y.shape[1]):
            rate = max(a[r, j], y.dtype.type(1e-12))
            kept, less = _exp(-span * rate)
            moved, speed = -less / rate, b[r, j] - rate * y[r, j]
            back = g[r, j] * moved
            to_b[r, j] = back
            to_a[r, j] = g[r, j] * speed * (span * kept - moved) / rate - back * y[r, j]
            to_y[r, j] += g[r, j] * kept
            total += g[r, j] * speed * kept
        to_h[r] += total


@kernel
def _filled(y, rate, drive, weights, a, b):
    """Rates and drive at a state."""
    slope, offset, weight, pull = weights
    for r in range(y.shape[0]):
        for j in range(y.shape[1]):
            a[r, j] = rate[r, j]
            b[r, j] = drive[r, j]
    collect(y, slope, offset, weight, pull, a, b)


@kernel
def exponential_steps(rate, drive, gap, y, weights, count, states, rates, drives, span):
    """The exponential midpoint; `states` is `(time, 2 count, series, neuron)`, the last of a time is its end.

    Rates and drives of every stage are kept beside them.
    """
    for k in range(rate.shape[0]):
        for r in range(y.shape[0]):
            span[0, r] = gap[k, r] / y.dtype.type(2 * count)
            span[1, r] = gap[k, r] / y.dtype.type(count)
        for n in range(count):
            begin, middle = y, 2 * n
            for stage in range(2):
                now = middle + stage
                _filled(y, rate[k], drive[k], weights, rates[k, now], drives[k, now])
                _decayed(begin, rates[k, now], drives[k, now], span[stage], states[k, now])
                y = states[k, now]


@kernel
def exponential_back(y0, weights, count, gap, states, rates, drives, given, to_rate, to_drive, to_gap, to_y, to, room):
    """Backwards through `exponential_steps`; `to_y` is left with the gradient to the first state."""
    to_a, to_b, to_middle, moved, span = room
    slope, offset, weight, pull = weights
    to_slope, to_offset, to_weight, to_pull = to
    for k in range(gap.shape[0] - 1, -1, -1):
        for r in range(y0.shape[0]):
            span[0, r] = gap[k, r] / y0.dtype.type(2 * count)
            span[1, r] = gap[k, r] / y0.dtype.type(count)
            span[2, r] = span[3, r] = y0.dtype.type(0.0)
        plus(to_y, given[k])
        for n in range(count - 1, -1, -1):
            begin = states[k, 2 * n - 1] if n > 0 else (states[k - 1, 2 * count - 1] if k > 0 else y0)
            _zero(moved)
            to_end = to_y
            for stage in range(1, -1, -1):
                now = 2 * n + stage
                at = states[k, 2 * n] if stage == 1 else begin
                _decayed_back(
                    begin, rates[k, now], drives[k, now], span[stage], to_end, moved, to_a, to_b, span[2 + stage]
                )
                plus(to_rate[k], to_a)
                plus(to_drive[k], to_b)
                if stage == 1:
                    _zero(to_middle)
                to_at = to_middle if stage == 1 else moved
                trace_back(at, slope, offset, weight, pull, to_a, to_b, to_at, to_slope, to_offset, to_weight, to_pull)
                to_end = to_middle
            _copy(moved, to_y)
        for r in range(y0.shape[0]):
            to_gap[k, r] = (span[2, r] / y0.dtype.type(2) + span[3, r]) / y0.dtype.type(count)


@kernel
def fused_steps(rate, drive, gap, y, weights, count, states, rates, drives, span):
    """Linearly implicit Euler; `states` is `(time, count, series, neuron)`."""
    one = y.dtype.type(1.0)
    for k in range(rate.shape[0]):
        for n in range(count):
            a, b, after = rates[k, n], drives[k, n], states[k, n]
            _filled(y, rate[k], drive[k], weights, a, b)
            for r in range(y.shape[0]):
                h = gap[k, r] / y.dtype.type(count)
                for j in range(y.shape[1]):
                    after[r, j] = (y[r, j] + h * b[r, j]) / (one + h * a[r, j])
            y = after


@kernel
def fused_back(y0, weights, count, gap, states, rates, drives, given, to_rate, to_drive, to_gap, to_y, to, room):
    """Backwards through `fused_steps`; `to_y` is left with the gradient to the first state."""
    to_a, to_b, moved = room[0], room[1], room[3]
    slope, offset, weight, pull = weights
    to_slope, to_offset, to_weight, to_pull = to
    one = y0.dtype.type(1.0)
    for k in range(gap.shape[0] - 1, -1, -1):
        plus(to_y, given[k])
        for n in range(count - 1, -1, -1):
            y = states[k, n - 1] if n > 0 else (states[k - 1, count - 1] if k > 0 else y0)
            a, b, after = rates[k, n], drives[k, n], states[k, n]
            for r in range(y0.shape[0]):
                h = gap[k, r] / y0.dtype.type(count)
                total = h - h
                for j in range(y0.shape[1]):
                    back = to_y[r, j] / (one + h * a[r, j])
                    moved[r, j] = back
                    to_b[r, j] = h * back
                    to_a[r, j] = -h * back * after[r, j]
                    total += back * (b[r, j] - a[r, j] * after[r, j])
                to_gap[k, r] += total / y0.dtype.type(count)
            plus(to_rate[k], to_a)
            plus(to_drive[k], to_b)
            trace_back(y, slope, offset, weight, pull, to_a, to_b, moved, to_slope, to_offset, to_weight, to_pull)
            _copy(moved, to_y)


@kernel
def _zero(x):
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[r, j] = np.float32(0.0)


@kernel
def _copy(x, to):
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            to[r, j] = x[r, j]
