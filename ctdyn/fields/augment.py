"""More room for a state than the data have."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._checks import check_count
from .._config import Configurable
from ._arguments import check_sizes


__all__ = ["Augment"]


class Augment(nn.Module, Configurable):
    r"""Gives a state more entries to move in; trajectories that would have to cross may then pass each other.

    .. math:: y_0 \mapsto [y_0, \; 0] \quad \text{or} \quad [y_0, \; W y_0 + b]

    The field is one of the larger state; of a solution the first `state_size` entries are read.

    Args:
        state_size: size of the state.
        extra_size: entries to add.
        learned: whether what is added is a learned affine map of the state; it begins at zero.

    Raises:
        ValueError: a size is below 1, or the state has another size.

    Reference:
        Augmented Neural ODEs, E. Dupont, A. Doucet, Y. W. Teh, 2019, https://arxiv.org/abs/1904.01681

    Example:
        >>> from ctdyn import solve
        >>> from ctdyn.fields import MLPField
        >>> augment, field = Augment(2, 3), MLPField(2 + 3)
        >>> ts = torch.tensor([0.0, 0.5, 1.0])
        >>> solve(field, augment(torch.randn(7, 2)), ts).ys[..., :2].shape
        torch.Size([7, 3, 2])
    """

    def __init__(self, state_size: int, extra_size: int, *, learned: bool = False) -> None:
        super().__init__()
        check_sizes(state_size, 0)
        check_count("extra_size", extra_size)
        self.state_size = state_size
        self.extra_size = extra_size
        self.start = nn.Linear(state_size, extra_size) if learned else None
        if self.start is not None:
            nn.init.zeros_(self.start.weight)
            nn.init.zeros_(self.start.bias)

    def forward(self, y0: Tensor) -> Tensor:
        """The larger initial state.

        Args:
            y0: `(*batch, state_size)`.

        Returns:
            `(*batch, state_size + extra_size)`.
        """
        if y0.shape[-1] != self.state_size:
            raise ValueError(
                f"this Augment has state_size={self.state_size}; got a state (*batch, state) of {tuple(y0.shape)}."
            )
        extra = y0.new_zeros(*y0.shape[:-1], self.extra_size) if self.start is None else self.start(y0)
        return torch.cat([y0, extra], -1)
