"""Fields of controlled differential equations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._config import Configurable
from .._types import State, Time
from ..nn import MLP
from ..structure import CDEField


__all__ = ["LinearCDEField", "MLPCDEField"]


class MLPCDEField(CDEField, Configurable):
    r"""A perceptron that answers to a control: the field of a neural controlled differential equation.

    .. math:: F(t, y) = \tanh(\mathrm{MLP}(y)) \in \mathbb{R}^{state \times control}

    The bounded end keeps the state from running away along a long path. The answer does not depend on the pace of the
    control: put time among its channels if time should matter.

    Args:
        state_size: size of the state.
        control_size: channels of the control.
        hidden: sizes of the hidden layers; empty for an affine map before the tanh.
        activation: class of the activation. A smooth one keeps a solver's order.

    Raises:
        ValueError: a size is below 1.

    Reference:
        Neural Controlled Differential Equations for Irregular Time Series, P. Kidger, J. Morrill, J. Foster, T. Lyons,
        2020, https://arxiv.org/abs/2005.08926

    Example:
        >>> MLPCDEField(4, 3, hidden=(16,))(torch.zeros(5), torch.zeros(5, 4)).shape
        torch.Size([5, 4, 3])
    """

    def __init__(
        self,
        state_size: int,
        control_size: int,
        hidden: Sequence[int] = (64,),
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        _check_sizes(state_size, control_size)
        self.state_size = state_size
        self.control_size = control_size
        self.mlp = MLP(state_size, state_size * control_size, hidden, activation)

    def forward(self, t: Time, y: State) -> Tensor:
        """The matrix at `y`; `t` and `y` as in `CDEField`."""
        _check_state(self, self.state_size, y)
        return torch.tanh(self.mlp(y)).unflatten(-1, (self.state_size, self.control_size))


class LinearCDEField(CDEField, Configurable):
    r"""Linear in the state: one matrix per channel of the control, the continuous form of a linear recurrence.

    .. math:: dy = \sum_c A_c \, y \, dX_c + \sum_c b_c \, dX_c

    Args:
        state_size: size of the state.
        control_size: channels of the control.

    Raises:
        ValueError: a size is below 1.

    Reference:
        Theoretical Foundations of Deep Selective State-Space Models, N. M. Cirone, A. Orvieto, B. Walker, C. Salvi,
        T. Lyons, 2024, https://arxiv.org/abs/2402.19047

    Example:
        >>> LinearCDEField(4, 3)(torch.zeros(5), torch.zeros(5, 4)).shape
        torch.Size([5, 4, 3])
    """

    def __init__(self, state_size: int, control_size: int) -> None:
        super().__init__()
        _check_sizes(state_size, control_size)
        self.state_size = state_size
        self.control_size = control_size
        self.A = nn.Parameter(torch.randn(control_size, state_size, state_size) / (state_size * control_size) ** 0.5)
        self.b = nn.Parameter(torch.randn(control_size, state_size) / control_size**0.5)

    def forward(self, t: Time, y: State) -> Tensor:
        """The matrix at `y`; `t` and `y` as in `CDEField`."""
        _check_state(self, self.state_size, y)
        return torch.einsum("cij,...j->...ic", self.A.to(y.dtype), y) + self.b.mT.to(y.dtype)

    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        """The matrices added up in the direction of `dx` first: nothing larger than the outer product is built."""
        _check_state(self, self.state_size, y)
        pairs = (dx.unsqueeze(-1) * y.unsqueeze(-2)).flatten(-2)
        return pairs @ self.A.mT.reshape(-1, self.state_size).to(y.dtype) + dx @ self.b.to(y.dtype)


def _check_sizes(state_size: int, control_size: int) -> None:
    for name, size in (("state_size", state_size), ("control_size", control_size)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}.")


def _check_state(field: CDEField, state_size: int, y: Tensor) -> None:
    if y.shape[-1] != state_size:
        raise ValueError(
            f"this {type(field).__name__} has state_size={state_size}; got a state (*batch, state) of {tuple(y.shape)}."
        )
