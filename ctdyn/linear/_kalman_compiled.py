"""The Kalman filter on a CPU, step by step, by kernels that numba compiles on their first use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ._compiled import numba_is_installed


__all__ = ["can_compile", "compiled_gain_gradients", "compiled_gains", "compiled_gradients", "compiled_steps"]

#: Beyond this size of the state, products of matrices belong to a library.
_LARGEST = 24
#: Numbers in the transitions below which a second thread costs more than it brings.
_SHARE = 1 << 15
#: Lanes that are worked on side by side, and below how many lanes one is worked on at a time.
_SIDE, _FEW = (0,) * 8, 4


def can_compile(F: Tensor) -> bool:
    """Whether the kernels can filter these transitions, and are the fastest to do so."""
    plain = F.device.type == "cpu" and F.dtype == torch.float64 and not torch.compiler.is_compiling()
    return plain and F.shape[-1] <= _LARGEST and numba_is_installed()


def compiled_steps(tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Means, covariances and nats, from the entries of `Steps`."""
    from ._kalman_kernels import filter_steps  # It imports numba.

    F = tensors[0]
    arrays, start = _given(tensors)
    length, lanes, n = F.shape[:3]
    mean, P, nats = (F.new_empty(shape) for shape in ((length, lanes, n), (length, lanes, n, n), (length, lanes)))
    found = _entries(mean, 1), _entries(P)
    _over_lanes(lanes, F.numel(), lambda *share: filter_steps(arrays, start, found, nats.numpy(), *share))
    return mean[..., None], P, nats


def compiled_gradients(saved: tuple[Tensor, ...], gradients: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Derivatives with respect to the entries of `Steps`, from these and what the filter found."""
    from ._kalman_kernels import filter_gradients

    F, b, Q, H, y, m0, P0, mean, P = saved
    to_mean, to_P, to_nats = gradients
    none = np.empty((0, 1, 1))
    wanted = (
        none if to_mean is None else _entries(to_mean),
        none if to_P is None else _entries(to_P),
        np.zeros((*F.shape[:2], 1)) if to_nats is None else _entries(to_nats, 0),
    )
    results = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (F, b, Q, H, y)]
    sums = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (m0, P0)]
    given = *_given(saved[:7]), (_entries(mean), _entries(P)), wanted
    filled = tuple(_entries(x) for x in results), tuple(_entries(x[None]) for x in sums)
    _over_lanes(F.shape[1], F.numel(), lambda *share: filter_gradients(*given, *filled, *share))
    return *results, *sums


def compiled_gains(P: Tensor, F: Tensor, Q: Tensor, tiny: float) -> tuple[Tensor, Tensor]:
    """Gains and what is left, of `gains`."""
    from ._kalman_kernels import gain_steps

    arrays = _rows(P), _rows(F), _rows(Q)
    gain, left = P.new_empty(F.shape), P.new_empty(P.shape)
    results = _rows(gain), _rows(left)
    _over_lanes(arrays[0].shape[1], P.numel(), lambda *share: gain_steps(arrays, tiny, *results, *F.shape[-2:], *share))
    return gain.mT, left


def compiled_gain_gradients(
    P: Tensor, F: Tensor, Q: Tensor, tiny: float, gain: Tensor, to_gain: Tensor, to_left: Tensor
) -> tuple[Tensor, ...]:
    """Derivatives with respect to the arguments of `gains`."""
    from ._kalman_kernels import gain_gradients

    arrays = _rows(P), _rows(F), _rows(Q)
    wanted = _rows(to_gain.mT), _rows(to_left)
    results = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (P, F, Q)]
    given = arrays, tiny, _rows(gain.mT), wanted, tuple(_rows(x) for x in results), *F.shape[-2:]
    _over_lanes(arrays[0].shape[1], P.numel(), lambda *share: gain_gradients(*given, *share))
    return tuple(results)


def _entries(x: Tensor, own: int = 2) -> np.ndarray:
    """`(time, lane, entry)` of `(time, lane, *item)`, where an item has `own` axes; a view, if `x` is contiguous."""
    x = x.detach().contiguous()
    return x.view(*x.shape[: x.dim() - own], x.shape[x.dim() - own :].numel()).numpy()


def _rows(x: Tensor) -> np.ndarray:
    """Matrices, one after the other, at one time."""
    return _entries(x.detach().contiguous().view(1, x.shape[:-2].numel(), *x.shape[-2:]))


def _given(tensors: tuple[Tensor, ...]) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    *steps, m0, P0 = tensors
    return tuple(_entries(x) for x in steps), (_entries(m0[None]), _entries(P0[None]))


def _over_lanes(lanes: int, size: int, run: Callable[[int, int, tuple[int, ...]], None]) -> None:
    """Run on shares of the lanes, one per thread, where their matrices have so many numbers that this pays."""
    side = _SIDE if lanes >= _FEW else _SIDE[:1]
    workers = max(1, min(torch.get_num_threads(), lanes, size // _SHARE))
    if workers == 1:
        run(0, lanes, side)
        return
    ends = [lanes * i // workers for i in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda first, last: run(first, last, side), ends[:-1], ends[1:]))
