"""Which way `solve` takes through an equation, and why: decided in one place, so that it can be said beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..paths.base import Path
from ..paths.brownian import VirtualBrownianTree
from ..paths.constant import ConstantPath
from ..paths.piecewise import PolygonalPath
from ..solvers.base import Solver
from ..solvers.exponential_midpoint import ExponentialMidpoint
from ..structure import CDEField, DecayField, ExactCDEField, SDEField, Transition, VectorField
from ..terms import CDETerm, ODETerm, SDETerm, Term, as_term
from .adjoint import Adjoint, Checkpoint, Direct
from .controllers import PIDController, StepController
from .engines.base import Engine
from .exact import is_exact
from .stochastic import method_for


__all__ = ["Choice", "check_transition", "choose", "explain", "why_transition"]

#: Smaller relative errors than this are cheaper at a higher order than 2.
_FEW_DIGITS = 1e-6


class Choice(NamedTuple):
    """The way through an equation.

    Args:
        solver: the method; None where the equation is followed exactly.
        why: the reason.

    Example:
        >>> choose(ODETerm(lambda t, y: -y), None, None, None, plain=True).solver
        Tsit5()
    """

    solver: Solver | Engine | None
    why: str


def choose(
    term: Term,
    solver: Solver | Engine | None,
    controller: StepController | None,
    adjoint: Adjoint | None,
    *,
    plain: bool,
) -> Choice:
    """What solves an equation: what was asked for, or as much of it exactly as its structure lets one know.

    Args:
        term: the equation.
        solver: the method that was asked for.
        controller: the steps that were asked for.
        adjoint: the gradients that were asked for.
        plain: whether there are neither events nor integrands.

    Example:
        >>> from ctdyn.fields import LTCField
        >>> choose(ODETerm(LTCField(2)), None, None, None, plain=True).why
        'LTCField is a DecayField: the decay of each entry is solved exactly in each step'
    """
    name = type(term.field).__name__
    if isinstance(solver, Engine):
        return Choice(solver, "the library that was asked for")
    if solver is not None:
        return Choice(solver, "the method that was asked for")
    if is_exact(term):
        reasons = _obstacles(controller, adjoint, plain)
        if not reasons:
            return Choice(None, f"{name} is linear and its control moves in straight lines: no step is needed")
        return Choice(method_for(term, None), f"{name} would be solved exactly, but not with {reasons}")
    if isinstance(term, ODETerm) and isinstance(term.field, DecayField):
        direct = adjoint is None or isinstance(adjoint, Direct | Checkpoint)
        few = not isinstance(controller, PIDController) or float(torch.as_tensor(controller.rtol).min()) >= _FEW_DIGITS
        if plain and direct and few:
            return Choice(
                ExponentialMidpoint(),
                f"{name} is a DecayField: the decay of each entry is solved exactly in each step",
            )
        return Choice(
            method_for(term, None),
            f"{name} is a DecayField, but exponential steps go neither with events, integrands nor this adjoint, and "
            f"an rtol below {_FEW_DIGITS:g} is cheaper at a higher order",
        )
    return Choice(method_for(term, None), _usual(term, name))


def explain(
    term: Term | VectorField | CDEField | SDEField | Transition | Callable[..., Tensor],
    *,
    inputs: Path | None = None,
    solver: Solver | Engine | None = None,
    controller: StepController | None = None,
    adjoint: Adjoint | None = None,
    event: Any = None,
    aux: Any = (),
) -> str:
    """Which way `solve` would take with these arguments, and why; nothing is solved.

    Args:
        term: the field or the term, as for `solve`.
        inputs: what drives the field.
        solver: the method, or an `Engine`.
        controller: the steps.
        adjoint: how gradients are computed.
        event: what ends a series early.
        aux: integrands along the solution.

    Returns:
        One sentence: the method and the reason for it.

    Raises:
        ValueError: the method does not solve such an equation.
        TypeError: the field has no velocity, so that no method integrates it.

    Example:
        >>> import torch
        >>> from ctdyn.fields import LinearCDEField, MLPField
        >>> from ctdyn.paths import LinearPath
        >>> explain(MLPField(2))
        'Tsit5(): MLPField is an ordinary equation of no further structure'
        >>> line = LinearPath(torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [1.0]]))
        >>> explain(LinearCDEField(2, 1), inputs=line)
        'exact: LinearCDEField is linear and its control moves in straight lines: no step is needed'
    """
    if isinstance(term, Transition) and not isinstance(term, VectorField):
        check_transition(
            term, inputs, solver=solver, controller=controller, adjoint=adjoint, event=event, aux=aux or None
        )
        return f"in one piece: {why_transition(term)}"
    if isinstance(term, SDEField):
        # Which motion drives it does not matter here.
        equation: Term = SDETerm(term, VirtualBrownianTree.draw((1,), 1), inputs)
    else:
        equation = as_term(term, inputs)
    choice = choose(equation, solver, controller, adjoint, plain=not event and not aux)
    chosen = choice.solver
    if chosen is None:
        return f"exact: {choice.why}"
    if isinstance(chosen, Solver):
        _check_structure(equation, chosen)
        chosen = method_for(equation, chosen)
    steps = "" if controller is None else f" with {controller!r}"
    return f"{chosen!r}{steps}: {choice.why}"


def check_transition(field: Transition, inputs: Path | None, **asked: object) -> None:
    """Refuse what is asked of a closed form and would need a velocity.

    Args:
        field: the transition.
        inputs: what drives it.
        **asked: the options of `solve` that concern steps.

    Raises:
        TypeError: a method, steps, gradients, events or integrands are asked for.
        ValueError: the inputs move, where a transition holds them.

    Example:
        >>> from ctdyn.cells import GRUDCell
        >>> check_transition(GRUDCell(1, 2), None, solver=None)
    """
    name = type(field).__name__
    for option, value in asked.items():
        if value is not None:
            flow = "" if field.is_flow else " It is not even a flow: two halves of an interval are not the whole."
            raise TypeError(
                f"{option}={value!r} needs a velocity dy/dt, and {name} has none: it knows the state at the end of an "
                f"interval, and nothing between.{flow} Leave {option}= out, or put it into a FilteringModel, which "
                "carries it from each observation in one piece."
            )
    if inputs is not None and not isinstance(inputs, ConstantPath):
        raise ValueError(
            f"{name} holds its inputs over the interval; got a {type(inputs).__name__}, which moves. Give a "
            "ConstantPath, or carry the state from one input to the next."
        )


def why_transition(field: Transition) -> str:
    """Why a transition needs no solver.

    Args:
        field: the transition.

    Example:
        >>> from ctdyn.cells import GRUDCell
        >>> why_transition(GRUDCell(1, 2))
        'GRUDCell carries its state over an interval of any length by itself'
    """
    name = type(field).__name__
    if field.is_flow:
        return f"{name} carries its state over an interval of any length by itself"
    return (
        f"{name} carries its state over an interval in one piece, always from the last anchor: it is not a flow (two "
        "halves of an interval are not the whole), and has no velocity that a method could integrate"
    )


def _check_structure(term: Term, solver: Solver) -> None:
    wanted = solver.requires
    if wanted is VectorField or (isinstance(term, ODETerm) and isinstance(term.field, wanted)):
        return
    # A term of several parts knows itself what it can do for a method.
    if isinstance(term, ODETerm | CDETerm):
        raise ValueError(f"{type(solver).__name__} requires a {wanted.__name__}; got a {type(term.field).__name__}.")


def _obstacles(controller: StepController | None, adjoint: Adjoint | None, plain: bool) -> str:
    asked = [
        f"{name}={value!r}" for name, value in (("controller", controller), ("adjoint", adjoint)) if value is not None
    ]
    return ", ".join(asked if plain else [*asked, "events or integrands"])


def _usual(term: Term, name: str) -> str:
    if isinstance(term, SDETerm):
        return f"{name} is an {term.calculus.value} equation with {term.noise.value} noise"
    if isinstance(term, CDETerm):
        control = type(term.control).__name__
        if isinstance(term.field, ExactCDEField) and not isinstance(term.control, PolygonalPath):
            return f"{name} would be solved exactly along straight lines (LinearPath), and not along a {control}"
        return f"{name} is driven by a {control}; steps end at its knots"
    return f"{name} is an ordinary equation of no further structure"
