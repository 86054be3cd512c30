"""The field of a neural ODE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .._config import Configurable
from .._types import Inputs, State, Time
from ..nn import MLP
from ._arguments import check_arguments, check_sizes
from .base import VectorField


__all__ = ["MLPField"]


class MLPField(VectorField, Configurable):
    r"""A perceptron as right-hand side: the neural ODE. Use it when nothing is known of the dynamics.

    .. math:: \frac{dy}{dt} = \mathrm{MLP}([t, \, y, \, u(t)])

    where time enters only if asked for, and the inputs only if there are some.

    Args:
        state_size: size of the state.
        hidden: sizes of the hidden layers; empty for an affine field.
        activation: class of the activation. A smooth one (the default) keeps a solver's order; ReLU does not.
        input_size: size of the inputs that drive the field; 0 for none.
        time_dependent: whether the clock itself is an argument. Without it the field is autonomous: shifting all times
            changes nothing.

    Raises:
        ValueError: a size does not fit.

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
        time_dependent: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        self.state_size = state_size
        self.input_size = input_size
        self.time_dependent = time_dependent
        self.mlp = MLP(state_size + input_size + time_dependent, state_size, hidden, activation)

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity at `y`; `t`, `y` and `u` as in `VectorField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        arguments = [y]
        if self.time_dependent:
            arguments.insert(0, t[..., None].to(y.dtype))
        if u is not None:
            arguments.append(u)
        return self.mlp(arguments[0] if len(arguments) == 1 else torch.cat(arguments, -1))
