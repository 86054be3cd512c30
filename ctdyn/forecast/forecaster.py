"""`Forecaster`: a model, the units it works in, and the questions that a user asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from .._checks import DataError, check_count, check_instance
from .._options import with_suggestions
from ..data import (
    AnyOf,
    Extrapolate,
    Interpolate,
    IrregularBatch,
    Reconstruct,
    Scaler,
    Series,
    SeriesSet,
    Standardize,
    TimeAxis,
    Units,
    WindowMaker,
    loader,
    pad,
)
from ..data.clock import between_clocks
from ..data.series_set import on_axis, on_clock
from ..likelihoods import atoms
from ..models import Aggregates, Baseline, Encodes, ExactlyFitted, Generative, Labels, Model, Predictive
from ..models.base import input_path
from ..paths import Path as ControlPath
from .queries import (
    asked_starts,
    at_times,
    check_covariates,
    check_intervals,
    context_and_truth,
    gap_on,
    gap_times,
    horizon_times,
    inputs_ahead,
    known_inputs,
    own_seed,
    series_set,
    typical_gap,
    warn_of_held_inputs,
)
from .result import Forecast


if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Forecaster"]

#: The times of each series that are asked about, and where the intervals that end there begin.
_Asked = tuple[tuple[np.ndarray, ...], tuple[np.ndarray | None, ...]]
_Ahead = Mapping[object, Series]

#: Observations drawn per latent sample: quantiles need more draws than trajectories cost.
DRAWS = 5


@with_suggestions
class Forecaster:
    """Fits a model to your series and answers in your units: the door to the library.

    Scaling, windows, training and the way back to data units are done here; the model sees standardised tensors only.
    Names that end in an underscore exist after `fit`: `scaler_`, `history_`, `axis_`, `gap_`, `covariates_`,
    `labels_`.

    Every series is asked by itself, with randomness that follows from `seed` and its id: its answer depends neither on
    the other series nor on their order, and the same question gives the same answer twice.

    Args:
        model: what to fit; its channels are those of the series.
        scaler: the units that the model works in; default: `Standardize()`.
        windows: how training series are cut into context and target; default:
            `AnyOf(Interpolate(), Extrapolate(include_context=True))`, for filling gaps and for forecasts alike; whole
            series, `Reconstruct()`, for a model that predicts labels.
        seed: seed of the training and of every answer.

    Raises:
        TypeError: an argument is misspelt, of another sort, or a class where an instance is wanted.

    Example:
        >>> from ctdyn.data import from_ragged
        >>> from ctdyn.models import OwnMean
        >>> rows = [([0.0, 1.0, 2.0], [1.0, 3.0, 2.0]), ([0.0, 2.0, 3.0], [2.0, 4.0, 3.0])]
        >>> series = from_ragged(rows, channels=["x"])
        >>> forecaster = Forecaster(OwnMean(series.channels)).fit(series)
        >>> forecaster.forecast(series, horizon=1.0).mean()["mean"].round(3).tolist()
        [2.0, 3.0]
    """

    scaler_: Scaler
    history_: pd.DataFrame
    axis_: TimeAxis
    covariates_: tuple[tuple[str, ...], tuple[str, ...]]
    labels_: tuple[str, ...]
    gap_: float

    def __init__(
        self, model: Model, *, scaler: Scaler | None = None, windows: WindowMaker | None = None, seed: int = 0
    ) -> None:
        self.seed, self.fitted = seed, False
        self.model = model
        self.scaler = Standardize() if scaler is None else scaler
        usual = Reconstruct() if isinstance(model, Labels) else AnyOf(Interpolate(), Extrapolate(include_context=True))
        self.windows = usual if windows is None else windows
        check_instance("scaler", self.scaler, Scaler, "Standardize()")
        check_instance("windows", self.windows, WindowMaker, "Extrapolate(cut=24.0)")

    @property
    def model(self) -> Model:
        """What answers; what is fitted can be wrapped later on: `forecaster.model = Refined(forecaster.model)`."""
        return self._model

    @model.setter
    def model(self, model: Model) -> None:
        check_instance("model", model, Model, "ctdyn.models.LatentODE(series.channels)")
        # Another model has learnt nothing, unless it is made of what has, or a part of it.
        self.fitted = self.fitted and (self._model in model.modules() or model in self._model.modules())
        self._model = model
        self._unfitted = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def fit(
        self,
        train: SeriesSet,
        validation: SeriesSet | None = None,
        *,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> Forecaster:
        """Fit the scaler and the model. Fitting again starts afresh, from the weights that the model came with.

        A model that is fitted in closed form (the baselines) takes no steps; the options do not concern it.

        Args:
            train: the series to learn from.
            validation: other series, for early stopping and to choose the best weights; None keeps the last weights.
            max_steps: optimiser steps; None with `max_epochs` None means 2,000.
            max_epochs: passes over the training series.
            batch_size: windows per step; where there are fewer series each gives several, to about 200,000 rows in all.
            **options: what `ctdyn.train.fit` takes (`lr`, `weight_decay`, `patience`, `dir`, `resume`); anything else
                goes to Lightning's Trainer (`accelerator`, `callbacks`, `logger`, `enable_progress_bar` ...).

        Returns:
            Itself; `history_` holds the losses.

        Raises:
            DataError: the series lack a channel of the model, have another one, or are too short for the windows.
            TypeError: an option is misspelt.
        """
        import pandas as pd

        train = series_set(train).with_channels(self.model.channels)
        check_intervals(self.model, train)
        check_covariates(self.model, train)
        self.covariates_, self.labels_ = (train.input_names, train.static_names), train.label_names
        if validation is not None:
            validation = series_set(validation).with_channels(self.model.channels).with_covariates(*self.covariates_)
            validation = on_axis(validation, train.axis)
        self.fitted = False
        self.model.load_state_dict(self._unfitted)
        self.scaler_ = self.scaler.fit(train, self.windows.plain)
        self.axis_, self.gap_ = train.axis, typical_gap(train)

        def cut(series: SeriesSet, shuffle: bool) -> Any:
            windows = self.windows if shuffle else self.windows.plain
            # Few series give many windows each, so that a batch is one however few there are.
            settings = {"batch_size": batch_size, "seed": self.seed, "shuffle": shuffle, "repeats": None}
            return loader(series, windows, self.scaler_, dtype=self._dtype(), **settings)

        if isinstance(self.model, ExactlyFitted):
            self.model.fit_exact([window.to(self._device()) for window in cut(train, False)])
            self.history_ = pd.DataFrame()
        else:
            from ..train import fit

            limits = {"max_steps": max_steps, "max_epochs": max_epochs, "seed": self.seed}
            checked = None if validation is None else cut(validation, False)
            self.history_ = fit(self.model, cut(train, True), checked, **limits, **options)
        self.model.eval()
        self.fitted = True
        return self

    def forecast(
        self,
        series: SeriesSet,
        horizon: Any = None,
        *,
        at: Any = None,
        inputs: SeriesSet | None = None,
        num_samples: int = 100,
    ) -> Forecast:
        """What will be measured after the last observation, or at any times at all.

        Args:
            series: what to condition on; cut it with `before`.
            horizon: how far to look: a number in the unit of the clock, or a timedelta or text as "3D". The times are
                then regular, from each series' last observation to the horizon, at the series' own median gap (at most
                1,000 of them). A day is 24 hours, also where summer time ends; for midnights give them by `at`.
            at: the times, instead of a horizon: numbers or datetimes for all series, a dict from id to times, or a
                `SeriesSet` whose times are meant, and whose intervals (`start`): the answers are then means over these.
                They may lie anywhere; those outside of the observations are marked in `Forecast.to_frame`.
            inputs: series of the same ids whose inputs are known ahead, where the model is driven by any; they need no
                channels (`from_pandas(frame, inputs=[...], values=[])`). Past the last of them a warning says that it
                is held. Default: `at`, where that is a set with inputs.
            num_samples: latent trajectories; each gives five draws of an observation.

        Raises:
            ValueError: the Forecaster is not fitted, both or neither of `horizon` and `at` are given, or the horizon is
                not positive, or out of all proportion to the series.
            DataError: the series have other channels, units or another kind of clock than those of the training.
        """
        series = self._checked(series, at)
        if (horizon is None) == (at is None):
            raise ValueError("forecast needs either horizon= (how far) or at= (which times).")
        gap = gap_on(series.axis, self.axis_, self.gap_)
        times = at_times(series, at) if horizon is None else horizon_times(series, horizon, gap)
        return self._answer(series, (times, asked_starts(series, at)), known_inputs(inputs, at), num_samples)

    def interpolate(
        self, series: SeriesSet, at: Any = None, *, inputs: SeriesSet | None = None, num_samples: int = 100
    ) -> Forecast:
        """What would have been measured between the observations.

        Args:
            series: what to condition on.
            at: the times, as in `forecast`. None: the times of rows in which a channel is missing, and a regular grid
                from the first row to the last at the series' own median gap (at most 1,000 points).
            inputs: as in `forecast`.
            num_samples: as in `forecast`.

        Raises:
            ValueError: the Forecaster is not fitted.
            DataError: the series have other channels, units or another kind of clock than those of the training.
        """
        series = self._checked(series, at)
        times = gap_times(series, gap_on(series.axis, self.axis_, self.gap_)) if at is None else at_times(series, at)
        return self._answer(series, (times, asked_starts(series, at)), known_inputs(inputs, at), num_samples)

    def sample(self, at: Any, *, num_samples: int = 10) -> pd.DataFrame:
        """New series that resemble the training series, without seeing any.

        Args:
            at: the times, numbers or datetimes; the first is where each series starts.
            num_samples: how many.

        Returns:
            A frame with the columns id (0, 1, ...), time, channel, value.

        Raises:
            TypeError: the model does not generate.
            ValueError: the Forecaster is not fitted.
        """
        from .frames import sampled_frame

        model = self.model
        if not isinstance(model, Generative):
            raise TypeError(f"{type(model).__name__} does not generate series; use a model that is Generative.")
        self._check_fitted()
        check_count("num_samples", num_samples)
        blank = Series("sample", np.zeros(0), np.zeros((0, len(model.channels))))
        (times,) = at_times(SeriesSet((blank,), model.channels, self.axis_), at)
        raw = pad([blank], empty=[float(times[0])])
        units = self.scaler_.units(raw)
        generator = self._generator("sample")
        with torch.no_grad():
            predictive = model.sample(self._on_model_clock(units, times), num_samples=num_samples, generator=generator)
        values = units.values_to_data(predictive.sample(generator).cpu())[:, 0].numpy()
        return sampled_frame(values, times, self.axis_, model.channels)

    def encode(self, series: SeriesSet) -> pd.DataFrame:
        """One vector per series, whatever its length: a frame with the columns id, z0, z1, ...

        Args:
            series: what to describe.

        Raises:
            TypeError: the model does not encode.
            ValueError: the Forecaster is not fitted.
        """
        import pandas as pd

        model = self.model
        if not isinstance(model, Encodes):
            raise TypeError(f"{type(model).__name__} does not encode series; use a model that is Encodes.")
        series = self._checked(series)
        with torch.no_grad():
            rows = [model.encode(one)[0].cpu().numpy() for one in self._each(series)]
        table = np.stack(rows) if rows else np.zeros((0, 0))
        return pd.DataFrame({"id": list(series.ids)} | {f"z{i}": column for i, column in enumerate(table.T)})

    def predict_label(self, series: SeriesSet) -> pd.DataFrame:
        """What the model says of the labels of each series.

        Args:
            series: what to read; labels that it has are not looked at.

        Returns:
            A frame with the columns id, label (its name in the training), value (the most probable class, or the
            mean), and for a class `p0`, `p1` ... (the probabilities), for a number `std`.

        Raises:
            TypeError: the model predicts no labels.
            ValueError: the Forecaster is not fitted.
        """
        from .frames import label_frame

        model = self.model
        if not isinstance(model, Labels):
            raise TypeError(f"{type(model).__name__} predicts no labels; use a SequenceModel.")
        series = self._checked(series)
        model.eval()
        with torch.no_grad():
            found = [model.predict_label(one) for one in self._each(series)]
        return label_frame(series.ids, self.labels_, found)

    def score(
        self, series: SeriesSet, task: WindowMaker | None = None, *, num_samples: int = 100, **options: Any
    ) -> pd.DataFrame:
        """How good the answers are: each series is cut into context and target, and what of it is not shown is scored.

        Where the standard errors of the target are known, the answers are for observations with these.

        Args:
            series: series that the model was not fitted to.
            task: how they are cut, as `Extrapolate(cut=24.0)` or `Extrapolate(cut="2024-05-01")`; default: the windows
                of the training. The same cut every time.
            num_samples: latent trajectories.
            **options: what `ctdyn.metrics.evaluate` takes (`by_distance`, `scale`).

        Returns:
            The table of `ctdyn.metrics.evaluate`, with the negative log likelihood in data units.

        Raises:
            ValueError: the Forecaster is not fitted.
            DataError: no series is long enough for the task.
        """
        from ..metrics import evaluate

        context, truth = self.cut(self._checked(series), task)
        asked = (tuple(one.times for one in truth), tuple(one.start for one in truth))
        ahead = inputs_ahead(context, truth, self.axis_)
        forecast, densities = self._ask(context, asked, ahead, num_samples, truth)
        return evaluate(forecast, truth, log_density=densities, means=forecast.means, **options)

    def cut(self, series: SeriesSet, task: WindowMaker | None = None) -> tuple[SeriesSet, SeriesSet]:
        """Context and truth of a task, the same every time: what `score` conditions on and what it scores.

        Args:
            series: the series to cut; those that are too short are left out.
            task: how; default: the windows of the training, on the clock of the training.

        Raises:
            DataError: no series is long enough.
        """
        if task is None:
            series, task = on_axis(series, self.axis_), self.windows
        return context_and_truth(series, task, self.seed)

    def save(self, dir: str | Path) -> Path:
        """Write the Forecaster into a folder: config.json, weights.safetensors and metrics.csv; `ctdyn.load` reads it.

        The folder of `fit(dir=...)` may be used, and an older save is replaced; any other folder that is not empty is
        refused. A crash leaves the old save or the new one.

        Args:
            dir: the folder; it is made where it does not exist.

        Returns:
            The folder.

        Raises:
            ValueError: the Forecaster is not fitted.
            CheckpointWriteError: it cannot be written.
        """
        from .saving import save

        self._check_fitted()
        return save(self, Path(dir))

    # -- from series to the model and back

    def _each(self, series: SeriesSet) -> Iterator[IrregularBatch]:
        """Every series by itself, in model units."""
        for one in on_axis(series, self.axis_):
            raw = pad([one])
            yield self._in_units(self.scaler_.units(raw), raw)

    def _answer(self, series: SeriesSet, asked: _Asked, inputs: SeriesSet | None, num_samples: int) -> Forecast:
        check_count("num_samples", num_samples)
        inputs = inputs if inputs is None else inputs.with_covariates(self.covariates_[0], inputs.static_names)
        ahead = inputs_ahead(series, inputs, self.axis_)
        if "inputs" in self.model.reads:
            warn_of_held_inputs(series, asked[0], ahead, self.axis_)
        return self._ask(series, asked, ahead, num_samples, None)[0]

    def _ask(
        self, series: SeriesSet, asked: _Asked, ahead: _Ahead, num_samples: int, truth: SeriesSet | None
    ) -> tuple[Forecast, list[np.ndarray]]:
        """The forecast and, where the truth is given at just these times, its log density in data units."""
        to_fitted = between_clocks(self.axis_, series.axis)
        samples, means, densities = [], [], []
        self.model.eval()
        for place, (one, when, begin) in enumerate(zip(series, *asked, strict=True)):
            generator = self._generator(one.id)
            clocked, begin = on_clock(one, to_fitted), None if begin is None else to_fitted(begin)
            question = (to_fitted(when), begin)
            told = (ahead.get(one.id), None if truth is None else truth[place])
            units, predictive, target = self._predict(clocked, question, *told, num_samples, generator)
            drawn = units.values_to_data(predictive.sample(generator, DRAWS).cpu())[:, 0, : len(when)]
            # float32 halves the memory; a level far above the spread needs the digits.
            fine = bool((units.loc.abs() > 1e3 * units.scale).any())
            samples.append(drawn.to(torch.float64 if fine else torch.float32).numpy())
            means.append(units.values_to_data(predictive.mean.cpu())[0, : len(when)].numpy())
            if target is not None:
                densities.append(self._log_density(units, predictive, target))
        return Forecast(series, asked[0], tuple(samples), tuple(means)), densities

    def _predict(
        self,
        one: Series,
        question: tuple[np.ndarray, np.ndarray | None],
        ahead: Series | None,
        truth: Series | None,
        num_samples: int,
        generator: Generator,
    ) -> tuple[Units, Predictive, IrregularBatch | None]:
        times, start = question
        # A model needs a time to be asked at; the answer to it is cut off again.
        asked = times if len(times) else np.concatenate([one.times[-1:], np.zeros(1)])[:1]
        raw = pad([one], empty=[float(asked[0])])
        units = self.scaler_.units(raw)
        context = self._in_units(units, raw)
        target = None if truth is None else self._in_units(units, pad([truth]))
        path: ControlPath | None = None
        if context.inputs is not None:
            known = None if ahead is None or not len(ahead) else self._in_units(units, pad([ahead]))
            path = input_path(context, known)
        with torch.no_grad():
            ts = self._on_model_clock(units, asked)
            options: dict[str, Any] = {"num_samples": num_samples, "generator": generator}
            if target is not None and target.noise is not None:
                options["noise"] = target.noise
            if start is None or not len(times) or not bool((start < times).any()) or isinstance(self.model, Baseline):
                return units, self.model.predict(context, ts, path, **options), target
            assert isinstance(self.model, Aggregates)
            begin = self._on_model_clock(units, start)
            return units, self.model.predict_means(context, begin, ts, path, **options), target

    def _log_density(self, units: Units, predictive: Predictive, target: IrregularBatch) -> np.ndarray:
        with torch.no_grad():
            in_model_units = predictive.log_prob(target.values, target.mask)[0].cpu().double()
        # The probability of an atom has no unit.
        density = (target.mask & ~atoms(predictive.distribution, target.values))[0].cpu()
        return (in_model_units - torch.where(density, units.scale.log(), 0.0)).numpy()

    def _in_units(self, units: Units, raw: IrregularBatch) -> IrregularBatch:
        return units.to_model(raw).to(self._dtype()).to(self._device())

    def _on_model_clock(self, units: Units, times: np.ndarray) -> Tensor:
        ts = units.times_to_model(torch.from_numpy(np.array(times, dtype=np.float64))[None])
        return ts.to(self._device(), self._dtype())

    def _dtype(self) -> torch.dtype:
        floating = (t.dtype for t in chain(self.model.parameters(), self.model.buffers()) if t.is_floating_point())
        return next(floating, torch.float64)

    def _device(self) -> torch.device:
        return next((t.device for t in chain(self.model.parameters(), self.model.buffers())), torch.device("cpu"))

    def _generator(self, id: object) -> Generator:
        return Generator(self._device()).manual_seed(own_seed(self.seed, "answer", id))

    def _checked(self, series: SeriesSet, at: Any = None) -> SeriesSet:
        self._check_fitted()
        if not len(series_set(series)):
            raise DataError("there is no series to answer for: the set is empty.")
        between_clocks(self.axis_, series.axis)
        check_intervals(self.model, series)
        if isinstance(at, SeriesSet):
            check_intervals(self.model, at)
        return series.with_channels(self.model.channels).with_covariates(*self.covariates_)

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise ValueError("this Forecaster is not fitted; call fit(train) first, or ctdyn.load(dir).")
