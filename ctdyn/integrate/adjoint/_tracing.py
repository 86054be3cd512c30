"""What a replay depends on and nobody declared: the parameters, contexts and other tensors that its field holds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.overrides import TorchFunctionMode

from ..._types import State
from ..loop import Replay


__all__ = ["Held", "pull", "refuse_second"]


class _Listener(TorchFunctionMode):
    """Remembers every tensor with a gradient that an operation is given and that was there before."""

    def __init__(self) -> None:
        super().__init__()
        # Numbers grow with every node that this thread makes.
        self.number = _sequence_number(torch.zeros((), requires_grad=True).view(()).grad_fn)
        self.found: dict[Node, dict[int, Tensor]] = {}

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._hear(args)
        if kwargs:
            self._hear(tuple(kwargs.values()))
        return func(*args, **(kwargs or {}))

    def _hear(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor):
                node = value.grad_fn
                if node is not None and value.requires_grad and _sequence_number(node) < self.number:
                    self.found.setdefault(node, {})[get_gradient_edge(value).output_nr] = value
            elif isinstance(value, list | tuple):
                self._hear(value)


class Held:
    """The tensors with gradients that the steps of a replay use and that are not its state or its clock.

    They are found by one step with gradients. The parameters of the term are among them whether that step used them or
    not.

    Args:
        replay: the steps.
        y0: states at the start, `(*batch, state)`.
        mode: the name of the adjoint, for messages.

    Raises:
        ValueError: the field is random, or holds a tensor that was computed from another one that it holds.
    """

    def __init__(self, replay: Replay, y0: State, mode: str) -> None:
        self.mode = mode
        self.device = y0.device.type
        self.cast = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)
        self.tensors: tuple[Tensor, ...] = ()
        self._heard: dict[Node, frozenset[int]] = {}
        if not torch.is_grad_enabled():
            return
        start = y0.detach().requires_grad_()
        replay = replace(replay, grid=replay.grid.detach(), ts=replay.ts.detach())
        before = (torch.get_rng_state(), _device_state(y0.device))
        with _Listener() as listener, torch.enable_grad(), _uncompiled():
            segment = replay.run(start)
        outputs = [segment.ys, segment.y1]
        after = (torch.get_rng_state(), _device_state(y0.device))
        if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            raise ValueError(
                f"the field draws random numbers (dropout in training mode?), and {mode}, which evaluates it once more "
                "on the way back, would see other ones. Call field.eval(), or use adjoint=Direct()."
            )
        leaves, crossed = _reached(outputs, set(listener.found), {id(start)})
        others = list(dict.fromkeys(node for node, _ in crossed))
        found = {id(x): x for x in (*replay.term.parameters(), *leaves) if x.requires_grad}
        found |= {id(x): x for node in others for x in listener.found[node].values()}
        self.tensors = tuple(found.values())
        self._heard = {node: frozenset(listener.found[node]) for node in others}
        self._check_independent(others)

    def _check_independent(self, others: Iterable[Node]) -> None:
        """Otherwise what flows through the one would be counted twice for the other."""
        held = {id(x) for x in self.tensors}
        above = [edge for other in others for edge in other.next_functions]
        leaves, crossed = _walk(above, set(self._heard))
        if crossed or any(id(leaf) in held for leaf in leaves):
            raise ValueError(
                f"the field holds two tensors of which one was computed from the other, and {self.mode} cannot tell "
                "their gradients apart. Compute the second inside the field, pass it through inputs=, or use "
                "adjoint=Direct()."
            )

    def again(self) -> torch.autocast:
        """The surroundings of the forward pass, for one more evaluation."""
        enabled, dtype = self.cast
        return torch.autocast(self.device, dtype=dtype, enabled=enabled)

    def check(self, outputs: Sequence[Tensor], local: Iterable[Tensor]) -> None:
        """Whether these outputs use nothing with a gradient but what was found and the `local` tensors.

        Raises:
            RuntimeError: they use something that the first step did not: its gradient would be lost.
        """
        known = {id(x) for x in (*self.tensors, *local)}
        leaves, crossed = _reached(outputs, set(self._heard), known)
        # Of a tensor that was cut up beforehand the first step uses one piece, and a later step another.
        pieces = [node.name() for node, number in crossed if number not in self._heard[node]]
        if leaves or pieces:
            what = ", ".join([f"of shape {tuple(x.shape)}" for x in leaves] + [f"made by {name}" for name in pieces])
            raise RuntimeError(
                f"in a later step the field uses tensors with gradients {what} that it did not use in the "
                f"first; {self.mode} cannot follow them. Make them parameters of a module that is the field, pass them "
                "through inputs=, or use adjoint=Direct()."
            )


def _uncompiled() -> AbstractContextManager[object]:
    """What is compiled hides its tensors, but its source does not."""
    # Where nothing has been compiled yet, the compiler is not imported for this.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _sequence_number(node: Any) -> int:
    return node._sequence_nr()


def _device_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.zeros(0)


def _reached(
    outputs: Sequence[Tensor], stops: Container[Node], known: set[int]
) -> tuple[list[Tensor], list[tuple[Node, int]]]:
    """The leaves that outputs depend on, and what they reach of the nodes in `stops`: which of their results."""
    edges = [get_gradient_edge(x) for x in outputs if x.grad_fn is not None]
    leaves, crossed = _walk([(edge.node, edge.output_nr) for edge in edges], stops)
    return [leaf for leaf in leaves if id(leaf) not in known], crossed


def _walk(
    roots: Iterable[tuple[Node | None, int]], stops: Container[Node]
) -> tuple[list[Tensor], list[tuple[Node, int]]]:
    stack = [(node, number) for node, number in roots if node is not None]
    seen: set[Node] = set()
    leaves: list[Tensor] = []
    crossed: dict[tuple[Node, int], None] = {}
    while stack:
        node, number = stack.pop()
        if node in stops:
            crossed[node, number] = None
            continue
        if node in seen:
            continue
        seen.add(node)
        below = node.next_functions
        if not below:
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                leaves.append(leaf)
        stack += [(child, index) for child, index in below if child is not None]
    return leaves, list(crossed)


def pull(
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor | None], inputs: Sequence[Tensor], *, twice: bool = False
) -> list[Tensor | None]:
    """The gradients of `inputs`, None where nothing depends on one of them.

    Args:
        outputs: what was computed.
        cotangents: the gradients of the outputs; None for zero.
        inputs: what to differentiate with respect to; entries that need no gradient get None.
        twice: make the result differentiable.
    """
    pairs = [(x, c) for x, c in zip(outputs, cotangents, strict=True) if c is not None and x.requires_grad]
    wanted = [x for x in inputs if x.requires_grad]
    if not pairs or not wanted:
        return [None] * len(inputs)
    values, weights = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(values, wanted, weights, allow_unused=True, create_graph=twice))
    return [next(found) if x.requires_grad else None for x in inputs]


def refuse_second(mode: str, gradients: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """The same gradients, which raise where they are differentiated once more.

    Args:
        mode: the name of the adjoint.
        gradients: what a backward pass found, without a graph.
        inputs: what they depend on.
    """
    if not torch.is_grad_enabled():
        return list(gradients)
    count = len(inputs)
    kept = iter(_Once.apply(mode, count, *inputs, *(g for g in gradients if g is not None)))
    return [None if g is None else next(kept) for g in gradients]


class _Once(torch.autograd.Function):
    """Gradients that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, mode: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.mode = mode
        return tuple(x.clone() for x in tensors[count:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise NotImplementedError(
            f"{ctx.mode} has no second derivatives: its gradients come from states that were reconstructed without a "
            "graph. Use adjoint=Direct() or adjoint=Checkpoint()."
        )
