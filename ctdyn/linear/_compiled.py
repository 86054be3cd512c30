"""Scans on a CPU by kernels that numba compiles on their first use."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._backends import ScanBackend, Steps, ZohGradients
from ._recycling import empty_like


__all__ = ["CompiledScan", "numba_is_installed"]

# Entries below which a second thread costs more than it brings.
_SHARE = 1 << 15
# States of one step for which a thread is worth it.
_WIDE = 64
#: Rows and columns, from where to where.
_Share = tuple[int, int, int, int]
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


@cache
def numba_is_installed() -> bool:
    """Whether the kernels can be compiled.

    Example:
        >>> numba_is_installed() in (True, False)
        True
    """
    return importlib.util.find_spec("numba") is not None


@dataclass(frozen=True)
class CompiledScan(ScanBackend):
    """Scans on a CPU at the speed of its memory; needs numba (`pip install ctdyn[fast]`).

    The kernels are compiled on their first use, within seconds, and kept on disk. They run without the interpreter
    lock on `torch.get_num_threads()` threads. Every array is streamed through once; the coefficients of a fused scan
    exist for a few steps at a time.

    Raises:
        ImportError: numba is not installed.
        TypeError: tensors are not on a CPU, or not in single or double precision.

    Example:
        >>> a, b = torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)
        >>> if numba_is_installed():
        ...     h = CompiledScan().recurrence(a, b, None, reverse=False)
        ... else:
        ...     h = torch.tensor([1.0, 1.5, 1.75])
        >>> h.flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """

    def __post_init__(self) -> None:
        if not numba_is_installed():
            raise ImportError("CompiledScan needs numba: pip install 'ctdyn[fast]', or use BlockedScan().")

    @staticmethod
    def takes(x: Tensor) -> bool:
        """Whether a tensor of this device and dtype can be scanned here."""
        return x.device.type == "cpu" and x.dtype in _DTYPES

    def recurrence(self, a: Tensor, b: Tensor, h0: Tensor | None, *, reverse: bool) -> Tensor:
        out = empty_like(b)
        kernel, arrays = _kernels().recurrence, (_factors(a, b), _array(b), _start(h0, b), _array(out))
        _share(b, a.shape[0] == 1, lambda share: kernel(*arrays, reverse, share))
        return out

    def recurrence_gradients(
        self, a: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, reverse: bool, needs_a: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        whole = a.shape == h.shape
        mode = 0 if not needs_a else 1 if whole else 2
        wide = torch.Size([*a.shape[:2], h.shape[2]])
        to_a = empty_like(h) if mode == 1 else torch.zeros(wide if mode else (1, 1, 0), dtype=a.dtype)
        to_b = empty_like(h)
        kernel, factors = _kernels().recurrence_gradients, _factors(a, h)
        arrays, results = (_array(h), _start(h0, h), _array(g)), (_array(to_a), _array(to_b))
        options, zeros = (mode, reverse), np.zeros(h.shape[2], factors.dtype)
        _share(h, a.shape[0] == 1, lambda share: kernel(factors, arrays, results, options, zeros, share))
        first = -1 if reverse else 0
        to_h0 = torch.conj_physical(a[:, first]) * to_b[:, first]
        return to_a.sum_to_size(a.shape) if needs_a else None, to_b, to_h0

    def zoh(self, steps: Steps, v: Tensor, h0: Tensor | None) -> Tensor:
        out = empty_like(v)
        kernel = _kernels().zoh
        given, arrays = _given(steps), (_lines(v), _start(h0, v), _lines(out))
        options = (v.is_complex(), steps.impulse, steps.reverse)
        _share_fused(v, lambda share: kernel(given, arrays, options, _room(v), share))
        return out

    def zoh_gradients(
        self, steps: Steps, v: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, needs: tuple[bool, bool, bool]
    ) -> ZohGradients:
        to_v, carry = empty_like(v), torch.zeros_like(v[:, 0], memory_format=torch.contiguous_format)
        lam = steps.lam
        kernel = _kernels().zoh_gradients
        given, arrays = _given(steps), (_lines(v), _lines(h), _start(h0, v), _lines(g), _array(lam))
        results = (_lines(to_v), _array(carry))
        options = (v.is_complex(), steps.impulse, steps.reverse, needs[1])

        def run(share: _Share) -> tuple[Tensor, Tensor]:
            # Sums over rows or columns that several threads have a share in: each has its own.
            to_lam = torch.zeros(len(lam), 2, lam.shape[1], dtype=torch.float64)
            to_dt = torch.zeros_like(steps.dt, dtype=torch.float64, memory_format=torch.contiguous_format)
            own = (to_lam.numpy(), to_dt.numpy(), *results)
            kernel(given, arrays, own, options, _room(v), share)
            return to_lam, to_dt

        parts = _share_fused(v, run)
        sums = torch.stack([part[0] for part in parts]).sum(0)
        to_lam = torch.complex(sums[:, 0], sums[:, 1]) if lam.is_complex() else sums[:, 0]
        to_dt = torch.stack([part[1] for part in parts]).sum(0)
        return to_lam.to(lam.dtype), to_dt.to(steps.dt.dtype), to_v, carry


@cache
def _kernels() -> ModuleType:
    from . import _kernels

    return _kernels


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().resolve_conj().resolve_neg().numpy()


def _lines(x: Tensor) -> np.ndarray:
    """`(row, time * state)`."""
    return _array(x).reshape(x.shape[0], -1)


def _factors(a: Tensor, b: Tensor) -> np.ndarray:
    return _array(a.expand(*a.shape[:2], b.shape[2]))


def _start(h0: Tensor | None, b: Tensor) -> np.ndarray:
    return _array(torch.zeros(b.shape[0], b.shape[2], dtype=b.dtype) if h0 is None else h0)


def _given(steps: Steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    reset = np.empty((1, 0), np.bool_) if steps.reset is None else _array(steps.reset)
    return _rates(steps.lam), _array(steps.dt), reset


def _rates(lam: Tensor) -> np.ndarray:
    """Real and imaginary parts of eigenvalues and of their inverses, `(1 | row, 4, state)`; 0 for what has none."""
    wide = _array(lam).astype(np.complex128)
    real, inverse = (np.float32 if lam.dtype in (torch.float32, torch.complex64) else np.float64), np.zeros_like(wide)
    np.reciprocal(wide, out=inverse, where=np.abs(wide) >= np.finfo(real).tiny)
    return np.stack([wide.real, wide.imag, inverse.real, inverse.imag], 1).astype(real)


def _room(v: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a chunk of steps is computed in (see `_kernels.zoh`)."""
    kernels = _kernels()
    parts = torch.zeros(kernels.PARTS * kernels.LANES, dtype=v.dtype.to_real())
    states = torch.zeros(kernels.STATES, kernels.LANES, dtype=v.dtype)
    pairs = torch.view_as_real(states).flatten(-2) if v.is_complex() else states
    return parts.numpy(), states.numpy(), pairs.numpy()


