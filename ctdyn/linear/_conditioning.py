"""What a linear-Gaussian model does with a batch of observations, before and after the filter."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..data import IrregularBatch
from ..nn import take_items
from ._matrix_scan import congruence_scan, matrix_recurrence
from .holds import Hold


__all__ = [
    "Whitened",
    "emission",
    "merge",
    "root",
    "rows_at",
    "smoothed",
    "smoothed_covariance",
    "whiten",
    "whiten_channels",
]


class Whitened(NamedTuple):
    """Observations in units of their noise: `H` (*batch, time, p, n), `y` (*batch, time, p), and what the change of
    unit adds to the log-likelihood, `nats` (*batch, time).
    """

    H: Tensor
    y: Tensor
    nats: Tensor


def whiten_channels(H: Tensor, variance: Tensor, batch: IrregularBatch, offset: Tensor | None) -> Whitened:
    """Observations with noise of unit covariance; a missing channel becomes a row of zeros.

    Args:
        H: observation matrix, `(*parameter_batch, channel, n)`.
        variance: variances of the noise, which is independent between channels, `(*parameter_batch, channel)`.
        batch: the observations.
        offset: what is added to them, `(*parameter_batch, channel)`.
    """
    mask = batch.mask
    values, extra = _observed(H, batch, offset)
    variance = variance[..., None, :] if extra is None else variance[..., None, :] + extra
    variance = torch.where(mask, variance, 1.0)
    scale = torch.where(mask, variance.rsqrt(), 0.0)
    nats = -0.5 * torch.where(mask, (2 * math.pi * variance).log(), 0.0).sum(-1)
    return Whitened(scale[..., None] * H[..., None, :, :], scale * values, nats)


def whiten(H: Tensor, R: Tensor, batch: IrregularBatch, offset: Tensor | None) -> Whitened:
    """The same for noise with a covariance between channels, `(*parameter_batch, channel, channel)`."""
    mask, wide = batch.mask, H.dtype
    values, extra = _observed(H, batch, offset)
    H = H[..., None, :, :]
    both = mask[..., :, None] & mask[..., None, :]
    diagonal = (~mask).to(wide) if extra is None else torch.where(mask, extra, 1.0)
    covariance = torch.where(both, R[..., None, :, :], 0.0) + torch.diag_embed(diagonal)
    factor = torch.linalg.cholesky(covariance)
    seen = torch.where(mask[..., None], H, 0.0)
    solved = torch.linalg.solve_triangular(factor, torch.cat([seen, values[..., None]], -1), upper=False)
    nats = -factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * math.log(2 * math.pi) * mask.sum(-1).to(wide)
    return Whitened(solved[..., :-1], solved[..., -1], nats)


def _observed(H: Tensor, batch: IrregularBatch, offset: Tensor | None) -> tuple[Tensor, Tensor | None]:
    values = batch.values.to(H.dtype)
    values = values if offset is None else values - offset[..., None, :]
    extra = None if batch.noise is None else torch.where(batch.mask, batch.noise.to(H.dtype), 0.0).square()
    return torch.where(batch.mask, values, 0.0), extra


def stretch(batch: IrregularBatch, start: int, end: int | None) -> IrregularBatch:
    """The times of a batch from `start` to before `end`."""
    if start == 0 and (end is None or end == batch.times.shape[-1]):
        return batch
    rows = slice(start, end)
    return IrregularBatch(
        batch.times[..., rows],
        batch.values[..., rows, :],
        batch.mask[..., rows, :],
        inputs=None if batch.inputs is None else batch.inputs[..., rows, :],
        noise=None if batch.noise is None else batch.noise[..., rows, :],
        start=None if batch.start is None else batch.start[..., rows],
    )


def merge(batch: IrregularBatch, at: Tensor, hold: Hold) -> tuple[IrregularBatch, Tensor]:
    """The batch with unobserved rows at the query times, and where its own and they stand, `(*batch, time + query)`.

    Args:
        batch: the observations, `(*batch, time)`.
        at: query times, `(*batch, query)`, in any order.
        hold: what the inputs do between their times.
    """
    shape = torch.broadcast_shapes(batch.batch_shape, at.shape[:-1])
    count, queries = batch.times.shape[-1], at.shape[-1]
    known = batch.times.to(torch.float64).expand(*shape, count)
    asked = at.to(torch.float64).expand(*shape, queries)
    times, order = torch.cat([known, asked], -1).sort(dim=-1, stable=True)
    place = torch.empty_like(order).scatter_(
        -1, order, torch.arange(count + queries, device=at.device).expand_as(order)
    )

    def arrange(x: Tensor, rows: Tensor | None = None) -> Tensor:
        x = x.expand(*shape, *x.shape[-2:])
        rows = x.new_zeros(*shape, queries, x.shape[-1]) if rows is None else rows
        x = torch.cat([x, rows], -2)
        return take_items(x, order, -2)

    inputs = batch.inputs
    if inputs is not None:
        inputs = arrange(inputs, _inputs_at(known, inputs.expand(*shape, *inputs.shape[-2:]), asked, hold))
    noise = None if batch.noise is None else arrange(batch.noise)
    return IrregularBatch(times, arrange(batch.values), arrange(batch.mask), inputs=inputs, noise=noise), place


def rows_at(place: Tensor, mean: Tensor, *matrices: Tensor) -> tuple[Tensor, ...]:
    """Rows of `(*lead, *batch, row, n)`, and of matrices `(*batch, row, m, n)`, at `(*batch, time)`."""
    return take_items(mean, place, -2), *(take_items(x, place, -3) for x in matrices)


def _inputs_at(ts: Tensor, us: Tensor, at: Tensor, hold: Hold) -> Tensor:
    later = torch.searchsorted(ts.contiguous(), at.contiguous(), right=True)
    place, later = (later - 1).clamp(min=0), later.clamp(max=ts.shape[-1] - 1)
    start, end = ts.gather(-1, place), ts.gather(-1, later)
    share = ((at - start) / (end - start).clamp(min=1e-300)).clamp(0.0, 1.0)[..., None].to(us.dtype)
    u0, u1 = (take_items(us, i, -2) for i in (place, later))
    return hold.inside(u0, u1, share)[1]


def smoothed(mean: Tensor, gain: Tensor, forward: Tensor) -> Tensor:
    """Means given all observations, from filtered means and what they predict for the next time.

    Args:
        mean: filtered means, `(*batch, time, n)`.
        gain: smoother gains, `(*batch, time, n, n)`, zero at the last time.
        forward: the means that they predict for the next time, `(*batch, time, n)`.
    """
    return matrix_recurrence(gain, mean - (gain @ forward[..., None]).squeeze(-1), reverse=True)


def smoothed_covariance(left: Tensor, gain: Tensor) -> Tensor:
    """Covariances given all observations, `(*batch, time, n, n)`."""
    P = congruence_scan(gain, left, torch.zeros_like(left[..., 0, :, :]), reverse=True)
    return 0.5 * (P + P.mT)


def root(covariance: Tensor) -> Tensor:
    """`L` with `L L'` equal to a covariance, also where it is singular or zero."""
    scale = _scales(covariance)
    n = covariance.shape[-1]
    eye = torch.eye(n, dtype=covariance.dtype, device=covariance.device)
    still = (covariance.diagonal(dim1=-2, dim2=-1) <= 0).to(covariance.dtype)
    tiny = 8 * n * torch.finfo(covariance.dtype).eps
    factor = torch.linalg.cholesky(_unit(covariance, scale) + tiny * eye + torch.diag_embed(still))
    return torch.where(still[..., None] > 0, 0.0, scale[..., None] * factor)


def emission(H: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of `H x`, `(*batch, time, channel)` and with another axis of channels."""
    H = H[..., None, :, :]
    return (H @ mean[..., None]).squeeze(-1), H @ covariance @ H.mT


def _scales(covariance: Tensor) -> Tensor:
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    return torch.where(variance > 0, variance, 1.0).sqrt()


def _unit(covariance: Tensor, scale: Tensor) -> Tensor:
    return covariance / (scale[..., :, None] * scale[..., None, :])
