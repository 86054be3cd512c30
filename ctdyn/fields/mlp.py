"""The field of a neural ODE."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from .._checks import check_hidden
from .._config import Configurable
from .._types import Inputs, State, Time
from ..structure import Perceptron, PerceptronField
from ._arguments import check_arguments, check_sizes
from .base import VectorField
from .timed import IgnoreTime, TimedLayer


__all__ = ["MLPField"]


class MLPField(VectorField, PerceptronField, Configurable):
    r"""A perceptron as right-hand side: the neural ODE. Use it when nothing is known of the dynamics.

    .. math:: h_0 = [y, u(t)], \qquad h_{k+1} = \sigma(L_k(t, h_k)), \qquad \frac{dy}{dt} = L_K(t, h_K)

    Args:
        state_size: size of the state.
        hidden: sizes of the hidden layers; empty for an affine field.
        activation: class of the activation. A smooth one (the default) keeps a solver's order; ReLU does not.
        input_size: size of the inputs that drive the field; 0 for none.
        layer: class of the layers :math:`L_k`, which says how time enters. `IgnoreTime`, the default, makes the field
            autonomous: shifting all times changes nothing.
        zero_last: whether the last layer begins at zero, and with it the velocity: solutions begin as constants, and
            training as if the field were not there.

    Raises:
        ValueError: a size does not fit.
        TypeError: `activation` or `layer` is not a class of the kind asked for.

    Reference:
        Neural Ordinary Differential Equations, R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, 2018,
        https://arxiv.org/abs/1806.07366

    Example:
        >>> field = MLPField(3, hidden=(16,), input_size=2)
        >>> field(torch.zeros(5), torch.zeros(5, 3), torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        state_size: int,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
        *,
        input_size: int = 0,
        layer: type[TimedLayer] = IgnoreTime,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        check_hidden(hidden)
        sizes = (state_size + input_size, *hidden, state_size)
        for name, value, kind in (("activation", activation, nn.Module), ("layer", layer, TimedLayer)):
            if not (isinstance(value, type) and issubclass(value, kind)):
                raise TypeError(f"{name} must be a class of {kind.__name__}s, not an instance or a name: {value!r}.")
        self.state_size = state_size
        self.input_size = input_size
        self.layers = nn.ModuleList(layer(size, following) for size, following in itertools.pairwise(sizes))
        self.activation = activation()
        if zero_last:
            for parameter in self.layers[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity at `y`; `t`, `y` and `u` as in `VectorField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        x = y if u is None else torch.cat([y, u], -1)
        last = len(self.layers) - 1
        for k, layer in enumerate(self.layers):
            x = layer(t, x)
            if k < last:
                x = self.activation(x)
        return x

    def perceptron(self) -> Perceptron | None:
        """See `PerceptronField.perceptron`; None where the time enters."""
        affine = [layer.affine for layer in self.layers if type(layer) is IgnoreTime]
        if len(affine) < len(self.layers):
            return None
        kinds = (*[type(self.activation)] * (len(affine) - 1), nn.Identity)
        return Perceptron(tuple(one.weight for one in affine), tuple(one.bias for one in affine), kinds)
