"""The cubic path with backward differences."""

from __future__ import annotations

import torch
from torch import Tensor

from .piecewise import PiecewisePath


__all__ = ["HermitePath"]


class HermitePath(PiecewisePath):
    r"""A once differentiable cubic through the values; the usual control of a neural CDE, kind to adaptive steps.

    With the difference quotient :math:`d_j = (x_{j+1} - x_j) / (t_{j+1} - t_j)` and :math:`h = t_{j+1} - t_j`,

    .. math:: X(t_j + s) = x_j + d_{j-1} s + \frac{2 (d_j - d_{j-1})}{h} s^2 - \frac{d_j - d_{j-1}}{h^2} s^3

    The slope at a knot is the backward difference, so up to and including a knot the path depends on nothing that comes
    later. (Between two knots it knows the later of them.) The first piece is a straight line. Before the first knot and
    after the last it holds the end value.

    Args:
        ts: times of the knots, non-decreasing, `(*batch, time)`; trailing repeats of the last time are padding.
        xs: values there, `(*batch, time, channel)`.

    Raises:
        ValueError: the shapes disagree, there is no knot, times decrease, or an entry is not finite.

    Reference:
        Neural Controlled Differential Equations for Online Prediction Tasks, J. Morrill, P. Kidger, L. Yang, T. Lyons,
        2021, https://arxiv.org/abs/2106.11028

    Example:
        >>> path = HermitePath(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[[0.0], [1.0], [1.0]]]))
        >>> path(torch.tensor([[0.5, 1.5]])).squeeze(-1)
        tensor([[0.5000, 1.1250]])
    """

    def _polynomials(self, starts: Tensor, slopes: Tensor, gaps: Tensor) -> Tensor:
        before = torch.cat([slopes[..., :1, :], slopes[..., :-1, :]], -2)
        # An empty piece has no slope of its own; a bend measured over it would be infinite.
        bend = torch.where(gaps > 0, slopes - before, 0.0) / torch.where(gaps > 0, gaps, 1.0)
        return torch.stack([starts, before, 2 * bend, -bend / torch.where(gaps > 0, gaps, 1.0)], -2)
