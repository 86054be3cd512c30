"""Scan kernels, compiled by numba; this module is imported only where numba is installed.

Arrays are C-contiguous and `(row, time, state)`. A kernel walks over time: every array is streamed once, what was
before is still in the cache, and the inner loops vectorise for real and complex alike. `recurrence` does one row of
states at a time. `zoh` takes its time in chunks of several steps, whose states lie side by side as lanes: few states
would leave most of a processor idle, and only the recurrence itself must go from step to step. Rows `r0` to `r1` and
columns `j0` to `j1` are one thread's share.
"""

from __future__ import annotations

import numpy as np

from ._elementary import (
    GAIN,
    KEPT,
    LANES,
    RATE,
    SLOPE,
    STEP,
    coefficients,
    kernel,
    prefetch,
    slopes,
    sum_kernel,
)


__all__ = ["LANES", "PARTS", "STATES", "recurrence", "recurrence_gradients", "zoh", "zoh_gradients"]

#: How many rows a chunk of steps is computed in: of parts, and of states.
PARTS, STATES = 11, 7

# Terms of a sum in the dtype of the states before it is added to one in double precision.
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


# Which row of the states of a chunk is theirs.
_FACTOR, _HELD, _MOVED, _TILT, _BEFORE, _COTANGENT, _TOTAL = range(STATES)


@kernel
def _filled(x, value):
    for j in range(x.shape[0]):
        x[j] = value


@kernel
def _copied(x, out):
    for j in range(x.shape[0]):
        out[j] = x[j]


@kernel
def _sum(x, y, out):
    for j in range(out.shape[0]):
        out[j] = x[j] + y[j]


@kernel
def _product(x, y, out):
    for j in range(out.shape[0]):
        out[j] = x[j] * y[j]


@kernel
def _conjugate_product(x, y, out):
    for j in range(out.shape[0]):
        out[j] = np.conj(x[j]) * y[j]


@kernel
def _add_product(x, y, out):
    for j in range(out.shape[0]):
        out[j] += x[j] * y[j]


@kernel
def _add_to_lam(cotangent, moved, before, tilt, v, total):
    for j in range(total.shape[0]):
        total[j] += cotangent[j] * np.conj(moved[j] * before[j] + tilt[j] * v[j])


@sum_kernel
def _to_dt(cotangent, factor, lam, before, held, v):
    """The real part of the product of a cotangent with the derivative of the state in dt."""
    total = held * 0
    for j in range(lam.shape[0]):
        total += (cotangent[j] * np.conj(factor[j] * (lam[j] * before[j] + held * v[j]))).real
    return total


@kernel
def _flush(total, to_lam):
    count = to_lam.shape[1]
    for j in range(total.shape[0]):
        to_lam[0, j % count] += total[j].real
        to_lam[1, j % count] += total[j].imag
        total[j] = 0


@kernel
def _joined(parts, origin, lanes, paired, pairs):
    """Real and imaginary parts side by side."""
    re, im = parts[origin : origin + lanes], parts[origin + LANES : origin + LANES + lanes]
    if paired:
        for j in range(re.shape[0]):
            pairs[2 * j] = re[j]
            pairs[2 * j + 1] = im[j]
    else:
        for j in range(re.shape[0]):
            pairs[j] = re[j]


