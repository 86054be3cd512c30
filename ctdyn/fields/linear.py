"""The linear field."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .._config import Configurable
from .._types import Inputs, State, Time
from ._arguments import check_arguments, check_sizes
from .base import VectorField


__all__ = ["LinearField"]


class LinearField(VectorField, Configurable):
    r"""Linear dynamics with constant coefficients: decay and oscillation, the simplest field that is worth fitting.

    .. math:: \frac{dy}{dt} = A y + b + B u(t)

    By default :math:`A` starts as a random rotation with weak decay: skew-symmetric, minus 0.1 on the diagonal. Every
    solution then stays bounded, whatever the time span.

    Args:
        state_size: size of the state.
        matrix: where :math:`A` starts, `state_size` rows of `state_size` numbers; it stays learnable.
        input_size: size of the inputs that drive the field; 0 for none.

    Raises:
        ValueError: a size does not fit.

    Example:
        >>> field = LinearField(2, matrix=[[0.0, 1.0], [-1.0, 0.0]])
        >>> field(torch.zeros(1), torch.tensor([[1.0, 0.0]]))
        tensor([[ 0., -1.]], grad_fn=<AddBackward0>)
    """

    def __init__(
        self, state_size: int, *, matrix: Sequence[Sequence[float]] | None = None, input_size: int = 0
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        self.state_size = state_size
        self.input_size = input_size
        if matrix is None:
            noise = torch.randn(state_size, state_size) / (2 * state_size) ** 0.5
            start = noise - noise.mT - 0.1 * torch.eye(state_size)
        else:
            start = torch.tensor(matrix, dtype=torch.get_default_dtype())
            if start.shape != (state_size, state_size):
                raise ValueError(
                    f"matrix must have {state_size} rows of {state_size} numbers (state_size={state_size}); got shape "
                    f"{tuple(start.shape)}."
                )
        self.A = nn.Parameter(start)
        self.b = nn.Parameter(torch.zeros(state_size))
        self.B = nn.Parameter(torch.randn(state_size, input_size) / max(input_size, 1) ** 0.5) if input_size else None

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity at `y`; `t`, `y` and `u` as in `VectorField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        velocity = y @ self.A.mT + self.b
        if u is not None and self.B is not None:
            velocity = velocity + u @ self.B.mT
        return velocity
