"""Which term a field and its inputs make."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..paths.base import Path
from ..structure import CDEField, SDEField, Transition, VectorField
from .base import Term
from .cde import CDETerm
from .ode import ODETerm


__all__ = ["as_term"]


def as_term(equation: Term | Callable[..., Tensor], inputs: Path | None = None) -> Term:
    """The equation that a field stands for: what `solve` does with its first argument.

    Args:
        equation: a `VectorField`, a `CDEField`, any callable `f(t, y)` (with inputs `f(t, y, u)`), or a `Term`, which
            is returned as it is.
        inputs: what drives the field; the control of a `CDEField`.

    Raises:
        ValueError: a term is given inputs beside its own, or a `CDEField` no control.
        TypeError: the field is an `SDEField`, which needs a Brownian motion, or has no velocity.

    Example:
        >>> type(as_term(lambda t, y: -y)).__name__
        'ODETerm'
    """
    if isinstance(equation, Term):
        if inputs is not None:
            raise ValueError(
                "inputs= belongs to a field; a Term already says what drives it. Build ODETerm(field, inputs) or "
                "CDETerm(field, control)."
            )
        return equation
    if isinstance(equation, Transition) and not isinstance(equation, VectorField):
        raise TypeError(
            f"{type(equation).__name__} is a transition and has no velocity dy/dt that could be integrated: it carries "
            "a state over an interval by itself. Hand it to solve without a solver, or put it into a FilteringModel."
        )
    if isinstance(equation, SDEField):
        raise TypeError(
            f"{type(equation).__name__} is driven by a Brownian motion: build SDETerm(field, brownian), for example "
            "with ctdyn.paths.VirtualBrownianTree(seeds, size), or hand the field to solve with a generator."
        )
    if isinstance(equation, CDEField):
        if inputs is None:
            raise ValueError(
                f"{type(equation).__name__} is driven by a control: pass it as inputs=, for example "
                "inputs=ctdyn.paths.HermitePath(ts, xs)."
            )
        return CDETerm(equation, inputs)
    return ODETerm(equation, inputs)
