"""Whether the stability of an explicit method, and not the error, held its steps back: what stiffness comes to."""

from __future__ import annotations

import torch
from torch import Tensor

from .dense import Record


__all__ = ["CURE", "held_back"]

CURE = "take a method for stiff equations, solver=Rodas5P() or solver=Kvaerno5()"
"""What to do about it."""

_NEAR = 0.7
"""From which share of the stability limit on a step counts as held back by it."""

_STEPS = 100
"""So many steps are worth a word."""

_SHARE = 0.3
"""So many of all steps must be held back: a solution at rest is no reason to change the method."""


@torch.no_grad()
def held_back(record: Record | None, steps: Tensor) -> Tensor:
    r"""Which series took many steps at the limit of stability, `(*batch,)`.

    The estimate costs no evaluation: two velocities at the end of a step, of different accuracy, differ most in the
    direction of the fastest rate, by :math:`\rho \approx \|k_{s+1} - k_s\| / \|y_1 - Y_s\|`; :math:`h \rho` is then
    compared with the extent of the method's stability on the negative real axis.

    Args:
        record: the steps; None where they were not kept.
        steps: how many steps each series took, `(*batch,)`.

    Reference:
        E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, 1996, IV.2,
        https://doi.org/10.1007/978-3-642-05221-7

    Example:
        >>> held_back(None, torch.tensor([1000]))
        tensor([False])
    """
    none = torch.zeros_like(steps, dtype=torch.bool)
    if record is None or not steps.numel() or int(steps.amax()) < _STEPS:
        return none
    pressure = record.solver.pressure(record.parts)
    if pressure is None:
        return none
    if record.rows is not None:
        pressure = pressure.gather(0, record.rows)
    number = torch.arange(len(pressure), device=steps.device).reshape(-1, *[1] * steps.dim())
    held = ((pressure > _NEAR) & (number < steps)).sum(0)
    return (held >= _STEPS) & (held >= _SHARE * steps)
