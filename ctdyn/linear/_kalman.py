"""The Kalman filter over whole series, parallel in time, with its derivatives in closed form.

A long series is cut into chunks. What a chunk tells about the state that enters it is what a few pseudo-observations
would tell, and what leaves it is a linear step; so a short loop over chunks is itself a Kalman filter, and then all
chunks are filtered side by side. Covariances are updated in Joseph's form, and the information of a chunk is
kept as a triangular root, so that small observation noise costs no digits.

Backward, the derivatives with respect to all filtered means and covariances obey linear recurrences (Fisher's identity
in the form of a disturbance smoother), which run parallel in time as well; no step is taped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from .._checks import check_count
from ._kalman_compiled import can_compile, compiled_gradients, compiled_steps
from ._matrix_scan import Congruence, Recurrence, chunk_count, join, split


__all__ = ["COMPILED", "Filtered", "Steps", "kalman_filter", "update"]

#: In place of a number of chunks: step by step, by compiled kernels.
COMPILED = 0


class Steps(NamedTuple):
    """A linear-Gaussian model over given steps, with observation noise of unit covariance.

    `F` (time, lane, n, n), `b` (time, lane, n, 1), `Q` (time, lane, n, n), `H` (time, lane, p, n), `y` (time, lane, p,
    1), and the state before the first step: `m0` (lane, n, 1), `P0` (lane, n, n). A channel that was not observed has a
    row of zeros in `H`, and zero in `y`.
    """

    F: Tensor
    b: Tensor
    Q: Tensor
    H: Tensor
    y: Tensor
    m0: Tensor
    P0: Tensor


class Filtered(NamedTuple):
    """Means (time, lane, n, 1), covariances (time, lane, n, n), and nats per time (time, lane), less their constant."""

    mean: Tensor
    covariance: Tensor
    nats: Tensor


def kalman_filter(steps: Steps, chunks: int | None = None) -> Filtered:
    """Filter all series: distributions of the state at every time, given the observations up to then."""
    if chunks is None:
        chunks = COMPILED if can_compile(steps.F) else chunk_count(steps.F)
    else:
        check_count("chunks, the pieces that are filtered side by side,", chunks)
        chunks = min(chunks, len(steps.F))
    return Filtered(*_Filter.apply(chunks, *steps))  # type: ignore[misc]


def update(
    mean: Tensor, covariance: Tensor, H: Tensor, y: Tensor, eyes: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Condition on `y = H x + noise` of unit covariance; also `1 - K H`, the root of the precision, and what it makes
    of the surprise.
    """
    spread = torch.bmm(H, covariance)
    root = _inverse_root(torch.baddbmm(eyes[1], spread, H.mT), eyes[1])
    surprise = torch.baddbmm(y, H, mean, alpha=-1)
    if root.shape[-1] == 1:
        scaled, surprise = root * spread, root * surprise
        gain = (root * scaled).mT
    else:
        scaled, surprise = torch.bmm(root, spread), torch.bmm(root, surprise)
        gain = torch.bmm(scaled.mT, root)
    kept = torch.baddbmm(eyes[0], gain, H, alpha=-1)
    mean = torch.baddbmm(mean, scaled.mT, surprise)
    covariance = torch.baddbmm(torch.bmm(gain, gain.mT), torch.bmm(kept, covariance), kept.mT)
    return mean, covariance, kept, root, surprise


def _inverse_root(S: Tensor, eye: Tensor) -> Tensor:
    """The inverse of the lower Cholesky factor."""
    if S.shape[-1] == 1:
        return S.rsqrt()
    return torch.linalg.solve_triangular(torch.linalg.cholesky_ex(S)[0], eye.expand_as(S), upper=False)


def _entering(cut: list[tuple[Tensor, ...]], start: tuple[Tensor, Tensor], chunks: int) -> tuple[Tensor, Tensor]:
    """The distributions that enter the chunks, `(chunk * lane, ...)`."""
    m0, P0 = start
    lanes, n = P0.shape[:2]
    p = cut[0][3].shape[-2]
    eyes = _eyes(P0, p)
    whole = eyes[0].expand(chunks * lanes, n, n)
    mean, P = m0.new_zeros(chunks * lanes, n, 1), torch.zeros_like(whole)
    rows = []
    for F, b, Q, H, y in cut:
        moved = torch.bmm(F, whole)
        mean, P, kept, root, surprise = update(
            torch.baddbmm(b, F, mean), torch.baddbmm(Q, torch.bmm(F, P), F.mT), H, y, eyes
        )
        seen = torch.bmm(H, moved)
        rows.append(torch.cat([root * seen if p == 1 else torch.bmm(root, seen), surprise], -1))
        whole = torch.bmm(kept, moved)
    told = torch.cat(rows, -2)
    if told.shape[-2] < n:
        told = torch.nn.functional.pad(told, (0, 0, 0, n - told.shape[-2]))
    told = torch.linalg.qr(told, mode="r")[1][:, :n]
    eyes = (eyes[0], eyes[0])
    means, covariances = [m0], [P0]
    pieces = [x.unflatten(0, (chunks, lanes)).unbind(0) for x in (told, whole, mean, P)]
    for row, step, gained, noise in list(zip(*pieces, strict=True))[:-1]:
        m, C = update(means[-1], covariances[-1], row[..., :n], row[..., n:], eyes)[:2]
        means.append(torch.baddbmm(gained, step, m))
        covariances.append(torch.baddbmm(noise, torch.bmm(step, C), step.mT))
    return torch.cat(means), torch.cat(covariances)


