"""The Kalman filter and its derivatives step by step, compiled by numba; imported only where numba is installed.

Arrays are `(time, lane, ...)`, C-contiguous, float64. All lanes are at one time before the next begins, so that memory
is streamed once; lanes `l0` to `l1` are one thread's share. The formulas are those of `_kalman`.
"""

from __future__ import annotations

import numpy as np

from ._elementary import allocating_kernel


__all__ = ["filter_gradients", "filter_steps", "gain_gradients", "gain_steps"]


@allocating_kernel
def _times(A, x, out):
    """`A x`."""
    for i in range(A.shape[0]):
        total = 0.0
        for j in range(A.shape[1]):
            total += A[i, j] * x[j]
        out[i] = total


@allocating_kernel
def _turned_times(A, x, out):
    """`A' x`."""
    out[:] = 0.0
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            out[j] += A[i, j] * x[i]


@allocating_kernel
def _product(A, B, out):
    """`A B`."""
    for i in range(A.shape[0]):
        for j in range(B.shape[1]):
            out[i, j] = 0.0
        for k in range(A.shape[1]):
            a = A[i, k]
            for j in range(B.shape[1]):
                out[i, j] += a * B[k, j]


@allocating_kernel
def _spread(A, B, out):
    """`A B'` where that is symmetric."""
    for i in range(A.shape[0]):
        for j in range(i + 1):
            total = 0.0
            for k in range(A.shape[1]):
                total += A[i, k] * B[j, k]
            out[i, j] = total
            out[j, i] = total


@allocating_kernel
def _turned_spread(A, B, out):
    """`A' B` where that is symmetric."""
    n = A.shape[1]
    for i in range(n):
        for j in range(i + 1):
            out[i, j] = 0.0
    for k in range(A.shape[0]):
        for i in range(n):
            a = A[k, i]
            for j in range(i + 1):
                out[i, j] += a * B[k, j]
    for i in range(n):
        for j in range(i):
            out[j, i] = out[i, j]


@allocating_kernel
def _cholesky(S):
    """The lower factor, in place; NaN where there is none."""
    p = S.shape[0]
    for j in range(p):
        total = S[j, j]
        for k in range(j):
            total -= S[j, k] * S[j, k]
        root = np.sqrt(total)
        S[j, j] = root
        for i in range(j + 1, p):
            total = S[i, j]
            for k in range(j):
                total -= S[i, k] * S[j, k]
            S[i, j] = total / root


@allocating_kernel
def _down(L, X):
    """`L^-1 X`, in place."""
    for i in range(L.shape[0]):
        for k in range(i):
            a = L[i, k]
            for j in range(X.shape[1]):
                X[i, j] -= a * X[k, j]
        scale = 1.0 / L[i, i]
        for j in range(X.shape[1]):
            X[i, j] *= scale


@allocating_kernel
def _up(L, X):
    """`L'^-1 X`, in place."""
    p = L.shape[0]
    for s in range(p):
        i = p - 1 - s
        for k in range(i + 1, p):
            a = L[k, i]
            for j in range(X.shape[1]):
                X[i, j] -= a * X[k, j]
        scale = 1.0 / L[i, i]
        for j in range(X.shape[1]):
            X[i, j] *= scale


@allocating_kernel
def _foresee(F, b, Q, H, y, m, P, x, FP, PP, W, S, e):
    """Predict: mean, `F P`, covariance, `L^-1 H PP`, the factor `L` of the surprise's covariance, and the surprise."""
    n, p = F.shape[0], H.shape[0]
    _times(F, m, x)
    _product(F, P, FP)
    _spread(FP, F, PP)
    for i in range(n):
        x[i] += b[i]
        for j in range(n):
            PP[i, j] += Q[i, j]
    _product(H, PP, W)
    _spread(W, H, S)
    for i in range(p):
        S[i, i] += 1.0
        total = y[i]
        for j in range(n):
            total -= H[i, j] * x[j]
        e[i, 0] = total
    _cholesky(S)
    _down(S, W)


@allocating_kernel
def _keep(K, H, J):
    """`1 - K' H`, with the transposed gain `K`."""
    n = J.shape[0]
    for i in range(n):
        for j in range(n):
            total = 1.0 if i == j else 0.0
            for k in range(K.shape[0]):
                total -= K[k, i] * H[k, j]
            J[i, j] = total


