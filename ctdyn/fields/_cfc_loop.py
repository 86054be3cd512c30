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


@dataclass(frozen=True)
class CfCLoop(Loop):
    """Steps of a network with one layer before its four heads, or none.

    Its tensors are `drive`, what the first layer makes of the inputs, `(time, series, width)`; `gap`,
    `(time, series, 1)`; the first state; the matrix through which the first layer reads the state, and, where it is not
    that of the heads, weight and bias of these.
    """

    interpolates: bool
    scaled: bool

    def plain(self, *tensors: Tensor) -> Tensor:
        drive, gap, y, weight, *heads = tensors
        states = []
        for now, dt in zip(drive.unbind(), gap.unbind(), strict=True):
            x = now + linear(y, weight)
            if heads:
                x = _SCALE * torch.tanh(_SLOPE * x) if self.scaled else torch.tanh(x)
                x = linear(x, *heads)
            y = torch.where(dt == 0, y, mixed(x, dt, interpolates=self.interpolates))
            states.append(y)
        return torch.stack(states)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        drive, gap, y, weight, *heads = tensors
        length, series, size = drive.shape[0], drive.shape[1], y.shape[1]
        features = empty_like(drive) if heads else drive.new_empty(length, series, 0)
        outputs = empty_like(drive.new_empty(1).expand(length, series, 4 * size))
        states = y.new_empty(length, series, size)
        into, bias = (heads[0].t(), heads[1]) if heads else (weight, drive.new_zeros(4 * size))
        given = arrays(drive, gap.squeeze(-1), y, weight.t(), into, bias)
        kernels().closed_forms(*given, self._bend(y), self.interpolates, *arrays(features, outputs, states))
        return states, (features, outputs)

    def backward(
        self, tensors: tuple[Tensor, ...], states: Tensor, kept: tuple[Tensor, ...], g: Tensor
    ) -> tuple[Tensor | None, ...]:
        _, gap, y0, weight, *heads = tensors
        features, outputs = kept
        outer, inner = empty_like(outputs), empty_like(features)
        to_y, back = torch.zeros_like(states[0]), torch.empty_like(states[0])
        to_gap = torch.empty(gap.shape[:2], dtype=gap.dtype)
        kernels().closed_forms_back(
            *arrays(gap.squeeze(-1), weight, heads[0] if heads else weight),
            self._bend(y0),
            self.interpolates,
            *arrays(features, outputs, g, outer, inner, to_gap, to_y, back),
        )
        first = inner if heads else outer
        before = torch.cat([y0.unsqueeze(0), states[:-1]])
        found = (first, to_gap.unsqueeze(-1), to_y, first.flatten(0, 1).t() @ before.flatten(0, 1))
        if not heads:
            return found
        rows = outer.flatten(0, 1)
        return *found, rows.t() @ features.flatten(0, 1), rows.sum(0)

    def _bend(self, like: Tensor) -> tuple[Any, Any]:
        """Scale and slope of the activation."""
        kind = np.float32 if like.dtype == torch.float32 else np.float64
        return (kind(_SCALE), kind(_SLOPE)) if self.scaled else (kind(1.0), kind(1.0))
