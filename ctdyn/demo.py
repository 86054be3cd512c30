"""The demonstration: carbon dioxide at Mauna Loa, seen at irregular times, filled and forecast years ahead.

The weekly record of 1958 to 2001 is thinned at random, so that no grid is left, and the model is fitted to what was
measured before 1993. It is given times and values only: neither the year nor the rise is built in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .compare import compare
from .data import AnyOf, Extrapolate, Interpolate, Series, SeriesSet, Standardize, WindowMaker, co2
from .fields import LinearField
from .forecast import Forecaster
from .integrate import ConstantStep
from .models import IWAE, LatentODE


if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Outage", "Result", "run"]

#: Days, the unit of the record's clock.
_YEAR = 365.25
_CONTEXT, _HORIZON, _OUTAGE = 4 * _YEAR, 5 * _YEAR, _YEAR / 2
#: The share of the weeks that is kept.
_KEPT = 0.35
#: Nothing later is trained on; the forecasts that are scored start here and in the years after.
_SPLIT, _ORIGINS = 1993, range(1993, 1998)
#: The unit of the model's clock: a cycle of one year is then about one radian per unit, as the dynamics start out.
_UNIT = _YEAR / 6
_LATENT = 8

_COLUMNS = {
    "mse": "MSE",
    "mae": "MAE",
    "crps": "CRPS",
    "interval_score 0.9": "interval score",
    "coverage 0.5": "in 50 %",
    "coverage 0.8": "in 80 %",
    "coverage 0.9": "in 90 %",
}


@dataclass(frozen=True)
class Outage(WindowMaker):
    """Everything within one random interval is hidden: the instrument was broken.

    Args:
        length: how long, on the clock of the series.

    Example:
        >>> series = Series("a", np.arange(10.0), np.arange(10.0)[:, None])
        >>> context, target = Outage(3.0)(series, np.random.default_rng(0))
        >>> len(context), len(target)
        (7, 3)
    """

    length: float

    @property
    def bounds(self) -> str:
        """The hidden observations alone are scored."""
        return "log p(target)"

    def __call__(self, series: Series, rng: np.random.Generator) -> tuple[Series, Series] | None:
        """See `WindowMaker`; None where the series is not three times as long as the outage."""
        if series.span < 3 * self.length:
            return None
        start = series.times[0] + rng.uniform(self.length, series.span - 2 * self.length)
        hidden = (series.times >= start) & (series.times < start + self.length)
        return series.take(~hidden), series.take(hidden)


@dataclass(frozen=True)
class Result:
    """What the demonstration found.

    Args:
        report: the tables and what they mean, as text.
        frame: gaps filled and years forecast, in ppm: id, time, channel, mean, sd, quantiles.
        figure: the same as a picture.
        forecaster: the fitted model.

    Example:
        >>> sorted(Result.__dataclass_fields__)
        ['figure', 'forecaster', 'frame', 'report']
    """

    report: str
    frame: pd.DataFrame
    figure: Figure
    forecaster: Forecaster


def run(*, seed: int = 0, quick: bool = False) -> Result:
    """Thin the record, fit a latent ODE, fill gaps, forecast, and score it all beside the baselines.

    Args:
        seed: seed of the thinning, and of everything else that is random.
        quick: a few steps and one table only, to see that it runs.

    Returns:
        Tables, frame and figure.

    Example:
        >>> result = run(quick=True)  # doctest: +SKIP
        >>> result.figure.savefig("forecast.png")  # doctest: +SKIP
    """
    record = co2()
    kept = np.random.default_rng(seed).random(len(record[0])) < _KEPT
    seen = replace(record, series=(record[0].take(kept),))
    train = _stretches(seen, _CONTEXT + _HORIZON)
    forecaster = _fit(train, seed, steps=4 if quick else 900)

    ahead = _pieces(seen, {f"from {year}": (year - _CONTEXT / _YEAR, _CONTEXT + _HORIZON) for year in _ORIGINS})
    inside = _pieces(seen, {f"{year}": (float(year), _CONTEXT) for year in (_SPLIT, _SPLIT + 2, _SPLIT + 4)})
    past = _stretches(seen, _CONTEXT)
    tables = {
        "Forecasts up to five years ahead, from four years of past": (train, ahead, Extrapolate(_CONTEXT, _HORIZON)),
        "Half a year without any measurement, filled": (past, inside, Outage(_OUTAGE)),
        "Single weeks, filled": (past, inside, Interpolate(keep=0.5)),
    }
    scored = {
        title: compare({"latent ODE": forecaster}, before, after, task=task, seed=seed)
        for title, (before, after, task) in list(tables.items())[: 1 if quick else None]
    }
    shown, truth, times = _panels(seen, record)
    forecast = forecaster.forecast(shown, at=times, num_samples=40 if quick else 400)
    figure = forecast.plot(truth=truth)
    return Result(_report(forecaster, len(seen[0]), scored), forecast.to_frame(), figure, forecaster)


def _fit(train: SeriesSet, seed: int, steps: int) -> Forecaster:
    """The latent ODE of the demonstration, fitted.

    Stretches are centred on their own past, because the level rises without end. The latent state follows a linear
    equation, which can rise and swing for ever; the importance-weighted bound keeps its uncertainty honest. Steps,
    weight decay and latent size were chosen on forecasts of 1984 to 1993 by models fitted to what came before 1984.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LatentODE(
            train.channels,
            _LATENT,
            field=LinearField(_LATENT),
            objective=IWAE(4),
            controller=ConstantStep(0.5),
        )
    windows = AnyOf(
        Interpolate(keep=0.5, length=3 * _YEAR, include_context=True),
        Extrapolate(_CONTEXT, _HORIZON, include_context=True),
    )
    scaler = Standardize(center="context", time_scale=_UNIT)
    forecaster = Forecaster(model, scaler=scaler, windows=windows, seed=seed)
    return forecaster.fit(train, max_steps=steps, batch_size=32, lr=1e-2, weight_decay=0.1)


