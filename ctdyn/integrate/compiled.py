"""Runs of several steps as compiled programs, made on first use and kept, for a solve that is repeated many times."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


__all__ = ["Program", "fresh"]

_PROGRAMS = 64


def fresh(value: Any) -> Any:
    """A copy that shares no memory with anything, of a tensor or of tuples of them: a compiled step may not alias.

    Example:
        >>> x = torch.zeros(2)
        >>> copy, nothing = fresh((x, None))
        >>> copy is x, nothing
        (False, None)
    """
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple):
        copies = [fresh(entry) for entry in value]
        return type(value)(*copies) if type(value) is not tuple else tuple(copies)
    return value


class Program:
    """Several steps in one call, compiled; where they cannot be, the same steps uncompiled, after one warning.

    The step is compiled once however often the body repeats it, so that compiling costs the same for any number of
    steps. A program is made for every field, method, shape and dtype, and kept while the process lives; torch keeps the
    machine code on disk as well.

    Args:
        body: `body(step, *arguments)`: takes the step several times. It returns tensors and tuples of them.
        step: one step; what it is given and what it returns must share no memory (`fresh`).

    Example:
        >>> def body(step, y, count):
        ...     for _ in range(count):
        ...         y = step(y)
        ...     return y
        >>> Program(body, lambda y: y + 1.0).uncompiled(torch.zeros(()), 3)
        tensor(3.)
    """

    def __init__(self, body: Callable[..., Any], step: Callable[..., Any]) -> None:
        self._body, self._step = body, step
        self._refused: set[object] = set()

    def __call__(self, parts: tuple[object, ...], device: torch.device, *arguments: Any) -> Any:
        """Run the body.

        Args:
            parts: the field, the method, and whatever else decides whether they can be compiled.
            device: where the arguments are.
            arguments: what the body is given after the step.
        """
        key = tuple(map(_kind, parts))
        if key not in self._refused:
            try:
                return self._compiled(device.type)(*arguments)
            except (RuntimeError, AttributeError, TypeError) as error:
                # The last two where torch is too old to compile a region once for many calls.
                self._refused.add(key)
                _warn(parts, key, error)
        return self.uncompiled(*arguments)

    def uncompiled(self, *arguments: Any) -> Any:
        """The body as it stands."""
        return self._body(self._step, *arguments)

    @functools.cache  # noqa: B019 - programs are module constants
    def _compiled(self, device_type: str) -> Callable[..., Any]:
        # The gradients of the last step look different from those of the others: two programs for it, not one.
        warnings.filterwarnings("ignore", message="invoke_subgraph traced multiple backward graphs")
        body, step = self._body, torch.compiler.nested_compile_region(self._step)

        def run(*arguments: Any) -> Any:
            return body(step, *arguments)

        # On a GPU what remains is the launching of small kernels: record them once, and launch them as one graph.
        options: dict[str, str | int | bool | Callable[..., Any]] = {
            "triton.cudagraphs": device_type == "cuda",
            "size_asserts": False,
            "alignment_asserts": False,
        }
        limits: dict[str, Any] = {"recompile_limit": _PROGRAMS, "isolate_recompiles": True}
        return torch.compile(run, fullgraph=True, dynamic=False, options=options, **limits)


def _kind(part: object) -> object:
    """What a part is compiled as: its code where it is a function, otherwise its class."""
    return getattr(part, "__code__", type(part))


_WARNED: set[object] = set()


def _warn(parts: tuple[object, ...], key: tuple[object, ...], error: Exception) -> None:
    """Say it once, though the search and the replay are two programs."""
    if key[:2] in _WARNED:
        return
    _WARNED.add(key[:2])
    field, method = parts[:2]
    # What torch says first is about its own insides; the reason follows.
    lines = [line.strip() for line in str(error).split("Got graph break/error:")[-1].splitlines() if line.strip()]
    reason = " ".join(lines[:2])[:200]
    warnings.warn(
        f"{type(method).__name__} on {getattr(field, '__name__', type(field).__name__)} cannot be compiled "
        f"({type(error).__name__}: {reason}); its steps run uncompiled, with the same answer. Drop compile=True, or "
        "make the field traceable by torch.compile(fullgraph=True).",
        stacklevel=9,
    )
