"""The scans as operators that `torch.compile` takes as they are: it must not trace a loop over the times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._backends import Steps
from ._select import default_backend


__all__ = ["check_steps", "opaque_recurrence", "opaque_zoh"]


_RECURRENCE = "(Tensor a, Tensor b, Tensor? h0, bool reverse) -> Tensor"
_RECURRENCE_GRADIENTS = "(Tensor a, Tensor h, Tensor? h0, Tensor g, bool reverse) -> (Tensor, Tensor, Tensor)"
_STEPS = "Tensor? h0, Tensor? reset, bool impulse, bool reverse"
_ZOH = f"(Tensor lam, Tensor dt, Tensor v, {_STEPS}) -> Tensor"
_ZOH_GRADIENTS = f"(Tensor lam, Tensor dt, Tensor[] states, {_STEPS}) -> (Tensor, Tensor, Tensor, Tensor)"


def check_steps(dt: Tensor) -> None:
    """Refuse steps that are negative or not finite, where reading them does not stall a device.

    Raises:
        ValueError: such a step.

    Example:
        >>> check_steps(torch.tensor([0.0, 1.0]))
    """
    if dt.device.type != "cpu":
        return
    low, high = (bound.item() for bound in torch.aminmax(dt))
    if not 0.0 <= low <= high < float("inf"):
        what = "negative" if low < 0.0 else "not finite"
        raise ValueError(f"dt must be finite and not negative, (*batch, time); a step is {what}: {low} to {high}.")


@torch.library.custom_op("ctdyn::recurrence", mutates_args=(), schema=_RECURRENCE)
def opaque_recurrence(a: Tensor, b: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    """`ScanBackend.recurrence`."""
    return default_backend(b).recurrence(a, b, h0, reverse=reverse)


@opaque_recurrence.register_fake
def _(a: Tensor, b: Tensor, h0: Tensor | None, reverse: bool) -> Tensor:
    return _like(b)


@torch.library.custom_op("ctdyn::recurrence_gradients", mutates_args=(), schema=_RECURRENCE_GRADIENTS)
def opaque_recurrence_gradients(
    a: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`ScanBackend.recurrence_gradients`."""
    run = default_backend(h).recurrence_gradients
    to_a, to_b, to_h0 = run(a, h, h0, g, reverse=reverse, needs_a=True)
    return _given(to_a), to_b, to_h0


@opaque_recurrence_gradients.register_fake
def _(a: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    return _like(a), _like(h), _like(h[:, 0])


def _keep_recurrence(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, _, h0, ctx.reverse = inputs
    ctx.save_for_backward(a, h0, output)


def _recurrence_back(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    a, h0, h = ctx.saved_tensors
    to_a, to_b, to_h0 = opaque_recurrence_gradients(a, h, h0, g, ctx.reverse)
    return to_a, to_b, None if h0 is None else to_h0, None


opaque_recurrence.register_autograd(_recurrence_back, setup_context=_keep_recurrence)


@torch.library.custom_op("ctdyn::zoh", mutates_args=(), schema=_ZOH)
def opaque_zoh(
    lam: Tensor, dt: Tensor, v: Tensor, h0: Tensor | None, reset: Tensor | None, impulse: bool, reverse: bool
) -> Tensor:
    """`ScanBackend.zoh`."""
    check_steps(dt)
    return default_backend(v).zoh(Steps(lam, dt, reset, impulse, reverse), v, h0)


@opaque_zoh.register_fake
def _(
    lam: Tensor, dt: Tensor, v: Tensor, h0: Tensor | None, reset: Tensor | None, impulse: bool, reverse: bool
) -> Tensor:
    return _like(v)


@torch.library.custom_op("ctdyn::zoh_gradients", mutates_args=(), schema=_ZOH_GRADIENTS)
def opaque_zoh_gradients(
    lam: Tensor, dt: Tensor, states: list[Tensor], h0: Tensor | None, reset: Tensor | None, impulse: bool, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`ScanBackend.zoh_gradients`; `states`: v, h and g."""
    v, h, g = states
    steps = Steps(lam, dt, reset, impulse, reverse)
    to_lam, to_dt, to_v, to_h0 = default_backend(v).zoh_gradients(steps, v, h, h0, g, needs=(True, True, True))
    return _given(to_lam), _given(to_dt), _given(to_v), to_h0


@opaque_zoh_gradients.register_fake
def _(
    lam: Tensor, dt: Tensor, states: list[Tensor], h0: Tensor | None, reset: Tensor | None, impulse: bool, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _like(lam), _like(dt), _like(states[0]), _like(states[0][:, 0])


def _keep_zoh(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    lam, dt, v, h0, reset, ctx.impulse, ctx.reverse = inputs
    ctx.save_for_backward(lam, dt, v, h0, reset, output)


def _zoh_back(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    lam, dt, v, h0, reset, h = ctx.saved_tensors
    run = opaque_zoh_gradients
    to_lam, to_dt, to_v, to_h0 = run(lam, dt, [v, h, g], h0, reset, ctx.impulse, ctx.reverse)
    return to_lam, to_dt, to_v, None if h0 is None else to_h0, None, None, None


opaque_zoh.register_autograd(_zoh_back, setup_context=_keep_zoh)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _given(x: Tensor | None) -> Tensor:
    if x is None:
        raise RuntimeError("a backend left out a gradient that was wanted")
    return x
