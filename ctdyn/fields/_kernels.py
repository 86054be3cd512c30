"""Synapses of liquid networks, compiled; every loop over the neurons that are reached runs on whole vectors."""

from __future__ import annotations

from ..linear._elementary import _exp, kernel, sum_kernel


__all__ = ["collect", "trace_back"]


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
