"""The field of GRU-ODE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._config import Configurable
from .._types import Inputs, State, Time
from ..nn import LowRankSparse
from ._arguments import check_arguments, check_sizes
from .base import DecayField


__all__ = ["GRUODEField"]


class GRUODEField(DecayField, Configurable):
    r"""The gated recurrent unit as an equation: a state that never leaves (-1, 1), however long it runs.

    .. math::
        \frac{dy}{dt} = (1 - z) \odot (g - y), \quad
        z = \sigma(W_z [y, u]), \quad r = \sigma(W_r [y, u]), \quad g = \tanh(W_g [r \odot y, u])

    Every entry decays at the rate :math:`1 - z` towards :math:`g`, which lies in (-1, 1): a state that begins there
    stays. Exponential steps keep that in discrete time too.

    Args:
        state_size: size of the state.
        input_size: size of the inputs that drive the field; 0 for none.
        recurrent: a form for the matrices that read the state; by default they are free.

    Raises:
        ValueError: a size or a rank does not fit.

    Reference:
        GRU-ODE-Bayes: Continuous modeling of sporadically-observed time series, E. De Brouwer, J. Simm, A. Arany,
        Y. Moreau, 2019, https://arxiv.org/abs/1905.12374

    Example:
        >>> field = GRUODEField(3, input_size=2)
        >>> field(torch.zeros(5), torch.zeros(5, 3), torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(self, state_size: int, *, input_size: int = 0, recurrent: LowRankSparse | None = None) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        self.state_size = state_size
        self.input_size = input_size
        self.gates = nn.Linear(state_size + input_size, 2 * state_size)
        self.candidate = nn.Linear(state_size + input_size, state_size)
        if recurrent is not None:
            for layer in (self.gates, self.candidate):
                recurrent.constrain(layer, columns=slice(state_size))

    def decay(self, t: Time, y: State, u: Inputs | None = None) -> tuple[State, State]:
        """See `DecayField.decay`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        update, reset = torch.sigmoid(self.gates(_beside(y, u))).chunk(2, -1)
        level = torch.tanh(self.candidate(_beside(reset * y, u)))
        rate = 1.0 - update
        return rate, rate * level


def _beside(y: Tensor, u: Tensor | None) -> Tensor:
    return y if u is None else torch.cat([y, u], -1)
