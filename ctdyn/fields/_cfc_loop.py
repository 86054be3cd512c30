"""The steps of a closed-form network in a row, with their derivatives by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from ..linear._recycling import empty_like
from ._scan import Loop
from ._synapses import arrays, kernels


__all__ = ["CfCLoop", "mixed"]

#: Of the activation 1.7159 tanh(0.666 x).
_SCALE, _SLOPE = 1.7159, 0.666


def mixed(x: Tensor, gap: Tensor, *, interpolates: bool) -> Tensor:
    """The state that four heads stand for, `(..., 4 state)`, behind a gap, `(..., 1)`."""
    a, one, other, b = x.chunk(4, -1)
    one, other, gate = torch.tanh(one), torch.tanh(other), torch.sigmoid(a * gap + b)
    return torch.lerp(one, other, gate) if interpolates else one + gate * other


#: Rows whose gradients to the weights are summed at once; they should stay in a cache.
_ROWS = 512


@dataclass(frozen=True)
class CfCLoop(Loop):
    """Steps of a network with one layer before its four heads, or none.

    Its tensors are inputs, `(series, time, input)`; gaps, `(series, time)`; the first state; weight and bias of the
    layer that reads inputs and state, and, where it is not that of the heads, weight and bias of these. The states are
    `(series, time, state)`.
    """

    interpolates: bool
    scaled: bool

    def plain(self, *tensors: Tensor) -> Tensor:
        us, gap, y, weight, bias, *heads = tensors
        drive = linear(us, weight[:, : us.shape[-1]], bias)
        weight, states = weight[:, us.shape[-1] :], []
        for now, dt in zip(drive.unbind(1), gap.unsqueeze(-1).unbind(1), strict=True):
            x = now + linear(y, weight)
            if heads:
                x = _SCALE * torch.tanh(_SLOPE * x) if self.scaled else torch.tanh(x)
                x = linear(x, *heads)
            y = torch.where(dt == 0, y, mixed(x, dt, interpolates=self.interpolates))
            states.append(y)
        return torch.stack(states, 1)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        us, gap, y, weight, bias, *heads = tensors
        series, length, size = *gap.shape, y.shape[1]
        width = weight.shape[0] if heads else 0
        features, outputs = (empty_like(y, (length, series, w)) for w in (width, 4 * size))
        seen, states = y.new_empty(length + 1, series, us.shape[-1] + size), y.new_empty(series, length, size)
        seen[0, :, us.shape[-1] :] = y
        given = arrays(us, gap, weight.t(), bias, heads[0].t() if heads else weight.t(), heads[1] if heads else bias)
        kernels().closed_forms(*given, self._bend(y), self.interpolates, *arrays(seen, features, outputs, states))
        return states, (seen, features, outputs)

    def backward(
        self,
        tensors: tuple[Tensor, ...],
        states: Tensor,
        kept: tuple[Tensor, ...],
        g: Tensor,
        wanted: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        us, gap, _, weight, _, *heads = tensors
        seen, features, outputs = kept
        (length, series, width), inputs = outputs.shape, us.shape[-1]
        chunk = min(length, max(1, _ROWS // max(1, series)))
        outer, inner = outputs.new_empty(chunk, series, width), features.new_empty(chunk, *features.shape[1:])
        to_us = torch.empty_like(us) if wanted[0] else us.new_empty(series, length, 0)
        to_gap, to_y = torch.empty_like(gap), g.new_zeros(series, g.shape[-1])
        read = weight if wanted[0] else weight[:, inputs:]
        found = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in tensors[3:]]
        to = [*found, *(g.new_empty(0, 0), g.new_empty(0))] if not heads else found
        room = [g.new_empty(series, read.shape[1]), torch.empty_like(to[0]), torch.empty_like(to[2])]
        kernels().closed_forms_back(
            *arrays(gap, read, heads[0] if heads else weight),
            self._bend(g),
            self.interpolates,
            *arrays(seen, features, outputs, g, outer, inner),
            tuple(arrays(*room)),
            *arrays(to_us, to_gap, to_y),
            tuple(arrays(*to)),
        )
        return to_us if wanted[0] else None, to_gap, to_y, *found

    def _bend(self, like: Tensor) -> tuple[Any, Any]:
        """Scale and slope of the activation."""
        kind = np.float32 if like.dtype == torch.float32 else np.float64
        return (kind(_SCALE), kind(_SLOPE)) if self.scaled else (kind(1.0), kind(1.0))
