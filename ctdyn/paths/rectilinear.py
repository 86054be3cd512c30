"""The causal path of steps."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import Times
from .piecewise import PolygonalPath, check_knots


__all__ = ["RectilinearPath"]


class RectilinearPath(PolygonalPath):
    r"""Time moves, then the values: the control of a neural CDE that must not look ahead, not even between two knots.

    Its first channel is the time since the first knot, the others are the values. It runs over a parameter :math:`s`,
    because the values change while time stands still:

    .. math:: X(2j) = (t_j - t_0,\; x_j), \qquad X(2j + 1) = (t_{j+1} - t_0,\; x_j), \qquad
              X \text{ linear between}

    `after(t)` and `before(t)` say where on it a moment of time lies: with and without what is observed at that moment.
    A controlled equation is solved over :math:`s`; its solution does not depend on the pace of the parameter.

    Trailing knots that repeat the last time are padding. Before :math:`s = 0` and beyond the end it holds the end
    value.

    Args:
        ts: times of the knots, non-decreasing, `(*batch, time)`.
        xs: values there, `(*batch, time, channel)`; fill missing ones by `fill_forward`.

    Raises:
        ValueError: the shapes disagree, there is no knot, times decrease, or an entry is not finite.

    Reference:
        Neural Controlled Differential Equations for Online Prediction Tasks, J. Morrill, P. Kidger, L. Yang, T. Lyons,
        2021, https://arxiv.org/abs/2106.11028

    Example:
        >>> path = RectilinearPath(torch.tensor([[0.0, 2.0]]), torch.tensor([[[5.0], [6.0]]]))
        >>> path(torch.tensor([[0.0, 0.5, 1.0, 1.5, 2.0]]))[0].tolist()
        [[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [2.0, 5.5], [2.0, 6.0]]
        >>> path.before(torch.tensor([[1.0, 2.0]])).tolist(), path.after(torch.tensor([[1.0, 2.0]])).tolist()
        ([[0.5, 1.0]], [[0.5, 2.0]])
    """

    def __init__(self, ts: Tensor, xs: Tensor) -> None:
        check_knots(ts, xs)
        self._given = (ts, xs)
        first_at_end = torch.searchsorted(ts.detach().contiguous(), ts[..., -1:].detach().contiguous())
        place = torch.minimum(torch.arange(ts.shape[-1], device=ts.device), first_at_end)
        values = torch.take_along_dim(xs, place.unsqueeze(-1), -2)
        elapsed = (ts - ts[..., :1]).to(xs.dtype).unsqueeze(-1)
        corners = torch.stack([elapsed[..., :-1, :], elapsed[..., 1:, :]], -2).flatten(-3, -2)
        held = values[..., :-1, :].repeat_interleave(2, -2)
        points = torch.cat([torch.cat([corners, held], -1), torch.cat([elapsed, values], -1)[..., -1:, :]], -2)
        number = torch.arange(points.shape[-2], dtype=torch.float64, device=ts.device)
        super().__init__(number.expand(points.shape[:-1]), points)

    def tensors(self) -> tuple[Tensor, ...]:
        """The times and values of the knots."""
        return self._given

    def replace(self, tensors: tuple[Tensor, ...]) -> RectilinearPath:
        """The same path made of other tensors."""
        ts, xs = tensors
        return RectilinearPath(ts, xs)

    def after(self, t: Times) -> Times:
        """Where the path stands once it has taken up everything that is known at `t`.

        Args:
            t: times, `(*batch, time)`; those outside the range of the knots are moved to its ends.

        Returns:
            The parameter, float64, `(*batch, time)`.
        """
        return self._parameter(t, right=True)

    def before(self, t: Times) -> Times:
        """Where the path stands at `t`, just before it takes up what is observed at that moment.

        Args:
            t: times, `(*batch, time)`; those outside the range of the knots are moved to its ends.

        Returns:
            The parameter, float64, `(*batch, time)`.
        """
        return self._parameter(t, right=False)

    def _parameter(self, t: Tensor, *, right: bool) -> Tensor:
        knots = self._given[0].to(torch.float64)
        t = torch.minimum(torch.maximum(t.to(torch.float64), knots[..., :1]), knots[..., -1:])
        found = torch.searchsorted(knots.detach().contiguous(), t.detach().contiguous(), right=right) - 1
        # At the end of the series the last time may stand there several times, as padding.
        last = torch.searchsorted(knots.detach().contiguous(), knots[..., -1:].detach().contiguous())
        piece = torch.minimum(found.clamp(min=0), last)
        start = knots.gather(-1, piece)
        gap = knots.gather(-1, (piece + 1).clamp(max=knots.shape[-1] - 1)) - start
        return 2 * piece + torch.where(gap > 0, (t - start) / torch.where(gap > 0, gap, 1.0), 0.0)
