"""The derivatives of the scans: each is a scan again, reversed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._backends import ScanBackend, Steps
from ._coefficients import decay, held_gain, held_gain_slope
from ._opaque import check_steps


__all__ = ["Recurrence", "ZohScan"]

# Cotangents follow torch: the gradient of a real loss to a complex tensor is the conjugate Wirtinger derivative, and
# that through y = a x is conj(a) times that of y.
#
# Where the derivatives themselves are differentiated, they are composed of differentiable parts; else one fused pass.


class Recurrence(torch.autograd.Function):
    """`h_k = a_k h_{k-1} + b_k` in the layout of `ScanBackend`."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, h0: Tensor | None, reverse: bool, backend: ScanBackend) -> Tensor:
        return backend.recurrence(a, b, h0, reverse=reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, _, h0, ctx.reverse, ctx.backend = inputs
        ctx.save_for_backward(a, h0, output)
        ctx.save_for_forward(a, h0, output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, h0, h = ctx.saved_tensors
        if torch.is_grad_enabled():
            to_b, to_h0 = _cotangents(a, g, ctx.reverse, ctx.backend)
            to_a = (to_b * _before(h, h0, ctx.reverse).conj()).sum_to_size(a.shape)
        else:
            run = ctx.backend.recurrence_gradients
            to_a, to_b, to_h0 = run(a, h, h0, g, reverse=ctx.reverse, needs_a=ctx.needs_input_grad[0])
        return to_a, to_b, None if h0 is None else to_h0, None, None

    @staticmethod
    def jvp(ctx: Any, d_a: Tensor, d_b: Tensor, d_h0: Tensor | None, *_: None) -> Tensor:  # type: ignore[override]
        a, h0, h = ctx.saved_tensors
        change = d_b + d_a * _before(h, h0, ctx.reverse)
        return Recurrence.apply(a, change, d_h0, ctx.reverse, ctx.backend)  # type: ignore[no-any-return]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        a, b, h0, reverse, backend = inputs
        size, rows = info.batch_size, _rows(b, in_dims[1])
        a = _merged(a, in_dims[0], size, rows, shared=True)
        b = _merged(b, in_dims[1], size, rows)
        h0 = None if h0 is None else _merged(h0, in_dims[2], size, rows)
        return Recurrence.apply(a, b, h0, reverse, backend).unflatten(0, (size, rows)), 0


class ZohScan(torch.autograd.Function):
    """`h_k = exp(lam dt_k) h_{k-1} + gain(lam, dt_k) v_k` in the layout of `ScanBackend`."""

    @staticmethod
    def forward(lam: Tensor, dt: Tensor, v: Tensor, h0: Tensor | None, reset: Tensor | None, *options: Any) -> Tensor:
        impulse, reverse, backend = options
        check_steps(dt)
        return backend.zoh(Steps(lam, dt, reset, impulse, reverse), v, h0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        lam, dt, v, h0, reset, ctx.impulse, ctx.reverse, ctx.backend = inputs
        ctx.save_for_backward(lam, dt, v, h0, reset, output)
        ctx.save_for_forward(lam, dt, v, h0, reset, output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        lam, dt, v, h0, reset, h = ctx.saved_tensors
        steps = Steps(lam, dt, reset, ctx.impulse, ctx.reverse)
        if torch.is_grad_enabled():
            to_lam, to_dt, to_v, to_h0 = _zoh_gradients(steps, v, h, h0, g, ctx.backend)
        else:
            needs = ctx.needs_input_grad[:3]
            to_lam, to_dt, to_v, to_h0 = ctx.backend.zoh_gradients(steps, v, h, h0, g, needs=needs)
        return to_lam, to_dt, to_v, None if h0 is None else to_h0, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, d_lam: Tensor, d_dt: Tensor, d_v: Tensor, d_h0: Tensor | None, *_: None) -> Tensor:  # type: ignore[override]
        lam, dt, v, h0, reset, h = ctx.saved_tensors
        full, kept, gain, slope = _coefficients(Steps(lam, dt, reset, ctx.impulse, ctx.reverse))
        d_lam, d_dt, lam, dt = d_lam[:, None], d_dt[..., None], lam[:, None], dt[..., None]
        change = (d_lam * dt + lam * d_dt) * kept * _before(h, h0, ctx.reverse)
        if gain is None or slope is None:
            change = change + d_v
        else:
            change = change + gain * d_v + (slope * d_lam + full * d_dt) * v
        return Recurrence.apply(kept, change, d_h0, ctx.reverse, ctx.backend)  # type: ignore[no-any-return]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        lam, dt, v, h0, reset, *options = inputs
        size, rows = info.batch_size, _rows(v, in_dims[2])
        lam = _merged(lam, in_dims[0], size, rows, shared=True)
        dt = _merged(dt, in_dims[1], size, rows, shared=True)
        v = _merged(v, in_dims[2], size, rows)
        h0 = None if h0 is None else _merged(h0, in_dims[3], size, rows)
        reset = None if reset is None else _merged(reset, in_dims[4], size, rows, shared=True)
        return ZohScan.apply(lam, dt, v, h0, reset, *options).unflatten(0, (size, rows)), 0


def _cotangents(a: Tensor, g: Tensor, reverse: bool, backend: ScanBackend) -> tuple[Tensor, Tensor]:
    """Those of the states, which are those of the inputs, and that of the first state."""
    # The factor of step k + 1 leads from k + 1 back to k; the one that is rolled round meets a zero state.
    back = a if a.shape[1] == 1 else a.roll(1 if reverse else -1, 1)
    states = Recurrence.apply(back.conj().resolve_conj(), g, None, not reverse, backend)
    first = -1 if reverse else 0
    return states, a[:, first].conj() * states[:, first]


def _zoh_gradients(
    steps: Steps, v: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, backend: ScanBackend
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    full, kept, gain, slope = _coefficients(steps)
    states, to_h0 = _cotangents(kept, g, steps.reverse, backend)
    flow = kept * _before(h, h0, steps.reverse)
    in_lam, in_dt, to_v = steps.dt[..., None] * flow, steps.lam[:, None] * flow, states
    if gain is not None and slope is not None:
        in_lam, in_dt, to_v = in_lam + slope * v, in_dt + full * v, states * gain.conj()
    to_lam = (states * in_lam.conj()).sum(1).sum_to_size(steps.lam.shape)
    to_dt = (states * in_dt.conj()).sum(-1)
    to_dt = (to_dt.real if to_dt.is_complex() else to_dt).sum_to_size(steps.dt.shape)
    return to_lam, to_dt, to_v, to_h0


def _coefficients(steps: Steps) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The decay without and with resets, the gain and its slope in `lam`; no gain where inputs are impulses."""
    lam, dt = steps.lam[:, None], steps.dt[..., None]
    full = decay(lam, dt)
    kept = full if steps.reset is None else torch.where(steps.reset[..., None], 0.0, full)
    if steps.impulse:
        return full, kept, None, None
    gain = held_gain(lam, dt)
    return full, kept, gain, held_gain_slope(lam, dt, full, gain)


def _before(h: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    """The state that each step began with."""
    edge = torch.zeros_like(h[:, :1]) if h0 is None else h0[:, None]
    return torch.cat([h[:, 1:], edge] if reverse else [edge, h[:, :-1]], 1)


def _rows(x: Tensor, dim: int | None) -> int:
    return x.shape[0] if dim is None else x.movedim(dim, 0).shape[1]


def _merged(x: Tensor, dim: int | None, size: int, rows: int, *, shared: bool = False) -> Tensor:
    """The mapped axis as more rows; what all rows share stays as it is."""
    if dim is None and shared and x.shape[0] == 1:
        return x
    x = x[None] if dim is None else x.movedim(dim, 0)
    return x.expand(size, rows, *x.shape[2:]).flatten(0, 1)