@allocating_kernel
def filter_steps(F, b, Q, H, y, m0, P0, mean, P, nats, l0, l1):
    """Fill `mean`, `P` and `nats`."""
    length, n, p = F.shape[0], F.shape[2], H.shape[2]
    x, e = np.empty(n), np.empty((p, 1))
    FP, PP, J, JP = np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    K, S = np.empty((p, n)), np.empty((p, p))
    for t in range(length):
        for lane in range(l0, l1):
            m, C = (m0[lane], P0[lane]) if t == 0 else (mean[t - 1, lane], P[t - 1, lane])
            h = H[t, lane]
            _foresee(F[t, lane], b[t, lane], Q[t, lane], h, y[t, lane], m, C, x, FP, PP, K, S, e)
            _down(S, e)
            total = 0.0
            for k in range(p):
                total -= np.log(S[k, k]) + 0.5 * e[k, 0] * e[k, 0]
            nats[t, lane] = total
            for i in range(n):
                total = x[i]
                for k in range(p):
                    total += K[k, i] * e[k, 0]
                mean[t, lane, i] = total
            _up(S, K)
            _keep(K, h, J)
            _product(J, PP, JP)
            out = P[t, lane]
            _spread(JP, J, out)
            for i in range(n):
                for j in range(n):
                    for k in range(p):
                        out[i, j] += K[k, i] * K[k, j]


@allocating_kernel
def _to_rows(u, r, g, K, N, m, P, KN, w, out):
    """The derivative with respect to the rows of `H`."""
    p, n = K.shape
    _product(K, N, KN)
    for k in range(p):
        for j in range(n):
            KN[k, j] = u[k, 0] * r[j] - 2.0 * KN[k, j]
    _product(KN, P, out)
    for k in range(p):
        for j in range(n):
            out[k, j] += (g * u[k, 0] - w[k]) * m[j] - g * K[k, j]


@allocating_kernel
def _local(z, inner, H, G, g, N, J, NJ, out):
    """The derivative with respect to the predicted covariance."""
    n = z.shape[0]
    _product(N, J, NJ)
    _turned_spread(J, NJ, out)
    for i in range(n):
        for j in range(n):
            told = z[i] * z[j]
            for k in range(H.shape[0]):
                told -= H[k, i] * G[k, j]
            out[i, j] += 0.5 * (g * told + inner[i] * z[j] + z[i] * inner[j])


@allocating_kernel
def filter_gradients(given, found, gradients, results, sums, l0, l1):
    """Fill the derivatives with respect to all arguments; `sums` holds those of the state, from the last time on.

    `given`: the arguments; `found`: means and covariances; `gradients`: of means, covariances and nats, the first two
    with no times if they are zero; `results`: with respect to `F`, `b`, `Q`, `H` and `y`.
    """
    F, b, Q, H, y, m0, P0 = given
    mean, P = found
    to_mean, to_P, to_nats = gradients
    F_bar, b_bar, Q_bar, H_bar, y_bar = results
    r_all, N_all = sums
    length, n, p = F.shape[0], F.shape[2], H.shape[2]
    x, u, z, w = np.empty(n), np.empty((p, 1)), np.empty(n), np.empty(p)
    inner, FP, PP, J = np.empty(n), np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    K, G, KN, S, NF = np.empty((p, n)), np.empty((p, n)), np.empty((p, n)), np.empty((p, p)), np.empty((n, n))
    for s in range(length):
        t = length - 1 - s
        for lane in range(l0, l1):
            m, C = (m0[lane], P0[lane]) if t == 0 else (mean[t - 1, lane], P[t - 1, lane])
            f, h, r, N, g = F[t, lane], H[t, lane], r_all[lane], N_all[lane], to_nats[t, lane]
            if to_mean.shape[0]:
                r += to_mean[t, lane]
            if to_P.shape[0]:
                for i in range(n):
                    for j in range(n):
                        N[i, j] += 0.5 * (to_P[t, lane, i, j] + to_P[t, lane, j, i])
            _foresee(f, b[t, lane], Q[t, lane], h, y[t, lane], m, C, x, FP, PP, K, S, u)
            _up(S, K)
            _down(S, u)
            _up(S, u)
            G[:] = h
            _down(S, G)
            _up(S, G)
            _keep(K, h, J)
            _turned_times(h, u[:, 0], z)
            _turned_times(J, r, inner)
            _times(K, r, w)
            q = Q_bar[t, lane]
            _local(z, inner, h, G, g, N, J, NF, q)
            _to_rows(u, r, g, K, N, mean[t, lane], P[t, lane], KN, w, H_bar[t, lane])
            for k in range(p):
                y_bar[t, lane, k] = w[k] - g * u[k, 0]
            for i in range(n):
                b_bar[t, lane, i] = inner[i] + g * z[i]
            out = F_bar[t, lane]
            _product(q, FP, out)
            for i in range(n):
                for j in range(n):
                    out[i, j] = 2.0 * out[i, j] + b_bar[t, lane, i] * m[j]
            _turned_times(f, b_bar[t, lane], r)
            _product(q, f, NF)
            _turned_spread(f, NF, N)


