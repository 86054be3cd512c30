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


def can_compile(F: Tensor) -> bool:
    """Whether the kernels can filter these transitions, and are the fastest to do so."""
    plain = F.device.type == "cpu" and F.dtype == torch.float64 and not torch.compiler.is_compiling()
    return plain and F.shape[-1] <= _LARGEST and numba_is_installed()


def compiled_steps(tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Means, covariances and nats, from the entries of `Steps`."""
    from ._kalman_kernels import filter_steps  # It imports numba.

    F = tensors[0]
    given = _given(tensors)
    length, lanes, n = F.shape[:3]
    mean, P, nats = (F.new_empty(shape) for shape in ((length, lanes, n), (length, lanes, n, n), (length, lanes)))
    arrays = mean.numpy(), P.numpy(), nats.numpy()
    _over_lanes(F.shape[1], F.numel(), lambda first, last: filter_steps(*given, *arrays, first, last))
    return mean[..., None], P, nats


def compiled_gradients(saved: tuple[Tensor, ...], gradients: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Derivatives with respect to the entries of `Steps`, from these and what the filter found."""
    from ._kalman_kernels import filter_gradients

    F, b, Q, H, y, m0, P0, mean, P = saved
    to_mean, to_P, to_nats = gradients
    found = _vector(mean), _matrix(P)
    wanted = (
        np.empty((0, 1, 1)) if to_mean is None else _vector(to_mean),
        np.empty((0, 1, 1, 1)) if to_P is None else _matrix(to_P),
        np.zeros(F.shape[:2]) if to_nats is None else _matrix(to_nats),
    )
    results = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (F, b[..., 0], Q, H, y[..., 0])]
    sums = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (m0[..., 0], P0)]
    arrays = _given(saved[:7]), found, wanted, tuple(x.numpy() for x in results), tuple(x.numpy() for x in sums)
    _over_lanes(F.shape[1], F.numel(), lambda first, last: filter_gradients(*arrays, first, last))
    to_F, to_b, to_Q, to_H, to_y = results
    return to_F, to_b[..., None], to_Q, to_H, to_y[..., None], sums[0][..., None], sums[1]


def compiled_gains(P: Tensor, F: Tensor, Q: Tensor, tiny: float) -> tuple[Tensor, Tensor]:
    """Gains and what is left, of `gains`."""
    from ._kalman_kernels import gain_steps

    given = [_rows(x) for x in (P, F, Q)]
    gain, left = (P.new_empty(shape) for shape in (F.mT.shape, P.shape))
    arrays = _rows(gain), _rows(left)
    _over_lanes(len(given[0]), P.numel(), lambda first, last: gain_steps(*given, tiny, *arrays, first, last))
    return gain, left


def compiled_gain_gradients(
    P: Tensor, F: Tensor, Q: Tensor, tiny: float, gain: Tensor, to_gain: Tensor, to_left: Tensor
) -> tuple[Tensor, ...]:
    """Derivatives with respect to the arguments of `gains`."""
    from ._kalman_kernels import gain_gradients

    given = [*(_rows(x) for x in (P, F, Q)), tiny, *(_rows(x) for x in (gain, to_gain, to_left))]
    results = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (P, F, Q)]
    arrays = [_rows(x) for x in results]
    _over_lanes(len(given[0]), P.numel(), lambda first, last: gain_gradients(*given, *arrays, first, last))
    return tuple(results)


def _rows(x: Tensor) -> np.ndarray:
    """One matrix after the other."""
    return _matrix(x).reshape(-1, *x.shape[-2:])


def _given(tensors: tuple[Tensor, ...]) -> tuple[np.ndarray, ...]:
    F, b, Q, H, y, m0, P0 = tensors
    return _matrix(F), _vector(b), _matrix(Q), _matrix(H), _vector(y), _vector(m0), _matrix(P0)


def _matrix(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


def _vector(x: Tensor) -> np.ndarray:
    return _matrix(x[..., 0])


def _over_lanes(lanes: int, size: int, run: Callable[[int, int], None]) -> None:
    """Run on shares of the lanes, one per thread, where their matrices have so many numbers that this pays."""
    workers = max(1, min(torch.get_num_threads(), lanes, size // _SHARE))
    if workers == 1:
        run(0, lanes)
        return
    ends = [lanes * i // workers for i in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, ends[:-1], ends[1:]))
