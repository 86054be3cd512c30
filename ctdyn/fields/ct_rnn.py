"""The field of the continuous-time recurrent network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import softplus

from .._config import Configurable
from .._types import Inputs, State, Time
from ..nn import LowRankSparse
from ._arguments import check_arguments, check_sizes
from .base import DecayField


__all__ = ["CTRNNField"]


class CTRNNField(DecayField, Configurable):
    r"""A continuous-time recurrent network: leaky units with a time constant each.

    .. math:: \tau_i \frac{dy_i}{dt} = -y_i + \sum_j W_{ij} \tanh y_j + \sum_k U_{ik} u_k + b_i

    Args:
        state_size: size of the state.
        input_size: size of the inputs that drive the field; 0 for none.
        time_constant: where every :math:`\tau` begins, in units of time; it is learned and stays positive.
        recurrent: a form for :math:`W`; by default it is free.

    Raises:
        ValueError: a size or a rank does not fit, or `time_constant` is not positive.

    Reference:
        Approximation of dynamical systems by continuous time recurrent neural networks, K. Funahashi, Y. Nakamura,
        1993, https://doi.org/10.1016/S0893-6080(05)80125-X

    Example:
        >>> field = CTRNNField(3, input_size=2)
        >>> field(torch.zeros(5), torch.zeros(5, 3), torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        state_size: int,
        *,
        input_size: int = 0,
        time_constant: float = 1.0,
        recurrent: LowRankSparse | None = None,
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        if not 0 < time_constant < float("inf"):
            raise ValueError(f"time_constant must be positive and finite, in units of time; got {time_constant}.")
        self.state_size = state_size
        self.input_size = input_size
        rate = torch.full((state_size,), 1.0 / time_constant)
        # The inverse of softplus.
        self.raw_rate = nn.Parameter(rate + (-torch.expm1(-rate)).log())
        self.recurrent = nn.Linear(state_size, state_size)
        if recurrent is not None:
            recurrent.constrain(self.recurrent)
        self.driven = nn.Linear(input_size, state_size, bias=False) if input_size else None

    def decay(self, t: Time, y: State, u: Inputs | None = None) -> tuple[State, State]:
        """See `DecayField.decay`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        rate = softplus(self.raw_rate)
        level = self.recurrent(torch.tanh(y))
        if u is not None and self.driven is not None:
            level = level + self.driven(u)
        return rate.expand_as(level), rate * level
