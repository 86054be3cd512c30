"""The field of the liquid time-constant network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._config import Configurable
from .._types import Inputs, State, Time
from ._arguments import check_arguments, check_sizes
from .base import DecayField


__all__ = ["LTCField"]


class LTCField(DecayField, Configurable):
    r"""A liquid time-constant network: neurons whose synapses set their level and their time constant at once.

    .. math::
        c_j \frac{dy_j}{dt} = g_j (l_j - y_j) + \sum_i w_{ij}\,\sigma\big(s_{ij} (y_i - \mu_{ij})\big)(E_{ij} - y_j)
            + \sum_k \hat w_{kj}\,\sigma\big(\hat s_{kj} (u_k - \hat\mu_{kj})\big)(\hat E_{kj} - y_j)

    Capacities :math:`c`, leaks :math:`g` and synaptic weights :math:`w` are positive by construction. The rate of
    neuron j lies between :math:`g_j / c_j` and that plus all its weights over :math:`c_j`; the state between the least
    and the largest of the leak levels :math:`l` and the reversal levels :math:`E`, whatever drives it.

    Args:
        state_size: number of neurons.
        input_size: size of the inputs that drive the field; 0 for none.

    Raises:
        ValueError: a size does not fit.

    Reference:
        Liquid Time-constant Networks, R. Hasani, M. Lechner, A. Amini, D. Rus, R. Grosu, 2021,
        https://arxiv.org/abs/2006.04439

    Example:
        >>> field = LTCField(3, input_size=2)
        >>> field(torch.zeros(5), torch.zeros(5, 3), torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(self, state_size: int, *, input_size: int = 0) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        self.state_size = state_size
        self.input_size = input_size
        self.raw_capacity = nn.Parameter(_unsoftplus(_uniform(state_size, low=0.4, high=0.6)))
        self.raw_leak = nn.Parameter(_unsoftplus(_uniform(state_size, low=1e-3, high=1.0)))
        self.leak_level = nn.Parameter(_uniform(state_size, low=-0.2, high=0.2))
        self.synapses = _Synapses(state_size, state_size)
        self.sensory = _Synapses(input_size, state_size) if input_size else None

    def decay(self, t: Time, y: State, u: Inputs | None = None) -> tuple[State, State]:
        """See `DecayField.decay`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        capacity, leak = softplus(self.raw_capacity), softplus(self.raw_leak)
        conductance, current = self.synapses(y)
        rate, drive = leak + conductance, leak * self.leak_level + current
        if u is not None and self.sensory is not None:
            conductance, current = self.sensory(u)
            rate, drive = rate + conductance, drive + current
        return rate / capacity, drive / capacity


class _Synapses(nn.Module):
    """From every source to every neuron: how far each is open, and to what level it pulls."""

    def __init__(self, sources: int, neurons: int) -> None:
        super().__init__()
        shape = (sources, neurons)
        self.raw_weight = nn.Parameter(_unsoftplus(_uniform(*shape, low=1e-3, high=1.0)))
        self.slope = nn.Parameter(_uniform(*shape, low=3.0, high=8.0))
        self.threshold = nn.Parameter(_uniform(*shape, low=0.3, high=0.8))
        # Two of three excite.
        self.level = nn.Parameter(torch.where(torch.rand(shape) < 2.0 / 3.0, 1.0, -1.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The conductance of each neuron and the current it lets in, `(*batch, neuron)`."""
        gate = torch.sigmoid(self.slope * (x.unsqueeze(-1) - self.threshold))
        weight = softplus(self.raw_weight)
        # One product for both: the gates are what is large.
        both = torch.einsum("...ij,ijk->...jk", gate, torch.stack([weight, weight * self.level], -1))
        return both[..., 0], both[..., 1]


def _uniform(*shape: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(shape)


def _unsoftplus(x: Tensor) -> Tensor:
    return x + (-torch.expm1(-x)).log()
