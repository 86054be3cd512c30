"""Which backend runs a scan."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from ._backends import ScanBackend
from ._blocked import BlockedScan
from ._compiled import CompiledScan, numba_is_installed
from ._triton import TritonScan, triton_is_installed


__all__ = ["default_backend"]

_BLOCKED = BlockedScan()


def default_backend(x: Tensor) -> ScanBackend:
    """The fastest backend for the device and dtype of the inputs.

    Example:
        >>> import torch
        >>> default_backend(torch.ones(1, 5, 1, device="meta"))
        BlockedScan(tile=None)
    """
    if CompiledScan.takes(x) and numba_is_installed():
        return _compiled()
    if TritonScan.takes(x) and triton_is_installed():
        return _triton()
    return _BLOCKED


@cache
def _compiled() -> ScanBackend:
    return CompiledScan()


@cache
def _triton() -> ScanBackend:
    return TritonScan()
