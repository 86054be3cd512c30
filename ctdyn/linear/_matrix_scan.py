"""Linear recurrences with matrices, parallel in time.

A long series is cut into chunks, and all chunks are stepped through side by side: first to find what each does to a
state that enters it, then, once a short loop has found what enters, to find all states. On a processor this beats a
scan of logarithmic depth: it does two passes of work instead of many, in few large calls.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


__all__ = ["Congruence", "Recurrence", "chunk_count", "congruence_scan", "join", "matrix_recurrence", "split"]

_FEW_STEPS = 24
#: Entries of all matrices of a time from which arithmetic, and not the number of calls, is what takes the time.
_MANY_ENTRIES = 1024


def chunk_count(like: Tensor) -> int:
    """Into how many chunks to cut matrices `(time, lane, n, n)`; 1 where stepping through all times is as fast."""
    length, lanes = like.shape[:2]
    if like.device.type != "cpu":
        # There the number of calls is what counts.
        return max(1, round(math.sqrt(length)))
    if length < _FEW_STEPS or not lanes or like[0].numel() >= _MANY_ENTRIES:
        return 1
    return max(2, round(1.5 * math.sqrt(length) / max(1.0, lanes / 64)))


def split(x: Tensor, chunks: int, fill: Tensor | None = None) -> Tensor:
    """`(time, lane, ...)` as `(step, chunk * lane, ...)`; the last chunk is filled up with `fill`, by default zero."""
    if chunks == 1:
        return x
    length, lanes = x.shape[:2]
    steps = -(-length // chunks)
    missing = chunks * steps - length
    if missing:
        rest = x.new_zeros(missing, *x.shape[1:]) if fill is None else fill.expand(missing, *x.shape[1:])
        x = torch.cat([x, rest])
    return x.unflatten(0, (chunks, steps)).transpose(0, 1).reshape(steps, chunks * lanes, *x.shape[2:])


def join(x: Tensor, chunks: int, length: int) -> Tensor:
    """The inverse of `split`."""
    if chunks == 1:
        return x
    return x.unflatten(1, (chunks, -1)).transpose(0, 1).flatten(0, 1)[:length]


def matrix_recurrence(A: Tensor, b: Tensor, h0: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    r"""All states of a linear recurrence with matrices.

    .. math:: h_k = A_k h_{k-1} + b_k

    Args:
        A: matrices, `(*batch, time, n, n)`. Batch axes that they lack are handled as columns: the matrices are shared.
        b: inputs, `(*batch, time, n)`.
        h0: states before the first step, `(*batch, n)`; zero if not given.
        reverse: run from the last time to the first, :math:`h_k = A_k h_{k+1} + b_k`.

    Returns:
        States, `(*batch, time, n)`.
    """
    length, n = b.shape[-2:]
    batch = torch.broadcast_shapes(A.shape[:-3], b.shape[:-2], () if h0 is None else h0.shape[:-1])
    if not length:
        return b.expand(*batch, length, n)
    own = (1,) * (len(batch) + 3 - A.dim()) + A.shape[:-3]
    axes = range(len(batch))
    kept, columns = [i for i in axes if own[i] != 1], [i for i in axes if own[i] == 1]
    lead = len(batch)
    rows = b.expand(*batch, length, n).permute(lead, *kept, lead + 1, *columns)
    # Said in full: of an empty batch no size can be told from the others.
    lanes, width = (math.prod(batch[i] for i in some) for some in (kept, columns))
    rows = rows.reshape(length, lanes, n, width)
    start = b.new_zeros(*batch, n) if h0 is None else h0.expand(*batch, n)
    start = start.permute(*kept, lead, *columns).reshape(lanes, n, width)
    matrices = A.expand(*A.shape[:-3], length, n, n).reshape(lanes, length, n, n).transpose(0, 1)
    if reverse:
        matrices, rows = matrices.flip(0), rows.flip(0)
    h: Tensor = Recurrence.apply(matrices, rows, start)  # type: ignore[assignment]
    if reverse:
        h = h.flip(0)
    h = h.reshape(length, *(batch[i] for i in kept), n, *(batch[i] for i in columns))
    order = [1 + kept.index(i) if i in kept else 2 + len(kept) + columns.index(i) for i in axes]
    return h.permute(*order, 0, 1 + len(kept))


def congruence_scan(A: Tensor, S: Tensor, P0: Tensor, *, reverse: bool = False) -> Tensor:
    r"""All covariances of a linear recurrence with noise.

    .. math:: P_k = A_k P_{k-1} A_k^\top + S_k

    Args:
        A: matrices, `(*batch, time, n, n)`.
        S: covariances of the noise, `(*batch, time, n, n)`.
        P0: covariances before the first step, `(*batch, n, n)`.
        reverse: run from the last time to the first.

    Returns:
        Covariances, `(*batch, time, n, n)`.
    """
    length, n = S.shape[-3], S.shape[-1]
    batch = torch.broadcast_shapes(A.shape[:-3], S.shape[:-3], P0.shape[:-2])
    lanes = math.prod(batch)
    A, S = (x.expand(*batch, length, n, n).reshape(lanes, length, n, n).transpose(0, 1) for x in (A, S))
    if reverse:
        A, S = A.flip(0), S.flip(0)
    P: Tensor = Congruence.apply(A, S, P0.expand(*batch, n, n).reshape(lanes, n, n))  # type: ignore[assignment]
    if reverse:
        P = P.flip(0)
    return P.transpose(0, 1).reshape(*batch, length, n, n)


class Recurrence(Function):
    """`h_k = A_k h_{k-1} + b_k` with columns: `(time, lane, n, n)`, `(time, lane, n, column)`, `(lane, n, column)`."""

    @staticmethod
    def forward(A: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        length, lanes = b.shape[:2]
        chunks = chunk_count(A)
        eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        matrices, rows = split(A, chunks, eye).unbind(0), split(b, chunks).unbind(0)
        if chunks > 1:
            whole, gained = matrices[0], rows[0]
            for matrix, row in zip(matrices[1:], rows[1:], strict=True):
                whole, gained = torch.bmm(matrix, whole), torch.baddbmm(row, matrix, gained)
            entering = [h0]
            pieces = zip(whole.unflatten(0, (chunks, lanes)), gained.unflatten(0, (chunks, lanes)), strict=True)
            for matrix, row in list(pieces)[:-1]:
                entering.append(torch.baddbmm(row, matrix, entering[-1]))
            h0 = torch.cat(entering)
        states, h = [], h0
        for matrix, row in zip(matrices, rows, strict=True):
            h = torch.baddbmm(row, matrix, h)
            states.append(h)
        return join(torch.stack(states), chunks, length)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        A, _, h0 = inputs
        ctx.save_for_backward(A, h0, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        A, h0, h = ctx.saved_tensors
        later = torch.cat([A[1:], torch.zeros_like(A[:1])]).mH
        b_bar: Tensor = Recurrence.apply(later.flip(0), gradients[0].flip(0), torch.zeros_like(h0))  # type: ignore
        b_bar = b_bar.flip(0)
        A_bar = b_bar @ torch.cat([h0[None], h[:-1]]).mH if ctx.needs_input_grad[0] else None
        return A_bar, b_bar, A[0].mH @ b_bar[0]


class Congruence(Function):
    """`P_k = A_k P_{k-1} A_k' + S_k`, all `(time, lane, n, n)`; `P0` is `(lane, n, n)`."""

    @staticmethod
    def forward(A: Tensor, S: Tensor, P0: Tensor) -> Tensor:
        length, lanes = S.shape[:2]
        chunks = chunk_count(A)
        eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        cut = split(A, chunks, eye)
        matrices, transposed, rows = cut.unbind(0), cut.mT.unbind(0), split(S, chunks).unbind(0)
        if chunks > 1:
            whole, gained = matrices[0], rows[0]
            for matrix, turned, row in zip(matrices[1:], transposed[1:], rows[1:], strict=True):
                whole = torch.bmm(matrix, whole)
                gained = torch.baddbmm(row, torch.bmm(matrix, gained), turned)
            entering = [P0]
            pieces = zip(whole.unflatten(0, (chunks, lanes)), gained.unflatten(0, (chunks, lanes)), strict=True)
            for matrix, row in list(pieces)[:-1]:
                entering.append(torch.baddbmm(row, torch.bmm(matrix, entering[-1]), matrix.mT))
            P0 = torch.cat(entering)
        states, P = [], P0
        for matrix, turned, row in zip(matrices, transposed, rows, strict=True):
            P = torch.baddbmm(row, torch.bmm(matrix, P), turned)
            states.append(P)
        return join(torch.stack(states), chunks, length)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        A, _, P0 = inputs
        ctx.save_for_backward(A, P0, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        A, P0, P = ctx.saved_tensors
        later = torch.cat([A[1:], torch.zeros_like(A[:1])]).mT
        S_bar: Tensor = Congruence.apply(later.flip(0), gradients[0].flip(0), torch.zeros_like(P0))  # type: ignore
        S_bar = S_bar.flip(0)
        before = torch.cat([P0[None], P[:-1]])
        A_bar = None
        if ctx.needs_input_grad[0]:
            A_bar = S_bar @ A @ before.mT + S_bar.mT @ A @ before
        return A_bar, S_bar, A[0].mT @ S_bar[0] @ A[0]
