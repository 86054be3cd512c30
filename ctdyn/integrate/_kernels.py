"""Explicit steps of a perceptron in a row, compiled; series are the rows of every matrix."""

from __future__ import annotations

import numpy as np

from ..fields._kernels import add_products, plus
from ..linear._elementary import BEND, allocating_kernel, kernel, sigmoid, softplus, sum_kernel, tanh


__all__ = ["steps", "steps_back"]


@kernel
def _activate(x, bias, kind, slope):
    """Bias and activation, in place; `slope` is filled where the output does not tell it."""
    one, zero, bend = x.dtype.type(1.0), x.dtype.type(0.0), x.dtype.type(BEND)
    for r in range(x.shape[0]):
        row = x[r]
        for j in range(row.shape[0]):
            row[j] += bias[j]
        if kind == 1:
            for j in range(row.shape[0]):
                row[j] = tanh(row[j])
        elif kind == 2:
            for j in range(row.shape[0]):
                # What is not a number stays so.
                row[j] = zero if row[j] <= zero else row[j]
        elif kind == 3:
            slopes = slope[r]
            for j in range(row.shape[0]):
                gate = sigmoid(row[j])
                slopes[j] = gate * (one + row[j] * (one - gate))
                row[j] *= gate
        elif kind == 4:
            slopes = slope[r]
            for j in range(row.shape[0]):
                slopes[j] = sigmoid(row[j]) if row[j] <= bend else one
                row[j] = softplus(row[j])


@kernel
def _activate_back(g, x, kind, slope):
    """The gradient behind an activation becomes that before it."""
    one, zero = x.dtype.type(1.0), x.dtype.type(0.0)
    for r in range(x.shape[0]):
        to, row = g[r], x[r]
        if kind == 1:
            for j in range(row.shape[0]):
                to[j] *= one - row[j] * row[j]
        elif kind == 2:
            for j in range(row.shape[0]):
                to[j] = to[j] if row[j] > zero else zero
        elif kind >= 3:
            slopes = slope[r]
            for j in range(row.shape[0]):
                to[j] *= slopes[j]


@sum_kernel
def _applied(matrix, dx, k):
    """The matrix of a controlled equation, row by row of it, along the control."""
    channels = dx.shape[1]
    for r in range(k.shape[0]):
        row, along, out = matrix[r], dx[r], k[r]
        for i in range(out.shape[0]):
            total = out.dtype.type(0.0)
            for c in range(channels):
                total += row[i * channels + c] * along[c]
            out[i] = total


@kernel
def _applied_back(matrix, dx, g, to_matrix, to_dx):
    """Fill the gradients to the matrix and to the control, the latter only where there is room for it."""
    channels, wanted, zero = dx.shape[1], to_dx.shape[1] > 0, g.dtype.type(0.0)
    for r in range(g.shape[0]):
        row, along, back, to = matrix[r], dx[r], g[r], to_matrix[r]
        for i in range(back.shape[0]):
            for c in range(channels):
                to[i * channels + c] = back[i] * along[c]
        if wanted:
            for c in range(channels):
                to_dx[r, c] = zero
            for i in range(back.shape[0]):
                for c in range(channels):
                    to_dx[r, c] += back[i] * row[i * channels + c]


@kernel
def _put(x, first, to):
    for r in range(x.shape[0]):
        row, into = x[r], to[r, first:]
        for j in range(row.shape[0]):
            into[j] = row[j]


@kernel
def _moved(y, span, weight, velocity):
    """Go along a velocity; inputs beside a state stay."""
    for r in range(velocity.shape[0]):
        far, row, along = span[r] * weight, y[r], velocity[r]
        for j in range(min(row.shape[0], along.shape[0])):
            row[j] += far * along[j]


@kernel
def _scaled(g, span, weight, out):
    for r in range(out.shape[0]):
        far, row, back = span[r] * weight, out[r], g[r]
        for j in range(row.shape[0]):
            row[j] = far * back[j]


