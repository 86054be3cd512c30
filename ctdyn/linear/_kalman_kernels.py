"""The Kalman filter and its derivatives step by step, compiled by numba; imported only where numba is installed.

Arrays are `(time, lane, entry)`, C-contiguous, float64. All lanes are at one time before the next begins, so that
memory is streamed once; lanes `l0` to `l1` are one thread's share. The formulas are those of `_kalman`.

Small matrices leave a processor idle that works on several numbers at once, so several lanes are worked on side by
side: `side` is a tuple of as many entries, whose length the compiler knows, and an entry of a matrix is as many numbers
in a row. Where one lane is worked on it is the entries of a row that are side by side.
"""

from __future__ import annotations

import numpy as np

from ._elementary import add_products, allocating_kernel, kernel, part_kernel, take_products


__all__ = ["filter_gradients", "filter_steps", "gain_gradients", "gain_steps"]


@kernel
def _load(x, t, first, last, out, side):
    """The numbers of the lanes from `first` on; where there are not enough the last one stands in."""
    w = len(side)
    for v in range(w):
        lane = min(first + v, last - 1)
        for i in range(x.shape[2]):
            out[i * w + v] = x[t, lane, i]


@kernel
def _store(x, t, first, last, numbers, side):
    w = len(side)
    for v in range(min(w, last - first)):
        for i in range(x.shape[2]):
            x[t, first + v, i] = numbers[i * w + v]


@part_kernel
def _sums(A, a, B, b, out, m, k, n, side):
    """`(m, n)` sums of `k` products; `a` and `b`: steps to the next row or column, and to the next term."""
    w = len(side)
    for i in range(m):
        for j in range(n * w):
            out[i * n * w + j] = 0.0
        for h in range(k):
            for j in range(n):
                add_products(out, (i * n + j) * w, A, (i * a[0] + h * a[1]) * w, B, (j * b[0] + h * b[1]) * w, side)


@part_kernel
def _product(A, B, out, m, k, n, side):
    """`A B`, of `(m, k)` and `(k, n)`."""
    _sums(A, (k, 1), B, (1, n), out, m, k, n, side)


@part_kernel
def _turned_product(A, B, out, m, k, n, side):
    """`A' B`, of `(k, m)` and `(k, n)`."""
    _sums(A, (1, m), B, (1, n), out, m, k, n, side)


@part_kernel
def _product_turned(A, B, out, m, k, n, side):
    """`A B'`, of `(m, k)` and `(n, k)`."""
    _sums(A, (k, 1), B, (k, 1), out, m, k, n, side)


@part_kernel
def _spread(A, B, out, m, k, side):
    """`A B'` of `(m, k)` both, where that is symmetric."""
    w = len(side)
    for i in range(m):
        for j in range(i + 1):
            a, b, c = i * k * w, j * k * w, (i * m + j) * w
            for v in range(w):
                out[c + v] = 0.0
            for h in range(k):
                add_products(out, c, A, a + h * w, B, b + h * w, side)
            for v in range(w):
                out[(j * m + i) * w + v] = out[c + v]


@part_kernel
def _turned_spread(A, B, out, m, k, side):
    """`A' B` of `(k, m)` both, where that is symmetric."""
    w = len(side)
    for i in range(m * m * w):
        out[i] = 0.0
    for h in range(k):
        for i in range(m):
            for j in range(i + 1):
                add_products(out, (i * m + j) * w, A, (h * m + i) * w, B, (h * m + j) * w, side)
    for i in range(m):
        for j in range(i):
            for v in range(w):
                out[(j * m + i) * w + v] = out[(i * m + j) * w + v]


@part_kernel
def _cholesky(S, p, side):
    """The lower factor, in place, with inverse numbers on its diagonal; NaN where there is none."""
    w = len(side)
    for j in range(p):
        for i in range(j, p):
            for k in range(j):
                take_products(S, (i * p + j) * w, S, (i * p + k) * w, S, (j * p + k) * w, side)
        at = (j * p + j) * w
        for v in range(w):
            S[at + v] = 1.0 / np.sqrt(S[at + v])
        for i in range(j + 1, p):
            for v in range(w):
                S[(i * p + j) * w + v] *= S[at + v]


@part_kernel
def _down(L, X, p, n, side):
    """`L^-1 X` of `(p, n)`, in place."""
    w = len(side)
    for i in range(p):
        for k in range(i):
            for j in range(n):
                take_products(X, (i * n + j) * w, L, (i * p + k) * w, X, (k * n + j) * w, side)
        for j in range(n):
            for v in range(w):
                X[(i * n + j) * w + v] *= L[(i * p + i) * w + v]


