"""Linear controlled equations along a control that moves in straight lines: exact, whatever the length of a line."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .phi import phi1
from .recurrence import linear_recurrence


__all__ = ["follow_control"]

#: The largest norm that one Taylor series is summed for: beyond it rounding grows, and squaring steps is cheaper.
_REACH = 2.0
#: A control that asks for more series than this in one line has not been scaled.
_MOST_SERIES = 10_000
#: Entries of the matrices that are made at once.
_AT_ONCE = 2**22


def follow_control(A: Tensor, b: Tensor, dxs: Tensor, y0: Tensor) -> Tensor:
    r"""States of a linear controlled equation after each of consecutive straight pieces of its control.

    .. math:: dy = \sum_c (A_c y + b_c)\,dX_c, \qquad
              y_k = e^{M_k} y_{k-1} + \varphi_1(M_k) \sum_c b_c \,\Delta X_{k,c}, \qquad
              M_k = \sum_c A_c \,\Delta X_{k,c}

    No step size is involved: the result is that of the equation to rounding. Blocks of size one are one scan over all
    pieces at once; larger ones apply their exponential to the state, piece by piece, without building it.

    Args:
        A: one block-diagonal matrix per channel of the control, `(control, block, size, size)`.
        b: what a channel adds whatever the state, `(control, block * size)`.
        dxs: change of the control over each piece, `(*batch, piece, control)`.
        y0: states before the first, `(*batch, block * size)`; extra leading axes are allowed.

    Returns:
        The states, `(*batch, piece, block * size)` behind the extra axes of `y0`.

    Raises:
        ValueError: the shapes do not fit, or a piece is so long that its exponential means nothing.

    References:
        A. H. Al-Mohy, N. J. Higham, Computing the action of the matrix exponential, with an application to exponential
        integrators, SIAM J. Sci. Comput. 33(2), 2011, https://doi.org/10.1137/100788860
        Structured linear CDEs: maximally expressive and parallel-in-time sequence models, B. Walker, L. Yang,
        N. M. Cirone, C. Salvi, T. Lyons, 2025, https://arxiv.org/abs/2505.17761

    Example:
        >>> turn = torch.tensor([[[[0.0, -1.0], [1.0, 0.0]]]])
        >>> quarter = torch.tensor([[1.5707963], [1.5707963]])
        >>> follow_control(turn, torch.zeros(1, 2), quarter, torch.tensor([1.0, 0.0])).round(decimals=4) + 0.0
        tensor([[ 0.,  1.],
                [-1.,  0.]])
    """
    channels, blocks, size = A.shape[:3]
    if A.shape != (channels, blocks, size, size) or b.shape != (channels, blocks * size):
        raise ValueError(
            "A must be (control, block, size, size) and b (control, block * size); got A "
            f"{tuple(A.shape)} and b {tuple(b.shape)}."
        )
    if dxs.shape[-1] != channels or y0.shape[-1] != blocks * size:
        raise ValueError(
            f"the equation has {channels} control channels and {blocks * size} states; got changes (*batch, piece, "
            f"control) of {tuple(dxs.shape)} and states (*batch, state) of {tuple(y0.shape)}."
        )
    shape = torch.broadcast_shapes(dxs.shape[:-2], y0.shape[:-1])
    if not dxs.shape[-2] or not math.prod(shape):
        return y0.new_zeros(*shape, *dxs.shape[-2:-1], y0.shape[-1])
    if size == 1:
        rates = dxs @ A.reshape(channels, blocks)
        added = phi1(rates) * (dxs @ b)
        return linear_recurrence(
            rates.exp().expand(*shape, *rates.shape[-2:]),
            added.expand(*shape, *added.shape[-2:]),
            y0.expand(*shape, y0.shape[-1]),
        )
    return _by_series(A, b, dxs.expand(*shape[len(shape) - dxs.dim() + 2 :], *dxs.shape[-2:]), y0, shape)


def _by_series(A: Tensor, b: Tensor, dxs: Tensor, y0: Tensor, shape: torch.Size) -> Tensor:
    """The blocks of all series side by side, the extra axes of the states as columns of one matrix."""
    _, blocks, size = A.shape[:3]
    batch = dxs.shape[:-2]
    samples = shape[: len(shape) - len(batch)]
    count, columns = math.prod(batch), math.prod(samples)
    y = y0.expand(*shape, y0.shape[-1]).reshape(columns, count * blocks, size).permute(1, 2, 0)
    moves = dxs.reshape(count, *dxs.shape[-2:]).transpose(0, 1)
    states = []
    for some in moves.split(max(1, _AT_ONCE // max(1, count * blocks * size**2))):
        matrices = (some.flatten(0, 1) @ A.flatten(1)).view(len(some), count * blocks, size, size)
        added = (some.flatten(0, 1) @ b).view(len(some), count * blocks, size, 1)
        norms = _norms(matrices)
        for matrix, drive, norm in zip(matrices.unbind(0), added.unbind(0), norms, strict=True):
            y = _exponential(matrix, drive, y, norm)
            states.append(y)
    ys = torch.stack(states).permute(3, 1, 0, 2).reshape(*samples, *batch, blocks, len(states), size)
    return ys.transpose(-3, -2).flatten(-2)


def _exponential(matrix: Tensor, drive: Tensor, y: Tensor, norm: float) -> Tensor:
    """The states `y` after the unit of time that the equation `y' = matrix y + drive` runs for."""
    if not math.isfinite(norm):
        return torch.full_like(y, torch.nan)
    series = max(1, math.ceil(norm / _REACH))
    if series > _MOST_SERIES:
        raise ValueError(
            f"along one piece of its control the equation has an exponent of {norm:.3g}: bring the channels of the "
            "control to the size of one, or its knots closer together."
        )
    order = _order(norm / series, float(torch.finfo(y.dtype).eps))
    for _ in range(series):
        term = torch.baddbmm(drive.expand_as(y), matrix, y) / series
        total = y + term
        for power in range(2, order + 1):
            term = torch.baddbmm(term, matrix, term, beta=0.0, alpha=1.0 / (power * series))
            total = total + term
        y = total
    return y


def _norms(matrices: Tensor) -> list[float]:
    return matrices.detach().abs().sum(-1).amax((-1, -2)).tolist()


def _order(norm: float, eps: float) -> int:
    """The number of terms after which a Taylor series of this norm is complete to rounding."""
    order, term = 1, norm
    while term > 0.5 * eps:
        order += 1
        term *= norm / order
    return order
