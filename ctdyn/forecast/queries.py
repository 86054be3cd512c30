"""When to ask: from what a user says (`at=`, `horizon=`, or nothing) to the query times of each series."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from .._checks import DataError, DataWarning, UnknownIdError, check_instance, few
from ..data import Series, SeriesSet, TimeAxis, WindowMaker
from ..data.clock import between_clocks
from ..models import Aggregates, Baseline, Labels, Model, PointBaseline


__all__ = [
    "UnreadWarning",
    "asked_starts",
    "at_times",
    "check_covariates",
    "check_intervals",
    "context_and_truth",
    "gap_on",
    "gap_times",
    "horizon_times",
    "inputs_ahead",
    "known_inputs",
    "own_seed",
    "series_set",
    "typical_gap",
    "understood",
    "warn_of_held_inputs",
]

#: More regular query times than this are not made unasked.
MAX_REGULAR = 1000
#: A horizon this many times what is known at most is a slip of the unit.
FAR = 100


class UnreadWarning(DataWarning):
    """Covariates do not reach a model."""


def typical_gap(series: SeriesSet) -> float:
    """The median over the series of the median time between observations; 1 where no series has two of them.

    Args:
        series: the series.
    """
    gaps = [gap for gap in map(_median_gap, series) if gap is not None]
    return float(np.median(gaps)) if gaps else 1.0


def gap_on(own: TimeAxis, fitted: TimeAxis, gap: float) -> float:
    """The typical gap of the training on the clock of other series.

    Args:
        own: their clock.
        fitted: that of the training.
        gap: on that of the training.
    """
    start, end = between_clocks(fitted, own)(np.array([0.0, 1.0]))
    return gap / float(end - start)


def horizon_times(series: SeriesSet, horizon: Any, gap: float) -> tuple[np.ndarray, ...]:
    """Regular times from the last observation of each series to the horizon.

    Args:
        series: what is conditioned on.
        horizon: a length of time: a number in the unit of the clock, or a timedelta.
        gap: the spacing for a series that has none of its own.

    Raises:
        DataError: the horizon is not positive, or out of all proportion to the series, or a series has no observation
            to start from.
    """
    length = series.axis.duration(horizon)
    if length <= 0:
        raise DataError(f"horizon must be a positive length of time; got {horizon!r}. For times in the past use at=.")
    bare = [one.id for one in series if not one.observed.any()]
    if bare:
        raise DataError(
            f"series {few(bare)} has no observations, so a horizon has no start; give the times by at=, or leave it "
            "out (series.observed())."
        )

    longest = max(one.span for one in series)
    if length > FAR * max(MAX_REGULAR * gap, longest):
        raise DataError(
            f"horizon={horizon!r} is {length / gap:,.0f} times the usual gap between observations ({gap:.4g}), and the "
            f"longest of the series is {longest:.4g} long, on a clock of {series.axis}; give the horizon in the unit "
            "of that clock. Times that far off, if they are meant, are given by at=."
        )

    def after(one: Series) -> np.ndarray:
        own = _median_gap(one) or gap
        count = int(np.clip(round(length / own), 1, MAX_REGULAR))
        return one.times[one.observed][-1] + length * np.arange(1, count + 1) / count

    return tuple(map(after, series))


def gap_times(series: SeriesSet, gap: float) -> tuple[np.ndarray, ...]:
    """Where something is missing: rows without all channels, and a regular grid from the first row to the last.

    Args:
        series: what is conditioned on.
        gap: the spacing for a series that has none of its own.
    """

    def inside(one: Series) -> np.ndarray:
        holes = one.times[np.isnan(one.values).any(axis=1)]
        if one.span <= 0:
            return np.unique(holes)
        count = int(np.clip(round(one.span / (_median_gap(one) or gap)), 1, MAX_REGULAR))
        grid = one.times[0] + one.span * np.arange(count + 1) / count
        return np.unique(np.concatenate([holes, grid]))

    return tuple(map(inside, series))


def at_times(series: SeriesSet, at: Any) -> tuple[np.ndarray, ...]:
    """The times that a user gave.

    Args:
        series: what is conditioned on.
        at: one list of times for all series, a mapping from ids to times, or a `SeriesSet`, whose rows' times are meant
            (it may hold more series).

    Raises:
        DataError: a time is missing, infinite or of another sort than the clock.
        UnknownIdError: a mapping or set lacks one of the series, or a mapping names one that was not given.
    """
    import pandas as pd

    if isinstance(at, SeriesSet):
        _check_present(series, at.ids)
        between_clocks(series.axis, at.axis)  # refuses one of another unit
        if at.axis == series.axis:
            return tuple(at.by_id(id).times for id in series.ids)
        # Two clocks may count their floats from different origins; the user's times are what they share.
        return tuple(_listed(series, at.axis.to_user(at.by_id(id).times)) for id in series.ids)
    if isinstance(at, Mapping):
        extra = [one for one in at if one not in set(series.ids)]
        if extra:
            raise UnknownIdError(f"at= names {len(extra)} unseen ids: {few(extra)}; the series are {few(series.ids)}.")
        _check_present(series, tuple(at))
        return tuple(_listed(series, at[id]) for id in series.ids)
    if isinstance(at, pd.DataFrame):
        raise DataError(
            "at= is a DataFrame; give a column of it for all series, at=df['time'], or what from_pandas(df, values=[], "
            "...) makes of it for times of each."
        )
    times = _listed(series, at)
    if not len(times):
        raise DataError("at= holds no times; give at least one.")
    return (times,) * len(series)


def asked_starts(series: SeriesSet, at: Any) -> tuple[np.ndarray | None, ...]:
    """Where the interval of each asked time begins: that of the rows of a `SeriesSet`, else nowhere before it.

    Args:
        series: what is conditioned on.
        at: as in `at_times`.
    """
    if not isinstance(at, SeriesSet):
        return (None,) * len(series)

    def begins(one: Series) -> np.ndarray | None:
        if one.start is None or at.axis == series.axis:
            return one.start
        return _listed(series, at.axis.to_user(one.start))

    return tuple(begins(at.by_id(id)) for id in series.ids)


def check_intervals(model: Model, series: SeriesSet) -> None:
    """Refuse means over intervals for a model that does not know them; a baseline takes one for a value at its time.

    Args:
        model: what is to read the series.
        series: what it is to read.

    Raises:
        TypeError: there are such means, and the model does not know them.
    """
    if isinstance(model, Aggregates | Baseline):
        return
    found = [one.id for one in series if one.start is not None and bool((one.start < one.times).any())]
    if found:
        raise TypeError(
            f"series {few(found)} holds means over intervals (start before time), and {type(model).__name__} knows "
            "observations at one instant only; use LinearGaussianSSM, LatentODE or LatentSDE."
        )


def check_covariates(model: Model, series: SeriesSet) -> None:
    """Warn of covariates that do not reach a model; that a point baseline reads none is understood.

    Args:
        model: what is to learn from the series.
        series: what it is to learn from.
    """
    found = {"inputs": series.input_names, "static": series.static_names}
    unread = {name: names for name, names in found.items() if names and name not in model.reads}
    if unread and not isinstance(model, PointBaseline):
        words = {"inputs": ("inputs", "input_size"), "static": ("static covariates", "static_size")}
        what = " and the ".join(f"{words[name][0]} {few(names)}" for name, names in unread.items())
        built = ", ".join(f"{words[name][1]}={len(names)}" for name, names in unread.items())
        labelled = f"SequenceModel with GRUEncoder(num_channels, latent_size, {built})"
        such = labelled if isinstance(model, Labels) else f"LatentODE(channels, {built})"
        warnings.warn(
            f"{type(model).__name__} does not read the {what} of the series, and goes on without. Take a model that "
            f"does, such as {such}, or leave them out when reading the series.",
            UnreadWarning,
            stacklevel=3,
        )


@contextmanager
def understood() -> Iterator[None]:
    """Within this nothing is said of covariates that are not read: baselines beside a model are not chosen for them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadWarning)
        yield


