"""Paths: functions of time, one per series, that drive a field or come out of a solve."""

from .base import Path


__all__ = ["Path"]
