"""The cell of the GRU with decay."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._checks import check_count
from .._types import Inputs, State, Time
from ..nn import LowRankSparse, as_rows
from .base import Cell


__all__ = ["GRUDCell"]


class GRUDCell(Cell):
    r"""A gated recurrent unit whose memory fades: of the hidden state, and of what each channel was last seen at.

    .. math::
        \frac{dh}{dt} = -a \odot h, \qquad \frac{d\hat x}{dt} = -r \odot (\hat x - c), \qquad
        \hat x_k = m_k \odot x_k + (1 - m_k) \odot \hat x(t_k), \quad h_k = \operatorname{GRU}([\hat x_k, m_k], h(t_k))

    A channel that is not observed is taken to be on its way from its last value to its usual one, :math:`c`. Rates
    :math:`a, r \ge 0` are learned. The paper's decays are exponentials of an affine function of the gap, cut off at 0;
    without the offset, which would fade a state over no time, they are these. The hidden state is :math:`[h, \hat x]`.

    Args:
        num_channels: how many channels are observed.
        units: size of `h`.
        recurrent: a form for the matrix that reads `h`; by default it is free.

    Raises:
        ValueError: a size or a rank does not fit.

    References:
        Recurrent Neural Networks for Multivariate Time Series with Missing Values, Z. Che, S. Purushotham, K. Cho,
        D. Sontag, Y. Liu, 2018, https://arxiv.org/abs/1606.01865

    Example:
        >>> cell = GRUDCell(num_channels=2, units=8)
        >>> h = cell.update(torch.zeros(3, cell.hidden_size), torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool))
        >>> cell.evolve(h, t0=torch.zeros(3), t1=torch.tensor([0.5, 0.0, 9.0])).shape
        torch.Size([3, 10])
    """

    driven = False

    def __init__(self, num_channels: int, units: int, *, recurrent: LowRankSparse | None = None) -> None:
        super().__init__(num_channels, units + num_channels)
        check_count("units", units)
        self.units = units
        # Half lives of about a unit of time, spread over a decade.
        self.raw_rate = nn.Parameter(torch.empty(units + num_channels).uniform_(-2.0, 1.0))
        self.usual = nn.Parameter(torch.zeros(num_channels))
        self.gru = nn.GRUCell(2 * num_channels, units)
        if recurrent is not None:
            recurrent.constrain(self.gru, "weight_hh")

    def evolve(self, h: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """See `Cell.evolve`; a step backwards in time covers the same gap. Inputs are not used."""
        self._check(h)
        gap = (t1 - t0).abs().to(h.dtype).unsqueeze(-1)
        level = torch.cat([self.usual.new_zeros(self.units), self.usual])
        return h - torch.expm1(-softplus(self.raw_rate) * gap) * (level - h)

    def update(self, h: State, x: Tensor, mask: Tensor) -> State:
        """See `Cell.update`."""
        self._check(h, x, mask)
        memory, guess = h[..., : self.units], h[..., self.units :]
        seen = torch.where(mask, x, guess)
        inputs = torch.cat([seen, mask.to(h.dtype).expand_as(seen)], -1)
        memory = memory.expand(*seen.shape[:-1], self.units)
        updated = self.gru(as_rows(inputs, 1), as_rows(memory, 1)).view_as(memory)
        return torch.where(mask.any(-1, keepdim=True), torch.cat([updated, seen], -1), h)
