"""Liquid and closed-form networks, compiled; every loop over neurons runs on whole vectors."""

from __future__ import annotations

import numpy as np

from ..linear._elementary import _exp, allocating_kernel, kernel, sigmoid, sum_kernel, tanh


__all__ = ["add_products", "closed_forms", "closed_forms_back", "collect", "plus", "trace_back"]


@kernel
def collect(x, slope, offset, weight, pull, conductance, current):
    """Add what open synapses let in, `(row, neuron)`, for sources of `x`, `(row, source)`."""
    one = slope.dtype.type(1.0)
    for r in range(x.shape[0]):
        a, b = conductance[r], current[r]
        for i in range(x.shape[1]):
            xi, s, o, w, v = x[r, i], slope[i], offset[i], weight[i], pull[i]
            for j in range(s.shape[0]):
                gate = one / (one + _exp(o[j] - s[j] * xi)[0])
                a[j] += w[j] * gate
                b[j] += v[j] * gate


@sum_kernel
def trace_back(x, slope, offset, weight, pull, to_a, to_b, to_x, to_slope, to_offset, to_weight, to_pull):
    """Add the gradients to the sources and to the synapses."""
    one = slope.dtype.type(1.0)
    for r in range(x.shape[0]):
        a, b = to_a[r], to_b[r]
        for i in range(x.shape[1]):
            xi, s, o, w, v = x[r, i], slope[i], offset[i], weight[i], pull[i]
            ds, do, dw, dv = to_slope[i], to_offset[i], to_weight[i], to_pull[i]
            total = one - one
            for j in range(s.shape[0]):
                gate = one / (one + _exp(o[j] - s[j] * xi)[0])
                dw[j] += a[j] * gate
                dv[j] += b[j] * gate
                back = (a[j] * w[j] + b[j] * v[j]) * gate * (one - gate)
                ds[j] += back * xi
                do[j] -= back
                total += back * s[j]
            to_x[r, i] += total


@kernel
def plus(x, y):
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[r, j] += y[r, j]


@kernel
def _bent(x, offset, scale, slope):
    """The activation of what reads inputs and state."""
    for r in range(x.shape[0]):
        row = x[r]
        for j in range(row.shape[0]):
            row[j] = scale * tanh(slope * (row[j] + offset[j]))


@kernel
def _mixed(y, outputs, bias, gap, interpolates, after, states, k):
    """The state behind a gap; the heads are left as two hyperbolic tangents and a gate behind what gates the gap."""
    one, size = after.dtype.type(1.0), states.shape[2]
    inputs = y.shape[1] - size
    for r in range(y.shape[0]):
        span, row, before, new = gap[r, k], outputs[r], y[r, inputs:], states[r, k]
        for j in range(4 * size):
            row[j] += bias[j]
        a, both, gates = row[:size], row[size : 3 * size], row[3 * size :]
        for j in range(size):
            gates[j] = sigmoid(a[j] * span + gates[j])
        for j in range(2 * size):
            both[j] = tanh(both[j])
        first, other = both[:size], both[size:]
        if span == 0:
            for j in range(size):
                new[j] = before[j]
        elif interpolates:
            for j in range(size):
                new[j] = (one - gates[j]) * first[j] + gates[j] * other[j]
        else:
            for j in range(size):
                new[j] = first[j] + gates[j] * other[j]
        onward = after[r, inputs:]
        for j in range(size):
            onward[j] = new[j]


@kernel
def _seen(us, k, into):
    for r in range(us.shape[0]):
        for j in range(us.shape[2]):
            into[r, j] = us[r, k, j]


@allocating_kernel
def closed_forms(us, gap, weight, offset, heads, bias, bend, interpolates, seen, features, outputs, states):
    """Steps of a closed-form network; what `closed_forms_back` wants to know is kept with time first.

    `seen` has one time more than there are gaps, and begins with the first state behind the room for inputs. `weight`
    is `(input and state, width)` and `heads` `(width, 4 state)`; where there are no features, the first is both.
    """
    scale, slope = bend
    for k in range(gap.shape[1]):
        _seen(us, k, seen[k])
        if features.shape[2] > 0:
            np.dot(seen[k], weight, features[k])
            _bent(features[k], offset, scale, slope)
            np.dot(features[k], heads, outputs[k])
        else:
            np.dot(seen[k], weight, outputs[k])
        _mixed(seen[k], outputs[k], bias, gap, interpolates, seen[k + 1], states, k)


