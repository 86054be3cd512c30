"""`fit`: Lightning's Trainer, set up for models of irregular series."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import inspect
import logging
import math
import os
import signal
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

from .._checks import DataError, DataWarning
from .._storage import check_writable
from ..data import Window
from ..models import Model
from ._keeping import CHECKPOINT, Bar, Keeper, SafetensorsIO, frame
from ._module import Rounds, TrainingModule, num_batches, set_epoch
from .schedules import Cosine, Schedule


if TYPE_CHECKING:
    import pandas as pd

__all__ = ["fit"]

#: A round, after which the model is validated and saved, has at least this many steps: small data have short epochs.
ROUND = 25
#: What training runs for when neither steps nor epochs are given.
DEFAULT_STEPS = 2000
#: More rows of context in one batch, padding included, take many seconds a step and gigabytes.
LONG = 500_000
#: So do windows that are longer than this, however few: what reads them row by row waits for every row.
LONGEST = 10_000


def fit(
    model: Model,
    train_loader: Iterable[Window],
    val_loader: Iterable[Window] | None = None,
    *,
    max_steps: int | None = None,
    max_epochs: int | None = None,
    lr: float | Schedule = 5e-3,
    weight_decay: float = 0.0,
    patience: int | None = 20,
    dir: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    **trainer: Any,
) -> pd.DataFrame:
    """Train a model in place by AdamW on its loss, validate it after every round, and leave it with its best weights.

    A round is one pass over the training windows, or as many passes as make 25 steps. The validation loss is the true
    bound (no annealing), on the same windows and with the same randomness each time. A batch whose loss cannot be
    solved for, or whose gradient is not finite, changes nothing and is counted; ten in a row end the training.
    The same seed gives bitwise the same weights on one machine (same versions, same number of threads). torch's global
    random state is left as it was.

    Args:
        model: what to train.
        train_loader: windows in model units; re-iterable, with a length. Where it has `set_epoch`, each pass has its
            number.
        val_loader: windows to validate on; None keeps the last weights and never stops early.
        max_steps: optimiser steps; None with `max_epochs` None means 2,000. Where both are given the shorter counts.
        max_epochs: passes over `train_loader`.
        lr: the largest learning rate of a `Cosine` schedule, or another schedule.
        weight_decay: decoupled weight decay.
        patience: stop after so many rounds without a better validation loss; None never stops early.
        dir: folder for `metrics.csv` and the last checkpoint; None leaves nothing on disk.
        resume: go on from the checkpoint in `dir`, with the result of a training that was never interrupted. The
            windows and the settings must be those of that training.
        seed: seed of everything random.
        **trainer: passed to Lightning's Trainer unchanged (`accelerator`, `devices`, `callbacks`, `logger`,
            `gradient_clip_val`: 1 by default, `enable_progress_bar` ...).

    Returns:
        One row per round: step, epoch, seconds, lr, skipped (batches so far), train_loss, val_loss and the parts of
        both losses, each the mean over the round.

    Raises:
        TypeError: a keyword argument is not one of the Trainer's.
        ValueError: there is nothing to train on, or `dir` holds another training.
        CheckpointWriteError: `dir` cannot be written.
        NonFiniteError: ten batches in a row had no finite gradient.

    Example:
        >>> from ctdyn.data import Interpolate, Standardize, from_ragged, loader
        >>> from ctdyn.models import LatentODE
        >>> series = from_ragged([([0.0, 1.0, 2.5], [1.0, 3.0, 2.0])], channels=["x"])
        >>> windows = loader(series, Interpolate(), Standardize().fit(series), batch_size=1)
        >>> model = LatentODE(series.channels, latent_size=2, hidden=(4,), encoder_size=4)
        >>> fit(model, windows, max_steps=2, enable_progress_bar=False)["step"].tolist()
        [2]
    """
    _check_trainer_arguments(trainer)
    folder = None if dir is None else Path(dir)
    batches = num_batches(train_loader)
    schedule = lr if isinstance(lr, Schedule) else Cosine(lr)
    total = _total_steps(max_steps, max_epochs, batches, int(trainer.get("accumulate_grad_batches", 1)))
    if total == 0:
        warnings.warn("max_steps or max_epochs is 0: the model keeps its initial weights.", UserWarning, stacklevel=2)
        return frame([])
    set_epoch(train_loader, 0)
    first = next(iter(train_loader))
    _warn_of_long_windows(first)
    fingerprint = _fingerprint(first, batches, model, (schedule, seed, weight_decay))
    if folder is not None:
        _prepare(folder, resume, fingerprint)
    passes = math.ceil(ROUND / batches)
    module = TrainingModule(model, schedule, total, weight_decay, seed, Rounds(train_loader, passes), val_loader)
    keeper = Keeper(folder, total, batches, fingerprint)
    callbacks: list[Any] = [keeper]
    if val_loader is not None and patience is not None:
        callbacks.append(
            EarlyStopping("val_loss", patience=patience, check_finite=False, check_on_train_epoch_end=False)
        )
    settings = _trainer_settings(trainer, callbacks, total)
    path = str(folder / CHECKPOINT) if resume and folder is not None else None
    with _quiet(), _interruptible(), _forked_global_seed(seed):
        pl.Trainer(**settings).fit(module, module.rounds, val_loader, ckpt_path=path)
    keeper.restore_best(module)
    model.eval()
    return frame(keeper.rows)


def _trainer_settings(given: Mapping[str, Any], callbacks: list[Any], total: int) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "max_steps": total,
        "max_epochs": -1,
        "gradient_clip_val": 1.0,
        "logger": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        # A field may differentiate inside its forward pass, which inference mode forbids for good.
        "inference_mode": False,
        **given,
    }
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        settings.setdefault("devices", 1)
    own = [*callbacks] if settings.get("enable_progress_bar", True) is False else [*callbacks, Bar(total)]
    settings["callbacks"] = [*own, *_listed(given.get("callbacks"))]
    settings["plugins"] = [SafetensorsIO(), *_listed(given.get("plugins"))]
    return settings


def _check_trainer_arguments(given: Mapping[str, Any]) -> None:
    known = set(inspect.signature(pl.Trainer).parameters)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *inspect.signature(fit).parameters], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"fit got {name!r}, which is no argument of fit or of Lightning's Trainer{hint}")


def _total_steps(max_steps: int | None, max_epochs: int | None, batches: int, accumulate: int) -> int:
    for name, value in (("max_steps", max_steps), ("max_epochs", max_epochs)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise ValueError(f"{name} must be a whole number, at least 0; got {value!r}.")
    if batches == 0:
        raise DataError("there is no window to train on: every series is too short for the windows asked for.")
    per_epoch = math.ceil(batches / accumulate)
    limits = [max_steps, None if max_epochs is None else max_epochs * per_epoch]
    return min((limit for limit in limits if limit is not None), default=DEFAULT_STEPS)


def _prepare(folder: Path, resume: bool, fingerprint: str) -> None:
    exists = (folder / CHECKPOINT / "checkpoint.json").exists()
    if resume and not exists:
        raise FileNotFoundError(f"{folder} holds no checkpoint to resume from; leave resume out to start afresh.")
    if exists and not resume:
        raise FileExistsError(f"{folder} holds a training already; pass resume=True to go on, or another folder.")
    if resume:
        state = SafetensorsIO().load_checkpoint(folder / CHECKPOINT)
        stored = state["callbacks"][Keeper.__qualname__]["fingerprint"]
        if stored != fingerprint:
            raise DataError(
                f"the training in {folder} has another fingerprint: the data, the model, the seed or the learning rate "
                "changed since. Resume with what it began with, or start afresh in another folder."
            )
    check_writable(folder)


def _warn_of_long_windows(first: Window) -> None:
    rows, longest = first.context.times.numel(), first.context.times.shape[-1]
    if rows > LONG or longest > LONGEST:
        count = first.context.times.shape[:-1].numel()
        warnings.warn(
            f"a batch holds {count} windows of up to {longest:,} rows, {rows:,} in all, and every step reads them one "
            "after the other: that is slow and takes much memory. Train on stretches, as "
            "windows=Extrapolate(context=..., horizon=...) or Interpolate(length=...), or on fewer at once "
            "(batch_size=).",
            DataWarning,
            stacklevel=3,
        )


def _fingerprint(window: Window, batches: int, model: nn.Module, settings: tuple[Schedule, int, float]) -> str:
    """What a resumed training must have in common with its beginning: the first windows tell the data and the scale."""
    digest = hashlib.sha256(repr((batches, *settings)).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
    for batch in (window.context, window.target):
        given = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
        for name, tensor in ((name, x) for name, x in given.items() if x is not None):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's news about accelerators and tips are not the user's concern; its warnings about errors are."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning(\.|$)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt here as everywhere: Lightning would end the process and stay deaf to the next."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from stop


@contextlib.contextmanager
def _forked_global_seed(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
