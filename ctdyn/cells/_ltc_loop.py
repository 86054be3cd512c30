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
        states = rate.new_empty(rate.shape[0], stages, *rate.shape[1:])
        room = [torch.empty_like(y, memory_format=torch.contiguous_format) for _ in range(4)]
        run = _kernels().fused_steps if self.fused else _kernels().exponential_steps
        run(*arrays(rate, drive, gap, y), tuple(arrays(*weights)), self.count, *arrays(states), tuple(arrays(*room)))
        return states[:, -1].clone(), (states,)

    def backward(
        self, tensors: tuple[Tensor, ...], states: Tensor, kept: tuple[Tensor, ...], g: Tensor
    ) -> tuple[Tensor | None, ...]:
        found: list[Any] = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in tensors]
        first, weights = tensors[:4], tensors[4:]
        room = [torch.empty_like(found[3]) for _ in range(8)]
        run = _kernels().fused_back if self.fused else _kernels().exponential_back
        run(
            *arrays(*first),
            tuple(arrays(*weights)),
            self.count,
            *arrays(kept[0], g, *found[:4]),
            tuple(arrays(*found[4:])),
            tuple(arrays(*room)),
        )
        return tuple(found)


@cache
def _kernels() -> ModuleType:
    from . import _kernels as compiled

    return compiled
