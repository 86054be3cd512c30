"""Liquid and closed-form networks, compiled; every loop over neurons runs on whole vectors."""

from __future__ import annotations

import numpy as np

from ..linear._elementary import _exp, allocating_kernel, kernel, sum_kernel


__all__ = ["closed_forms", "closed_forms_back", "collect", "plus", "trace_back"]


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
def _tanh(x):
    less = _exp(x + x)[1]
    return less / (less + type(x)(2.0))


@kernel
def _sigmoid(x):
    return type(x)(1.0) / (type(x)(1.0) + _exp(-x)[0])


@kernel
def _bent(x, drive, scale, slope):
    """The activation of what reads the state, and of the drive."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[r, j] = scale * _tanh(slope * (x[r, j] + drive[r, j]))


@kernel
def plus(x, y):
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[r, j] += y[r, j]


@kernel
def _mixed(y, outputs, bias, gap, interpolates, after):
    """The state behind a gap; the heads are left as two hyperbolic tangents and a gate behind what gates the gap."""
    one, size = y.dtype.type(1.0), y.shape[1]
    for r in range(y.shape[0]):
        span, row, before, new = gap[r], outputs[r], y[r], after[r]
        for j in range(4 * size):
            row[j] += bias[j]
        a, both, gates = row[:size], row[size : 3 * size], row[3 * size :]
        for j in range(size):
            gates[j] = _sigmoid(a[j] * span + gates[j])
        for j in range(2 * size):
            both[j] = _tanh(both[j])
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


@allocating_kernel
def closed_forms(drive, gap, y, weight, heads, bias, bend, interpolates, features, outputs, states):
    """Steps of a closed-form network, `(time, series, ...)`; outputs keep what `closed_forms_back` wants to know.

    `weight` is `(state, width)` and `heads` `(width, 4 state)`; where there are no features, the first is both, and the
    bias is zero.
    """
    scale, slope = bend
    for k in range(drive.shape[0]):
        if features.shape[2] > 0:
            np.dot(y, weight, features[k])
            _bent(features[k], drive[k], scale, slope)
            np.dot(features[k], heads, outputs[k])
        else:
            np.dot(y, weight, outputs[k])
            plus(outputs[k], drive[k])
        _mixed(y, outputs[k], bias, gap[k], interpolates, states[k])
        y = states[k]


@sum_kernel
def _mixed_back(gap, outputs, given, interpolates, outer, to_gap, to_y):
    one, zero, size = to_y.dtype.type(1.0), to_y.dtype.type(0.0), to_y.shape[1]
    # Without gate: 0 of what the second head takes is taken from the first.
    shared = one if interpolates else zero
    for r in range(to_y.shape[0]):
        span, row, to, g, new = gap[r], outputs[r], outer[r], to_y[r], given[r]
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
        to_gap[r] = total


@kernel
def _bent_back(x, features, scale, slope):
    over = slope / scale
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[r, j] *= slope * scale - features[r, j] * features[r, j] * over


@kernel
def _kept(gap, back, to_y):
    """What flows on to the state before; where nothing moved, all of it."""
    zero = to_y.dtype.type(0.0)
    for r in range(to_y.shape[0]):
        stays = gap[r] == 0
        for j in range(to_y.shape[1]):
            to_y[r, j] = back[r, j] + (to_y[r, j] if stays else zero)


@allocating_kernel
def closed_forms_back(
    gap, weight, heads, bend, interpolates, features, outputs, given, outer, inner, to_gap, to_y, back
):
    """Backwards through `closed_forms`: gradients to what the layers gave, to the gaps and to the first state.

    `weight` is `(width, state)` and `heads` `(4 state, width)`; `to_y` begins as zeros.
    """
    scale, slope = bend
    for k in range(gap.shape[0] - 1, -1, -1):
        _mixed_back(gap[k], outputs[k], given[k], interpolates, outer[k], to_gap[k], to_y)
        if features.shape[2] > 0:
            np.dot(outer[k], heads, inner[k])
            _bent_back(inner[k], features[k], scale, slope)
            np.dot(inner[k], weight, back)
        else:
            np.dot(outer[k], weight, back)
        _kept(gap[k], back, to_y)
