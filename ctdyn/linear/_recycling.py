"""Memory for large results on a CPU, used again once a result is dropped.

A fresh large tensor costs several times what it takes to fill it: the system hands out its pages one by one, and takes
them back when it is freed. What a scan returns is therefore cut from buffers that are kept for a while.
"""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


__all__ = ["empty_like"]

# Below the first a fresh tensor costs little; the second bounds what is kept.
_SMALLEST = 1 << 20
_KEPT = 1 << 28

_idle: OrderedDict[int, np.ndarray] = OrderedDict()


def empty_like(x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """A contiguous tensor of the dtype and device of `x`, and of its shape or another; its entries are undefined.

    Example:
        >>> empty_like(torch.ones(2, 3).T).stride()
        (2, 1)
    """
    shape = x.shape if shape is None else shape
    size = math.prod(shape) * x.element_size()
    if x.device.type != "cpu" or size < _SMALLEST:
        return torch.empty(shape, dtype=x.dtype, device=x.device)
    # A dozen sizes per factor of two, so that buffers fit again.
    unit = max(1 << (size.bit_length() - 4), 1)
    room = -(-size // unit) * unit
    buffer = _take(room)
    handle = buffer[:size]
    weakref.finalize(handle, _give, buffer).atexit = False
    return torch.from_numpy(handle).view(x.dtype).view(shape)


def _take(room: int) -> np.ndarray:
    # The last one given back may still be in a cache.
    for key, buffer in reversed(list(_idle.items())):
        if buffer.nbytes == room and _idle.pop(key, None) is not None:
            return buffer
    return np.empty(room, np.uint8)


def _give(buffer: np.ndarray) -> None:
    _idle[id(buffer)] = buffer
    while sum(kept.nbytes for kept in list(_idle.values())) > _KEPT:
        try:
            _idle.popitem(last=False)
        except KeyError:
            return
