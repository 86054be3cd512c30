"""A loop over time with derivatives of its own: one node of the graph instead of a thousand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


__all__ = ["Loop", "run_loop"]


class Loop(ABC):
    """A recurrence over time: as it is written down, and as it is run and differentiated by hand."""

    @abstractmethod
    def plain(self, *tensors: Tensor) -> Tensor:
        """The states behind every step, by operations that can be differentiated, mapped and traced."""

    @abstractmethod
    def forward(self, *tensors: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same states, and what `backward` wants to know beside them."""

    @abstractmethod
    def backward(
        self,
        tensors: tuple[Tensor, ...],
        states: Tensor,
        kept: tuple[Tensor, ...],
        g: Tensor,
        wanted: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        """The gradients to the tensors; those that are not wanted may be None."""


def run_loop(loop: Loop, *tensors: Tensor) -> Tensor:
    """The states of a loop, with derivatives of any order."""
    if torch.compiler.is_compiling():
        return loop.plain(*tensors)
    return _Run.apply(loop, *tensors)[0]  # type: ignore[no-any-return]


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(loop: Loop, *tensors: Tensor) -> tuple[Tensor, ...]:
        states, kept = loop.forward(*tensors)
        return states, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.loop, *tensors = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.count, ctx.kept = len(tensors), len(output) - 1
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        saved = ctx.saved_tensors
        tensors, (states, *kept) = saved[: ctx.count], saved[ctx.count :]
        if g is None:
            return None, *(None,) * ctx.count
        if torch.is_grad_enabled():
            # The derivatives are to be differentiated themselves.
            return None, *torch.func.vjp(ctx.loop.plain, *tensors)[1](g)
        return None, *ctx.loop.backward(tensors, states, tuple(kept), g, ctx.needs_input_grad[1:])

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        tensors = ctx.saved_tensors
        given = tuple(torch.zeros_like(x) if v is None else v for x, v in zip(tensors, tangents, strict=True))
        return torch.func.jvp(ctx.loop.plain, tensors, given)[1], *(None,) * ctx.kept

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        loop, *tensors = inputs
        states = torch.func.vmap(loop.plain, in_dims[1:])(*tensors)
        return (states,), (0,)
