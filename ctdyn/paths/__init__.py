"""Paths: functions of time, one per series, that drive a field or come out of a solve."""

from .base import Path
from .constant import ConstantPath
from .hermite import HermitePath
from .linear import LinearPath


__all__ = ["ConstantPath", "HermitePath", "LinearPath", "Path"]
