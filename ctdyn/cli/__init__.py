"""The `ctdyn` command: describe, fit, interpolate, forecast, evaluate and demo, on CSV and parquet files."""

from ._main import main


__all__ = ["main"]
