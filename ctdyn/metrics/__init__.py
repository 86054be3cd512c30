"""Scores of probabilistic forecasts: errors, proper scores, calibration, and how each depends on the gap.

The pure functions work on flat numpy arrays: one entry per observed value, samples along the first axis. `evaluate`
applies them to a forecast and returns one tidy frame.
"""

from .attractors import StateDivergence, state_divergence
from .averages import average_per_channel, average_per_series_and_channel, average_pooled
from .evaluation import Forecasted, evaluate, score_entries, summarize
from .scores import coverage, crps, distance_to_nearest, interval, interval_score, pit, quantiles, worst_coverage


__all__ = [
    "Forecasted",
    "StateDivergence",
    "average_per_channel",
    "average_per_series_and_channel",
    "average_pooled",
    "coverage",
    "crps",
    "distance_to_nearest",
    "evaluate",
    "interval",
    "interval_score",
    "pit",
    "quantiles",
    "score_entries",
    "state_divergence",
    "summarize",
    "worst_coverage",
]
