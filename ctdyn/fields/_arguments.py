"""The messages that fields share when their arguments do not fit."""

from __future__ import annotations

from torch import Tensor, nn

from .._checks import check_count


__all__ = ["check_arguments", "check_sizes"]


def check_sizes(state_size: int, input_size: int) -> None:
    """Refuse sizes that no field can have.

    Raises:
        ValueError: `state_size` is below 1 or `input_size` below 0.
    """
    check_count("state_size", state_size)
    if input_size < 0:
        raise ValueError(f"input_size must be at least 0 (0: nothing drives the field); got {input_size}.")


def check_arguments(field: nn.Module, state_size: int, input_size: int, y: Tensor, u: Tensor | None) -> None:
    """Refuse a state or inputs that the field was not built for.

    Raises:
        ValueError: the state has another size, or inputs are missing, unexpected or of another size.
    """
    name = type(field).__name__
    if y.shape[-1] != state_size:
        raise ValueError(f"this {name} has state_size={state_size}; got a state (*batch, state) of {tuple(y.shape)}.")
    if u is None and input_size > 0:
        raise ValueError(
            f"this {name} is driven by inputs (input_size={input_size}), but none were given; pass them as a path: "
            "inputs=LinearPath(ts, xs) to solve, or to predict or sample of a model."
        )
    if u is not None and input_size == 0:
        raise ValueError(
            f"this {name} takes no inputs (input_size=0), but got some of shape {tuple(u.shape)}; build it with "
            f"input_size={u.shape[-1]}, or leave the inputs out."
        )
    if u is not None and u.shape[-1] != input_size:
        raise ValueError(f"this {name} has input_size={input_size}; got inputs (*batch, input) of {tuple(u.shape)}.")
