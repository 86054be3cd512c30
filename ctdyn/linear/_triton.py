"""Scans on CUDA devices by Triton, which comes with torch for CUDA and needs no compiler of its own."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from ._tiled import Room, TiledScan


__all__ = ["TritonScan", "triton_is_installed"]

# Programs that keep a large device busy, times that a chunk has at least, entries of a tile, states per program.
_PROGRAMS, _SPAN, _TILE, _BLOCK = 1 << 12, 32, 1 << 25, 64
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


@cache
def triton_is_installed() -> bool:
    """Whether the kernels can be compiled: Triton 3.3 or later.

    Example:
        >>> triton_is_installed() in (True, False)
        True
    """
    try:
        major, minor = importlib.metadata.version("triton").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return False
    # Tuples as arguments came with 3.3.
    return (int(major), int(minor)) >= (3, 3)


@dataclass(frozen=True)
class TritonScan(TiledScan):
    """Scans on a CUDA device; a program walks over time for one row and a block of states.

    Where rows and states are too few to fill the device, the times are cut into chunks that run side by side, in two
    passes: what each makes of a zero state and by what it multiplies its first one; and, after a scan over the chunks,
    the states. The coefficients of a fused scan exist for one tile at a time.

    Raises:
        ImportError: Triton is not installed.

    Reference:
        Philippe Tillet, H. T. Kung, David Cox, "Triton: An Intermediate Language and Compiler for Tiled Neural Network
        Computations", 2019, https://www.eecs.harvard.edu/~htk/publication/2019-mapl-tillet-kung-cox.pdf

    Example:
        >>> if triton_is_installed() and torch.cuda.is_available():
        ...     a, b = torch.full((1, 3, 1), 0.5).cuda(), torch.ones(1, 3, 1).cuda()
        ...     h = TritonScan().recurrence(a, b, None, reverse=False).cpu()
        ... else:
        ...     h = torch.tensor([1.0, 1.5, 1.75])
        >>> h.flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """

    def __post_init__(self) -> None:
        if not triton_is_installed():
            raise ImportError("TritonScan needs Triton, which comes with torch for CUDA; use BlockedScan() elsewhere.")

    @staticmethod
    def takes(x: Tensor) -> bool:
        """Whether a tensor of this device and dtype can be scanned here."""
        return x.device.type == "cuda" and x.dtype in _DTYPES

    def _sizes(self, rows: int, length: int, states: int) -> tuple[int, int]:
        return rows, max(_TILE // (rows * states), 1024)

    def _fill(self, a: Tensor, b: Tensor, h0: Tensor | None, out: Tensor, reverse: bool, room: Room) -> None:
        rows, length, states = b.shape
        a = a.resolve_conj().expand(rows, length, states)
        programs = rows * -(-states // _BLOCK)
        chunks = max(min(_PROGRAMS // programs, length // _SPAN), 1)
        span = -(-length // chunks)
        chunks = -(-length // span)
        entries = b.new_zeros(rows, chunks, states)
        if chunks > 1:
            ends, products = torch.empty_like(entries), torch.empty_like(entries)
            _launch(a, b, entries, ends, products, span, reverse, fill=False)
            # The states at the ends of the chunks, in the order of the scan.
            self._fill(products, ends, h0, ends, False, room)
            entries[:, 1:] = ends[:, :-1]
        if h0 is not None:
            entries[:, 0] = h0
        _launch(a, b, entries, out, out, span, reverse, fill=True)


def _launch(
    a: Tensor, b: Tensor, entries: Tensor, out: Tensor, products: Tensor, span: int, reverse: bool, *, fill: bool
) -> None:
    rows, length, states = b.shape
    grid = (rows * entries.shape[1], -(-states // _BLOCK))
    tensors = tuple(_parts(x) for x in (a, b, entries, out, products))
    strides = tuple(x.stride()[:3] for x in tensors)
    sizes = (length, states, entries.shape[1], span)
    options = {"REVERSE": reverse, "PAIRED": b.is_complex(), "FILL": fill, "BLOCK": _BLOCK, "num_warps": 2}
    _kernels().walk[grid](tensors, strides, sizes, **options)


def _parts(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x.resolve_neg()


@cache
def _kernels() -> ModuleType:
    from . import _triton_kernels

    return _triton_kernels
