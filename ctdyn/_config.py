"""How an object becomes JSON and comes back: by the arguments of its constructor, from a closed list of classes.

Nothing is imported by name and nothing is executed: a configuration that names a class outside the list is refused.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from ._checks import check_whole
from ._options import check_keywords


__all__ = ["Configurable", "from_config", "to_config"]


class Configurable:
    """Remembers the arguments of its constructor, so that `to_config` can write it down. A mixin for modules.

    What is annotated as a whole number must be one: anything else is a TypeError.

    A frozen dataclass needs no mixin: its fields are its arguments.
    """

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)


def _recording(init: Any) -> Any:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
        # Only the outermost constructor counts: a named model calls its base with parts that it has built itself.
        if "_arguments" not in self.__dict__:
            bound = _bound(signature, type(self).__name__, (self, *args), kwargs)
            arguments = dict(list(bound.arguments.items())[1:])
            for name, parameter in signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    arguments.update(arguments.pop(name, {}))
            _check_whole(signature, arguments)
            object.__setattr__(self, "_arguments", arguments)
        init(self, *args, **kwargs)

    return recorded


def _check_whole(signature: inspect.Signature, arguments: Mapping[str, Any]) -> None:
    """Refuse fractions for sizes, here for all: deeper down the error would be of a tensor, or of a part's argument."""
    for name, parameter in signature.parameters.items():
        kind, value = parameter.annotation, arguments.get(name)
        if value is None or parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        # A file without `from __future__ import annotations` has them as objects.
        kinds = set((kind if isinstance(kind, str) else inspect.formatannotation(kind)).split(" | "))
        if "int" in kinds and "float" not in kinds and (kinds <= {"int", "None"} or isinstance(value, float)):
            check_whole(name, value)


def _bound(
    signature: inspect.Signature, owner: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """The arguments by their names, or what is wrong with them, said of `owner`."""
    parameters = signature.parameters
    # What the options of a solve are called elsewhere is of use where they are options.
    check_keywords(owner, kwargs, parameters, elsewhere="controller" in parameters)
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        known = ", ".join(name for name in parameters if name != "self")
        raise TypeError(f"{owner}() {error}; its arguments are {known or 'none'}.") from None


def to_config(value: Any) -> Any:
    """`value` as plain JSON data.

    Raises:
        TypeError: the value, or a part of it, is neither plain data, an enumeration, a dataclass nor `Configurable`.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"JSON has no {value}; a configuration holds finite numbers only.")
        return value
    if isinstance(value, list | tuple):
        return [to_config(item) for item in value]
    if isinstance(value, Mapping):
        return {"mapping": {str(key): to_config(item) for key, item in value.items()}}
    if isinstance(value, type):
        return {"type": value.__name__}
    if isinstance(value, Configurable):
        return {"class": type(value).__name__, "arguments": {k: to_config(v) for k, v in value._arguments.items()}}
    if isinstance(value, Enum):
        return {"class": type(value).__name__, "arguments": {"value": value.value}}
    if is_dataclass(value):
        arguments = {f.name: to_config(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"class": type(value).__name__, "arguments": arguments}
    raise TypeError(
        f"{type(value).__name__} cannot be written to a configuration; pass parts from ctdyn, or save the weights and "
        "load them with ctdyn.load(dir, model=...)."
    )


def from_config(config: Any, classes: Mapping[str, type]) -> Any:
    """Build again what `to_config` wrote.

    Args:
        config: plain JSON data.
        classes: the closed list of what may be built, by name.

    Raises:
        ValueError: the configuration names a class outside `classes`, or arguments that it does not take.
    """
    if isinstance(config, list):
        return tuple(from_config(item, classes) for item in config)
    if not isinstance(config, Mapping):
        return config
    if "mapping" in config:
        return {key: from_config(item, classes) for key, item in config["mapping"].items()}
    name = config.get("type", config.get("class"))
    if name not in classes:
        raise ValueError(f"the configuration names {name!r}, which is not one of ctdyn's classes: {sorted(classes)}.")
    if "type" in config:
        return classes[name]
    arguments = {key: from_config(item, classes) for key, item in config.get("arguments", {}).items()}
    try:
        return classes[name](**arguments)
    except TypeError as error:
        raise ValueError(f"the configuration of {name} does not fit: {error}") from error
