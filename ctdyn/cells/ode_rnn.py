"""The cell of the ODE-RNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._types import Inputs, State, Time
from ..fields import MLPField, VectorField
from ..integrate import evolve, explain
from ..nn import LowRankSparse, as_rows
from ..paths import ConstantPath
from ..solvers import Midpoint, Solver
from ..terms import ODETerm
from .base import Cell


__all__ = ["ODERNNCell"]


class ODERNNCell(Cell):
    r"""A hidden state that follows a learned ODE between observations and a gated recurrent unit at them.

    .. math:: \frac{dh}{dt} = f(h), \qquad h(t_i^+) = \operatorname{GRU}\left([m_i \odot x_i,\; m_i],\; h(t_i^-)\right)

    The flow covers exactly the interval that it is given, :math:`t_1 - t_0` of each series, forwards or backwards.

    Args:
        num_channels: how many channels are observed.
        hidden_size: size of the hidden state.
        field: the dynamics; default: a perceptron with one hidden layer.
        solver: the method that integrates it; default: midpoint.
        num_steps: equal steps per interval.
        recurrent: a form for the matrix that reads the hidden state at observations; by default it is free.

    Raises:
        ValueError: a size or a rank does not fit.

    References:
        Latent ODEs for Irregularly-Sampled Time Series, Rubanova, Chen, Duvenaud, 2019.
        https://arxiv.org/abs/1907.03907

    Example:
        >>> cell = ODERNNCell(num_channels=2, hidden_size=8)
        >>> h = cell.evolve(torch.zeros(3, 8), t0=torch.zeros(3), t1=torch.tensor([0.5, 0.0, -1.0]))
        >>> cell.update(h, torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool)).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        num_channels: int,
        hidden_size: int,
        field: VectorField | None = None,
        solver: Solver | None = None,
        num_steps: int = 1,
        *,
        recurrent: LowRankSparse | None = None,
    ) -> None:
        super().__init__(num_channels, hidden_size)
        self.field = MLPField(hidden_size, hidden=(hidden_size,)) if field is None else field
        self.solver = Midpoint() if solver is None else solver
        self.num_steps = num_steps
        self.gru = nn.GRUCell(2 * num_channels, hidden_size)
        if recurrent is not None:
            recurrent.constrain(self.gru, "weight_hh")

    def explain(self) -> str:
        """See `Explained.explain`."""
        steps = f"{self.num_steps} step{'s' if self.num_steps > 1 else ''} per interval"
        return f"{explain(self.field, solver=self.solver)}; {steps}, never through other queries"

    def evolve(self, h: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """See `Cell.evolve`; a field that is driven by inputs sees them held over the interval."""
        self._check(h)
        term = ODETerm(self.field, None if u is None else ConstantPath(u))
        return evolve(term, h, t0, t1, solver=self.solver, num_steps=self.num_steps)

    def update(self, h: State, x: Tensor, mask: Tensor) -> State:
        """See `Cell.update`."""
        self._check(h, x, mask)
        seen = torch.cat([torch.where(mask, x, 0), mask.to(x.dtype)], -1)
        updated = self.gru(as_rows(seen, 1), as_rows(h, 1)).view_as(h)
        return torch.where(mask.any(-1, keepdim=True), updated, h)