@part_kernel
def _up(L, X, p, n, side):
    """`L'^-1 X` of `(p, n)`, in place."""
    w = len(side)
    for s in range(p):
        i = p - 1 - s
        for k in range(i + 1, p):
            for j in range(n):
                take_products(X, (i * n + j) * w, L, (k * p + i) * w, X, (k * n + j) * w, side)
        for j in range(n):
            for v in range(w):
                X[(i * n + j) * w + v] *= L[(i * p + i) * w + v]


@part_kernel
def _keep(K, H, J, n, p, side):
    """`1 - K' H` of `(p, n)` both: `K` is a transposed gain."""
    w = len(side)
    _turned_product(K, H, J, n, p, n, side)
    for i in range(n):
        for j in range(n):
            for v in range(w):
                J[(i * n + j) * w + v] = (1.0 if i == j else 0.0) - J[(i * n + j) * w + v]


@kernel
def _foresee(given, before, made, n, p, side):
    """Predict: mean, `F P`, covariance, `L^-1 H PP`, the factor `L` of the surprise's covariance, and the surprise."""
    F, b, Q, H, y = given
    m, P = before
    x, FP, PP, W, S, e = made
    w = len(side)
    _product(F, m, x, n, n, 1, side)
    _product(F, P, FP, n, n, n, side)
    _spread(FP, F, PP, n, n, side)
    for i in range(n * w):
        x[i] += b[i]
    for i in range(n * n * w):
        PP[i] += Q[i]
    _product(H, PP, W, p, n, n, side)
    _spread(W, H, S, p, n, side)
    _product(H, x, e, p, n, 1, side)
    for i in range(p * w):
        e[i] = y[i] - e[i]
    for i in range(p):
        for v in range(w):
            S[(i * p + i) * w + v] += 1.0
    _cholesky(S, p, side)
    _down(S, W, p, n, side)


@kernel
def _read(arrays, start, found, t, first, last, given, before, side):
    """The arguments of a step, and the mean and the covariance that enter it."""
    for place in range(5):
        _load(arrays[place], t, first, last, given[place], side)
    for place in range(2):
        if t == 0:
            _load(start[place], 0, first, last, before[place], side)
        else:
            _load(found[place], t - 1, first, last, before[place], side)


@allocating_kernel
def _rooms(n, p, side):
    """Room for the arguments of a step, for what enters it, and for what `_foresee` finds."""
    w = len(side)
    given = np.empty(n * n * w), np.empty(n * w), np.empty(n * n * w), np.empty(p * n * w), np.empty(p * w)
    before = np.empty(n * w), np.empty(n * n * w)
    x, FP, PP, K = np.empty(n * w), np.empty(n * n * w), np.empty(n * n * w), np.empty(p * n * w)
    return given, before, (x, FP, PP, K, np.empty(p * p * w), np.empty(p * w))


@allocating_kernel
def filter_steps(arrays, start, found, nats, l0, l1, side):
    """Fill means and covariances, `found`, and `nats`; `arrays` are those of `F`, `b`, `Q`, `H` and `y`."""
    n, p, w = arrays[1].shape[2], arrays[4].shape[2], len(side)
    given, before, made = _rooms(n, p, side)
    x, JP, PP, K, S, e = made
    m, P, J = np.empty(n * w), np.empty(n * n * w), np.empty(n * n * w)
    for t in range(len(nats)):
        for first in range(l0, l1, w):
            _read(arrays, start, found, t, first, l1, given, before, side)
            _foresee(given, before, made, n, p, side)
            _down(S, e, p, 1, side)
            for v in range(min(w, l1 - first)):
                total = 0.0
                for k in range(p):
                    total += np.log(S[(k * p + k) * w + v]) - 0.5 * e[k * w + v] * e[k * w + v]
                nats[t, first + v] = total
            _turned_product(K, e, m, n, p, 1, side)
            for i in range(n * w):
                m[i] += x[i]
            _up(S, K, p, n, side)
            _keep(K, given[3], J, n, p, side)
            _product(J, PP, JP, n, n, n, side)
            _spread(JP, J, P, n, n, side)
            _turned_spread(K, K, J, n, p, side)
            for i in range(n * n * w):
                P[i] += J[i]
            _store(found[0], t, first, l1, m, side)
            _store(found[1], t, first, l1, P, side)


@kernel
def _to_rows(u, r, g, K, N, m, P, KN, weighed, out, n, p, side):
    """The derivative with respect to the rows of `H`."""
    w = len(side)
    _product(K, N, KN, p, n, n, side)
    for k in range(p):
        for j in range(n):
            for v in range(w):
                KN[(k * n + j) * w + v] = u[k * w + v] * r[j * w + v] - 2.0 * KN[(k * n + j) * w + v]
    _product(KN, P, out, p, n, n, side)
    for k in range(p):
        for j in range(n):
            for v in range(w):
                told = (g[v] * u[k * w + v] - weighed[k * w + v]) * m[j * w + v]
                out[(k * n + j) * w + v] += told - g[v] * K[(k * n + j) * w + v]


