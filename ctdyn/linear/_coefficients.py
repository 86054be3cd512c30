"""The coefficients of an exact step, accurate for every step length, zero included."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor


__all__ = ["StepValues", "decay", "held_gain", "held_gain_slope", "step_values"]

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
    inner = torch.where(small, z, 0.0)
    first, *others = _slope_terms(z.dtype)
    series = torch.full_like(inner, first)
    for term in others:
        series = series * inner + term
    closed = (dt * kept - gain) / torch.where(small, 1.0, lam)
    return torch.where(small, dt * dt * series, closed)


class StepValues(NamedTuple):
    """The coefficients of steps as numbers.

    Args:
        kept: `decay`.
        gain: `held_gain`; None where inputs are impulses.
        slope: `held_gain_slope`, where wanted.

    Example:
        >>> step_values(torch.tensor([[[-1.0]]]), torch.tensor([[[2.0]]]), impulse=True, slope=False).kept
        tensor([[[0.1353]]])
    """

    kept: Tensor
    gain: Tensor | None
    slope: Tensor | None


def step_values(lam: Tensor, dt: Tensor, *, impulse: bool, slope: bool) -> StepValues:
    """All coefficients of steps at once and without derivatives, in a fifth of the time that they take one by one.

    Args:
        lam: eigenvalues, `(1 | row, 1, state)`.
        dt: steps, `(1 | row, 1 | time, 1)`, real.
        impulse: inputs are impulses: there is no gain.
        slope: whether the slope of the gain is wanted.

    Example:
        >>> step_values(torch.tensor([[[0.0, -1.0]]]), torch.tensor([[[2.0]]]), impulse=False, slope=False).gain
        tensor([[[2.0000, 0.8647]]])
    """
    if impulse:
        return StepValues(decay(lam, dt), None, None)
    kept, minus_one = _exponentials(lam, dt)
    inverse, still = _inverse(lam)
    gain = minus_one.mul_(inverse)
    # Elsewhere the question would stall the device.
    if lam.device.type != "cpu" or bool(still.any()):
        gain = torch.where(still, dt.to(gain.dtype), gain)
    if not slope:
        return StepValues(kept, gain, None)
    z = lam * dt
    squared = z.real.square().addcmul_(z.imag, z.imag) if z.is_complex() else z.square()
    first, *others = _slope_terms(z.dtype)
    series = z * first
    for term in others[:-1]:
        series.add_(term).mul_(z)
    series.add_(others[-1]).mul_(dt * dt)
    return StepValues(kept, gain, torch.where(squared < _SMALL**2, series, (kept * dt).sub_(gain).mul_(inverse)))


def _slope_terms(dtype: torch.dtype) -> list[float]:
    """The series of `held_gain_slope` over the square of the step, the highest power of `lam dt` first."""
    terms = 7 if dtype in (torch.float32, torch.complex64) else 13
    return [(n + 1) / math.factorial(n + 2) for n in reversed(range(terms))]


def _exponentials(lam: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """The exponential of `lam dt`, and the same minus one."""
    if not lam.is_complex():
        z = lam * dt
        return z.exp(), z.expm1()
    # Half angles: 1 - cos(y) = 2 sin(y/2)^2 keeps the digits that the difference would lose.
    x, half = lam.real * dt, 0.5 * lam.imag * dt
    s, size = torch.sin(half), x.exp()
    turn = (2.0 * s).mul_(size)
    imaginary, lost = turn * torch.cos(half), turn.mul_(s)
    return torch.complex(size.sub_(lost), imaginary), torch.complex(torch.expm1(x).sub_(lost), imaginary)


def _inverse(lam: Tensor) -> tuple[Tensor, Tensor]:
    """One over the eigenvalues, and where they are too small for it; there the inverse is left out."""
    inverse = (1.0 / lam.to(torch.complex128 if lam.is_complex() else torch.float64)).to(lam.dtype)
    still = ~torch.isfinite(inverse)
    return torch.where(still, 0.0, inverse), still


class _HeldGain(torch.autograd.Function):
    """The gain with its own derivatives: those of the quotient would cancel at small steps, and vanish at lam = 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(lam: Tensor, dt: Tensor) -> Tensor:
        inverse, still = _inverse(lam)
        gain = _exponentials(lam, dt)[1] * inverse
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
