"""Energies: perceptrons with one output."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..nn import MLP


__all__ = ["Scalar", "check_even"]


class Scalar(nn.Module):
    """A perceptron whose output is one number, up to a constant: only its slope is used."""

    def __init__(self, in_size: int, hidden: Sequence[int], activation: type[nn.Module]) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("an energy needs at least one hidden layer; got hidden=().")
        self.inner = MLP(in_size, hidden[-1], hidden[:-1], activation)
        self.activation = activation()
        self.outer = nn.Linear(hidden[-1], 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(*batch,)` at `x`, `(*batch, in_size)`."""
        return self.outer(self.activation(self.inner(x))).squeeze(-1)


def check_even(state_size: int) -> None:
    """Refuse states that are not positions and as many momenta or velocities."""
    if state_size % 2:
        raise ValueError(f"state_size must be even: positions, and as many momenta or velocities; got {state_size}.")
