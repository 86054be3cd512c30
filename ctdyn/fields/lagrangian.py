"""The field of a mechanical system with learned masses and forces."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._config import Configurable
from .._types import Inputs, State, Time
from ..nn import MLP
from ._arguments import check_arguments, check_sizes
from ._scalar import Scalar, check_even
from .base import VectorField


__all__ = ["LagrangianField"]

#: The least mass, relative to 1: keeps the mass matrix from becoming singular.
_LEAST_MASS = 1e-3


class LagrangianField(VectorField, Configurable):
    r"""A Lagrangian network: positions and velocities of a mechanical system with learned masses and potential.

    .. math:: L(q, v) = \tfrac12 v^\top M(q)\, v - V(q), \qquad
              M(q)\,\dot v = \partial_q L - \dot M(q)\, v - d \odot v + B u(t), \qquad \dot q = v

    The mass matrix is positive definite by construction, :math:`M = C C^\top + \epsilon I`, so that accelerations exist
    from the first step of training on; a free :math:`L(q, v)` has no such guarantee. Unlike a Hamiltonian network it
    needs no canonical momenta. Without damping and inputs, :math:`\tfrac12 v^\top M v + V` is constant.

    Args:
        state_size: size of the state, positions and velocities together.
        hidden: sizes of the hidden layers of mass matrix and potential.
        activation: class of the activation; it must be smooth.
        input_size: size of the inputs that act as forces; 0 for none.
        damped: whether velocities meet friction, at learned rates :math:`d \ge 0` that begin small.

    Raises:
        ValueError: a size does not fit, or `state_size` is odd.

    References:
        Lagrangian Neural Networks, M. Cranmer, S. Greydanus, S. Hoyer, P. Battaglia, D. Spergel, S. Ho, 2020,
        https://arxiv.org/abs/2003.04630
        Deep Lagrangian Networks, M. Lutter, C. Ritter, J. Peters, 2019, https://arxiv.org/abs/1907.04490

    Example:
        >>> field = LagrangianField(4)
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
        size = state_size // 2
        self.state_size = state_size
        self.input_size = input_size
        self.factor = MLP(size, size * (size + 1) // 2, hidden, activation)
        self.potential = Scalar(size, hidden, activation)
        self.raw_damping = nn.Parameter(torch.full((size,), -3.0)) if damped else None
        self.push = nn.Linear(input_size, size, bias=False) if input_size else None

    def mass(self, q: State) -> Tensor:
        """The mass matrix, `(*batch, size, size)`, at positions `(*batch, size)`."""
        size = self.state_size // 2
        # The diagonal begins near 1: softplus(0.54) = 1.
        entries = self.factor(q)
        diagonal, below = softplus(entries[..., :size] + 0.54), entries[..., size:]
        lower = torch.diag_embed(diagonal)
        row, column = torch.tril_indices(size, size, -1, device=q.device)
        if below.shape[-1]:
            basis = entries.new_zeros(below.shape[-1], size, size)
            basis[torch.arange(below.shape[-1], device=q.device), row, column] = 1.0
            lower = lower + torch.einsum("...k,kij->...ij", below, basis)
        return lower @ lower.mT + _LEAST_MASS * torch.eye(size, dtype=q.dtype, device=q.device)

    def energy(self, y: State) -> Tensor:
        """Kinetic and potential energy together, `(*batch,)`, of states `(*batch, state)`."""
        q, v = y.chunk(2, -1)
        return self._kinetic(q, v) + self.potential(q)

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity at `y`; `t`, `y` and `u` as in `VectorField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        q, v = y.chunk(2, -1)
        force = torch.func.grad(lambda q: (self._kinetic(q, v) - self.potential(q)).sum())(q)
        force = force - torch.func.jvp(lambda q: self._momentum(q, v), (q,), (v,))[1]
        if self.raw_damping is not None:
            force = force - softplus(self.raw_damping) * v
        if u is not None and self.push is not None:
            force = force + self.push(u)
        factor = torch.linalg.cholesky(self.mass(q))
        return torch.cat([v, torch.cholesky_solve(force.unsqueeze(-1), factor).squeeze(-1)], -1)

    def _momentum(self, q: State, v: State) -> State:
        return (self.mass(q) @ v.unsqueeze(-1)).squeeze(-1)

    def _kinetic(self, q: State, v: State) -> Tensor:
        return 0.5 * (v * self._momentum(q, v)).sum(-1)