def context_and_truth(series: SeriesSet, task: WindowMaker, seed: int) -> tuple[SeriesSet, SeriesSet]:
    """What a task shows of each series, and what it hides (see `Forecaster.cut`).

    Args:
        series: the series to cut.
        task: how.
        seed: of what is drawn.

    Raises:
        TypeError: the task is none.
        DataError: no series is long enough, or nothing of them is hidden.
    """
    check_instance("task", task, WindowMaker, "Extrapolate(cut=24.0)")
    contexts, targets, maker, short = [], [], task.on(series.axis), 0
    for one in series:
        pair = maker(one, np.random.default_rng(own_seed(seed, "cut", one.id)))
        if pair is None:
            short += 1
            continue
        hidden = pair[1].take(~_shown(pair[1], pair[0]))
        if hidden.observed.any():
            contexts.append(pair[0])
            targets.append(hidden)
    if not targets:
        if short < len(series):
            raise DataError(
                f"{task} hides nothing of the series that a forecast could be scored on; give a task that does, as "
                "Extrapolate(cut=24.0). What a model says of labels is told by predict_label."
            )
        raise DataError(f"none of the {len(series)} series is long enough for {task}.")
    return replace(series, series=tuple(contexts)), replace(series, series=tuple(targets))


def _shown(target: Series, context: Series) -> np.ndarray:
    """Rows of the target that stand in the context as well: the same time, and the same beginning."""

    def key(one: Series) -> np.ndarray:
        return one.times + 1j * (one.times if one.start is None else one.start)

    return np.isin(key(target), key(context))


