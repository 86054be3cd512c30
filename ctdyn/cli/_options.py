"""The options that several commands share. Types, defaults and help of the command line are read from here."""

from dataclasses import dataclass
from typing import Literal


__all__ = ["Architecture", "ModelName", "Names", "Output", "Pairs", "Table", "Training"]

Names = str | list[str] | None
Pairs = str | dict[str, str] | None
ModelName = Literal[
    "latent-ode",
    "latent-sde",
    "ls4",
    "markovian-gp-vae",
    "koopman-vae",
    "kalman-vae",
    "linear-gaussian-ssm",
    "hippo-prophecy",
    "hold-last",
    "linear-interpolation",
    "own-mean",
    "gp",
]


@dataclass(frozen=True)
class Table:
    """Which columns of the file hold what. A run remembers this, so later commands need not repeat it.

    Args:
        id: column that says which series a row belongs to; left out: the file is one series.
        time: column of times: numbers, or dates in ISO 8601.
        values: columns of the channels, as hr,bp; left out: all columns that are not named otherwise. An empty cell
            means not observed.
        variable: long files (a row per observation): column that names the channel.
        value: long files: column of the observation.
        noise: columns of standard errors, one per channel.
        inputs: columns of covariates that are known ahead.
        static: columns that are constant within a series.
        labels: columns of labels, constant within a series; they are no channels.
        start: column of the times at which means or sums begin; the time column is where they end.
        sums: channels that are sums from start to time; they become means per unit of the clock.
        units: the unit of each channel, as hr=1/min,bp=mmHg.
        kinds: the kind of each channel that is not real, as rain=nonnegative,alive=binary.
        time_unit: the unit of the float clock, as hour; for dates the default is chosen from the span.
        duplicates: what becomes of two observations of a channel at one time.
        drop_empty: leave out series without any observation, which are an error otherwise.
    """

    id: str | None = None
    time: str = "time"
    values: Names = None
    variable: str | None = None
    value: str | None = None
    noise: Names = None
    inputs: Names = None
    static: Names = None
    labels: Names = None
    start: str | None = None
    sums: Names = None
    units: Pairs = None
    kinds: Pairs = None
    time_unit: str | None = None
    duplicates: Literal["error", "mean", "first", "last"] = "error"
    drop_empty: bool = False


@dataclass(frozen=True)
class Architecture:
    """The size of the model; what is left out is the model's own default.

    Args:
        latent_size: size of the latent state.
        hidden: hidden layers of the dynamics, as [64,64].
        encoder_size: size of the encoder's hidden state.
        width: width of the state-space layers.
        dt: the step of latent-sde and ls4, where the median training window has length 1; for ls4 the usual gap between
            observations.
    """

    latent_size: int | None = None
    hidden: list[int] | None = None
    encoder_size: int | None = None
    width: int | None = None
    dt: float | None = None


@dataclass(frozen=True)
class Training:
    """How the model is trained.

    Args:
        context: train on windows with this much past (a number on the data's clock, or a length of time as 3D) ...
        horizon: ... and this much future. Left out: gaps are hidden and futures cut at random.
        center: what is subtracted from each channel: the mean of the training data, or that of the series' own past,
            which suits series that drift.
        validation: share of the series that decides when to stop; 0 for none.
        max_steps: optimiser steps at most.
        batch_size: windows per step.
        lr: largest learning rate.
        seed: seed of everything random.
    """

    context: str | float | None = None
    horizon: str | float | None = None
    center: Literal["train", "context"] = "train"
    validation: float = 0.1
    max_steps: int = 2000
    batch_size: int = 64
    lr: float = 5e-3
    seed: int = 0


@dataclass(frozen=True)
class Output:
    """What is written, and where.

    Args:
        out: .csv or .parquet file; left out: CSV on standard output.
        plot: .png file with one panel per series and channel (the first few).
        quantiles: the quantiles to report, as 0.05,0.5,0.95.
        samples: sampled trajectories behind the quantiles.
    """

    out: str | None = None
    plot: str | None = None
    quantiles: str | list[float] = "0.05,0.25,0.5,0.75,0.95"
    samples: int = 200
