"""A fitted Forecaster as a folder, and back."""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .. import (
    cells,
    data,
    encoders,
    fields,
    integrate,
    likelihoods,
    linear,
    models,
    nn,
    paths,
    processes,
    solvers,
    structure,
    wirings,
)
from .._checks import CheckpointWriteError, DataError, few
from .._config import Configurable, from_config, to_config
from .._storage import check_writable, read_folder, sync_folder, write_file, write_folder
from ..models import Model
from ..models._units import LabelUnits
from .forecaster import Forecaster


__all__ = ["load", "save"]

_CONFIG, _METRICS, _KIND = "config.json", "metrics.csv", "forecaster"
#: Under which the names of inputs, of static covariates and of labels stand.
_NAMES = ("inputs", "static", "labels")


def save(forecaster: Forecaster, folder: Path) -> Path:
    """Write a fitted Forecaster (see `Forecaster.save`).

    Args:
        forecaster: what to write.
        folder: where.
    """
    from .. import __version__

    document = {
        "kind": _KIND,
        "ctdyn": __version__,
        "model": _model_config(forecaster.model),
        "channels": [to_config(channel) for channel in forecaster.model.channels],
        "scaler": to_config(forecaster.scaler_),
        "windows": to_config(forecaster.windows),
        "axis": to_config(forecaster.axis_),
        "gap": forecaster.gap_,
        **dict(zip(_NAMES, map(list, (*forecaster.covariates_, forecaster.labels_)), strict=True)),
        "seed": int(forecaster.seed),
    }
    weights = forecaster.model.state_dict()
    history = forecaster.history_.to_csv(index=False).encode()
    if folder.is_dir() and any(folder.iterdir()):
        if not _is_run(folder):
            raise CheckpointWriteError(f"{folder} holds other files and is no run of ctdyn; choose another folder.")
        check_writable(folder)
        write_file(folder / _METRICS, history)
        write_folder(folder, _CONFIG, document, weights)
        return folder
    # A new run appears at once and complete, or not at all.
    check_writable(folder.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write_file(partial / _METRICS, history)
        write_folder(partial, _CONFIG, document, weights)
        partial.chmod(0o755)
        os.replace(partial, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise CheckpointWriteError(f"{folder} could not be written ({error}); nothing was left behind.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def load(dir: str | Path, model: Model | None = None) -> Forecaster:
    """Read a Forecaster that `Forecaster.save` wrote. No code in the folder is run and nothing is unpickled.

    Only classes that ctdyn exports are built; a model of your own is passed in, and receives its weights.

    Args:
        dir: the folder.
        model: the model to put the weights into, built as it was when it was saved; None builds it from the folder.

    Raises:
        FileNotFoundError: there is no saved Forecaster.
        VersionError: a newer ctdyn wrote it.
        DataError: it is damaged, or was edited.
        ValueError: it names a class that ctdyn does not export, or the model does not fit the weights.

    Example:
        >>> import tempfile
        >>> from ctdyn.data import from_ragged
        >>> from ctdyn.models import OwnMean
        >>> series = from_ragged([([0.0, 1.0, 2.0], [1.0, 3.0, 2.0])], channels=["x"])
        >>> run = Forecaster(OwnMean(series.channels)).fit(series).save(Path(tempfile.mkdtemp()) / "run")
        >>> type(load(run).model).__name__
        'OwnMean'
    """
    folder = Path(dir)
    if not (folder / _CONFIG).is_file() and (folder / "checkpoint").is_dir():
        raise FileNotFoundError(
            f"{folder} holds a training that was not finished or not saved; go on with fit(dir={str(folder)!r}, "
            "resume=True) and save."
        )
    document, weights = read_folder(folder, _CONFIG, _KIND)
    document.setdefault("labels", [])  # a run that was saved before labels kept their names
    parts = {name: _build(document.get(name), folder) for name in ("scaler", "windows", "axis", "channels")}
    _check_parts(parts, document, folder)
    built = _build_model(document.get("model"), weights, folder) if model is None else model
    if built.channels != parts["channels"]:
        raise ValueError(
            f"the model has the channels {few(c.name for c in built.channels)}; {folder} was saved with "
            f"{few(c.name for c in parts['channels'])}."
        )
    forecaster = Forecaster(built, scaler=parts["scaler"], windows=parts["windows"], seed=document["seed"])
    _put_weights(built, weights, folder)
    forecaster.scaler_, forecaster.axis_, forecaster.gap_ = parts["scaler"], parts["axis"], float(document["gap"])
    inputs, static, forecaster.labels_ = (tuple(document[name]) for name in _NAMES)
    forecaster.covariates_ = (inputs, static)
    forecaster.history_ = _read_history(folder)
    forecaster.fitted = True
    built.eval()
    return forecaster


@cache
def _classes() -> Mapping[str, type]:
    """The closed list: what ctdyn exports and what remembers how it was built."""
    found: dict[str, type] = dict(nn.ACTIVATIONS)
    for module in (nn, wirings, data, fields, solvers, integrate, cells, encoders, processes, likelihoods, models):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and (issubclass(value, Configurable | Enum) or is_dataclass(value)):
                found[name] = value
    found.update({kind.__name__: kind for kind in (structure.Calculus, structure.Noise)})
    layers = (getattr(linear.layers, name) for name in linear.layers.__all__)
    found.update({x.__name__: x for x in layers if inspect.isclass(x) and issubclass(x, Configurable)})
    holds = (getattr(linear.holds, name) for name in linear.holds.__all__)
    found.update({x.__name__: x for x in holds if inspect.isclass(x) and is_dataclass(x)})
    kinds = (getattr(paths, name) for name in paths.__all__)
    found.update({x.__name__: x for x in kinds if inspect.isclass(x) and not inspect.isabstract(x)})
    # Only the dynamics: other names of that package stand for other things here (`Gaussian` is a likelihood).
    dynamics = (getattr(linear, name) for name in linear.__all__)
    found.update({x.__name__: x for x in dynamics if inspect.isclass(x) and issubclass(x, linear.LinearDynamics)})
    return found


def _model_config(model: Model) -> Any:
    """The model as data, or None for one that cannot be rebuilt from the closed list and must be passed to `load`."""
    try:
        config = to_config(model)
    except TypeError:
        return None
    return config if _names(config) <= set(_classes()) else None


def _names(config: Any) -> set[str]:
    if isinstance(config, Mapping):
        own = {config[key] for key in ("class", "type") if isinstance(config.get(key), str)}
        return own.union(*map(_names, config.values()))
    return set().union(*map(_names, config)) if isinstance(config, list) else set()


def _build(config: Any, folder: Path) -> Any:
    try:
        return from_config(config, _classes())
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / _CONFIG} cannot be used: {error}") from error


def _check_parts(parts: Mapping[str, Any], document: Mapping[str, Any], folder: Path) -> None:
    expected = {"scaler": data.Scaler, "windows": data.WindowMaker, "axis": data.TimeAxis, "channels": tuple}
    wrong = [name for name, kind in expected.items() if not isinstance(parts[name], kind)]
    wrong += [name for name in ("gap", "seed") if not isinstance(document.get(name), int | float)]
    for name in _NAMES:
        names = document.get(name)
        wrong += [] if isinstance(names, list) and all(isinstance(each, str) for each in names) else [name]
    if wrong:
        raise DataError(f"{folder / _CONFIG} holds something else than expected under {few(wrong)}.")


def _build_model(config: Any, weights: Mapping[str, torch.Tensor], folder: Path) -> Model:
    if config is None:
        raise ValueError(
            f"{folder} holds a model of your own, which ctdyn cannot rebuild; build it and pass it: "
            "ctdyn.load(dir, model=...)."
        )
    # On the meta device nothing is allocated: a configuration that asks for terabytes is found out by its shapes.
    with torch.device("meta"):
        draft = _build(config, folder)
    if not isinstance(draft, Model):
        raise DataError(f"{folder / _CONFIG} describes a {type(draft).__name__}, not a model.")
    weights = _with_units(weights, draft)
    if {name: value.shape for name, value in draft.state_dict().items()} != {k: v.shape for k, v in weights.items()}:
        raise DataError(f"{folder}: the weights are not those of the model in {_CONFIG}.")
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        built = _build(config, folder)
    dtypes = {value.dtype for value in weights.values() if value.is_floating_point()}
    return built.to(dtypes.pop()) if len(dtypes) == 1 else built


def _put_weights(model: Model, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    try:
        model.load_state_dict(_with_units(weights, model))
    except RuntimeError as error:
        raise ValueError(f"the model does not fit the weights in {folder}: {error}") from error


def _with_units(weights: Mapping[str, torch.Tensor], model: Model) -> dict[str, torch.Tensor]:
    """The weights of a run that was saved before labels had units: those that were never measured change nothing."""
    dtype = next((value.dtype for value in weights.values() if value.is_floating_point()), None)
    plain = {
        f"{name}.{key}": torch.zeros(value.shape, dtype=dtype)
        for name, part in model.named_modules()
        if isinstance(part, LabelUnits)
        for key, value in part.state_dict().items()
    }
    return {**plain, **weights}


def _is_run(folder: Path) -> bool:
    if (folder / "checkpoint" / "checkpoint.json").is_file():
        return True
    try:
        return read_folder(folder, _CONFIG, _KIND) is not None
    except (OSError, ValueError):
        return False


def _read_history(folder: Path) -> Any:
    import pandas as pd

    path = folder / _METRICS
    try:
        return pd.read_csv(path) if path.is_file() else pd.DataFrame()
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError):
        # The history is for reading; without it the model answers as well.
        return pd.DataFrame()