def _listed(series: SeriesSet, times: Any) -> np.ndarray:
    if np.ndim(times) == 0:
        times = [times]
    return series.axis.to_float(times) if len(times) else np.zeros(0)


def _check_present(series: SeriesSet, given: tuple[object, ...]) -> None:
    missing = [one for one in series.ids if one not in set(given)]
    if missing:
        raise UnknownIdError(f"at= has no times for {len(missing)} of the series: {few(missing)}.")


def _median_gap(one: Series) -> float | None:
    gaps = np.diff(np.unique(one.times[one.observed]))
    return float(np.median(gaps)) if len(gaps) else None


def known_inputs(inputs: SeriesSet | None, at: Any) -> SeriesSet | None:
    """The series whose inputs are known ahead: those that were given, or those that are asked about."""
    if inputs is None and isinstance(at, SeriesSet) and at.input_names:
        return at
    return inputs


def inputs_ahead(series: SeriesSet, inputs: SeriesSet | None, fitted: TimeAxis) -> dict[object, Series]:
    """The inputs known ahead of each series, on the clock of the training, and nothing else of what was given.

    Args:
        series: what is conditioned on.
        inputs: where they are known; it may hold more series, and no channels.
        fitted: the clock of the training.
    """
    if inputs is None or not inputs.input_names:
        return {}
    to_fitted = between_clocks(fitted, inputs.axis)

    def alone(one: Series) -> Series:
        unseen = np.full((len(one), len(series.channels)), np.nan)
        return Series(one.id, to_fitted(one.times), unseen, inputs=one.inputs)

    return {id: alone(inputs.by_id(id)) for id in series.ids}


def warn_of_held_inputs(
    series: SeriesSet, asked: tuple[np.ndarray, ...], ahead: Mapping[object, Series], fitted: TimeAxis
) -> None:
    """Say where the last known inputs of a series are held, because it is asked about later times.

    Args:
        series: what is conditioned on.
        asked: the times that are asked about.
        ahead: see `inputs_ahead`.
        fitted: the clock of the training.
    """
    to_fitted = between_clocks(fitted, series.axis)
    held = []
    for one, when in zip(series, asked, strict=True):
        known = np.concatenate([to_fitted(one.times), ahead[one.id].times if one.id in ahead else np.zeros(0)])
        if one.inputs is not None and len(known) and len(when):
            last, end = known.max(), to_fitted(when).max()
            if end - last > 1e-9 * max(1.0, abs(end)):
                held.append((one.id, *fitted.to_user(np.array([last, end]))))
    if held:
        id, last, end = held[0]
        warnings.warn(
            f"series {id!r}: the inputs {few(series.input_names)} are known until {last}, and what is asked about goes "
            f"on until {end} ({len(held)} such series); their last values are held. Give those that are known ahead "
            "by inputs=, a set that may hold nothing else: from_pandas(frame, inputs=[...], values=[]); in a shell by "
            "--at FILE, a table of the times to be answered with the columns of the inputs.",
            DataWarning,
            stacklevel=4,
        )


def series_set(given: Any) -> SeriesSet:
    """What was given, if it is a `SeriesSet`."""
    if not isinstance(given, SeriesSet):
        raise TypeError(
            f"series come as a SeriesSet; got {type(given).__name__}. ctdyn.data.from_pandas(frame, ...) makes one of "
            "a frame, and from_ragged(...) of arrays."
        )
    return given


def own_seed(seed: int, purpose: str, id: object) -> int:
    """A seed per series, the same wherever the series stands."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