@allocating_kernel
def _seen(P, F, Q, tiny, FP, S):
    """`F P`, and the factor of the covariance of what is seen."""
    _product(F, P, FP)
    _spread(FP, F, S)
    for i in range(S.shape[0]):
        for j in range(S.shape[0]):
            S[i, j] += Q[i, j]
        S[i, i] += tiny * (S[i, i] if S[i, i] > 0.0 else 1.0)
    _cholesky(S)


@allocating_kernel
def gain_steps(P, F, Q, tiny, gain, left, l0, l1):
    """Fill `gain` and `left`; the formulas are those of `_gains`."""
    m, n = F.shape[1:]
    FP, QK, S, J, JP = np.empty((m, n)), np.empty((m, n)), np.empty((m, m)), np.empty((n, n)), np.empty((n, n))
    for lane in range(l0, l1):
        _seen(P[lane], F[lane], Q[lane], tiny, FP, S)
        _down(S, FP)
        _up(S, FP)
        for i in range(n):
            for k in range(m):
                gain[lane, i, k] = FP[k, i]
        _keep(FP, F[lane], J)
        _product(J, P[lane], JP)
        out = left[lane]
        _spread(JP, J, out)
        _product(Q[lane], FP, QK)
        for i in range(n):
            for j in range(i + 1):
                total = out[i, j]
                for k in range(m):
                    total += FP[k, i] * QK[k, j]
                out[i, j] = total
                out[j, i] = total


@allocating_kernel
def gain_gradients(P, F, Q, tiny, gain, to_gain, to_left, P_bar, F_bar, Q_bar, l0, l1):
    """Fill the derivatives with respect to all arguments."""
    m, n = F.shape[1:]
    FP, S, V, K, KL = np.empty((m, n)), np.empty((m, m)), np.empty((m, n)), np.empty((m, n)), np.empty((m, n))
    J, JP, L, T, M = np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty((m, m))
    for lane in range(l0, l1):
        p, f = P[lane], F[lane]
        _seen(p, f, Q[lane], tiny, FP, S)
        for i in range(n):
            for k in range(m):
                K[k, i] = gain[lane, i, k]
                V[k, i] = to_gain[lane, i, k]
            for j in range(n):
                L[i, j] = 0.5 * (to_left[lane, i, j] + to_left[lane, j, i])
        _down(S, V)
        _up(S, V)
        _keep(K, f, J)
        _product(J, p, JP)
        _product(K, L, KL)
        for k in range(m):
            for h in range(m):
                inner = 0.0
                outer = 0.0
                for j in range(n):
                    inner += K[k, j] * V[h, j]
                    outer += KL[k, j] * K[h, j]
                M[k, h] = inner
                Q_bar[lane, k, h] = outer - inner
        _product(V, p, F_bar[lane])
        for k in range(m):
            for h in range(m):
                both = M[k, h] + M[h, k]
                for j in range(n):
                    F_bar[lane, k, j] -= both * FP[h, j]
            for i in range(n):
                twice = 2.0 * KL[k, i]
                for j in range(n):
                    F_bar[lane, k, j] -= twice * JP[i, j]
        _product(L, J, T)
        for k in range(m):
            for i in range(n):
                for j in range(n):
                    T[i, j] += V[k, i] * f[k, j]
        out = P_bar[lane]
        out[:] = 0.0
        for k in range(n):
            for i in range(n):
                a = J[k, i]
                for j in range(n):
                    out[i, j] += a * T[k, j]