@kernel
def _local(z, inner, H, G, g, N, J, NJ, out, n, p, side):
    """The derivative with respect to the predicted covariance."""
    w = len(side)
    _product(N, J, NJ, n, n, n, side)
    _turned_spread(J, NJ, out, n, n, side)
    _turned_product(H, G, NJ, n, p, n, side)
    for i in range(n):
        for j in range(n):
            for v in range(w):
                a, b = i * w + v, j * w + v
                told = g[v] * (z[a] * z[b] - NJ[(i * n + j) * w + v])
                out[(i * n + j) * w + v] += 0.5 * (told + inner[a] * z[b] + z[a] * inner[b])


@kernel
def _gather(gradients, t, first, last, r, N, g, room, n, side):
    """What the results of a step mean, beside what they mean for later steps: added to `r` and `N`, and `g`."""
    w = len(side)
    to_mean, to_P, to_nats = gradients
    _load(to_nats, t, first, last, g, side)
    if to_mean.shape[0]:
        _load(to_mean, t, first, last, room, side)
        for i in range(n * w):
            r[i] += room[i]
    if to_P.shape[0]:
        _load(to_P, t, first, last, room, side)
        for i in range(n):
            for j in range(n):
                for v in range(w):
                    N[(i * n + j) * w + v] += 0.5 * (room[(i * n + j) * w + v] + room[(j * n + i) * w + v])


@allocating_kernel
def filter_gradients(arrays, start, found, gradients, results, sums, l0, l1, side):
    """Fill the derivatives with respect to all arguments; `sums` holds those of the state, from the last time on.

    `arrays`: of `F`, `b`, `Q`, `H` and `y`; `start` and `found`: means and covariances; `gradients`: of means,
    covariances and nats, the first two with no times if they are zero; `results`: with respect to `arrays`.
    """
    n, p, w = arrays[1].shape[2], arrays[4].shape[2], len(side)
    given, before, made = _rooms(n, p, side)
    _, FP, PP, K, S, u = made
    F_bar, b_bar, Q_bar, H_bar, y_bar = _rooms(n, p, side)[0]
    mean, P, r, N = np.empty(n * w), np.empty(n * n * w), np.empty(n * w), np.empty(n * n * w)
    z, inner, weighed, g = np.empty(n * w), np.empty(n * w), np.empty(p * w), np.empty(w)
    J, G, KN = np.empty(n * n * w), np.empty(p * n * w), np.empty(p * n * w)
    for s in range(len(arrays[0])):
        t = len(arrays[0]) - 1 - s
        for first in range(l0, l1, w):
            _read(arrays, start, found, t, first, l1, given, before, side)
            for place, room in ((0, mean), (1, P)):
                _load(found[place], t, first, l1, room, side)
            for place, room in ((0, r), (1, N)):
                _load(sums[place], 0, first, l1, room, side)
            _gather(gradients, t, first, l1, r, N, g, PP, n, side)
            F, H, m = given[0], given[3], before[0]
            _foresee(given, before, made, n, p, side)
            _up(S, K, p, n, side)
            _down(S, u, p, 1, side)
            _up(S, u, p, 1, side)
            for i in range(p * n * w):
                G[i] = H[i]
            _down(S, G, p, n, side)
            _up(S, G, p, n, side)
            _keep(K, H, J, n, p, side)
            _turned_product(H, u, z, n, p, 1, side)
            _turned_product(J, r, inner, n, n, 1, side)
            _product(K, r, weighed, p, n, 1, side)
            _local(z, inner, H, G, g, N, J, PP, Q_bar, n, p, side)
            _to_rows(u, r, g, K, N, mean, P, KN, weighed, H_bar, n, p, side)
            for k in range(p):
                for v in range(w):
                    y_bar[k * w + v] = weighed[k * w + v] - g[v] * u[k * w + v]
            for i in range(n):
                for v in range(w):
                    b_bar[i * w + v] = inner[i * w + v] + g[v] * z[i * w + v]
            _product(Q_bar, FP, F_bar, n, n, n, side)
            for i in range(n):
                for j in range(n):
                    for v in range(w):
                        at = (i * n + j) * w + v
                        F_bar[at] = 2.0 * F_bar[at] + b_bar[i * w + v] * m[j * w + v]
            _turned_product(F, b_bar, r, n, n, 1, side)
            _product(Q_bar, F, PP, n, n, n, side)
            _turned_spread(F, PP, N, n, n, side)
            for place, room in ((0, F_bar), (1, b_bar), (2, Q_bar), (3, H_bar), (4, y_bar)):
                _store(results[place], t, first, l1, room, side)
            for place, room in ((0, r), (1, N)):
                _store(sums[place], 0, first, l1, room, side)


