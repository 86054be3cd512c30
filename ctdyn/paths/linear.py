"""The path of straight lines."""

from __future__ import annotations

from .piecewise import PolygonalPath


__all__ = ["LinearPath"]


class LinearPath(PolygonalPath):
    r"""Straight lines through the values; the natural reading of inputs that are known ahead.

    .. math:: X(t) = x_j + \frac{x_{j+1} - x_j}{t_{j+1} - t_j} (t - t_j), \qquad t \in [t_j, t_{j+1})

    Before the first and after the last knot it holds the end value. Between two knots it knows the later of them: it is
    causal at the knots only.

    Args:
        ts: times of the knots, non-decreasing, `(*batch, time)`; trailing repeats of the last time are padding.
        xs: values there, `(*batch, time, channel)`.

    Raises:
        ValueError: the shapes disagree, there is no knot, times decrease, or an entry is not finite.

    Example:
        >>> import torch
        >>> path = LinearPath(torch.tensor([[0.0, 2.0]]), torch.tensor([[[0.0], [4.0]]]))
        >>> path.evaluate(torch.tensor([0.5])), path.derivative(torch.tensor([0.5]))
        (tensor([[1.]]), tensor([[2.]]))
    """
