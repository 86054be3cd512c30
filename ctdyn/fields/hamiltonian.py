"""Fields that keep an energy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._config import Configurable
from .._types import Inputs, State, Time
from ._arguments import check_arguments, check_sizes
from ._scalar import Scalar, check_even
from .base import SecondOrderField, VectorField


__all__ = ["HamiltonianField", "SeparableHamiltonianField"]


class HamiltonianField(VectorField, Configurable):
    r"""A Hamiltonian network: positions and momenta whose energy, a perceptron, never changes, or only ever falls.

    .. math:: \frac{dq}{dt} = \frac{\partial H}{\partial p}, \qquad
              \frac{dp}{dt} = -\frac{\partial H}{\partial q} - d \odot \frac{\partial H}{\partial p} + B u(t)

    Without damping :math:`d` and inputs, :math:`H` is constant along every exact solution; with damping,
    :math:`dH/dt = -\sum_i d_i (\partial H / \partial p_i)^2 \le 0`.

    Args:
        state_size: size of the state, positions and momenta together.
        hidden: sizes of the hidden layers.
        activation: class of the activation; it must be smooth, for its slope is what moves the state.
        input_size: size of the inputs that push the momenta; 0 for none.
        damped: whether momenta lose energy, each at a learned rate :math:`d \ge 0` that begins small.

    Raises:
        ValueError: a size does not fit, or `state_size` is odd.

    Reference:
        Hamiltonian Neural Networks, S. Greydanus, M. Dzamba, J. Yosinski, 2019, https://arxiv.org/abs/1906.01563

    Example:
        >>> field = HamiltonianField(4, damped=True)
        >>> field(torch.zeros(5), torch.zeros(5, 4)).shape, field.energy(torch.zeros(5, 4)).shape
        (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(
        self,
        state_size: int,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.Tanh,
        *,
        input_size: int = 0,
        damped: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        check_even(state_size)
        self.state_size = state_size
        self.input_size = input_size
        self.energy = Scalar(state_size, hidden, activation)
        self.raw_damping = nn.Parameter(torch.full((state_size // 2,), -3.0)) if damped else None
        self.push = nn.Linear(input_size, state_size // 2, bias=False) if input_size else None

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity at `y`; `t`, `y` and `u` as in `VectorField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        force, velocity = _slope(self.energy, y).chunk(2, -1)
        change = -force
        if self.raw_damping is not None:
            change = change - softplus(self.raw_damping) * velocity
        if u is not None and self.push is not None:
            change = change + self.push(u)
        return torch.cat([velocity, change], -1)


class SeparableHamiltonianField(SecondOrderField, Configurable):
    r"""A Hamiltonian network with kinetic and potential energy apart, which `Leapfrog` solves symplectically.

    .. math:: H(q, p) = T(p) + V(q), \qquad
              \frac{dq}{dt} = \frac{\partial T}{\partial p}, \qquad
              \frac{dp}{dt} = -\frac{\partial V}{\partial q} + B u(t)

    Args:
        state_size: size of the state, positions and momenta together.
        hidden: sizes of the hidden layers of each of the two.
        activation: class of the activation; it must be smooth, for its slope is what moves the state.
        input_size: size of the inputs that push the momenta; 0 for none.

    Raises:
        ValueError: a size does not fit, or `state_size` is odd.

    Reference:
        Symplectic Recurrent Neural Networks, Z. Chen, J. Zhang, M. Arjovsky, L. Bottou, 2020,
        https://arxiv.org/abs/1909.13334

    Example:
        >>> field = SeparableHamiltonianField(4)
        >>> field(torch.zeros(5), torch.zeros(5, 4)).shape, field.energy(torch.zeros(5, 4)).shape
        (torch.Size([5, 4]), torch.Size([5]))
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
        self.kinetic = Scalar(state_size // 2, hidden, activation)
        self.potential = Scalar(state_size // 2, hidden, activation)
        self.push = nn.Linear(input_size, state_size // 2, bias=False) if input_size else None

    def energy(self, y: State) -> Tensor:
        """The energy, `(*batch,)`, of states `(*batch, state)`."""
        q, p = y.chunk(2, -1)
        return self.kinetic(p) + self.potential(q)

    def velocity(self, t: Time, p: State) -> State:
        """See `SecondOrderField`."""
        return _slope(self.kinetic, p)

    def force(self, t: Time, q: State, u: Inputs | None = None) -> State:
        """See `SecondOrderField`."""
        force = -_slope(self.potential, q)
        return force if u is None or self.push is None else force + self.push(u)

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity at `y`; `t`, `y` and `u` as in `VectorField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        return super().forward(t, y, u)


def _slope(energy: nn.Module, x: Tensor) -> Tensor:
    # Series do not mix, so the slope of the sum holds the slope of each; gradients are taken even without a graph.
    return torch.func.grad(lambda x: energy(x).sum())(x)
