"""Products of real inputs and complex matrices, as one real product each and without a copy of what is long."""

from __future__ import annotations

import torch
from torch import Tensor


__all__ = ["narrow", "widen"]


def widen(us: Tensor, B: Tensor) -> Tensor:
    """The complex `B u`.

    Args:
        us: real, `(*batch, time, input)`.
        B: real and imaginary parts, `(state, input, 2)`.

    Returns:
        `(*batch, time, state)`, complex.

    Example:
        >>> widen(torch.ones(1, 1), torch.tensor([[[1.0, 2.0]]]))
        tensor([[1.+2.j]])
    """
    # Rows in the order of real and imaginary parts in memory: the result is complex as it stands.
    matrix = B.transpose(1, 2).reshape(-1, B.shape[1])
    return torch.view_as_complex((us @ matrix.T).unflatten(-1, (-1, 2)))


def narrow(hs: Tensor, C: Tensor) -> Tensor:
    """The real part of `C h`, twice: the output of a state of which one of each conjugate pair is kept.

    Args:
        hs: complex, `(*batch, time, state)`.
        C: real and imaginary parts, `(output, state, 2)`.

    Returns:
        `(*batch, time, output)`, real.

    Example:
        >>> narrow(torch.tensor([[1.0 + 2.0j]]), torch.tensor([[[1.0, 2.0]]]))
        tensor([[-6.]])
    """
    matrix = torch.stack([2.0 * C[..., 0], -2.0 * C[..., 1]], -1).flatten(1)
    return torch.view_as_real(hs).flatten(-2) @ matrix.T
