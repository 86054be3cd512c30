"""The cell of GRU-ODE-Bayes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._types import Inputs, State, Time
from ..fields import GRUODEField
from ..integrate import evolve, explain
from ..nn import LowRankSparse, as_rows
from ..paths import ConstantPath
from ..solvers import ExponentialMidpoint, Solver
from ..terms import ODETerm
from .base import Cell


__all__ = ["GRUODEBayesCell"]


class GRUODEBayesCell(Cell):
    r"""A bounded gated flow between observations, corrected at them by how far off its own prediction was.

    .. math::
        \frac{dh}{dt} = (1 - z) \odot (g - h), \qquad \mu, \log \sigma^2 = \mathrm{MLP}(h), \qquad
        h_k = \operatorname{GRU}\big(m_c\,\mathrm{ReLU}(W_c [x_c, \mu_c, \log \sigma_c^2, (x_c - \mu_c) / \sigma_c]
        + b_c), \; h\big)

    The flow is solved by exponential steps, which keep the hidden state within (-1, 1) over gaps of any length.

    Args:
        num_channels: how many channels are observed.
        hidden_size: size of the hidden state.
        features: numbers that each channel's observation is turned into.
        solver: the method that integrates the flow; default: the exponential midpoint.
        num_steps: equal steps per interval.
        input_size: how many inputs drive the flow.
        recurrent: a form for the matrices that read the hidden state; by default they are free.

    Raises:
        ValueError: a size or a rank does not fit.

    References:
        GRU-ODE-Bayes: Continuous modeling of sporadically-observed time series, E. De Brouwer, J. Simm, A. Arany,
        Y. Moreau, 2019, https://arxiv.org/abs/1905.12374

    Example:
        >>> cell = GRUODEBayesCell(num_channels=2, hidden_size=8)
        >>> h = cell.update(torch.zeros(3, 8), torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool))
        >>> bool((cell.evolve(h, t0=torch.zeros(3), t1=torch.full((3,), 100.0)).abs() < 1).all())
        True
    """

    def __init__(
        self,
        num_channels: int,
        hidden_size: int,
        features: int = 4,
        *,
        solver: Solver | None = None,
        num_steps: int = 1,
        input_size: int = 0,
        recurrent: LowRankSparse | None = None,
    ) -> None:
        super().__init__(num_channels, hidden_size)
        self.field = GRUODEField(hidden_size, input_size=input_size, recurrent=recurrent)
        self.solver = ExponentialMidpoint() if solver is None else solver
        self.num_steps = num_steps
        self.head = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, 2 * num_channels)
        )
        self.weight = nn.Parameter(torch.randn(num_channels, 4, features) / 2.0)
        self.bias = nn.Parameter(torch.full((num_channels, features), 0.1))
        self.gru = nn.GRUCell(num_channels * features, hidden_size)
        if recurrent is not None:
            recurrent.constrain(self.gru, "weight_hh")

    def explain(self) -> str:
        """See `Explained.explain`."""
        steps = f"{self.num_steps} step{'s' if self.num_steps > 1 else ''} per interval"
        return f"{explain(self.field, solver=self.solver)}; {steps}, never through other queries"

    def evolve(self, h: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """See `Cell.evolve`."""
        self._check(h)
        term = ODETerm(self.field, None if u is None else ConstantPath(u))
        return evolve(term, h, t0, t1, solver=self.solver, num_steps=self.num_steps)

    def update(self, h: State, x: Tensor, mask: Tensor) -> State:
        """See `Cell.update`."""
        self._check(h, x, mask)
        mean, log_variance = self.head(h).chunk(2, -1)
        x = torch.where(mask, x, mean)
        error = (x - mean) * torch.exp(-0.5 * log_variance)
        seen = torch.stack([x, mean, log_variance, error], -1)
        features = torch.relu(torch.einsum("...ci,cij->...cj", seen, self.weight) + self.bias) * mask.unsqueeze(-1)
        h = h.expand(*features.shape[:-2], self.hidden_size)
        updated = self.gru(as_rows(features.flatten(-2), 1), as_rows(h, 1)).view_as(h)
        return torch.where(mask.any(-1, keepdim=True), updated, h)