@allocating_kernel
def steps(y, span, us, dxs, weights, biases, kinds, tableau, kept, slopes, velocities, nodes):
    """Walk from node to node; `kept` are the inputs of every layer and the outputs of the last, one per evaluation.

    Where `kept` has room for one evaluation alone, nothing is remembered; where `velocities` have room for the stages
    of one step, they are those of the last. `weights` are `(in, out)`; rows of `tableau` are the weights of the stages,
    and in the last row those of the step.
    """
    stages, depth, states = tableau.shape[1], len(weights), y.shape[1]
    room = kept[0].shape[0]
    for n in range(span.shape[0]):
        first = n * stages % velocities.shape[0]
        ks = velocities[first : first + stages]
        for i in range(stages):
            e = n * stages + i
            now = e % room
            x = kept[0][now]
            _put(y, 0, x)
            _put(us[e], states, x)
            for j in range(i):
                if tableau[i, j] != 0:
                    _moved(x, span[n], tableau[i, j], ks[j])
            for layer in range(depth):
                np.dot(kept[layer][now], weights[layer], kept[layer + 1][now])
                _activate(kept[layer + 1][now], biases[layer], kinds[layer], slopes[layer][now % len(slopes[layer])])
            if dxs.shape[2] > 0:
                _applied(kept[depth][now], dxs[e], ks[i])
            else:
                _put(kept[depth][now], 0, ks[i])
        _put(y, 0, nodes[n])
        for i in range(stages):
            if tableau[stages, i] != 0:
                _moved(nodes[n], span[n], tableau[stages, i], ks[i])
        y = nodes[n]


@allocating_kernel
def steps_back(span, dxs, weights, kinds, tableau, kept, slopes, given, also, gks, gs, rooms, to_y, to_us, to_dxs, to):
    """Backwards through `steps`; `weights` are `(out, in)`, and `to_y` begins as zeros.

    `given` are the gradients to the nodes, `also` those to the velocities of all stages, or empty.
    `gs` are the gradients to the outputs of every layer for the evaluations of one run, at the end of which they are
    multiplied with the inputs at once; the first of them is that to the inputs of the first layer, of one evaluation.
    """
    to_weights, to_biases = to
    stages, depth, series = gks.shape[0], len(weights), to_y.shape[0]
    chunk, total = gs[1].shape[0], span.shape[0] * stages
    for n in range(span.shape[0] - 1, -1, -1):
        plus(to_y, given[n])
        for i in range(stages):
            _scaled(to_y, span[n], tableau[stages, i], gks[i])
            if len(also) > 0:
                plus(gks[i], also[n * stages + i])
        for i in range(stages - 1, -1, -1):
            e = n * stages + i
            now = e % chunk
            if dxs.shape[2] > 0:
                _applied_back(kept[depth][e], dxs[e], gks[i], gs[depth][now], to_dxs[e])
            else:
                _put(gks[i], 0, gs[depth][now])
            for layer in range(depth - 1, -1, -1):
                g = gs[layer + 1][now]
                _activate_back(g, kept[layer + 1][e], kinds[layer], slopes[layer][e % len(slopes[layer])])
                np.dot(g, weights[layer], gs[layer][0 if layer == 0 else now])
            back = gs[0][0]
            plus(to_y, back)
            for j in range(i):
                if tableau[i, j] != 0:
                    _moved(gks[j], span[n], tableau[i, j], back)
            if to_us.shape[2] > 0:
                _put(back[:, to_y.shape[1] :], 0, to_us[e])
            if now == 0:
                count = min(chunk, total - e)
                rows = count * series
                for layer in range(depth):
                    left = gs[layer + 1][:count].reshape(rows, gs[layer + 1].shape[2])
                    right = kept[layer][e : e + count].reshape(rows, kept[layer].shape[2])
                    add_products(left, right, rooms[layer], to_weights[layer], to_biases[layer])
