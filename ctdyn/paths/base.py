"""What a path is: a function of time, one per series, that a solver can follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .._types import State, States, Time, Times


__all__ = ["Path"]


class Path(ABC):
    r"""A continuous function of time for every series of a batch, :math:`X : t \mapsto X(t) \in \mathbb{R}^{channel}`.

    Inputs that drive a field, control paths and solutions are paths. Every series has its own clock: `t` holds one time
    per series, and may carry extra leading axes (Monte Carlo samples), which the result then carries too.

    Example:
        >>> ts = torch.tensor([[0.0, 1.0, 3.0]])
        >>> xs = torch.tensor([[[0.0], [2.0], [6.0]]])
        >>> from ctdyn.paths import LinearPath
        >>> LinearPath(ts, xs)(torch.tensor([[0.5, 2.0]])).squeeze(-1)
        tensor([[1., 4.]])
    """

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""

    @abstractmethod
    def evaluate(self, t: Time) -> State:
        """The value at one time per series.

        Args:
            t: time of each series, `(*batch,)`; extra leading axes are allowed.

        Returns:
            Values, `(*batch, channel)` behind the extra leading axes of `t`.
        """

    @abstractmethod
    def derivative(self, t: Time) -> State:
        """The time derivative at one time per series; at a knot, that of the piece to the right.

        Args:
            t: time of each series, `(*batch,)`; extra leading axes are allowed.

        Returns:
            Derivatives, `(*batch, channel)` behind the extra leading axes of `t`.
        """

    @abstractmethod
    def restrict(self, t0: Time, t1: Time) -> Path:
        """The path on the interval between `t0` and `t1`: the same values, and at a knot the slope of the inner side.

        It is smooth where no knot lies strictly inside. Where the interval is empty the derivative is 0.

        Args:
            t0: one end of the interval of each series, `(*batch,)`; extra leading axes are allowed.
            t1: the other end, of the same shape; it may lie before `t0`.
        """

    def pieces(self, ends: Sequence[Time]) -> Iterator[Path]:
        """The path restricted to each of consecutive intervals.

        Args:
            ends: ends of the intervals, the first start included, `(*batch,)` each.
        """
        for t0, t1 in pairwise(ends):
            yield self.restrict(t0, t1)

    @abstractmethod
    def knots(self) -> Times | None:
        """The times where the path is not smooth, non-decreasing, `(*batch, knot)`; None if it is smooth throughout."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the path is made of: what a gradient can flow to."""

    @abstractmethod
    def replace(self, tensors: tuple[Tensor, ...]) -> Path:
        """The same path made of other tensors, given in the order of `tensors()`."""

    def __call__(self, ts: Times) -> States:
        """The values at many times per series.

        Args:
            ts: times, `(*batch, time)`; extra leading axes are allowed.

        Returns:
            Values, `(*batch, time, channel)` behind the extra leading axes of `ts`.
        """
        return torch.movedim(self.evaluate(torch.movedim(ts, -1, 0)), 0, -2)
