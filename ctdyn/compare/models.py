"""One table: your models and the trivial baselines, on the same windows, with the same scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from .._checks import DataWarning, check_instance, few, shown
from ..data import Series, SeriesSet, Standardize, TimeAxis, WindowMaker
from ..forecast import Forecaster
from ..forecast.queries import understood
from ..metrics import summarize
from ..models import Model
from ..models.baselines import HoldLast, LinearInterpolation, MaternGP, OwnMean


__all__ = ["compare"]

#: The rows that every table has, by name.
BASELINES: Mapping[str, type[Model]] = {
    "hold last": HoldLast,
    "linear interpolation": LinearInterpolation,
    "own mean": OwnMean,
    "Matern GP": MaternGP,
}

#: What a reader looks at first; the other columns follow.
_FIRST = (
    "mse",
    "mae",
    "crps",
    "nll",
    "interval_score 0.9",
    "coverage 0.5",
    "coverage 0.8",
    "coverage 0.9",
    "worst coverage 0.9",
)

#: Windows that the residuals of a baseline come from at least, where the training series are few.
_WINDOWS = 128


def compare(
    models: Mapping[str, Model | Forecaster],
    train: SeriesSet,
    test: SeriesSet,
    validation: SeriesSet | None = None,
    *,
    task: WindowMaker,
    windows: WindowMaker | None = None,
    scale: Mapping[str, float] | None = None,
    seed: int = 0,
    **fit: Any,
) -> pd.DataFrame:
    """Fit what is not fitted yet, score everything on the same windows of the test series, and print nothing.

    The baselines (hold last, linear interpolation, own mean, Matern GP) are always among the rows: a model that does
    not beat them has not learnt anything. They are fitted to the training series alone, and get intervals from their
    residuals there. The same arguments give the same table.

    Args:
        models: rows of the table by name: a fitted `Forecaster` is scored as it is; one that is not fitted, or a bare
            model, is fitted first.
        train: the series to fit to.
        test: the series to score; no model has seen them.
        validation: series for early stopping.
        task: what is asked: how each test series is cut into context and target, as `Extrapolate(cut=24.0)`.
        windows: how training series are cut for the baselines and for bare models. None: as the task does; give one
            where the training series are too short for the task.
        scale: what to divide the errors of each channel by; default: as below.
        seed: seed of the fits, and of the windows where the task draws them at random.
        **fit: passed on to `Forecaster.fit` (`max_steps`, `batch_size`, `lr` ...).

    Returns:
        One row per model, one column per score (see `ctdyn.metrics.evaluate`). With several channels, errors, CRPS,
        interval score and NLL are in units of the standard deviation of each channel in the training series, because
        an average over different units means nothing; with a single channel they are in its own unit.
        `table.attrs["scale"]` holds what each channel was divided by.

    Raises:
        ValueError: a name is that of a baseline.
        TypeError: a row is neither a model nor a Forecaster, or the rows have no names.
        DataError: no test series is long enough for the task, or no training series is for `windows`.

    Example:
        >>> from ctdyn.data import Extrapolate, from_ragged
        >>> series = from_ragged([([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 2.0, 2.5])] * 4, channels=["x"])
        >>> table = compare({}, series, series, task=Extrapolate(cut=2.5))
        >>> table["mse"].round(2).head(3).to_dict()
        {'hold last': 0.25, 'linear interpolation': 0.25, 'own mean': 0.25}
    """
    check_instance("models", models, Mapping, '{"mine": ctdyn.models.LatentODE(channels)}')
    taken = [name for name in models if name in BASELINES]
    if taken:
        raise ValueError(f"{few(taken)} is the name of a baseline, which every table has; choose another name.")
    windows = task if windows is None else windows
    forecasters = {name: _fitted(model, train, validation, windows, seed, fit) for name, model in models.items()}
    with understood():
        for name, kind in BASELINES.items():
            baseline = Forecaster(kind(train.channels), windows=windows, seed=seed)
            forecasters[name] = baseline.fit(train, batch_size=_WINDOWS)
    if scale is None and len(train.channels) > 1:
        scale = _scale(train)
    same = _SameCut(task, seed)
    rows = {name: summarize(one.score(test, same, scale=scale)) for name, one in forecasters.items()}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    first = [column for column in _FIRST if column in table.columns]
    table = table.reindex(columns=[*first, *(column for column in table.columns if column not in first)])
    table.attrs["scale"] = scale
    return table


@dataclass(frozen=True)
class _SameCut(WindowMaker):
    """Cuts a series as its id says, so that every model is asked the same."""

    maker: WindowMaker
    seed: int

    def on(self, axis: TimeAxis) -> WindowMaker:
        return replace(self, maker=self.maker.on(axis))

    @property
    def bounds(self) -> str:
        return self.maker.bounds

    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series] | None:
        return self.maker(series, np.random.default_rng([self.seed, crc32(repr(series.id).encode())]))


def _fitted(
    model: Model | Forecaster,
    train: SeriesSet,
    validation: SeriesSet | None,
    windows: WindowMaker,
    seed: int,
    options: Mapping[str, Any],
) -> Forecaster:
    if isinstance(model, Model):
        model = Forecaster(model, windows=windows, seed=seed)
    if not isinstance(model, Forecaster):
        raise TypeError(f"a row of the table is a model or a Forecaster; got {shown(model)}.")
    return model if model.fitted else model.fit(train, validation, **options)


def _scale(train: SeriesSet) -> dict[str, float]:
    """What a standardising scaler divides each channel by: 1 for a binary channel and a constant one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        learnt = Standardize().fit(train).statistics
    return {} if learnt is None else dict(zip(learnt.channels, learnt.scale, strict=True))