def _eyes(like: Tensor, p: int) -> tuple[Tensor, Tensor]:
    n = like.shape[-1]
    return torch.eye(n, dtype=like.dtype, device=like.device), torch.eye(p, dtype=like.dtype, device=like.device)


class _Filter(Function):
    """All filtered distributions; saves them and its arguments, nothing else."""

    @staticmethod
    def forward(chunks: int, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if chunks == COMPILED:
            return compiled_steps(tensors)
        F, b, Q, H, y, m, P = tensors
        length, p = F.shape[0], H.shape[-2]
        eyes = _eyes(P, p)
        parts = (split(F, chunks, eyes[0]), *(split(x, chunks) for x in (b, Q, H, y)))
        cut = list(zip(*(x.unbind(0) for x in parts), strict=True))
        if chunks > 1:
            m, P = _entering(cut, (m, P), chunks)
        means, covariances, roots, surprises = [], [], [], []
        for F, b, Q, H, y in cut:
            m, P, _, root, surprise = update(
                torch.baddbmm(b, F, m), torch.baddbmm(Q, torch.bmm(F, P), F.mT), H, y, eyes
            )
            means.append(m)
            covariances.append(P)
            roots.append(root)
            surprises.append(surprise)
        mean, P, root, surprise = (join(torch.stack(x), chunks, length) for x in (means, covariances, roots, surprises))
        nats = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * surprise.square().sum((-2, -1))
        return mean, 0.5 * (P + P.mT), nats

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.chunks = inputs[0]
        ctx.save_for_backward(*inputs[1:], *output[:2])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        F, b, Q, H, y, m0, P0, mean, P = saved
        if ctx.chunks == COMPILED and not torch.is_grad_enabled():
            return None, *compiled_gradients(saved, gradients)
        to_mean, to_P, to_nats = (
            torch.zeros_like(like) if g is None else g
            for g, like in zip(gradients, (mean, P, F[..., 0, 0]), strict=True)
        )
        to_P, to_nats = 0.5 * (to_P + to_P.mT), to_nats[..., None, None]
        eyes = _eyes(P0, H.shape[-2])
        before, P_before = torch.cat([m0[None], mean[:-1]]), torch.cat([P0[None], P[:-1]])
        moved = F @ P_before
        spread = H @ (moved @ F.mT + Q)
        root = _inverse_root(eyes[1] + spread @ H.mT, eyes[1])
        precise = root.mT @ root
        u = precise @ (y - H @ (F @ before + b))
        z, gain = H.mT @ u, spread.mT @ precise
        kept = eyes[0] - gain @ H
        local = 0.5 * to_nats * (z @ z.mT - H.mT @ precise @ H)
        # What a state means for all later observations, backward in time: first for the mean, then the covariance.
        A = kept @ F
        later = torch.cat([A[1:], torch.zeros_like(A[:1])]).mT.flip(0)
        source = to_mean + _shift(F.mT @ (z * to_nats))
        r: Tensor = Recurrence.apply(later, source.flip(0), torch.zeros_like(m0))  # type: ignore[assignment]
        r = r.flip(0)
        inner = kept.mT @ r
        both = 0.5 * inner @ z.mT
        local = local + both + both.mT
        source = to_P + _shift(F.mT @ local @ F)
        N: Tensor = Congruence.apply(later, source.flip(0), torch.zeros_like(P0))  # type: ignore[assignment]
        N = N.flip(0)
        m_bar, P_bar = inner + to_nats * z, kept.mT @ N @ kept + local
        F_bar = H_bar = None
        if ctx.needs_input_grad[1]:
            F_bar = m_bar @ before.mT + 2.0 * P_bar @ moved
        weighed = gain.mT @ r
        if ctx.needs_input_grad[4]:
            H_bar = (u @ r.mT - 2.0 * gain.mT @ N) @ P + (to_nats * u - weighed) @ mean.mT - to_nats * gain.mT
        first = F[0].mT
        return None, F_bar, m_bar, P_bar, H_bar, weighed - to_nats * u, first @ m_bar[0], first @ P_bar[0] @ F[0]


def _shift(x: Tensor) -> Tensor:
    """Each time gets what stands at the next."""
    return torch.cat([x[1:], torch.zeros_like(x[:1])])
