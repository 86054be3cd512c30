"""The synapses of liquid networks."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..linear._compiled import numba_is_installed


__all__ = ["Synapses", "arrays", "gathered", "is_compiled", "kernels", "unsoftplus"]


class Synapses(nn.Module):
    """From sources to neurons: how far each synapse is open, and to what level it pulls."""

    def __init__(self, sources: int, neurons: int, polarity: np.ndarray | None = None) -> None:
        super().__init__()
        shape = (sources, neurons)
        self.raw_weight = nn.Parameter(unsoftplus(torch.empty(shape).uniform_(1e-3, 1.0)))
        self.slope = nn.Parameter(torch.empty(shape).uniform_(3.0, 8.0))
        self.threshold = nn.Parameter(torch.empty(shape).uniform_(0.3, 0.8))
        level = torch.where(torch.rand(shape) < 2.0 / 3.0, 1.0, -1.0)
        self.there: Tensor | None
        there = None
        if polarity is not None:
            level = torch.from_numpy(polarity).to(level.dtype)
            there = level.abs()
        self.level = nn.Parameter(level)
        self.register_buffer("there", there, persistent=False)

    def weights(self, capacity: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Slope, offset, weight and pull of every synapse, `(source, neuron)`: what `gathered` takes.

        The last two are over the capacity of the neuron.
        """
        weight = softplus(self.raw_weight) / capacity
        if self.there is not None:
            weight = weight * self.there
        return self.slope, self.slope * self.threshold, weight, weight * self.level

    def forward(self, x: Tensor, capacity: Tensor) -> tuple[Tensor, Tensor]:
        """The conductance of each neuron and the current it lets in, over its capacity, `(*batch, neuron)`."""
        weights = self.weights(capacity)
        if is_compiled(x, *weights):
            conductance, current = _Gathered.apply(x.reshape(-1, x.shape[-1]), *weights)
            # An axis of -1 would be any where there are no series.
            shape = (*x.shape[:-1], conductance.shape[-1])
            return conductance.view(shape), current.view(shape)
        return gathered(x, *weights)


def gathered(x: Tensor, slope: Tensor, offset: Tensor, weight: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
    """The conductances and currents of open synapses."""
    gate = torch.sigmoid(slope * x.unsqueeze(-1) - offset)
    # One product for both: the gates are what is large.
    both = torch.einsum("...ij,ijk->...jk", gate, torch.stack([weight, pull], -1))
    return both[..., 0], both[..., 1]


class _Gathered(torch.autograd.Function):
    """`gathered` for rows of sources, compiled."""

    @staticmethod
    def forward(x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        conductance = x.new_zeros(x.shape[0], weights[0].shape[1])
        current = torch.zeros_like(conductance)
        kernels().collect(*arrays(x, *weights, conductance, current))
        return conductance, current

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, to_a: Tensor, to_b: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The derivatives are to be differentiated themselves.
            return torch.func.vjp(gathered, *inputs)[1]((to_a, to_b))
        found = [torch.zeros_like(one, memory_format=torch.contiguous_format) for one in inputs]
        kernels().trace_back(*arrays(*inputs, to_a, to_b, *found))
        return tuple(found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        inputs = ctx.saved_tensors
        given = tuple(torch.zeros_like(x) if v is None else v for x, v in zip(inputs, tangents, strict=True))
        return torch.func.jvp(gathered, inputs, given)[1]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return torch.func.vmap(gathered, in_dims)(*inputs), (0, 0)


def is_compiled(*tensors: Tensor) -> bool:
    """Whether the kernels take tensors of this device and dtype."""
    return (
        numba_is_installed()
        and not torch.compiler.is_compiling()
        and all(x.device.type == "cpu" and x.dtype == tensors[0].dtype for x in tensors)
        and tensors[0].dtype in (torch.float32, torch.float64)
    )


@cache
def kernels() -> ModuleType:
    """The kernels, which are compiled on their first use."""
    from . import _kernels

    return _kernels


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors as contiguous arrays on the same memory (on a copy where they were not contiguous)."""
    return [x.detach().contiguous().numpy() for x in tensors]


def unsoftplus(x: Tensor) -> Tensor:
    """The inverse of softplus."""
    return x + (-torch.expm1(-x)).log()
