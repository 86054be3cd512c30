"""Irregular series: from a frame to the tensors of a model, and back."""

from .arrays import from_padded, from_ragged
from .batch import IrregularBatch, Window
from .channels import Channel
from .clock import TimeAxis
from .collate import collate, pad
from .describe import Description, describe
from .frames import from_pandas
from .loader import WindowLoader, loader
from .scaling import Scaler, Standardize, Statistics, Units
from .series import Series
from .series_set import Intake, SeriesSet
from .storage import co2, read, write_csv, write_parquet
from .windows import AnyOf, Extrapolate, Interpolate, OneStep, Reconstruct, TimeWarp, WindowMaker


__all__ = [
    "AnyOf",
    "Channel",
    "Description",
    "Extrapolate",
    "Intake",
    "Interpolate",
    "IrregularBatch",
    "OneStep",
    "Reconstruct",
    "Scaler",
    "Series",
    "SeriesSet",
    "Standardize",
    "Statistics",
    "TimeAxis",
    "TimeWarp",
    "Units",
    "Window",
    "WindowLoader",
    "WindowMaker",
    "co2",
    "collate",
    "describe",
    "from_padded",
    "from_pandas",
    "from_ragged",
    "loader",
    "pad",
    "read",
    "write_csv",
    "write_parquet",
]
