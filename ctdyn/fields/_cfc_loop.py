"""The steps of a closed-form network in a row, with their derivatives by hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..linear._recycling import empty_like
from ._scan import Loop


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

    # By hand everything is a logistic function, which is cheaper than a hyperbolic tangent: tanh(x) / 2 is
    # sigmoid(2 x) - 1/2. Features and states are kept at half their size, and the factors go into the weights.

    def forward(self, *tensors: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        drive, gap, y, weight, *heads = tensors
        length, series, size = drive.shape[0], drive.shape[1], y.shape[1]
        if heads:
            scale, slope = self._constants()
            rows = _doubled(size, drive)
            into, offset = 2.0 * scale * rows * heads[0].t(), rows * heads[1]
            outputs = empty_like(drive.new_empty(1).expand(length, series, 4 * size))
            features = empty_like(drive)
            inner = features.unbind()
        else:
            slope = 0.5 * _doubled(size, drive)
            into = offset = features = inner = None
            outputs = empty_like(drive)
        drives = torch.mul(drive, 2.0 * slope, out=empty_like(drive)).unbind()
        weight = (4.0 * slope * weight.t()).contiguous()
        half = 0.5 * y
        states = half.new_empty(length, series, size)
        whole, gaps, still = outputs.unbind(), gap.unbind(), (gap == 0).unbind()
        a, one, other, gates = (part.unbind() for part in outputs.split(size, -1))
        bent, waits, after = outputs[..., size:].unbind(), bool((gap == 0).any()), states.unbind()
        for k in range(length):
            if inner is None or into is None or offset is None:
                torch.addmm(drives[k], half, weight, out=whole[k])
            else:
                torch.addmm(drives[k], half, weight, out=inner[k]).sigmoid_().sub_(0.5)
                torch.addmm(offset, inner[k], into, out=whole[k])
            gates[k].addcmul_(a[k], gaps[k])
            bent[k].sigmoid_()
            if self.interpolates:
                torch.lerp(one[k], other[k], gates[k], out=after[k])
            else:
                torch.addcmul(one[k], gates[k], other[k] - 0.5, out=after[k])
            after[k].sub_(0.5)
            if waits:
                torch.where(still[k], half, after[k], out=after[k])
            half = after[k]
        states = 2.0 * states
        return states, (outputs,) if features is None else (outputs, features)

    def backward(
        self, tensors: tuple[Tensor, ...], states: Tensor, kept: tuple[Tensor, ...], g: Tensor
    ) -> tuple[Tensor | None, ...]:
        _, gap, y0, weight, *heads = tensors
        outputs, *features = kept
        size, length = y0.shape[1], gap.shape[0]
        outer, still, waits = self._slopes(outputs, gap), (gap == 0).to(g.dtype).unbind(), bool((gap == 0).any())
        flat, split, back = outer.flatten(2).unbind(), outer.unbind(), torch.zeros_like(y0)
        if heads:
            scale, slope = self._constants()
            into = 2.0 * scale * heads[0]
            bent = torch.square(features[0], out=empty_like(features[0])).mul_(-2.0 * slope).add_(0.5 * slope)
            inner = bent.unbind()
        else:
            scale, into, bent, inner = 1.0, None, None, None
        given = g.unbind()
        for k in range(length - 1, -1, -1):
            to_y = back + given[k]
            split[k].mul_(to_y.unsqueeze(1))
            through = flat[k] if into is None or inner is None else inner[k].mul_(flat[k] @ into)
            back = through @ weight
            if waits:
                back.addcmul_(to_y, still[k])
        outer = outer.flatten(2)
        first = outer if bent is None else bent
        before = torch.cat([y0.unsqueeze(0), states[:-1]])
        to_weight = first.flatten(0, 1).t() @ before.flatten(0, 1)
        # A gate answers to the gap through what the gap is multiplied by.
        to_gap = (outer[..., 3 * size :] * outputs[..., :size]).sum(-1, keepdim=True)
        if not heads:
            return first, to_gap, back, to_weight
        outer = outer.flatten(0, 1)
        to_heads = (2.0 * scale) * (outer.t() @ features[0].flatten(0, 1))
        return first, to_gap, back, to_weight, to_heads, outer.sum(0)

    def _constants(self) -> tuple[float, float]:
        return (_SCALE, _SLOPE) if self.scaled else (1.0, 1.0)

    def _slopes(self, outputs: Tensor, gap: Tensor) -> Tensor:
        """Of the state in what the heads give, `(time, series, 4, state)`; 0 where nothing moves."""
        _, one, other, gates = outputs.chunk(4, -1)
        found = empty_like(outputs).unflatten(-1, (4, -1))
        torch.mul(2.0 * (other - (one if self.interpolates else 0.5)), gates * (1.0 - gates), out=found[:, :, 3])
        torch.mul(found[:, :, 3], gap, out=found[:, :, 0])
        torch.mul(4.0 * one * (1.0 - one), (1.0 - gates) if self.interpolates else 1.0, out=found[:, :, 1])
        torch.mul(4.0 * other * (1.0 - other), gates, out=found[:, :, 2])
        return found.mul_((gap != 0).to(found.dtype).unsqueeze(-1))


def _doubled(size: int, like: Tensor) -> Tensor:
    """Which of four heads are hyperbolic tangents."""
    return torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=like.dtype, device=like.device).repeat_interleave(size)
