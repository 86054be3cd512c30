"""Fields of controlled differential equations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._checks import check_count
from .._config import Configurable
from .._types import State, States, Time
from ..linear import follow_control
from ..nn import MLP
from ..structure import CDEField, ExactCDEField, Perceptron, PerceptronField


__all__ = ["LinearCDEField", "MLPCDEField"]


class MLPCDEField(CDEField, PerceptronField, Configurable):
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

    def perceptron(self) -> Perceptron:
        """See `PerceptronField.perceptron`."""
        affine, kinds = self.mlp.affine, (*self.mlp.kinds, nn.Tanh)
        return Perceptron(tuple(one.weight for one in affine), tuple(one.bias for one in affine), kinds)


class LinearCDEField(ExactCDEField, Configurable):
    r"""Linear in the state: one matrix per channel of the control, the continuous form of a linear recurrence.

    .. math:: dy = \sum_c A_c \, y \, dX_c + \sum_c b_c \, dX_c

    Along straight lines it is solved exactly, however long and rough the path: the fast choice for long series. Full
    matrices can express the most, blocks of size 4 nearly as much at the cost of a diagonal; entries of a diagonal
    never meet, so that they count and remember but cannot tell in which order two channels moved.

    Args:
        state_size: size of the state.
        control_size: channels of the control.
        block_size: size of the blocks on the diagonal of each matrix: 1 for a diagonal, None for full matrices.
        scale: spread of the initial matrices; the smaller, the longer the state takes to grow along a long path.

    Raises:
        ValueError: a size is below 1, or the blocks do not fill the state.

    References:
        Theoretical Foundations of Deep Selective State-Space Models, N. M. Cirone, A. Orvieto, B. Walker, C. Salvi,
        T. Lyons, 2024, https://arxiv.org/abs/2402.19047
        Structured Linear CDEs: Maximally Expressive and Parallel-in-Time Sequence Models, B. Walker, L. Yang,
        N. M. Cirone, C. Salvi, T. Lyons, 2025, https://arxiv.org/abs/2505.17761

    Example:
        >>> LinearCDEField(4, 3)(torch.zeros(5), torch.zeros(5, 4)).shape
        torch.Size([5, 4, 3])
        >>> LinearCDEField(4, 3, block_size=2).A.shape  # control, block, size, size
        torch.Size([3, 2, 2, 2])
    """

    def __init__(
        self, state_size: int, control_size: int, *, block_size: int | None = None, scale: float = 1.0
    ) -> None:
        super().__init__()
        block_size = state_size if block_size is None else block_size
        _check_sizes(state_size, control_size, block_size)
        if state_size % block_size:
            raise ValueError(f"blocks of block_size={block_size} do not fill a state of state_size={state_size}.")
        self.state_size = state_size
        self.control_size = control_size
        self.block_size = block_size
        shape = (control_size, state_size // block_size, block_size, block_size)
        self.A = nn.Parameter(scale * torch.randn(shape) / (block_size * control_size) ** 0.5)
        self.b = nn.Parameter(torch.randn(control_size, state_size) / control_size**0.5)

    def forward(self, t: Time, y: State) -> Tensor:
        """The matrix at `y`; `t` and `y` as in `CDEField`."""
        _check_state(self, self.state_size, y)
        parts = y.unflatten(-1, (-1, self.block_size))
        return torch.einsum("cpij,...pj->...pic", self.A.to(y.dtype), parts).flatten(-3, -2) + self.b.mT.to(y.dtype)

    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        """The matrices applied in the direction of `dx`: nothing larger than the outer product is built."""
        _check_state(self, self.state_size, y)
        if dx.shape[-1] != self.control_size:
            raise ValueError(
                f"this LinearCDEField has control_size={self.control_size}; got changes of a control (*batch, control) "
                f"of {tuple(dx.shape)}."
            )
        pairs = dx[..., None, :, None] * y.unflatten(-1, (-1, 1, self.block_size))
        stacked = self.A.to(y.dtype).permute(1, 0, 3, 2).flatten(1, 2)
        rows = pairs.flatten(-2).unsqueeze(-2) @ stacked
        return rows.squeeze(-2).flatten(-2) + dx @ self.b.to(y.dtype)

    def follow(self, y0: State, dxs: Tensor) -> States:
        """The states after each of consecutive straight pieces of the control; see `ExactCDEField.follow`."""
        _check_state(self, self.state_size, y0)
        return follow_control(self.A.to(y0.dtype), self.b.to(y0.dtype), dxs.to(y0.dtype), y0)


def _check_sizes(state_size: int, control_size: int, block_size: int = 1) -> None:
    for name, size in (("state_size", state_size), ("control_size", control_size), ("block_size", block_size)):
        check_count(name, size)


def _check_state(field: CDEField, state_size: int, y: Tensor) -> None:
    if y.shape[-1] != state_size:
        raise ValueError(
            f"this {type(field).__name__} has state_size={state_size}; got a state (*batch, state) of {tuple(y.shape)}."
        )