@kernel
def _repeated(rates, parts, lanes):
    """The eigenvalues and their inverses, for each step of a chunk."""
    count = rates.shape[1]
    for q in range(4):
        for s in range(lanes // count):
            for j in range(count):
                parts[RATE + q * LANES + s * count + j] = rates[q, j]


@kernel
def _prepared(dt, options, room, lanes):
    """Fill a chunk of steps with what its states are multiplied by."""
    impulse, paired, differentiated = options
    parts, states, pairs = room
    count = lanes // dt.shape[0]
    for s in range(dt.shape[0]):
        for j in range(count):
            parts[STEP + s * count + j] = dt[s]
    coefficients(parts, lanes, paired)
    _joined(parts, KEPT, lanes, paired, pairs[_FACTOR])
    if impulse:
        _filled(states[_HELD, :lanes], 1)
    else:
        _joined(parts, GAIN, lanes, paired, pairs[_HELD])
    if differentiated:
        _product(parts[STEP : STEP + lanes], states[_FACTOR, :lanes], states[_MOVED, :lanes])
        if not impulse:
            slopes(parts, lanes)
            _joined(parts, SLOPE, lanes, paired, pairs[_TILT])


@kernel
def zoh(steps, arrays, options, room, share):
    """Fill `out` with the states; rows that share their coefficients are done together.

    Args:
        steps: rates `(1 | row, 4, state)`, see `coefficients`; dt `(1 | row, 1 | time)`; resets `(1 | row, 0 | time)`.
        arrays: inputs `(row, time * state)`, first state `(row, state)`, result as the inputs.
        options: complex, impulses, reverse.
        room: of a chunk the parts (see `coefficients`), and the states, as such and as pairs of real numbers.
        share: rows and columns, at most `LANES` of these; some of all columns are done in chunks of one step.
    """
    r0, r1, j0, j1 = share
    rates, dt, reset = steps
    v, h0, out = arrays
    paired, impulse, reverse = options
    parts, states, _ = room
    width, count = h0.shape[1], j1 - j0
    length = v.shape[1] // width
    span = min(LANES // count, length) if count == width else 1
    shared = rates.shape[0] == 1 and dt.shape[0] == 1 and reset.shape[0] == 1
    tile = _tile(h0[r0, j0:j1], r1 - r0 if shared else 1, length)
    for r in range(r0, r0 + 1 if shared else r1):
        rd, rr, rl = (r if dt.shape[0] > 1 else 0), (r if reset.shape[0] > 1 else 0), (r if rates.shape[0] > 1 else 0)
        _repeated(rates[rl, :, j0:j1], parts, span * count)
        for done in range(0, length, span):
            number = min(span, length - done)
            first, lanes = (length - done - number if reverse else done), number * count
            if dt.shape[1] > 1:
                _prepared(dt[rd, first : first + number], (impulse, paired, False), room, lanes)
            elif done == 0:
                _prepared(dt[rd], (impulse, paired, False), room, span * count)
            for i in range(r, r1 if shared else r + 1):
                at, xs, hs = first * width + j0, v[i], out[i]
                _product(states[_HELD, :lanes], xs[at : at + lanes], hs[at : at + lanes])
                for s in range(number):
                    k = first + (number - 1 - s if reverse else s)
                    if reverse and k >= tile:
                        ahead = _ahead(k, tile) * width + j0
                        prefetch(xs[ahead : ahead + count])
                        prefetch(hs[ahead : ahead + count])
                    if reset.shape[1] > 0 and reset[rr, k]:
                        continue
                    here, lane = k * width + j0, (k - first) * count
                    there = here + width if reverse else here - width
                    before = h0[i, j0:j1] if done + s == 0 else hs[there : there + count]
                    _add_product(states[_FACTOR, lane : lane + count], before, hs[here : here + count])


@kernel
def _fill_cotangents(lines, states, behind, reset, place, reverse):
    """The cotangents of a chunk, the last step first; `behind` is that of the state at its end, then at its start.

    Args:
        lines: inputs, states, cotangents and results of the row, the last three only to be asked for.
        states: of the chunk.
        behind: a row.
        reset: of each time, or empty.
        place: the first step in time and how many, states per time and where these begin, steps to look ahead.
        reverse: the scan goes against time.
    """
    first, number, width, j0, tile = place
    count, given = behind.shape[0], lines[2]
    for s in range(number):
        k = first + (s if reverse else number - 1 - s)
        here, lane = k * width + j0, (k - first) * count
        later = lane - count if reverse else lane + count
        if not reverse and k >= tile:
            ahead = _ahead(k, tile) * width + j0
            for line in lines:
                prefetch(line[ahead : ahead + count])
        own, direct = states[_COTANGENT, lane : lane + count], given[here : here + count]
        if s == 0:
            _sum(direct, behind, own)
        elif len(reset) > 0 and reset[k - 1 if reverse else k + 1]:
            _copied(direct, own)
        else:
            after = states[_COTANGENT, later : later + count]
            _step_back(states[_FACTOR, later : later + count], after, direct, own)
    last = number - 1 if reverse else 0
    if len(reset) > 0 and reset[first + last]:
        _filled(behind, 0)
    else:
        own = states[_COTANGENT, last * count : last * count + count]
        _conjugate_product(states[_FACTOR, last * count : last * count + count], own, behind)


@kernel
def _fill_before(line, start, states, reset, place, reverse):
    """The states that the steps of a chunk began with; arguments as in `_fill_cotangents`."""
    first, number, width, j0 = place
    count, length, shift = start.shape[0], line.shape[0] // width, 1 if reverse else -1
    low, high = max(first + shift, 0), min(first + number + shift, length)
    size, lane, there = (high - low) * count, (low - shift - first) * count, low * width + j0
    _copied(line[there : there + size], states[_BEFORE, lane : lane + size])
    if high - low < number:
        lane = (number - 1) * count if reverse else 0
        _copied(start, states[_BEFORE, lane : lane + count])
    for s in range(number if len(reset) > 0 else 0):
        if reset[first + s]:
            _filled(states[_BEFORE, s * count : s * count + count], 0)


@kernel
def zoh_gradients(steps, arrays, gradients, options, room, share):
    """Fill the gradients to v, add to those to lam and (if needed) dt, leave that to the first state; else as `zoh`.

    Args:
        steps: see `zoh`.
        arrays: inputs, states, first state, cotangents, and the eigenvalues `(1 | row, state)`.
        gradients: to lam, `(1 | row, 2, state)` in double precision; to dt; to v; to the first state, zero at first.
        options: see `zoh`; and whether the gradient to dt is needed.
        room: see `zoh`; the states are zero at first.
        share: see `zoh`.
    """
    r0, r1, j0, j1 = share
    rates, dt, reset = steps
    v, h, h0, g, lam = arrays
    to_lam, to_dt, to_v, carry = gradients
    paired, impulse, reverse, needs_dt = options
    parts, states, _ = room
    width, count = h0.shape[1], j1 - j0
    length = v.shape[1] // width
    span = min(LANES // count, length) if count == width else 1
    shared = rates.shape[0] == 1 and dt.shape[0] == 1 and reset.shape[0] == 1
    tile = _tile(h0[r0, j0:j1], r1 - r0 if shared else 1, length)
    held, pending = dt[0, 0] * 0 + (not impulse), 0
    for r in range(r0, r0 + 1 if shared else r1):
        rd, rr, rl = (r if dt.shape[0] > 1 else 0), (r if reset.shape[0] > 1 else 0), (r if rates.shape[0] > 1 else 0)
        _repeated(rates[rl, :, j0:j1], parts, span * count)
        for done in range(0, length, span):
            number = min(span, length - done)
            first, lanes = (done if reverse else length - done - number), number * count
            if dt.shape[1] > 1:
                _prepared(dt[rd, first : first + number], (impulse, paired, True), room, lanes)
            elif done == 0:
                _prepared(dt[rd], (impulse, paired, True), room, span * count)
            for i in range(r, r1 if shared else r + 1):
                at, xs, hs, behind = first * width + j0, v[i], h[i], carry[i, j0:j1]
                place = first, number, width, j0
                _fill_cotangents((xs, hs, g[i], to_v[i]), states, behind, reset[rr], (*place, tile), reverse)
                _fill_before(hs, h0[i, j0:j1], states, reset[rr], place, reverse)
                own, seen = states[_COTANGENT, :lanes], xs[at : at + lanes]
                moved, before, tilt = states[_MOVED, :lanes], states[_BEFORE, :lanes], states[_TILT, :lanes]
                _add_to_lam(own, moved, before, tilt, seen, states[_TOTAL, :lanes])
                _conjugate_product(states[_HELD, :lanes], own, to_v[i, at : at + lanes])
                for s in range(number if needs_dt else 0):
                    k, lane = first + s, s * count
                    to_dt[rd, k if dt.shape[1] > 1 else 0] += _to_dt(
                        states[_COTANGENT, lane : lane + count],
                        states[_FACTOR, lane : lane + count],
                        lam[rl, j0:j1],
                        states[_BEFORE, lane : lane + count],
                        held,
                        xs[k * width + j0 : k * width + j0 + count],
                    )
                pending += 1
            if pending >= _FLUSH or done + number == length:
                _flush(states[_TOTAL, : span * count], to_lam[rl, :, j0:j1])
                pending = 0
