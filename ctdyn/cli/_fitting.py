"""From the options of the shell to a fitted Forecaster, and back from its folder."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ._files import TABLE, number_or_text
from ._options import Architecture, ModelName, Table, Training


if TYPE_CHECKING:
    from ..data import SeriesSet
    from ..forecast import Forecaster
    from ..models import Model

__all__ = ["CLASSES", "make_baselines", "make_model", "open_run", "split_series", "train_model"]


def split_series(series: SeriesSet, validation: float, seed: int) -> tuple[SeriesSet, SeriesSet | None]:
    """Training series, and those that decide when to stop (none where there are too few to spare any)."""
    if not 0 <= validation < 1:
        raise ValueError(f"--validation is a share of the series, from 0 to below 1; got {validation}.")
    if round(validation * len(series)) < 1:
        return series, None
    train, held_out = series.split(1 - validation, validation, seed=seed)
    return train, held_out


#: The classes in `ctdyn.models` behind the names that the shell knows.
CLASSES: dict[ModelName, str] = {
    "latent-ode": "LatentODE",
    "latent-sde": "LatentSDE",
    "ls4": "LS4",
    "markovian-gp-vae": "MarkovianGPVAE",
    "koopman-vae": "KoopmanVAE",
    "kalman-vae": "KalmanVAE",
    "linear-gaussian-ssm": "LinearGaussianSSM",
    "hippo-prophecy": "HippoProphecy",
    "hold-last": "HoldLast",
    "linear-interpolation": "LinearInterpolation",
    "own-mean": "OwnMean",
    "gp": "MaternGP",
}


def make_model(name: ModelName, architecture: Architecture, series: SeriesSet) -> Model:
    """The model of that name for these series, told of their inputs and static covariates where it reads any."""
    from .. import models

    build = getattr(models, CLASSES[name])
    takes = inspect.signature(build).parameters
    asked = {size: value for size, value in asdict(architecture).items() if value is not None}
    foreign = sorted(set(asked) - set(takes))
    if foreign:
        known = [size for size in asdict(Architecture()) if size in takes]
        raise ValueError(
            f"--model {name} has no {', '.join(foreign)}; "
            + (f"what it can be told is {', '.join(known)}." if known else "it takes no sizes.")
        )
    reads = {"input_size": series.input_names, "static_size": series.static_names}
    unread = [", ".join(names) for size, names in reads.items() if names and size not in takes]
    if unread and not issubclass(build, models.Baseline):
        raise ValueError(f"--model {name} would not read {', '.join(unread)}; leave them out, or take latent-ode.")
    return build(series.channels, **asked, **{size: len(names) for size, names in reads.items() if size in takes})


def make_baselines(series: SeriesSet) -> dict[str, Model]:
    """The baselines that stand beside every model, by the names that the shell knows."""
    names: tuple[ModelName, ...] = ("hold-last", "linear-interpolation", "own-mean", "gp")
    return {name: make_model(name, Architecture(), series) for name in names}


def train_model(model: Model, training: Training, train: SeriesSet, validation: SeriesSet | None) -> Forecaster:
    """The fitted Forecaster."""
    from ..data import Extrapolate, Standardize
    from ..forecast import Forecaster

    lengths = [None if length is None else number_or_text(length) for length in (training.context, training.horizon)]
    windows = None if lengths == [None, None] else Extrapolate(*lengths, include_context=True)
    forecaster = Forecaster(model, scaler=Standardize(center=training.center), windows=windows, seed=training.seed)
    options = {"max_steps": training.max_steps, "batch_size": training.batch_size, "lr": training.lr}
    return forecaster.fit(train, validation, **options)


def open_run(run: str) -> tuple[Forecaster, Table]:
    """What `ctdyn fit` saved."""
    from ..forecast import load

    path = Path(run) / TABLE
    if not path.is_file():
        raise ValueError(f"{run} is not a run of ctdyn (it has no {TABLE}); make one with ctdyn fit DATA --out {run}.")
    try:
        table = Table(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); fit the run again.") from error
    return load(run), table