@part_kernel
def _seen(P, F, Q, tiny, FP, S, m, n, side):
    """`F P`, and the factor of the covariance of what is seen."""
    w = len(side)
    _product(F, P, FP, m, n, n, side)
    _spread(FP, F, S, m, n, side)
    for i in range(m * m * w):
        S[i] += Q[i]
    for i in range(m):
        for v in range(w):
            variance = S[(i * m + i) * w + v]
            S[(i * m + i) * w + v] += tiny * (variance if variance > 0.0 else 1.0)
    _cholesky(S, m, side)


@allocating_kernel
def gain_steps(arrays, tiny, gain, left, m, n, l0, l1, side):
    """Fill `gain`, transposed, and `left`, from `P`, `F` and `Q`; the formulas are those of `_gains`."""
    w = len(side)
    P, F, Q = np.empty(n * n * w), np.empty(m * n * w), np.empty(m * m * w)
    K, QK, S = np.empty(m * n * w), np.empty(m * n * w), np.empty(m * m * w)
    J, JP, out = np.empty(n * n * w), np.empty(n * n * w), np.empty(n * n * w)
    for first in range(l0, l1, w):
        for place, room in ((0, P), (1, F), (2, Q)):
            _load(arrays[place], 0, first, l1, room, side)
        _seen(P, F, Q, tiny, K, S, m, n, side)
        _down(S, K, m, n, side)
        _up(S, K, m, n, side)
        _keep(K, F, J, n, m, side)
        _product(J, P, JP, n, n, n, side)
        _spread(JP, J, out, n, n, side)
        _product(Q, K, QK, m, m, n, side)
        _turned_spread(K, QK, J, n, m, side)
        for i in range(n * n * w):
            out[i] += J[i]
        _store(gain, 0, first, l1, K, side)
        _store(left, 0, first, l1, out, side)


@part_kernel
def _minus_product(A, B, scale, out, m, k, n, side):
    """Less `scale A B`, of `(m, k)` and `(k, n)`."""
    w = len(side)
    for i in range(m):
        for h in range(k):
            for j in range(n):
                for v in range(w):
                    out[(i * n + j) * w + v] -= scale * A[(i * k + h) * w + v] * B[(h * n + j) * w + v]


@allocating_kernel
def gain_gradients(arrays, tiny, gain, gradients, results, m, n, l0, l1, side):
    """Fill the derivatives with respect to `P`, `F` and `Q`; gains, and what they mean, come transposed."""
    w = len(side)
    P, F, Q = np.empty(n * n * w), np.empty(m * n * w), np.empty(m * m * w)
    P_bar, F_bar, Q_bar = np.empty(n * n * w), np.empty(m * n * w), np.empty(m * m * w)
    K, V, L, T = np.empty(m * n * w), np.empty(m * n * w), np.empty(n * n * w), np.empty(n * n * w)
    FP, S, KL, M = np.empty(m * n * w), np.empty(m * m * w), np.empty(m * n * w), np.empty(m * m * w)
    J, JP = np.empty(n * n * w), np.empty(n * n * w)
    for first in range(l0, l1, w):
        for place, room in ((0, P), (1, F), (2, Q)):
            _load(arrays[place], 0, first, l1, room, side)
        _load(gain, 0, first, l1, K, side)
        _load(gradients[0], 0, first, l1, V, side)
        _load(gradients[1], 0, first, l1, T, side)
        for i in range(n):
            for j in range(n):
                for v in range(w):
                    L[(i * n + j) * w + v] = 0.5 * (T[(i * n + j) * w + v] + T[(j * n + i) * w + v])
        _seen(P, F, Q, tiny, FP, S, m, n, side)
        _down(S, V, m, n, side)
        _up(S, V, m, n, side)
        _keep(K, F, J, n, m, side)
        _product(J, P, JP, n, n, n, side)
        _product(K, L, KL, m, n, n, side)
        _product_turned(K, V, M, m, n, m, side)
        _spread(KL, K, Q_bar, m, n, side)
        for i in range(m * m * w):
            Q_bar[i] -= M[i]
        for k in range(m):
            for h in range(k + 1):
                for v in range(w):
                    a, b = (k * m + h) * w + v, (h * m + k) * w + v
                    M[a] = M[a] + M[b]
                    M[b] = M[a]
        _product(V, P, F_bar, m, n, n, side)
        _minus_product(M, FP, 1.0, F_bar, m, m, n, side)
        _minus_product(KL, JP, 2.0, F_bar, m, n, n, side)
        _product(L, J, T, n, n, n, side)
        _turned_product(V, F, JP, n, m, n, side)
        for i in range(n * n * w):
            T[i] += JP[i]
        _turned_product(J, T, P_bar, n, n, n, side)
        for place, room in ((0, P_bar), (1, F_bar), (2, Q_bar)):
            _store(results[place], 0, first, l1, room, side)