def _share(x: Tensor, by_state: bool, run: Callable[[_Share], Any]) -> list[Any]:
    """Run on shares of the rows, or of the states where rows have something in common or are few."""
    rows, _, states = x.shape
    threads = _threads(x)
    by_state = by_state or rows < threads
    return _in_shares(_cut(rows, 1 if by_state else threads), _cut(states, threads if by_state else 1), threads, run)


def _share_fused(v: Tensor, run: Callable[[_Share], Any]) -> list[Any]:
    """Run on shares of the rows; of the states where rows are few, and states many enough; and of no more of them than
    the kernels take.
    """
    rows, _, states = v.shape
    threads = _threads(v)
    pieces = 1 if rows >= threads else min(threads, states // _WIDE)
    columns = _cut(states, max(pieces, -(-states // _kernels().LANES)))
    return _in_shares(_cut(rows, threads if pieces == 1 and rows >= threads else 1), columns, threads, run)


def _threads(x: Tensor) -> int:
    return max(min(torch.get_num_threads(), x.numel() // _SHARE), 1)


def _cut(count: int, pieces: int) -> list[tuple[int, int]]:
    """From where to where each of about equal pieces goes."""
    return [cut for cut in pairwise(count * i // pieces for i in range(pieces + 1)) if cut[0] < cut[1]]


def _in_shares(
    rows: list[tuple[int, int]], columns: list[tuple[int, int]], threads: int, run: Callable[[_Share], Any]
) -> list[Any]:
    shares = [(*row, *column) for row in rows for column in columns]
    return [run(share) for share in shares] if threads == 1 else list(_pool(threads).map(run, shares))


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="ctdyn-scan")


# The threads of a pool do not survive a fork, which only some systems have.
if os.name == "posix":
    os.register_at_fork(after_in_child=_pool.cache_clear)
