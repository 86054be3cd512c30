"""What is said to an option that does not exist: the name it resembles, or what another library's name is here."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar


__all__ = ["check_keywords", "check_options", "suggesting", "with_suggestions"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

#: What options of torchdiffeq, torchode and diffrax are called here.
_ELSEWHERE: Mapping[str, str] = {
    "method": "solver=Dopri5() and the like",
    "rtol": "controller=PIDController(rtol=..., atol=...)",
    "atol": "controller=PIDController(rtol=..., atol=...)",
    "step_size": "controller=ConstantStep(dt=...)",
    "dt": "controller=ConstantStep(dt=...), or PIDController(dt0=...) for the first step",
    "first_step": "controller=PIDController(dt0=...)",
    "dt0": "controller=PIDController(dt0=...)",
    "max_num_steps": "max_steps=",
    "event_fn": "event=Event(...)",
    "stepsize_controller": "controller=",
    "adjoint_params": "nothing: gradients reach whatever the steps touch",
    "saveat": "ts",
    "t_eval": "ts",
    "options": "an option of the solver, the controller or the engine",
}


def suggesting(function: Callable[P, R]) -> Callable[P, R]:
    """A function that answers an unknown keyword with the name that was probably meant.

    Args:
        function: takes named options.

    Example:
        >>> @suggesting
        ... def run(*, max_steps=10):
        ...     return max_steps
        >>> run(max_step=3)
        Traceback (most recent call last):
        TypeError: run() has no option 'max_step'; did you mean max_steps?
    """
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        check_keywords(function.__qualname__.removesuffix(".__init__"), kwargs, parameters)
        return function(*args, **kwargs)

    return checked


def check_keywords(
    owner: str, given: Iterable[str], parameters: Mapping[str, inspect.Parameter], *, elsewhere: bool = True
) -> None:
    """Answer an unknown keyword with the name that was probably meant, here or in another library.

    Args:
        owner: what takes the keywords, for the message.
        given: their names.
        parameters: those of its signature.
        elsewhere: whether it takes options of a solve, which other libraries have by other names.

    Raises:
        TypeError: one of them is unknown.

    Example:
        >>> check_keywords("Tsit5", ["max_num_steps"], {})
        Traceback (most recent call last):
        TypeError: Tsit5() has no option 'max_num_steps'; max_num_steps, as other libraries have it, is here max_steps=.
    """
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [name for name in parameters if name != "self"]
    for name in given:
        if name not in known:
            raise TypeError(f"{owner}() has no option {name!r}; {_meant(name, known, _ELSEWHERE if elsewhere else {})}")


def with_suggestions(cls: C) -> C:
    """A class whose constructor answers an unknown keyword with the name that was probably meant.

    Args:
        cls: its constructor takes named options.

    Example:
        >>> from ctdyn.integrate import StepTo
        >>> StepTo(num_step=3)
        Traceback (most recent call last):
        TypeError: StepTo() has no option 'num_step'; did you mean num_steps?
    """
    cls.__init__ = suggesting(cls.__init__)
    return cls


def check_options(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that the library behind an engine would drop without a word.

    Args:
        owner: what takes the options, for the message.
        given: their names.
        known: the names that it has.

    Raises:
        TypeError: one of them is unknown.

    Example:
        >>> check_options("TorchDiffEq('rk4')", ["step_sise"], ["interp", "step_size"])
        Traceback (most recent call last):
        TypeError: TorchDiffEq('rk4') has no option 'step_sise'; did you mean step_size?
    """
    known = sorted(known)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {close[0]}?" if close else f"its options are {', '.join(known) or 'none'}."
            raise TypeError(f"{owner} has no option {name!r}; {meant}")


def _meant(name: str, known: list[str], elsewhere: Mapping[str, str]) -> str:
    others = [other for other in elsewhere if other not in known]
    close = difflib.get_close_matches(name, [*known, *others], n=1)
    if not close:
        return f"its options are {', '.join(known) or 'none'}."
    if close[0] in known:
        return f"did you mean {close[0]}?"
    return f"{close[0]}, as other libraries have it, is here {elsewhere[close[0]]}."
