"""Clocks of their own for libraries that know one clock: every series runs over an index of its own times."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._types import Time, Times
from ...terms import Term


__all__ = ["OwnClocks"]


class OwnClocks:
    r"""The times of every series as a function of one common parameter.

    .. math:: t_b(s) = \tau_{b,k} + \frac{s - s_k}{s_{k+1} - s_k} (\tau_{b,k+1} - \tau_{b,k}), \qquad
              s \in [s_k, s_{k+1}]

    An equation :math:`dy/dt = f` becomes :math:`dy/ds = \dot t_b(s) f`, whose right-hand side jumps at the marks
    :math:`s_k` and nowhere else.

    Args:
        nodes: the times that the marks stand for, monotone, trailing ones possibly repeated, `(*batch, mark)`.
        marks: the parameter there, increasing, `(mark,)`, float64.

    One set of clocks serves one equation.

    Example:
        >>> clocks = OwnClocks(torch.tensor([[0.0, 2.0], [1.0, 4.0]]), torch.tensor([0.0, 1.0]))
        >>> t, pace = clocks.at(torch.tensor(0.5))
        >>> t.tolist(), pace.tolist()
        ([1.0, 2.5], [2.0, 3.0])
    """

    def __init__(self, nodes: Times, marks: Tensor) -> None:
        self.nodes = nodes
        self.marks = marks
        self._paces = (nodes.diff(dim=-1) / marks.diff()).unbind(-1)
        self._starts = nodes.unbind(-1)
        self._places = marks.tolist()
        self._terms: dict[int, Term] = {}
        self._rounded: dict[torch.dtype, Tensor] = {}

    @classmethod
    def create(cls, nodes: Times) -> OwnClocks:
        """Clocks that are linear between their nodes, with marks that torchdiffeq does not lose.

        Its version 0.2.5 forgets all jumps after one on which a step ends by itself and not because it was cut. It
        keeps a step that was just good enough, so on the integers (a step of 1, then the next of 1) that is common.
        Where every interval is a little shorter than the one before, such a step is too long and is cut.
        """
        count = torch.arange(nodes.shape[-1] - 1, dtype=torch.float64, device=nodes.device)
        lengths = torch.pow(1 - 1e-6, count)
        return cls(nodes, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))

    def at(self, s: Tensor) -> tuple[Time, Time]:
        """The times that belong to the parameter, and how fast they pass, `(*batch,)` each."""
        piece = self._piece(s)
        pace = self._paces[piece]
        return self._starts[piece] + (s.to(pace.dtype) - self._places[piece]) * pace, pace

    def restricted(self, term: Term, s: Tensor) -> Term:
        """The term between the two marks around `s`: at a mark its driver then has the slope of the inner side."""
        if term.knots() is None:
            return term
        piece = self._piece(s)
        if piece not in self._terms:
            self._terms[piece] = term.restrict(self._starts[piece], self._starts[piece + 1])
        return self._terms[piece]

    def place(self, ts: Times, direction: Time) -> Tensor:
        """The parameter that belongs to the times of each series, `(*batch, time)`.

        Args:
            ts: times within the nodes, `(*batch, time)`.
            direction: 1 where the times of a series increase, -1 where they decrease, `(*batch,)`.
        """
        ordered = (self.nodes.detach() * direction[..., None]).contiguous()
        found = torch.searchsorted(ordered, (ts.detach() * direction[..., None]).contiguous())
        piece = (found - 1).clamp(0, len(self._paces) - 1)
        start = self.nodes.gather(-1, piece)
        gap = self.nodes.gather(-1, piece + 1) - start
        share = torch.where(gap == 0, 0.0, (ts - start) / torch.where(gap == 0, 1.0, gap))
        return self.marks[piece] + share * self.marks.diff()[piece]

    def _piece(self, s: Tensor) -> int:
        if len(self._paces) == 1:
            return 0
        if s.dtype not in self._rounded:
            # A library that rounds s to the state's dtype does so before it looks to one side of a mark.
            self._rounded[s.dtype] = self.marks.to(s.dtype)
        found = int(torch.searchsorted(self._rounded[s.dtype], s.detach(), right=True)) - 1
        return min(max(found, 0), len(self._paces) - 1)
