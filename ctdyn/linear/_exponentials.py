"""Matrix exponentials, their integrals and their noise for one matrix and very many steps.

A series holds thousands of different steps and one matrix. So the matrix functions are made at a few Chebyshev nodes,
and read off at every step by one product of matrices; everything is differentiable in the matrix and in the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


__all__ = ["exponentials", "noise_integrals"]

#: Terms of a Taylor series up to an argument of 1/2 for exponentials, and of 1 for noise.
_TERMS = {torch.float32: 9, torch.complex64: 9}
_MOST_TERMS = 15
_NOISE_TERMS = 20
#: The largest product of rate and step that is interpolated; longer steps are squared from shorter ones.
_REACH = 48.0


def exponentials(A: Tensor, dt: Tensor, order: int) -> tuple[Tensor, ...]:
    r"""`exp(A dt)` and, as far as `order` asks, the weights of a held and of a rising input.

    .. math:: e^{A\,dt}, \qquad dt\,\varphi_1(A\,dt), \qquad dt\,\varphi_2(A\,dt)

    Args:
        A: square matrices, `(*matrix_batch, n, n)`.
        dt: steps, not negative, `(*batch, time)`, its batch axes broadcastable with those of `A`.
        order: 0 to 2.

    Returns:
        `order + 1` tensors `(*batch, time, n, n)`.
    """
    distinct, place = _distinct(dt) if A.dim() == 2 else (dt, None)
    nodes = _node_count(A, distinct)
    if distinct.shape[-1] <= 2 * nodes or not distinct.numel():
        growth, *integrals = _direct(A, distinct, order)
        values = (growth + _identity(A), *integrals)
    else:
        values = _interpolated(A, distinct, order, nodes)
        still = distinct.detach() == 0
        if bool(still.any()):
            # Padding must do nothing at all, however much of it there is.
            values = (torch.where(still[..., None, None], _identity(A), values[0]), *values[1:])
    step = distinct[..., None, None].to(A.dtype)
    found = (values[0], *(step * value for value in values[1:]))
    if place is None:
        return found
    shape = (*found[0].shape[:-3], *dt.shape, *A.shape[-2:])
    return tuple(value.index_select(-3, place.flatten()).reshape(shape) for value in found)


def noise_integrals(A: Tensor, S: Tensor, dt: Tensor) -> Tensor:
    r"""The covariance that white noise of spectral density `S` gathers over each step.

    .. math:: Q(dt) = \int_0^{dt} e^{A s}\,S\,e^{A^\top s}\,ds, \qquad Q(2h) = e^{Ah} Q(h)\,e^{A^\top h} + Q(h)

    A Taylor series where the step is short, and doubling, which adds only positive terms: no entry cancels, neither for
    short steps (as in the difference of two stationary covariances) nor for long ones (as in Van Loan's block matrix).

    Args:
        A: square matrices, `(*matrix_batch, n, n)`.
        S: spectral densities, `(*matrix_batch, n, n)`, positive semi-definite; the batch axes of both broadcast.
        dt: steps, `(*batch, time)`.

    Returns:
        Covariances, `(*batch, time, n, n)`.
    """
    # One matrix under several densities is as many matrices.
    A = A.expand(torch.broadcast_shapes(S.shape, A.shape))
    distinct, place = _distinct(dt) if A.dim() == 2 else (dt, None)
    rate = _rate(A)
    halvings = _levels(2 * rate[..., None] * distinct.detach().to(rate.dtype))
    scale = rate.clamp(min=1e-30).to(A.dtype)[..., None, None]
    step = distinct * torch.exp2(-halvings.to(dt.dtype))
    count = _NOISE_TERMS
    unit = A / scale
    powers = _powers(unit, count)
    terms = [S.expand(A.shape)]
    for _ in range(count - 1):
        moved = unit @ terms[-1]
        terms.append(moved + moved.mT)
    x = step * scale[..., 0, 0, None].to(step.dtype)
    weights = _taylor_weights(x, count)
    n = A.shape[-1]
    growth = _combine(weights[..., 1 : count + 1], powers)
    gathered = _combine(weights[..., 1 : count + 1], torch.stack([term.flatten(-2) for term in terms], -2))
    values = (growth.unflatten(-1, (n, n)), gathered.unflatten(-1, (n, n)) / scale[..., None, :, :])
    values = _climb(values, halvings, _double)
    Q = 0.5 * (values[1] + values[1].mT)
    if place is None:
        return Q
    return Q.index_select(-3, place.flatten()).reshape(*Q.shape[:-3], *dt.shape, n, n)


def _distinct(dt: Tensor) -> tuple[Tensor, Tensor | None]:
    """The different steps and where each stands, if they repeat often: a regular clock has one, padding has many 0."""
    if dt.requires_grad or dt.numel() < 32:
        return dt, None
    few = dt.flatten()[:: max(1, dt.numel() // 256)]
    if 4 * len(few.unique()) > len(few):
        return dt, None
    values, place = torch.unique(dt, return_inverse=True)
    return (values, place) if 4 * len(values) <= dt.numel() else (dt, None)


def _rate(A: Tensor) -> Tensor:
    """How fast the powers of a matrix grow, `(*matrix_batch,)`, float64: far below the norm if it is not normal."""
    with torch.no_grad():
        norm = torch.linalg.matrix_norm(A.to(torch.complex128 if A.is_complex() else torch.float64), 1)
        unit = A.to(torch.complex128 if A.is_complex() else torch.float64) / norm.clamp(min=1e-300)[..., None, None]
        fourth = unit @ unit
        fourth = fourth @ fourth
        found = [torch.linalg.matrix_norm(power, 1) ** (1 / p) for power, p in ((fourth, 4), (fourth @ unit, 5))]
        # A bound from below, so that the powers of what is nilpotent stay in range.
        return norm * torch.maximum(*found).clamp(min=1 / 64)


def _levels(reach: Tensor) -> Tensor:
    """How often each step must be halved until its product with the rate is at most one."""
    return torch.ceil(torch.log2(reach.clamp(min=1.0))).to(torch.int64)


def _node_count(A: Tensor, dt: Tensor) -> int:
    """The degree at which the Chebyshev series of the exponential has converged to rounding."""
    if not dt.numel():
        return 1
    radius = float(torch.clamp(_rate(A).amax() * dt.detach().amax(), max=_REACH)) / 2
    bound = math.log(torch.finfo(A.dtype).eps / 8)
    count = 4
    while count * math.log(max(radius, 1e-8) / 2) - math.lgamma(count + 1) > bound:
        count += 1
    return count + 2


def _direct(A: Tensor, dt: Tensor, order: int) -> tuple[Tensor, ...]:
    """`exp(A dt) - 1`, and phi functions of `A dt`: Taylor series of halved steps, and squaring."""
    rate = _rate(A)
    reach = 2 * rate.amax() * dt.detach().amax().to(rate.dtype) if dt.numel() else rate.new_zeros(())
    halvings = int(_levels(reach))
    scale = rate.clamp(min=1e-30).to(A.dtype)[..., None, None]
    x = dt * 2.0**-halvings * scale[..., 0, 0, None].to(dt.dtype).real
    terms = _TERMS.get(A.dtype, _MOST_TERMS)
    powers = _powers(A / scale, terms)
    weights = _taylor_weights(x, terms)[..., 1:]
    n = A.shape[-1]
    values = [_combine(weights, powers).unflatten(-1, (n, n))]
    for index in range(1, order + 1):
        factors = [math.factorial(j) / math.factorial(j + index) for j in range(1, terms + 1)]
        series = _combine(weights * torch.tensor(factors, dtype=x.dtype, device=x.device), powers)
        values.append(series.unflatten(-1, (n, n)) + _identity(A) / math.factorial(index))
    found = tuple(values)
    for _ in range(halvings):
        found = _square(found)
    return found


def _interpolated(A: Tensor, dt: Tensor, order: int, count: int) -> tuple[Tensor, ...]:
    """`exp(A dt)` and phi functions: interpolated in the step, and squared where the step is too long for that."""
    rate = _rate(A)
    longest = dt.detach().amax().clamp(min=torch.finfo(dt.dtype).tiny)
    # All series share one interval, so that their nodes are the same: the longest that the fastest matrix allows.
    reach = float(rate.amax() * longest.to(rate.dtype))
    end = longest if reach <= _REACH else longest * (_REACH / reach)
    halvings = _levels((dt.detach() / end).to(rate.dtype) * (1 - 1e-12))
    step = dt * torch.exp2(-halvings.to(dt.dtype))
    angles = (torch.arange(count, dtype=torch.float64, device=dt.device) + 0.5) * (math.pi / count)
    nodes = (0.5 * end.to(torch.float64) * (1 + torch.cos(angles))).to(dt.dtype)
    growth, *integrals = _direct(A, nodes, order)
    degrees = torch.arange(count, dtype=torch.float64, device=dt.device)
    transform = torch.cos(degrees[:, None] * angles) * (2.0 / count)
    transform[0] *= 0.5
    basis = _chebyshev(2.0 * (step / end) - 1.0, count).to(A.dtype)
    transform = transform.to(A.dtype)
    n = A.shape[-1]
    read = tuple(
        (basis @ (transform @ value.flatten(-2))).unflatten(-1, (n, n)) for value in (growth + _identity(A), *integrals)
    )
    return _climb(read, halvings, _square_whole)


def _chebyshev(x: Tensor, count: int) -> Tensor:
    """Chebyshev polynomials of the first kind below degree `count`, along a last axis that is not contiguous."""
    found, twice = [torch.ones_like(x), x], 2.0 * x
    for _ in range(count - 2):
        found.append(torch.addcmul(-found[-2], twice, found[-1]))
    return torch.stack(found[:count], -2).mT if x.dim() else torch.stack(found[:count], -1)


def _powers(A: Tensor, count: int) -> Tensor:
    """`A` to the powers 1 to `count`, each as one row, `(*matrix_batch, count, n * n)`."""
    found = [A]
    for index in range(1, count):
        found.append(found[(index - 1) // 2] @ found[index // 2])
    return torch.stack(found, -3).flatten(-2)


def _taylor_weights(x: Tensor, count: int) -> Tensor:
    """`x**j / j!` for j from 0 to `count`, along a new last axis."""
    found = [torch.ones_like(x)]
    for index in range(1, count + 1):
        found.append(found[-1] * x / index)
    return torch.stack(found, -1)


def _identity(A: Tensor) -> Tensor:
    return torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)


def _combine(weights: Tensor, rows: Tensor) -> Tensor:
    return weights.to(rows.dtype) @ rows


def _square(values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """From a step to the step of twice its length; `exp - 1` keeps its digits where it is small."""
    growth = values[0]
    found = [torch.baddbmm(2 * growth.flatten(0, -3), growth.flatten(0, -3), growth.flatten(0, -3)).view_as(growth)]
    if len(values) > 1:
        found.append(values[1] + 0.5 * growth @ values[1])
    if len(values) > 2:
        found.append(0.25 * values[1] @ values[1] + 0.5 * values[2])
    return tuple(found)


def _square_whole(values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same for the exponential itself."""
    whole = values[0]
    found = [whole @ whole]
    if len(values) > 1:
        found.append(0.5 * (values[1] + whole @ values[1]))
    if len(values) > 2:
        found.append(0.25 * values[1] @ values[1] + 0.5 * values[2])
    return tuple(found)


def _double(values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    growth, gathered = values
    left = gathered + growth @ gathered
    return growth @ growth + 2 * growth, gathered + left + left @ growth.mT


def _climb(
    values: tuple[Tensor, ...], halvings: Tensor, double: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Undo the halvings: each step is doubled as often as it was halved, and no more."""
    top = int(halvings.amax()) if halvings.numel() else 0
    if top == 0:
        return values
    shape = values[0].shape
    levels = halvings.expand(shape[:-2]).flatten()
    order = levels.argsort(descending=True, stable=True)
    counts = torch.bincount(levels, minlength=top + 1).tolist()
    flat = tuple(value.flatten(0, -3).index_select(0, order) for value in values)
    start, climbed = 0, tuple(value[:0] for value in flat)
    for level in range(top, -1, -1):
        joined = (
            torch.cat([done, value[start : start + counts[level]]]) for done, value in zip(climbed, flat, strict=True)
        )
        climbed = tuple(joined) if counts[level] else climbed
        start += counts[level]
        if level and len(climbed[0]):
            climbed = double(climbed)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return tuple(value.index_select(0, back).view(shape) for value in climbed)