def _stretches(seen: SeriesSet, length: float) -> SeriesSet:
    """Training series: four stretches a year, the last one ending where training ends."""
    starts = np.arange(1958.25, _SPLIT - length / _YEAR + 0.01, 0.25)
    return _pieces(seen, {f"{start:.2f}": (float(start), length) for start in starts})


def _pieces(record: SeriesSet, spans: Mapping[str, tuple[float, float]]) -> SeriesSet:
    """Stretches of the one series as series of their own: by name, the first year and the length in days."""
    (whole,) = record
    cut = []
    for name, (year, length) in spans.items():
        start = record.axis.instant(np.datetime64(f"{int(year)}-01-01")) + (year % 1) * _YEAR
        cut.append(replace(whole.between(start, start + length), id=name))
    return replace(record, series=tuple(cut))


def _panels(seen: SeriesSet, record: SeriesSet) -> tuple[SeriesSet, SeriesSet, dict[Any, np.ndarray]]:
    """What the figure shows: the observations given to the model, those that were hidden from it, and weekly times."""
    spans = {
        "the gap of 1964, filled": (1962.0, _CONTEXT, _CONTEXT),
        f"forecast from {_SPLIT}": (_SPLIT - 4.0, _CONTEXT, _CONTEXT + _HORIZON),
        "forecast from 1997": (1993.0, _CONTEXT, _CONTEXT + _HORIZON),
        "forecast beyond the record": (1998.0, _CONTEXT, _CONTEXT + _HORIZON),
    }
    context = _pieces(seen, {name: (year, past) for name, (year, past, _) in spans.items()})
    whole = _pieces(record, {name: (year, shown) for name, (year, _, shown) in spans.items()})
    hidden = tuple(every.take(~np.isin(every.times, given.times)) for every, given in zip(whole, context, strict=True))
    times = {
        one.id: one.times[0] + np.arange(0.0, shown, 7.0)
        for one, (_, _, shown) in zip(context, spans.values(), strict=True)
    }
    return context, replace(whole, series=hidden), times


def _report(forecaster: Forecaster, count: int, tables: dict[str, pd.DataFrame]) -> str:
    """The tables, and what the dynamics turned out to be."""
    steps, seconds = forecaster.history_.iloc[-1][["step", "seconds"]]
    lines = [
        f"Weekly CO2 at Mauna Loa, {count} of 2225 weeks kept at random; fitted to what came before {_SPLIT} "
        f"({steps:.0f} steps, {seconds:.0f} s).",
        f"Cycles that the latent ODE found by itself: {', '.join(f'{period:.2f}' for period in _periods(forecaster))} "
        "years.",
    ]
    for title, table in tables.items():
        shown = table[list(_COLUMNS)].set_axis(list(_COLUMNS.values()), axis="columns")
        lines += ["", f"{title} (ppm)", shown.map("{:.2f}".format).rename_axis(None).to_string()]
    lines += [
        "",
        f"What is scored lies in {_SPLIT} or later, where nothing was fitted. Errors, CRPS and interval score",
        "(of 90 %): less is better. 'in 90 %': the share of measurements in the 90 % interval, 0.90 if it is honest.",
        "Between one week and the next a line or a Gaussian process is hard to beat; half a year or years away",
        "only a model that has learnt the cycle and the rise can follow.",
    ]
    return "\n".join(lines)


def _periods(forecaster: Forecaster) -> list[float]:
    r"""The periods of the undamped modes, in years: an eigenvalue :math:`i \omega` turns in :math:`2 \pi / \omega`."""
    model = forecaster.model
    field = model.process.field if isinstance(model, LatentODE) else None
    if not isinstance(field, LinearField):
        return []
    values = torch.linalg.eigvals(field.A.detach()) * (_YEAR / _UNIT)
    return sorted({round(2 * math.pi / float(value.imag), 2) for value in values if float(value.imag) > 1.0})
