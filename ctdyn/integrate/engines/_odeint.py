"""What the engines that step with torchdiffeq share: its methods, its grids and its complaints."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._checks import MaxStepsError, NonFiniteError, SolveError, StepSizeError
from ...nn import take_items
from .base import Engine


__all__ = ["ADAPTIVE", "FIXED", "MULTISTEP", "SCIPY", "chosen", "explained", "options_of", "subdivided"]

ADAPTIVE = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun")
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4")
MULTISTEP = ("explicit_adams", "implicit_adams", "fixed_adams")
SCIPY = ("scipy_solver",)

_STEPS = ("first_step", "min_step", "max_step", "max_num_steps", "step_t", "jump_t")
_CONTROL = ("safety", "ifactor", "dfactor", "norm", "dtype")
_GRID = ("step_size", "interp", "perturb")


def options_of(method: str) -> tuple[str, ...]:
    """The names of the options of a method; torchdiffeq itself drops others with no more than a warning."""
    if method in ADAPTIVE:
        return (*_STEPS, *_CONTROL)
    if method in SCIPY:
        return ("solver", "min_step", "max_step")
    return (*_GRID, "max_order", "max_iters") if method in MULTISTEP else _GRID


def chosen(ys: Tensor, place: Tensor, marks: Tensor) -> Tensor:
    """The states at those marks that are outputs of a series.

    Args:
        ys: states at the marks, `(*batch, mark, state)`.
        place: the parameter of each output, `(*batch, time)`.
        marks: the parameter at the marks, `(mark,)`.
    """
    index = torch.searchsorted(marks, place.detach().contiguous() - 0.5 * marks.diff().min())
    return take_items(ys, index, -2)


def subdivided(s: Tensor, num_steps: int) -> Tensor:
    """The grid `s` with every interval cut into equal steps; the entries of `s` stay in it exactly."""
    parts = torch.arange(num_steps, dtype=s.dtype, device=s.device) / num_steps
    return torch.cat([(s[:-1, None] + parts * s.diff()[:, None]).reshape(-1), s[-1:]])


def explained(message: str, engine: Engine) -> SolveError:
    """The error of ctdyn for an assertion of torchdiffeq."""
    if "underflow" in message:
        return StepSizeError(
            f"torchdiffeq's step size underflowed ({message}): the equation is stiff or its field is not smooth. "
            f"Loosen rtol and atol of {engine!r}, or scale time and state to about 1."
        )
    if "non-finite" in message:
        return NonFiniteError(f"the state became NaN or infinite inside {engine!r}; check the field and y0.")
    if "max_num_steps" in message:
        return MaxStepsError(f"{engine!r} used up its steps ({message}); raise max_num_steps or loosen rtol and atol.")
    return SolveError(f"{engine!r} gave up: {message}")
