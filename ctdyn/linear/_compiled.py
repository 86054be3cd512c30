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

    The kernels are compiled on their first use, about a second each, and kept on disk. They run without the interpreter
    lock on `torch.get_num_threads()` threads. Every array is streamed through once; the coefficients of a fused scan
    exist for one step at a time.

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
        given, arrays = _given(steps), tuple(map(_pairs, (v, _initial(h0, v), out)))
        options = (v.is_complex(), steps.impulse, steps.reverse)
        _share(v, _is_shared(steps), lambda share: kernel(given, arrays, options, _room(share, v), share))
        return out

    def zoh_gradients(
        self, steps: Steps, v: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, needs: tuple[bool, bool, bool]
    ) -> ZohGradients:
        to_v, carry = empty_like(v), torch.zeros_like(v[:, 0], memory_format=torch.contiguous_format)
        lam, shared = steps.lam, _is_shared(steps)
        kernel = _kernels().zoh_gradients
        given, arrays = _given(steps), tuple(map(_pairs, (v, h, _initial(h0, v), g)))
        results = (_pairs(to_v), _pairs(carry))
        options = (v.is_complex(), steps.impulse, steps.reverse, needs[1])

        def run(share: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
            # Sums over rows or columns that several threads have a share in: each has its own.
            to_lam = torch.zeros(len(lam), 2, lam.shape[1], dtype=torch.float64)
            to_dt = torch.zeros_like(steps.dt, dtype=torch.float64, memory_format=torch.contiguous_format)
            own = (to_lam.numpy(), to_dt.numpy(), *results)
            kernel(given, arrays, own, options, _room(share, v), share)
            return to_lam, to_dt

        parts = _share(v, shared, run)
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


def _pairs(x: Tensor) -> np.ndarray:
    x = x.detach().contiguous().resolve_conj()
    return (torch.view_as_real(x).flatten(-2) if x.is_complex() else x.resolve_neg()).numpy()


def _factors(a: Tensor, b: Tensor) -> np.ndarray:
    return _array(a.expand(*a.shape[:2], b.shape[2]))


def _initial(h0: Tensor | None, b: Tensor) -> Tensor:
    return torch.zeros(b.shape[0], b.shape[2], dtype=b.dtype) if h0 is None else h0


def _start(h0: Tensor | None, b: Tensor) -> np.ndarray:
    return _array(_initial(h0, b))


def _given(steps: Steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    reset = np.empty((1, 0), np.bool_) if steps.reset is None else _array(steps.reset)
    return _rates(steps.lam), _array(steps.dt), reset


def _rates(lam: Tensor) -> np.ndarray:
    wide = lam.detach().resolve_conj().to(torch.complex128)
    inverse = torch.where(wide == 0, 0.0, 1.0 / wide)
    real = lam.dtype.to_real()
    return torch.stack([wide.real, wide.imag, inverse.real, inverse.imag], 1).to(real).numpy()


def _room(share: tuple[int, int, int, int], v: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows to compute in, and a row of zeros."""
    width, real = share[3] - share[2], v.dtype.to_real()
    return torch.zeros(16, width, dtype=real).numpy(), torch.zeros(2 * width, dtype=real).numpy()


def _is_shared(steps: Steps) -> bool:
    return steps.lam.shape[0] == 1 and steps.dt.shape[0] == 1 and (steps.reset is None or steps.reset.shape[0] == 1)


def _share(x: Tensor, by_state: bool, run: Callable[[tuple[int, int, int, int]], Any]) -> list[Any]:
    """Run on shares of the rows, or of the states where rows have something in common or are few."""
    rows, length, states = x.shape
    workers = max(min(torch.get_num_threads(), rows * length * states // _SHARE), 1)
    if workers == 1:
        return [run((0, rows, 0, states))]
    by_state = by_state or rows < workers
    count = states if by_state else rows
    ends = [count * i // workers for i in range(workers + 1)]
    shares = [(0, rows, i, j) if by_state else (i, j, 0, states) for i, j in pairwise(ends) if i < j]
    return list(_pool(workers).map(run, shares))


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="ctdyn-scan")


# The threads of a pool do not survive a fork, which only some systems have.
if os.name == "posix":
    os.register_at_fork(after_in_child=_pool.cache_clear)
