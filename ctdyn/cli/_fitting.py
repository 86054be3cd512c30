"""From the options of the shell to a fitted Forecaster, and back from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ._files import TABLE, number_or_text
from ._options import Architecture, ModelName, Table, Training


if TYPE_CHECKING:
    from ..data import SeriesSet
    from ..forecast import Forecaster
    from ..models import Model

__all__ = ["make_baselines", "make_model", "open_run", "split_series", "train_model"]


def split_series(series: SeriesSet, validation: float, seed: int) -> tuple[SeriesSet, SeriesSet | None]:
    """Training series, and those that decide when to stop (none where there are too few to spare any)."""
    if not 0 <= validation < 1:
        raise ValueError(f"--validation is a share of the series, from 0 to below 1; got {validation}.")
    if round(validation * len(series)) < 1:
        return series, None
    train, held_out = series.split(1 - validation, validation, seed=seed)
    return train, held_out


def make_model(name: ModelName, architecture: Architecture, series: SeriesSet) -> Model:
    """The model of that name, for these series."""
    from ..models import LatentODE

    if name in (baselines := make_baselines(series)):
        return baselines[name]
    return LatentODE(
        series.channels,
        architecture.latent_size,
        architecture.hidden,
        encoder_size=architecture.encoder_size,
        input_size=len(series.input_names),
        static_size=len(series.static_names),
    )


def make_baselines(series: SeriesSet) -> dict[str, Model]:
    """The baselines by the names that the shell knows."""
    from ..models.baselines import HoldLast, LinearInterpolation, MaternGP, OwnMean

    return {
        "hold-last": HoldLast(series.channels),
        "linear-interpolation": LinearInterpolation(series.channels),
        "own-mean": OwnMean(series.channels),
        "gp": MaternGP(series.channels),
    }


def train_model(model: Model, training: Training, train: SeriesSet, validation: SeriesSet | None) -> Forecaster:
    """The fitted Forecaster."""
    from ..data import Extrapolate, Standardize
    from ..forecast import Forecaster

    lengths = [
        None if length is None else train.axis.duration(number_or_text(length))
        for length in (training.context, training.horizon)
    ]
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