@sum_kernel
def _mixed_back(gap, outputs, given, interpolates, outer, to_gap, to_y, k):
    one, zero, size = to_y.dtype.type(1.0), to_y.dtype.type(0.0), to_y.shape[1]
    # Without gate: 0 of what the second head takes is taken from the first.
    shared = one if interpolates else zero
    for r in range(to_y.shape[0]):
        span, row, to, g, new = gap[r, k], outputs[r], outer[r], to_y[r], given[r, k]
        moves = zero if span == 0 else one
        a, first, other, gates = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
        to_a, to_first, to_other, to_gate = to[:size], to[size : 2 * size], to[2 * size : 3 * size], to[3 * size :]
        for j in range(size):
            g[j] += new[j]
        total = zero
        for j in range(size):
            through = moves * g[j] * (other[j] - shared * first[j]) * gates[j] * (one - gates[j])
            to_gate[j] = through
            total += through * a[j]
        for j in range(size):
            to_a[j] = to_gate[j] * span
        for j in range(size):
            to_first[j] = moves * g[j] * (one - shared * gates[j]) * (one - first[j] * first[j])
        for j in range(size):
            to_other[j] = moves * g[j] * gates[j] * (one - other[j] * other[j])
        to_gap[r, k] = total


@kernel
def _bent_back(x, features, scale, slope):
    over = slope / scale
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[r, j] *= slope * scale - features[r, j] * features[r, j] * over


@kernel
def _kept(gap, back, to_us, to_y, k):
    """What flows on to the state before, where nothing moved all of it, and to the inputs if they are wanted."""
    zero, inputs = to_y.dtype.type(0.0), to_us.shape[2]
    for r in range(to_y.shape[0]):
        stays = gap[r, k] == 0
        for j in range(inputs):
            to_us[r, k, j] = back[r, j]
        flows = back[r, inputs:]
        for j in range(to_y.shape[1]):
            to_y[r, j] = flows[j] + (to_y[r, j] if stays else zero)


@kernel
def _add_columns(x, total):
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            total[j] += x[r, j]


@allocating_kernel
def add_products(left, right, room, product, total):
    """Add the products of rows, and the sums of the first ones."""
    np.dot(left.T, right, room)
    plus(product, room)
    _add_columns(left, total)


@allocating_kernel
def closed_forms_back(
    gap, weight, heads, bend, interpolates, seen, features, outputs, given, outer, inner, room, to_us, to_gap, to_y, to
):
    """Backwards through `closed_forms`: add the gradients to weights and biases, and fill those to inputs and gaps.

    `weight` is `(width, input and state)`, without the inputs where their gradients are not wanted and `to_us` is
    empty, and `heads` `(4 state, width)`; `to_y` begins as zeros and is left with the gradient to the first state.
    Gradients to the layers are only kept for the times of `outer` and `inner`, and then multiplied at once.
    """
    scale, slope = bend
    back, room_first, room_heads = room
    to_weight, to_offset, to_heads, to_bias = to
    length, series, chunk = gap.shape[1], gap.shape[0], outer.shape[0]
    deep = features.shape[2] > 0
    for k in range(length - 1, -1, -1):
        now = k % chunk
        _mixed_back(gap, outputs[k], given, interpolates, outer[now], to_gap, to_y, k)
        if deep:
            np.dot(outer[now], heads, inner[now])
            _bent_back(inner[now], features[k], scale, slope)
            np.dot(inner[now], weight, back)
        else:
            np.dot(outer[now], weight, back)
        _kept(gap, back, to_us, to_y, k)
        if now == 0:
            count = min(chunk, length - k)
            rows = count * series
            x = seen[k : k + count].reshape(rows, seen.shape[2])
            to_out = outer[:count].reshape(rows, outer.shape[2])
            if deep:
                kept = features[k : k + count].reshape(rows, features.shape[2])
                add_products(to_out, kept, room_heads, to_heads, to_bias)
                add_products(inner[:count].reshape(rows, inner.shape[2]), x, room_first, to_weight, to_offset)
            else:
                add_products(to_out, x, room_first, to_weight, to_offset)
