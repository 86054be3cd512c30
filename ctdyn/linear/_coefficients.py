"""The coefficients of an exact step, accurate for every step length, zero included."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


__all__ = ["decay", "held_gain", "held_gain_slope"]

# Below this |z| the closed form of the slope loses digits, and a few terms of its series have them all.
_SMALL = 0.25


def decay(lam: Tensor, dt: Tensor) -> Tensor:
    r"""What a step keeps of the state, :math:`e^{\lambda \Delta}`.

    Args:
        lam: eigenvalues, broadcastable with `dt`.
        dt: steps, real.

    Example:
        >>> decay(torch.tensor([0.0, -1.0]), torch.tensor(2.0))
        tensor([1.0000, 0.1353])
    """
    z = lam * dt
    # The complex exponential of torch is seven times slower on a CPU.
    return torch.polar(z.real.exp(), z.imag) if z.is_complex() else z.exp()


def held_gain(lam: Tensor, dt: Tensor) -> Tensor:
    r"""What a step adds of an input that is held over it; accurate, and with accurate gradients, for every step.

    .. math:: \varphi(\lambda, \Delta) = \int_0^\Delta e^{\lambda s} ds = \frac{e^{\lambda \Delta} - 1}{\lambda}

    Args:
        lam: eigenvalues, broadcastable with `dt`; zero is fine.
        dt: steps, real.

    Example:
        >>> held_gain(torch.tensor([0.0, -1.0]), torch.tensor(2.0))
        tensor([2.0000, 0.8647])
    """
    lam, dt = torch.broadcast_tensors(lam, dt)
    return _HeldGain.apply(lam, dt)  # type: ignore[no-any-return]


def held_gain_slope(lam: Tensor, dt: Tensor, kept: Tensor, gain: Tensor) -> Tensor:
    r"""The derivative of `held_gain` in `lam`, :math:`(\Delta e^{\lambda \Delta} - \varphi) / \lambda`.

    Args:
        lam: eigenvalues.
        dt: steps.
        kept: `decay(lam, dt)`.
        gain: `held_gain(lam, dt)`.

    Example:
        >>> lam, dt = torch.tensor(0.0), torch.tensor(2.0)
        >>> held_gain_slope(lam, dt, decay(lam, dt), held_gain(lam, dt))
        tensor(2.)
    """
    z = lam * dt
    small = z.abs() < _SMALL
    terms = 7 if z.dtype in (torch.float32, torch.complex64) else 13
    inner = torch.where(small, z, 0.0)
    series = torch.full_like(inner, terms / math.factorial(terms + 1))
    for n in reversed(range(terms - 1)):
        series = series * inner + (n + 1) / math.factorial(n + 2)
    closed = (dt * kept - gain) / torch.where(small, 1.0, lam)
    return torch.where(small, dt * dt * series, closed)


def _expm1(z: Tensor) -> Tensor:
    # Half angles: 1 - cos(y) = 2 sin(y/2)^2 keeps the digits that the difference would lose.
    if not z.is_complex():
        return torch.expm1(z)
    em = torch.expm1(z.real)
    half = 0.5 * z.imag
    s, c = torch.sin(half), torch.cos(half)
    scaled = 2.0 * s * (em + 1.0)
    return torch.complex(em - s * scaled, scaled * c)


class _HeldGain(torch.autograd.Function):
    """The gain with its own derivatives: those of the quotient would cancel at small steps, and vanish at lam = 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(lam: Tensor, dt: Tensor) -> Tensor:
        still = lam == 0
        gain = _expm1(lam * dt) / torch.where(still, 1.0, lam)
        return torch.where(still, dt.to(gain.dtype), gain)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        lam, dt = ctx.saved_tensors
        kept = decay(lam, dt)
        to_lam = g * held_gain_slope(lam, dt, kept, held_gain(lam, dt)).conj()
        to_dt = g * kept.conj()
        return to_lam, to_dt.real if to_dt.is_complex() else to_dt

    @staticmethod
    def jvp(ctx: Any, d_lam: Tensor, d_dt: Tensor) -> Tensor:  # type: ignore[override]
        lam, dt = ctx.saved_tensors
        kept = decay(lam, dt)
        return held_gain_slope(lam, dt, kept, held_gain(lam, dt)) * d_lam + kept * d_dt
