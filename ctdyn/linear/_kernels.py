"""Row-wise scan kernels, compiled by numba; this module is imported only where numba is installed.

Arrays are C-contiguous and `(row, time, state)`. A kernel walks over time and does one row of states at a time: every
array is streamed once, the row before is still in the cache, and the inner loops vectorise for real and complex alike.
Rows `r0` to `r1` and columns `j0` to `j1` are one thread's share.
"""

from __future__ import annotations

import numpy as np

from ._elementary import coefficients, kernel, prefetch, slopes, sum_kernel


__all__ = ["recurrence", "recurrence_gradients", "zoh", "zoh_gradients"]

# Steps between two flushes of a sum in the dtype of the states into a double one.
_FLUSH = 64
# Bytes of one array that are asked for before they are wanted, where the walk goes down in memory.
_TILE = 1 << 15


@kernel
def _tile(columns, rows, length):
    """How many steps of `rows` interleaved series make a tile: a small part, since nothing asks for the first."""
    return max(1, min(_TILE // max(columns.shape[0] * columns.itemsize * rows, 1), length // 32))


@kernel
def _ahead(k, tile):
    """What to ask for at step `k` of a walk down: the steps of the next tile in rising order, which memory foresees."""
    return (k // tile - 1) * tile + tile - 1 - k % tile


@kernel
def _step(a, before, b, out):
    for j in range(out.shape[0]):
        out[j] = a[j] * before[j] + b[j]


@kernel
def _step_back(a, after, g, out):
    for j in range(out.shape[0]):
        out[j] = np.conj(a[j]) * after[j] + g[j]


@kernel
def _step_back_with_a(a, after, g, before, out, to_a):
    for j in range(out.shape[0]):
        cotangent = np.conj(a[j]) * after[j] + g[j]
        out[j] = cotangent
        to_a[j] = cotangent * np.conj(before[j])


@kernel
def _step_back_add_a(a, after, g, before, out, to_a):
    for j in range(out.shape[0]):
        cotangent = np.conj(a[j]) * after[j] + g[j]
        out[j] = cotangent
        to_a[j] += cotangent * np.conj(before[j])


@kernel
def recurrence(a, b, h0, out, reverse, share):
    """Fill `out` with the states."""
    r0, r1, j0, j1 = share
    length, tile = b.shape[1], _tile(h0[r0, j0:j1], 1, b.shape[1])
    for r in range(r0, r1):
        ra = r if a.shape[0] > 1 else 0
        for s in range(length):
            k = length - 1 - s if reverse else s
            factor = a[ra, k if a.shape[1] > 1 else 0, j0:j1]
            before = h0[r, j0:j1] if s == 0 else out[r, k + 1 if reverse else k - 1, j0:j1]
            if reverse and k >= tile:
                ahead = _ahead(k, tile)
                prefetch(b[r, ahead, j0:j1])
                prefetch(out[r, ahead, j0:j1])
                if a.shape[1] > 1:
                    prefetch(a[ra, ahead, j0:j1])
            _step(factor, before, b[r, k, j0:j1], out[r, k, j0:j1])


@kernel
def recurrence_gradients(a, arrays, results, options, zeros, share):
    """Fill `to_b`, and `to_a` by `mode`: 0 not at all, 1 every entry, 2 sums into it."""
    r0, r1, j0, j1 = share
    h, h0, g = arrays
    to_a, to_b = results
    mode, reverse = options
    length, tile = h.shape[1], _tile(h0[r0, j0:j1], 1, h.shape[1])
    for r in range(r0, r1):
        ra = r if a.shape[0] > 1 else 0
        for s in range(length):
            k = s if reverse else length - 1 - s
            done = k - 1 if reverse else k + 1
            factor = a[ra, (0 if s == 0 else done) if a.shape[1] > 1 else 0, j0:j1]
            after = zeros[j0:j1] if s == 0 else to_b[r, done, j0:j1]
            result = to_b[r, k, j0:j1]
            if not reverse and k >= tile:
                ahead = _ahead(k, tile)
                prefetch(g[r, ahead, j0:j1])
                prefetch(to_b[r, ahead, j0:j1])
                if a.shape[1] > 1:
                    prefetch(a[ra, ahead, j0:j1])
                if mode != 0:
                    prefetch(h[r, ahead, j0:j1])
                if mode == 1:
                    prefetch(to_a[r, ahead, j0:j1])
            if mode == 0:
                _step_back(factor, after, g[r, k, j0:j1], result)
                continue
            before = h0[r, j0:j1] if s == length - 1 else h[r, k + 1 if reverse else k - 1, j0:j1]
            gradient = to_a[ra, k if a.shape[1] > 1 else 0, j0:j1]
            if mode == 1:
                _step_back_with_a(factor, after, g[r, k, j0:j1], before, result, gradient)
            else:
                _step_back_add_a(factor, after, g[r, k, j0:j1], before, result, gradient)


@kernel
def _pair(scratch, number):
    """Room for real and imaginary parts."""
    return scratch[2 * number], scratch[2 * number + 1]


@kernel
def _flush(total, into):
    for j in range(total.shape[0]):
        into[j] += total[j]
        total[j] = 0


@kernel
def _fused(kept, gain, before, v, out):
    for j in range(out.shape[0]):
        out[j] = kept[j] * before[j] + gain[j] * v[j]


@kernel
def _fused_paired(kept_re, kept_im, gain_re, gain_im, before, v, out):
    for j in range(kept_re.shape[0]):
        a, b, c, d = kept_re[j], kept_im[j], gain_re[j], gain_im[j]
        x, y, p, q = before[2 * j], before[2 * j + 1], v[2 * j], v[2 * j + 1]
        out[2 * j] = a * x - b * y + c * p - d * q
        out[2 * j + 1] = a * y + b * x + c * q + d * p


@kernel
def zoh(steps, arrays, options, room, share):
    """Fill `out` with the states; rows that share their coefficients are done together.

    Complex arrays come as pairs of real ones, `(row, time, 2 state)`.

    Args:
        steps: rates `(1 | row, 4, state)`, see `coefficients`; dt `(1 | row, 1 | time)`; resets `(1 | row, 0 | time)`.
        arrays: inputs, first state, result.
        options: complex, impulses, reverse.
        room: 16 rows to compute in, and one of zeros.
        share: rows and columns.
    """
    r0, r1, j0, j1 = share
    rates, dt, reset = steps
    v, h0, out = arrays
    paired, impulse, reverse = options
    scratch, blank = room
    length, width = v.shape[1], 2 if paired else 1
    c0, c1 = width * j0, width * j1
    shared = rates.shape[0] == 1 and dt.shape[0] == 1 and reset.shape[0] == 1
    tile = _tile(h0[r0, c0:c1], r1 - r0 if shared else 1, length)
    kept, gain, ones, zeros = _pair(scratch, 0), _pair(scratch, 1), _pair(scratch, 2), blank[: c1 - c0]
    for j in range(ones[0].shape[0]):
        ones[0][j] = 1
    add = ones if impulse else gain
    for r in range(r0, r0 + 1 if shared else r1):
        rd, rr = (r if dt.shape[0] > 1 else 0), (r if reset.shape[0] > 1 else 0)
        rl = r if rates.shape[0] > 1 else 0
        own = rates[rl, 0, j0:j1], rates[rl, 1, j0:j1], rates[rl, 2, j0:j1], rates[rl, 3, j0:j1]
        for s in range(length):
            k = length - 1 - s if reverse else s
            if s == 0 or dt.shape[1] > 1:
                coefficients(own, dt[rd, k if dt.shape[1] > 1 else 0], paired, kept, gain)
            cleared = reset.shape[1] > 0 and reset[rr, k]
            for i in range(r, r1 if shared else r + 1):
                if reverse and k >= tile:
                    ahead = _ahead(k, tile)
                    prefetch(v[i, ahead, c0:c1])
                    prefetch(out[i, ahead, c0:c1])
                before = h0[i, c0:c1] if s == 0 else out[i, k + 1 if reverse else k - 1, c0:c1]
                before = zeros if cleared else before
                if paired:
                    _fused_paired(kept[0], kept[1], add[0], add[1], before, v[i, k, c0:c1], out[i, k, c0:c1])
                else:
                    _fused(kept[0], add[0], before, v[i, k, c0:c1], out[i, k, c0:c1])


# What follows is one loop in essence; in parts, each writes to few arrays, and only so do the compiler's checks for
# overlap stay few enough for it to vectorise them. The parts run in the first-level cache.


@kernel
def _add(g, carry, paired, cotangent):
    s, t = cotangent
    if paired:
        for j in range(s.shape[0]):
            s[j] = g[2 * j] + carry[2 * j]
            t[j] = g[2 * j + 1] + carry[2 * j + 1]
    else:
        for j in range(s.shape[0]):
            s[j] = g[j] + carry[j]


@kernel
def _times(factor, x, paired, out):
    """The product of a row in parts and one in pairs, in parts."""
    a, b, re, im = factor[0], factor[1], out[0], out[1]
    if paired:
        for j in range(a.shape[0]):
            p, q = x[2 * j], x[2 * j + 1]
            re[j] = a[j] * p - b[j] * q
            im[j] = a[j] * q + b[j] * p
    else:
        for j in range(a.shape[0]):
            re[j] = a[j] * x[j]


@kernel
def _conjugate_times(factor, scale, cotangent, paired, out):
    """The conjugate of a row in parts times another, in pairs."""
    a, b, s, t = factor[0], factor[1], cotangent[0], cotangent[1]
    if paired:
        for j in range(a.shape[0]):
            out[2 * j] = scale * (a[j] * s[j] + b[j] * t[j])
            out[2 * j + 1] = scale * (a[j] * t[j] - b[j] * s[j])
    else:
        for j in range(a.shape[0]):
            out[j] = scale * a[j] * s[j]


@kernel
def _add_products(cotangent, dt, flow, direct, paired, total):
    """Add cotangent times the conjugate of (dt flow + direct)."""
    s, t, f, h, p, q, re, im = cotangent[0], cotangent[1], flow[0], flow[1], direct[0], direct[1], total[0], total[1]
    if paired:
        for j in range(s.shape[0]):
            re[j] += s[j] * (dt * f[j] + p[j]) + t[j] * (dt * h[j] + q[j])
        for j in range(s.shape[0]):
            im[j] += t[j] * (dt * f[j] + p[j]) - s[j] * (dt * h[j] + q[j])
    else:
        for j in range(s.shape[0]):
            re[j] += s[j] * (dt * f[j] + p[j])


@sum_kernel
def _inner(cotangent, rates, flow, kept, v, held, paired):
    """The real part of the product of a cotangent with the derivative of the state in dt."""
    total, s, t, f, h = held * 0, cotangent[0], cotangent[1], flow[0], flow[1]
    x, y, a, b = rates[0], rates[1], kept[0], kept[1]
    if paired:
        for j in range(s.shape[0]):
            p, q = held * v[2 * j], held * v[2 * j + 1]
            total += s[j] * (x[j] * f[j] - y[j] * h[j] + a[j] * p - b[j] * q)
            total += t[j] * (x[j] * h[j] + y[j] * f[j] + a[j] * q + b[j] * p)
    else:
        for j in range(s.shape[0]):
            total += s[j] * (x[j] * f[j] + held * a[j] * v[j])
    return total


@kernel
def zoh_gradients(steps, arrays, results, options, room, share):
    """Fill the gradients to v, add to those to lam and (if needed) dt, leave that to the first state; else as `zoh`.

    Args:
        steps: see `zoh`.
        arrays: inputs, states, first state, cotangents.
        results: to lam, `(1 | row, 2, state)` in double precision; to dt; to v; to the first state, zero at first.
        options: see `zoh`; and whether the gradient to dt is needed.
        room: see `zoh`.
        share: rows and columns.
    """
    r0, r1, j0, j1 = share
    rates, dt, reset = steps
    v, h, h0, g = arrays
    to_lam, to_dt, to_v, carry = results
    paired, impulse, reverse, needs_dt = options
    scratch, blank = room
    length, width = v.shape[1], 2 if paired else 1
    c0, c1 = width * j0, width * j1
    shared = rates.shape[0] == 1 and dt.shape[0] == 1 and reset.shape[0] == 1
    tile = _tile(h0[r0, c0:c1], r1 - r0 if shared else 1, length)
    kept, gain, slope, ones = _pair(scratch, 0), _pair(scratch, 1), _pair(scratch, 3), _pair(scratch, 2)
    total, cotangent, flow, direct = _pair(scratch, 4), _pair(scratch, 5), _pair(scratch, 6), _pair(scratch, 7)
    zeros, one = blank[: c1 - c0], dt[0, 0] * 0 + 1
    for j in range(ones[0].shape[0]):
        ones[0][j] = 1
    add = ones if impulse else gain
    for r in range(r0, r0 + 1 if shared else r1):
        rd, rr, rl = (r if dt.shape[0] > 1 else 0), (r if reset.shape[0] > 1 else 0), (r if rates.shape[0] > 1 else 0)
        own = rates[rl, 0, j0:j1], rates[rl, 1, j0:j1], rates[rl, 2, j0:j1], rates[rl, 3, j0:j1]
        for s in range(length):
            k = s if reverse else length - 1 - s
            kd = k if dt.shape[1] > 1 else 0
            step = dt[rd, kd]
            held = step * 0 + (not impulse)
            if s == 0 or dt.shape[1] > 1:
                coefficients(own, step, paired, kept, gain)
                if not impulse:
                    slopes(own, step, kept, gain, slope)
            cleared = reset.shape[1] > 0 and reset[rr, k]
            keeps = step * 0 + (not cleared)
            for i in range(r, r1 if shared else r + 1):
                if not reverse and k >= tile:
                    ahead = _ahead(k, tile)
                    prefetch(v[i, ahead, c0:c1])
                    prefetch(g[i, ahead, c0:c1])
                    prefetch(h[i, ahead, c0:c1])
                    prefetch(to_v[i, ahead, c0:c1])
                before = h0[i, c0:c1] if s == length - 1 else h[i, k + 1 if reverse else k - 1, c0:c1]
                before = zeros if cleared else before
                x, cotangents, behind, result = v[i, k, c0:c1], g[i, k, c0:c1], carry[i, c0:c1], to_v[i, k, c0:c1]
                _add(cotangents, behind, paired, cotangent)
                _times(kept, before, paired, flow)
                if not impulse:
                    _times(slope, x, paired, direct)
                _add_products(cotangent, step, flow, direct, paired, total)
                if needs_dt:
                    to_dt[rd, kd] += _inner(cotangent, own, flow, kept, x, held, paired)
                _conjugate_times(add, one, cotangent, paired, result)
                _conjugate_times(kept, keeps, cotangent, paired, behind)
            if s % _FLUSH == _FLUSH - 1 or s == length - 1:
                _flush(total[0], to_lam[rl, 0, j0:j1])
                _flush(total[1], to_lam[rl, 1, j0:j1])
