r"""Continuous-time latent dynamics for irregularly sampled series.

From a frame to a forecast with quantiles::

    series = ctdyn.data.from_pandas(df, id="patient", time="hours", values=["hr", "bp"])
    train, test = series.split(0.8, seed=0)
    forecaster = ctdyn.Forecaster(ctdyn.models.LatentODE(series.channels)).fit(train)
    forecaster.forecast(test.before(48.0), horizon=24.0).quantile([0.05, 0.5, 0.95])

The names below are imported when they are first used, so that ``import ctdyn`` costs what ``import torch`` costs.

Example:
    >>> import ctdyn
    >>> import torch
    >>> solution = ctdyn.solve(lambda t, y: -y, y0=torch.ones(1, 1), ts=torch.tensor([[0.0, 1.0]]))
    >>> round(float(solution.ys[0, -1, 0]), 3)
    0.368
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from . import (
        cells,
        data,
        demo,
        encoders,
        fields,
        flows,
        forecast,
        integrate,
        likelihoods,
        linear,
        metrics,
        models,
        nn,
        paths,
        plot,
        processes,
        solvers,
        structure,
        systems,
        terms,
        testing,
        train,
        wirings,
    )
    from .compare import compare, compare_solvers
    from .forecast import Forecast, Forecaster, load
    from .integrate import solve

__all__ = [
    "Forecast",
    "Forecaster",
    "cells",
    "compare",
    "compare_solvers",
    "data",
    "demo",
    "encoders",
    "fields",
    "flows",
    "forecast",
    "integrate",
    "likelihoods",
    "linear",
    "load",
    "metrics",
    "models",
    "nn",
    "paths",
    "plot",
    "processes",
    "solve",
    "solvers",
    "structure",
    "systems",
    "terms",
    "testing",
    "train",
    "wirings",
]

__version__ = "0.1.0"

# What is not listed here is a sub-package of its own name.
_HOMES = {
    "Forecast": "forecast",
    "Forecaster": "forecast",
    "compare": "compare",
    "compare_solvers": "compare",
    "load": "forecast",
    "solve": "integrate",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_HOMES.get(name, name)}", __name__)
    value = getattr(module, name) if name in _HOMES else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Importing the module `compare` binds it to the package; the name must stay that of the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
