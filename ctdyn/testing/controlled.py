"""The contract of a controlled field, as a check that raises AssertionError with the reason."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..structure import CDEField, ExactCDEField
from ._judging import require, same


__all__ = ["check_cde_field"]


def check_cde_field(field: CDEField, state_size: int, control_size: int, *, seed: int = 0) -> None:
    """The contract of a `CDEField`; a float64 copy of it is checked.

    * the matrix has the shape `(*batch, state, control)` and the dtype of the state, and is finite;
    * `prod` applies that matrix, and is linear in the change of the control;
    * extra leading axes are accepted, `t` is per series, and series do not mix;
    * gradients reach every parameter, the state and the change of the control, and are finite;
    * an `ExactCDEField` follows a straight line as its matrix says, stays where the control does, and two halves of a
      line are the whole.

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
        require(bool(torch.isfinite(gradient).all()), f"the gradient of {name} is not finite")
    if isinstance(field, ExactCDEField):
        _check_following(field, y.detach(), 0.5 * dx.detach())


@torch.no_grad()
def _check_following(field: ExactCDEField, y: Tensor, dx: Tensor) -> None:
    def after(*moves: Tensor) -> Tensor:
        return field.follow(y, torch.stack(moves, -2))

    require(after(dx, -dx).shape == (*y.shape[:-1], 2, y.shape[-1]), "follow does not give a state after every piece")
    same(after(0 * dx)[..., 0, :], y, 1e-12, "a control that stands still moves the state")
    same(after(dx, -dx)[..., 1, :], y, 1e-9, "a line there and back does not lead back")
    same(after(0.3 * dx, 0.7 * dx)[..., 1, :], after(dx)[..., 0, :], 1e-9, "two parts of a line are not the whole")
    step, time = 1e-5, torch.zeros(y.shape[:-1], dtype=y.dtype)
    slope = (after(step * dx) - after(-step * dx))[..., 0, :] / (2 * step)
    same(slope, field.prod(time, y, dx), 1e-6, "the state does not set out in the direction that prod gives")
    alone = field.follow(y[1, 2], torch.stack([dx[1, 2], -2 * dx[1, 2]], -2))
    same(alone, after(dx, -2 * dx)[1, 2], 1e-10, "a series alone is followed otherwise than in a batch: series mix")
    samples = field.follow(y, dx[0].unsqueeze(-2))
    same(samples[1], field.follow(y[1], dx[0].unsqueeze(-2)), 1e-10, "a leading axis of samples changes the states")
