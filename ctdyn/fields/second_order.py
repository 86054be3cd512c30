"""Fields of positions and velocities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .._config import Configurable
from .._types import Inputs, State, Time
from ..nn import MLP
from ._arguments import check_arguments, check_sizes
from ._scalar import check_even
from .base import SecondOrderField, VectorField


__all__ = ["AccelerationField", "ForceField"]


class AccelerationField(VectorField, Configurable):
    r"""The second-order neural ODE: a perceptron says how velocities change, friction included.

    .. math:: y = [q, v], \qquad \frac{dq}{dt} = v, \qquad \frac{dv}{dt} = \mathrm{MLP}([q, v, u(t)])

    Args:
        state_size: size of the state, positions and velocities together.
        hidden: sizes of the hidden layers.
        activation: class of the activation.
        input_size: size of the inputs that drive the field; 0 for none.

    Raises:
        ValueError: a size does not fit, or `state_size` is odd.

    Reference:
        On Second Order Behaviour in Augmented Neural ODEs, A. Norcliffe, C. Bodnar, B. Day, N. Simidjievski, P. Lio,
        2020, https://arxiv.org/abs/2006.07220

    Example:
        >>> AccelerationField(4)(torch.zeros(5), torch.zeros(5, 4)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        state_size: int,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
        *,
        input_size: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        check_even(state_size)
        self.state_size = state_size
        self.input_size = input_size
        self.mlp = MLP(state_size + input_size, state_size // 2, hidden, activation)

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity at `y`; `t`, `y` and `u` as in `VectorField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        acceleration = self.mlp(y if u is None else torch.cat([y, u], -1))
        return torch.cat([y[..., self.state_size // 2 :], acceleration], -1)


class ForceField(SecondOrderField, Configurable):
    r"""A second-order neural ODE without friction: forces depend on positions alone, so `Leapfrog` applies.

    .. math:: y = [q, v], \qquad \frac{dq}{dt} = v, \qquad \frac{dv}{dt} = \mathrm{MLP}([q, u(t)])

    Args:
        state_size: size of the state, positions and velocities together.
        hidden: sizes of the hidden layers.
        activation: class of the activation.
        input_size: size of the inputs that drive the field; 0 for none.

    Raises:
        ValueError: a size does not fit, or `state_size` is odd.

    Reference:
        On Second Order Behaviour in Augmented Neural ODEs, A. Norcliffe, C. Bodnar, B. Day, N. Simidjievski, P. Lio,
        2020, https://arxiv.org/abs/2006.07220

    Example:
        >>> ForceField(4)(torch.zeros(5), torch.zeros(5, 4)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        state_size: int,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
        *,
        input_size: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        check_even(state_size)
        self.state_size = state_size
        self.input_size = input_size
        self.mlp = MLP(state_size // 2 + input_size, state_size // 2, hidden, activation)

    def force(self, t: Time, q: State, u: Inputs | None = None) -> State:
        """See `SecondOrderField`."""
        return self.mlp(q if u is None else torch.cat([q, u], -1))

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity at `y`; `t`, `y` and `u` as in `VectorField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        return super().forward(t, y, u)
