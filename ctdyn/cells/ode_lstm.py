"""The cell of the ODE-LSTM."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import Inputs, State, Time
from ..fields import MLPField, VectorField
from ..integrate import evolve
from ..nn import LowRankSparse
from ..paths import ConstantPath
from ..solvers import Midpoint, Solver
from ..terms import ODETerm
from .base import Cell
from .held import Memory


__all__ = ["ODELSTMCell"]


class ODELSTMCell(Cell):
    r"""An LSTM whose output follows a learned ODE between observations, while its memory stays as it is.

    .. math::
        \frac{dy}{dt} = f(y), \quad \frac{dc}{dt} = 0, \qquad
        [y, c](t_k^+) = \operatorname{LSTM}\big([m_k \odot x_k, m_k],\; [y, c](t_k^-)\big)

    The memory passes gradients over many observations, whatever the flow does to them; that is the point of it.
    The hidden state is `[y, c]`.

    Args:
        num_channels: how many channels are observed.
        units: size of `y` and of `c`.
        field: the dynamics of y; default: a perceptron with one hidden layer.
        solver: the method that integrates it; default: midpoint.
        num_steps: equal steps per interval.
        recurrent: a form for the matrix that reads the hidden state at observations; by default it is free.

    Raises:
        ValueError: a size or a rank does not fit.

    References:
        Learning Long-Term Dependencies in Irregularly-Sampled Time Series, M. Lechner, R. Hasani, 2020,
        https://arxiv.org/abs/2006.04418

    Example:
        >>> cell = ODELSTMCell(num_channels=2, units=8)
        >>> h = cell.evolve(torch.zeros(3, 16), t0=torch.zeros(3), t1=torch.tensor([0.5, 0.0, -1.0]))
        >>> cell.update(h, torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool)).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        num_channels: int,
        units: int,
        field: VectorField | None = None,
        solver: Solver | None = None,
        num_steps: int = 1,
        *,
        recurrent: LowRankSparse | None = None,
    ) -> None:
        super().__init__(num_channels, 2 * units)
        self.units = units
        self.field = MLPField(units, hidden=(units,)) if field is None else field
        self.solver = Midpoint() if solver is None else solver
        self.num_steps = num_steps
        self.memory = Memory(2 * num_channels, units)
        if recurrent is not None:
            recurrent.constrain(self.memory.recurrent)

    def evolve(self, h: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """See `Cell.evolve`; a field that is driven by inputs sees them held over the interval."""
        self._check(h)
        term = ODETerm(self.field, None if u is None else ConstantPath(u))
        y = evolve(term, h[..., : self.units], t0, t1, solver=self.solver, num_steps=self.num_steps)
        return torch.cat([y, h[..., self.units :].expand(*y.shape[:-1], -1)], -1)

    def update(self, h: State, x: Tensor, mask: Tensor) -> State:
        """See `Cell.update`."""
        self._check(h, x, mask)
        seen = torch.cat([torch.where(mask, x, 0), mask.to(h.dtype).expand(x.shape)], -1)
        updated = self.memory(seen, h[..., : self.units], h[..., self.units :])
        return torch.where(mask.any(-1, keepdim=True), updated, h)
