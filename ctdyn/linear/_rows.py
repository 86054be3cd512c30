"""Many gradients of one result."""

from __future__ import annotations

import torch
from torch import Tensor


__all__ = ["pull_rows"]


def pull_rows(value: Tensor, sources: tuple[Tensor, ...], rows: Tensor, *, graph: bool = False) -> list[Tensor | None]:
    """The gradients to each source for each row of cotangents, rows first; None where a source is not used.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> pull_rows(3.0 * x, (x,), torch.eye(2))[0]
        tensor([[3., 0.],
                [0., 3.]])
    """
    options = {"retain_graph": True, "create_graph": graph, "allow_unused": True}
    try:
        return list(torch.autograd.grad(value, sources, rows, is_grads_batched=True, **options))
    except RuntimeError:
        # Not everything that can be differentiated can be so for all rows at once: compiled kernels cannot.
        each = [torch.autograd.grad(value, sources, row, **options) for row in rows]
    return [None if entries[0] is None else torch.stack(entries) for entries in zip(*each, strict=True)]
