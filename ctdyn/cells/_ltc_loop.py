"""Steps of a liquid network in a row, with their derivatives by hand where they can be compiled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..fields._scan import Loop
from ..fields._synapses import arrays, gathered
from ..linear._recycling import empty_like
from ..linear.phi import phi1


__all__ = ["LTCLoop"]


@dataclass(frozen=True)
class LTCLoop(Loop):
    """Steps of the exponential midpoint, or linearly implicit ones, `count` per gap.

    Its tensors are what leaks and inputs add to rate and drive, `(time, series, neuron)`; the gaps, `(time, series)`;
    the first state; slope, offset, weight and pull of the synapses between neurons, over the capacity.
    """

    count: int
    fused: bool

    def plain(self, *tensors: Tensor) -> Tensor:
        rate, drive, gap, y, *weights = tensors
        states = []
        for a, b, dt in zip(rate.unbind(), drive.unbind(), gap.unsqueeze(-1).unbind(), strict=True):
            y = self._through(y, a, b, dt / self.count, weights)
            states.append(y)
        return torch.stack(states)

    def _through(self, y: Tensor, rate: Tensor, drive: Tensor, h: Tensor, weights: list[Tensor]) -> Tensor:
        for _ in range(self.count):
            conductance, current = gathered(y, *weights)
            a, b = rate + conductance, drive + current
            if self.fused:
                y = (y + h * b) / (1.0 + h * a)
                continue
            middle = y + 0.5 * h * phi1(-0.5 * h * a) * (b - a * y)
            conductance, current = gathered(middle, *weights)
            a, b = rate + conductance, drive + current
            y = y + h * phi1(-h * a) * (b - a * y)
        return y

    def forward(self, *tensors: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        rate, drive, gap, y, *weights = tensors
        stages = self.count if self.fused else 2 * self.count
        shape = rate.shape[0], stages, *rate.shape[1:]
        states, rates, drives = (empty_like(rate, shape) for _ in range(3))
        run = _kernels().fused_steps if self.fused else _kernels().exponential_steps
        given, synapses = arrays(rate, drive, gap, y), tuple(arrays(*weights))
        run(*given, synapses, self.count, *arrays(states, rates, drives, gap.new_empty(2, y.shape[0])))
        return states[:, -1].clone(), (states, rates, drives)

    def backward(
        self,
        tensors: tuple[Tensor, ...],
        states: Tensor,
        kept: tuple[Tensor, ...],
        g: Tensor,
        wanted: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        found: list[Any] = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in tensors]
        gap, y0, *weights = tensors[2:]
        room = [*(torch.empty_like(found[3]) for _ in range(4)), gap.new_empty(4, y0.shape[0])]
        run = _kernels().fused_back if self.fused else _kernels().exponential_back
        run(
            *arrays(y0),
            tuple(arrays(*weights)),
            self.count,
            *arrays(gap, *kept, g, *found[:4]),
            tuple(arrays(*found[4:])),
            tuple(arrays(*room)),
        )
        return tuple(found)


@cache
def _kernels() -> ModuleType:
    from . import _kernels as compiled

    return compiled
