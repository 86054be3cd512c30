"""The field of the liquid time-constant network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._config import Configurable
from .._types import Inputs, State, Time
from ..wirings import Circuit, Wiring
from ._arguments import check_arguments, check_sizes
from ._synapses import Synapses, unsoftplus
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
        units: number of neurons, each connected to each and two of three synapses exciting; or a `Wiring`, which says
            where there are synapses and which excite.
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

    def __init__(self, units: int | Wiring, *, input_size: int = 0) -> None:
        super().__init__()
        self.wiring = units if isinstance(units, Wiring) else None
        state_size = units.units if isinstance(units, Wiring) else units
        check_sizes(state_size, input_size)
        self.state_size = state_size
        self.input_size = input_size
        # A wiring is drawn for a number of inputs; where there are none, for one that nobody reads.
        circuit = None if self.wiring is None else self.wiring.connect(max(input_size, 1))
        self.raw_capacity = nn.Parameter(unsoftplus(torch.empty(state_size).uniform_(0.4, 0.6)))
        self.raw_leak = nn.Parameter(unsoftplus(torch.empty(state_size).uniform_(1e-3, 1.0)))
        self.leak_level = nn.Parameter(torch.empty(state_size).uniform_(-0.2, 0.2))
        self.synapses = Synapses(state_size, state_size, None if circuit is None else circuit.recurrent)
        self.sensory = self._sensory(circuit) if input_size else None

    def _sensory(self, circuit: Circuit | None) -> Synapses:
        return Synapses(self.input_size, self.state_size, None if circuit is None else circuit.sensory)

    def decay(self, t: Time, y: State, u: Inputs | None = None) -> tuple[State, State]:
        """See `DecayField.decay`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        rate, drive = self.driven(u)
        conductance, current = self.synapses(y, softplus(self.raw_capacity))
        return rate + conductance, drive + current

    def driven(self, u: Inputs | None = None) -> tuple[Tensor, Tensor]:
        """What leaks and inputs add to rates and drive, whatever the state; the neurons among themselves add the rest.

        Args:
            u: inputs, `(*batch, input)`; None where nothing drives the field.

        Returns:
            Parts of rate and drive, `(*batch, state)`, or `(state,)` without inputs.
        """
        capacity, leak = softplus(self.raw_capacity), softplus(self.raw_leak)
        rate, drive = leak / capacity, leak * self.leak_level / capacity
        if u is not None and self.sensory is not None:
            conductance, current = self.sensory(u, capacity)
            rate, drive = rate + conductance, drive + current
        return rate, drive
