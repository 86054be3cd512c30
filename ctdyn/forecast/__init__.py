"""Answers: a model fitted to your series, asked at any time, in your units and on your clock."""

from .forecaster import Forecaster
from .result import Forecast
from .saving import load


__all__ = ["Forecast", "Forecaster", "load"]
