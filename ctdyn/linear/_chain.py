"""A linear-Gaussian model over the times of a batch, and what the filter and the smoother make of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..data import IrregularBatch
from ._conditioning import smoothed, smoother_gains
from ._kalman import Steps, kalman_filter
from ._matrix_scan import matrix_recurrence


__all__ = ["Chain", "filtered", "gains", "smoothed_means", "smoothed_surprise", "stretch"]


class Chain(NamedTuple):
    """A model over the times of a batch, float64: `(*batch, time, ...)`, the first step of length zero."""

    F: Tensor
    b: Tensor
    Q: Tensor
    H: Tensor
    y: Tensor
    nats: Tensor
    m0: Tensor
    P0: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes, of series and parameters together."""
        kept = {"F": 3, "b": 2, "Q": 3, "H": 3, "y": 2, "nats": 1, "m0": 1, "P0": 2}
        return torch.broadcast_shapes(*(x.shape[: x.dim() - kept[name]] for name, x in self._asdict().items()))


def filtered(chain: Chain, chunks: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Filtered means `(*batch, time, n)` and covariances, and nats `(*batch, time)`."""
    shape = chain.batch_shape
    n = chain.m0.shape[-1]
    given = [_lanes(x, shape) for x in (chain.F, chain.b[..., None], chain.Q, chain.H, chain.y[..., None])]
    m0, P0 = chain.m0.expand(*shape, n).reshape(-1, n, 1), chain.P0.expand(*shape, n, n).reshape(-1, n, n)
    steps = Steps(given[0], given[1], given[2], given[3], given[4], m0, P0)
    found = kalman_filter(steps, chunks)
    mean, P, nats = (x.transpose(0, 1).unflatten(0, shape) if shape else x.squeeze(1) for x in found)
    return mean.squeeze(-1), P, nats + chain.nats


def _lanes(x: Tensor, shape: torch.Size) -> Tensor:
    """`(*batch, time, row, column)` as `(time, lane, row, column)`."""
    return x.expand(*shape, *x.shape[-3:]).reshape(-1, *x.shape[-3:]).transpose(0, 1)


def stretch(batch: IrregularBatch, start: int, end: int | None) -> IrregularBatch:
    if start == 0 and (end is None or end == batch.times.shape[-1]):
        return batch
    rows = slice(start, end)
    return IrregularBatch(
        batch.times[..., rows],
        batch.values[..., rows, :],
        batch.mask[..., rows, :],
        inputs=None if batch.inputs is None else batch.inputs[..., rows, :],
        noise=None if batch.noise is None else batch.noise[..., rows, :],
    )


def gains(chain: Chain, P: Tensor) -> tuple[Tensor, Tensor]:
    """Smoother gains and what is left, `(*batch, time, n, n)`; at the last time zero, and the filtered covariance."""
    gain, left = smoother_gains(P[..., :-1, :, :], chain.F[..., 1:, :, :], chain.Q[..., 1:, :, :])
    last = P[..., -1:, :, :]
    return torch.cat([gain, torch.zeros_like(last)], -3), torch.cat([left, last], -3)


def smoothed_means(chain: Chain, mean: Tensor, gain: Tensor) -> Tensor:
    ahead = (chain.F[..., 1:, :, :] @ mean[..., :-1, :, None]).squeeze(-1) + chain.b[..., 1:, :]
    return smoothed(mean, gain, torch.cat([ahead, torch.zeros_like(mean[..., -1:, :])], -2))


def smoothed_surprise(chain: Chain, P: Tensor, surprise: Tensor) -> Tensor:
    """The smoother of a state that starts at zero and is not driven, for many observations that share covariances."""
    gain = P @ chain.H.mT
    eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    moved = (eye - gain @ chain.H) @ chain.F
    filtered = matrix_recurrence(moved, (gain @ surprise[..., None]).squeeze(-1))
    back, _ = gains(chain, P)
    ahead = (chain.F[..., 1:, :, :] @ filtered[..., :-1, :, None]).squeeze(-1)
    return smoothed(filtered, back, torch.cat([ahead, torch.zeros_like(filtered[..., -1:, :])], -2))
