"""The natural cubic spline."""

from __future__ import annotations

import torch
from torch import Tensor

from .missing import neighbours, observed
from .piecewise import PiecewisePath, check_knots


__all__ = ["NaturalCubicPath"]


class NaturalCubicPath(PiecewisePath):
    r"""The smoothest curve through the values: twice differentiable, and straight at both ends.

    With the slopes :math:`m_j` at the knots, :math:`h_j = t_{j+1} - t_j` and :math:`d_j = (x_{j+1} - x_j) / h_j`,

    .. math:: \frac{m_{j-1}}{h_{j-1}} + 2 \Big(\frac1{h_{j-1}} + \frac1{h_j}\Big) m_j + \frac{m_{j+1}}{h_j}
              = 3 \Big(\frac{d_{j-1}}{h_{j-1}} + \frac{d_j}{h_j}\Big)

    and the missing neighbour of an end left out. Every value depends on all the others, the later ones too: use
    `HermitePath` or `RectilinearPath` where nothing may look ahead. Before the first knot and after the last it holds
    the end value.

    Missing values are no knots of their channel: each channel is the spline of what was observed of it, except that
    times before its first value, and after its last, are knots with that value. A channel that was never observed is 0.
    All series and channels are fitted at once, in a number of operations that grows with the logarithm of the length.

    Args:
        ts: times of the knots, strictly increasing but for trailing repeats of the last time, which are padding,
            `(*batch, time)`.
        xs: values there, `(*batch, time, channel)`.
        mask: where there is a value; None: everywhere. Elsewhere `xs` may be anything, NaN too.

    Raises:
        ValueError: the shapes disagree, there is no knot, times decrease or repeat, or an observed value is not finite.

    Reference:
        C. de Boor, A Practical Guide to Splines, 1978; R. W. Hockney, A fast direct solution of Poisson's equation
        using Fourier analysis, J. ACM 12(1), 1965 (cyclic reduction), https://doi.org/10.1145/321250.321259

    Example:
        >>> ts = torch.tensor([[0.0, 1.0, 2.0]])
        >>> NaturalCubicPath(ts, torch.tensor([[[0.0], [1.0], [0.0]]]))(torch.tensor([[0.5, 1.0]])).squeeze(-1)
        tensor([[0.6875, 1.0000]])
    """

    def __init__(self, ts: Tensor, xs: Tensor, mask: Tensor | None = None) -> None:
        self._given = (ts, xs)
        self._mask = mask
        check_knots(ts, xs if mask is None else torch.zeros_like(xs))
        held = observed(ts, xs, torch.ones_like(xs, dtype=torch.bool) if mask is None else mask)
        inner = ts[..., 1:] < ts[..., -1:]
        if bool(((ts.diff(dim=-1) <= 0) & inner).any()):
            raise ValueError("ts must increase strictly along the last axis; only padding may repeat the last time.")
        values, slopes = _spline(ts, torch.where(held, xs, 0.0), held)
        self._slopes = slopes
        super().__init__(ts, values)

    def _polynomials(self, starts: Tensor, slopes: Tensor, gaps: Tensor) -> Tensor:
        width = torch.where(gaps > 0, gaps, 1.0)
        left, right = self._slopes[..., :-1, :], self._slopes[..., 1:, :]
        square = torch.where(gaps > 0, 3 * slopes - 2 * left - right, 0.0) / width
        cube = torch.where(gaps > 0, left + right - 2 * slopes, 0.0) / width**2
        return torch.stack([starts, left, square, cube], -2)

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the path is made of, the values as they were given."""
        return self._given

    def replace(self, tensors: tuple[Tensor, ...]) -> NaturalCubicPath:
        """The same path made of other tensors."""
        ts, xs = tensors
        return NaturalCubicPath(ts, xs, self._mask)


def _spline(ts: Tensor, xs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Values and slopes at all times, of the spline through the observed values of each channel."""
    left, right = neighbours(mask)
    number = torch.arange(xs.shape[-2], device=xs.device).unsqueeze(-1)
    first_at_end = torch.searchsorted(ts.detach().contiguous(), ts[..., -1:].detach().contiguous()).unsqueeze(-1)
    # Before its first value and after its last a channel stays where it is.
    outer = ((left >= number) | (right <= number)) & (number <= first_at_end)
    xs = torch.where(mask, xs, torch.where(outer & mask.gather(-2, left), xs.gather(-2, left), 0.0))
    knot = mask | outer
    # The knots of each channel side by side, so that neighbours in the array are neighbours on the clock.
    order = (~knot).to(torch.uint8).argsort(dim=-2, stable=True)
    clock = ts.unsqueeze(-1).expand(xs.shape)
    held = number < knot.sum(-2, keepdim=True)
    slopes = _slopes(clock.gather(-2, order), xs.gather(-2, order), held)
    place = knot.to(torch.int64).cumsum(-2) - 1
    before = place.clamp(min=0)
    after = torch.minimum(before + 1, knot.sum(-2, keepdim=True) - 1).clamp(min=0)
    after = torch.where(knot, before, after)

    def at(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        origin = order.gather(-2, index)
        return clock.gather(-2, origin), xs.gather(-2, origin), slopes.gather(-2, index)

    (t0, x0, m0), (t1, x1, m1) = at(before), at(after)
    gap = torch.where(t1 > t0, t1 - t0, 1.0)
    share = (clock - t0) / gap
    rise = torch.where(t1 > t0, (x1 - x0) / gap, m0)
    bend, twist = (3 * rise - 2 * m0 - m1) * gap, (m0 + m1 - 2 * rise) * gap
    value = x0 + share * (m0 * gap + share * (bend + share * twist))
    slope = m0 + share * (2 * bend + 3 * share * twist) / gap
    return torch.where(knot, xs, value), torch.where(knot, m0, slope)


def _slopes(ts: Tensor, xs: Tensor, held: Tensor) -> Tensor:
    """Slopes of natural splines through the first, held entries, along axis -2."""
    valid = held[..., 1:, :] & (ts.diff(dim=-2) > 0)
    rate = torch.where(valid, 1.0 / torch.where(valid, ts.diff(dim=-2), 1.0), 0.0)
    pull = 3 * rate**2 * xs.diff(dim=-2)
    none = torch.zeros_like(ts[..., :1, :])
    lower, upper = torch.cat([none, rate], -2), torch.cat([rate, none], -2)
    right = torch.cat([none, pull], -2) + torch.cat([pull, none], -2)
    diagonal = 2 * (lower + upper)
    # A row without neighbours stands for nothing (padding), or for a channel with a single knot: its slope is 0.
    return _tridiagonal(lower, torch.where(diagonal > 0, diagonal, 1.0), upper, right)


def _tridiagonal(lower: Tensor, diagonal: Tensor, upper: Tensor, right: Tensor) -> Tensor:
    """Solve diagonally dominant tridiagonal systems along axis -2 by cyclic reduction, all rows at once."""
    size, stride = right.shape[-2], 1

    def shifted(x: Tensor, by: int, fill: float) -> Tensor:
        edge = x.new_full((*x.shape[:-2], min(abs(by), size), x.shape[-1]), fill)
        return torch.cat([edge, x[..., :-by, :]], -2) if by > 0 else torch.cat([x[..., -by:, :], edge], -2)

    while stride < size:
        down, up = -lower / shifted(diagonal, stride, 1.0), -upper / shifted(diagonal, -stride, 1.0)
        diagonal = diagonal + down * shifted(upper, stride, 0.0) + up * shifted(lower, -stride, 0.0)
        right = right + down * shifted(right, stride, 0.0) + up * shifted(right, -stride, 0.0)
        lower, upper = down * shifted(lower, stride, 0.0), up * shifted(upper, -stride, 0.0)
        stride *= 2
    return right / diagonal
