"""The contract of a controlled field, as a check that raises AssertionError with the reason."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..structure import CDEField
from ._judging import require, same


__all__ = ["check_cde_field"]


def check_cde_field(field: CDEField, state_size: int, control_size: int, *, seed: int = 0) -> None:
    """The contract of a `CDEField`; a float64 copy of it is checked.

    * the matrix has the shape `(*batch, state, control)` and the dtype of the state, and is finite;
    * `prod` applies that matrix, and is linear in the change of the control;
    * extra leading axes are accepted, `t` is per series, and series do not mix;
    * gradients reach every parameter, the state and the change of the control.

    Args:
        field: the field.
        state_size: size of its state.
        control_size: channels of its control.
        seed: of the random states.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> from ctdyn.fields import MLPCDEField
        >>> check_cde_field(MLPCDEField(3, 2), 3, 2)
    """
    field = copy.deepcopy(field).to(torch.float64)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for parameter in field.parameters():
            # Layers that start at zero would hide what lies before them.
            parameter.add_(0.3 * draw(*parameter.shape))
    t, y, dx = draw(2, 3), draw(2, 3, state_size).requires_grad_(), draw(2, 3, control_size).requires_grad_()
    matrix, dy = field(t, y), field.prod(t, y, dx)
    wanted = (2, 3, state_size, control_size)
    require(matrix.shape == wanted, f"the matrix has shape {tuple(matrix.shape)} and not {wanted}")
    require(matrix.dtype == y.dtype, f"the matrix is {matrix.dtype} for a state of {y.dtype}")
    require(bool(torch.isfinite(matrix).all()), "the matrix is not finite")
    same(dy, (matrix @ dx.unsqueeze(-1)).squeeze(-1), 1e-10, "prod is not the matrix applied to dx")
    for sample in range(2):
        for series in range(3):
            alone = field.prod(t[sample, series], y[sample, series], dx[sample, series])
            same(alone, dy[sample, series], 1e-10, "a series alone answers otherwise than in a batch: series mix")
    named = [(f"the parameter {name}", p) for name, p in field.named_parameters() if p.requires_grad]
    named += [("the state", y), ("the control", dx)]
    gradients = torch.autograd.grad((dy * draw(*dy.shape)).sum(), [p for _, p in named], allow_unused=True)
    for (name, _), gradient in zip(named, gradients, strict=True):
        require(gradient is not None and bool((gradient != 0).any()), f"no gradient reaches {name}")
