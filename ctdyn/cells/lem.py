"""The cell of the long expressive memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._checks import check_count
from .._types import Inputs, State, Time
from ..nn import LowRankSparse
from .base import Cell


__all__ = ["LEMCell"]


class LEMCell(Cell):
    r"""Long expressive memory: two coupled gated equations with time scales that are learned, on true gaps.

    .. math::
        z_k &= (1 - a_k)\,z_{k-1} + a_k \tanh(W_z y_{k-1} + V_z x + b_z), &
        a_k &= 1 - e^{-\delta\,\Delta_k \sigma(W_1 y_{k-1} + V_1 x + b_1)} \\
        y_k &= (1 - c_k)\,y_{k-1} + c_k \tanh(W_y z_k + V_y x + b_y), &
        c_k &= 1 - e^{-\delta\,\Delta_k \sigma(W_2 y_{k-1} + V_2 x + b_2)}

    The paper discretizes :math:`\dot z = \sigma(\cdot)(\tanh(\cdot) - z)` with weights :math:`\delta\,\sigma(\cdot)`,
    which exceed 1 for long gaps. Here the decay over a gap :math:`\Delta_k` is solved: the same for short gaps, and
    between 0 and 1 for all, so that :math:`|y|, |z| \le 1`, as the paper proves of its own. Weights and biases begin
    uniform within :math:`\pm 1 / \sqrt{units}`, as the authors' do. What was last observed is held as :math:`x` until
    the next observation; it is part of the hidden state, `[y, z, values, observed]`.

    Args:
        num_channels: how many channels are observed.
        units: size of `y` and of `z`.
        step: :math:`\delta`, per unit of time.
        input_size: how many inputs drive the cell beside the observations.
        recurrent: a form for the matrices that read the state; by default they are free.

    Raises:
        ValueError: a size or a rank does not fit, or `step` is not positive.

    References:
        Long Expressive Memory for Sequence Modeling, T. K. Rusch, S. Mishra, N. B. Erichson, M. W. Mahoney, 2022,
        https://arxiv.org/abs/2110.04744

    Example:
        >>> cell = LEMCell(num_channels=2, units=8)
        >>> h = cell.update(torch.zeros(3, cell.hidden_size), torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool))
        >>> cell.evolve(h, t0=torch.zeros(3), t1=torch.tensor([0.5, 0.0, 9.0])).shape
        torch.Size([3, 20])
    """

    #: The gates are those of the state at the start of each interval.
    is_flow = False

    def __init__(
        self,
        num_channels: int,
        units: int,
        *,
        step: float = 1.0,
        input_size: int = 0,
        recurrent: LowRankSparse | None = None,
    ) -> None:
        super().__init__(num_channels, 2 * units + 2 * num_channels)
        if not 0 < step < float("inf"):
            raise ValueError(f"step must be positive and finite, per unit of time; got {step}.")
        check_count("units", units)
        self.units = units
        self.step = step
        self.input_size = input_size
        seen = 2 * num_channels + input_size
        self.gates = nn.Linear(units + seen, 2 * units)
        self.to_z = nn.Linear(units + seen, units)
        self.to_y = nn.Linear(units + seen, units)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(units**-0.5), units**-0.5)
        if recurrent is not None:
            for layer in (self.gates, self.to_z, self.to_y):
                recurrent.constrain(layer, columns=slice(units))

    def evolve(self, h: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """See `Cell.evolve`; a step backwards in time covers the same gap."""
        self._check(h)
        if (0 if u is None else u.shape[-1]) != self.input_size:
            raise ValueError(
                f"the cell was built for input_size={self.input_size}; got {0 if u is None else u.shape[-1]} inputs."
            )
        y, z = h[..., : self.units], h[..., self.units : 2 * self.units]
        seen = h[..., 2 * self.units :]
        x = seen if u is None else torch.cat([seen, u], -1)
        before = torch.cat([y, x], -1)
        gap = self.step * (t1 - t0).abs().to(h.dtype).unsqueeze(-1)
        a, c = (-torch.expm1(-gap * torch.sigmoid(self.gates(before)))).chunk(2, -1)
        z = z + a * (torch.tanh(self.to_z(before)) - z)
        y = y + c * (torch.tanh(self.to_y(torch.cat([z, x], -1))) - y)
        return torch.cat([y, z, seen.expand(*y.shape[:-1], -1)], -1)

    def update(self, h: State, x: Tensor, mask: Tensor) -> State:
        """See `Cell.update`: the observation is held from now on."""
        self._check(h, x, mask)
        kept, held = h[..., : 2 * self.units], h[..., 2 * self.units : 2 * self.units + self.num_channels]
        values = torch.where(mask, x, held)
        updated = torch.cat([kept.expand(*values.shape[:-1], -1), values, mask.to(h.dtype).expand_as(values)], -1)
        return torch.where(mask.any(-1, keepdim=True), updated, h)
