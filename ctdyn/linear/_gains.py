"""How a Gaussian state is corrected by what it leads to, for many states at once, with derivatives in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._kalman_compiled import can_compile, compiled_gain_gradients, compiled_gains
from ._tensors import shared_batch


__all__ = ["gains"]


def gains(P: Tensor, F: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    r"""How a state is corrected by :math:`F x + \epsilon`, and the covariance that is left once that is known.

    .. math:: G = P F^\top (F P F^\top + Q)^{-1}, \qquad (1 - G F) P (1 - G F)^\top + G Q G^\top

    The next state corrects one that was filtered; an observation corrects one that was predicted. A direction in which
    nothing varies is not corrected.

    Args:
        P: covariances of the states, `(*batch, n, n)`.
        F: what of them is seen, `(*batch, m, n)`.
        Q: covariances of the noise, `(*batch, m, m)`.

    Returns:
        Gains `(*batch, n, m)` and covariances `(*batch, n, n)`.
    """
    batch = shared_batch({"P": P.shape[:-2], "F": F.shape[:-2], "Q": Q.shape[:-2]})
    P, F, Q = (x.expand(*batch, *x.shape[-2:]) for x in (P, F, Q))
    gain, left = _Gains.apply(P, F, Q)  # type: ignore[misc]
    return gain, left


def _precise(S: Tensor) -> Tensor:
    """The Cholesky factor, of a matrix that is singular too."""
    variance = S.diagonal(dim1=-2, dim2=-1)
    return torch.linalg.cholesky_ex(S + torch.diag_embed(_tiny(S) * torch.where(variance > 0, variance, 1.0)))[0]


def _tiny(S: Tensor) -> float:
    """The share of a variance that rounding may take from it."""
    return 4 * S.shape[-1] * torch.finfo(S.dtype).eps


class _Gains(Function):
    """No gain leaves a smaller covariance, so that the derivative of what is left does not go through the gain."""

    @staticmethod
    def forward(P: Tensor, F: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        if can_compile(P):
            return compiled_gains(P, F, Q, _tiny(Q))
        moved = F @ P
        gain = torch.cholesky_solve(moved, _precise(moved @ F.mT + Q)).mT
        kept = _kept(gain, F)
        left = kept @ P @ kept.mT + gain @ Q @ gain.mT
        return gain, 0.5 * (left + left.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, output[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        P, F, Q, gain = ctx.saved_tensors
        to_gain, to_left = gradients
        if can_compile(P) and not torch.is_grad_enabled():
            return compiled_gain_gradients(P, F, Q, _tiny(Q), gain, to_gain, to_left)
        moved, kept = F @ P, _kept(gain, F)
        to_left = 0.5 * (to_left + to_left.mT)
        weighed = torch.cholesky_solve(to_gain.mT, _precise(moved @ F.mT + Q))
        inner, outer = gain.mT @ weighed.mT, gain.mT @ to_left
        P_bar = kept.mT @ (weighed.mT @ F + to_left @ kept)
        F_bar = weighed @ P - (inner + inner.mT) @ moved - 2.0 * outer @ kept @ P
        return P_bar, F_bar, outer @ gain - inner


def _kept(gain: Tensor, F: Tensor) -> Tensor:
    return torch.eye(F.shape[-1], dtype=F.dtype, device=F.device) - gain @ F
