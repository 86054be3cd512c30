"""Paths: functions of time, one per series, that drive a field or come out of a solve.

Through given values: `LinearPath`, `HermitePath` (smooth, slopes from the past), `NaturalCubicPath` (smoothest, knows
the future), `RectilinearPath` (never looks ahead); `ConstantPath` stands still. Missing values: `fill_linear`,
`fill_forward`. A rough path in short, over windows: `LogSignaturePath`.
"""

from .base import Path
from .constant import ConstantPath
from .cubic import NaturalCubicPath
from .hermite import HermitePath
from .linear import LinearPath
from .missing import fill_forward, fill_linear
from .rectilinear import RectilinearPath
from .signature import LogSignaturePath, log_signature, log_signature_size, signature


__all__ = [
    "ConstantPath",
    "HermitePath",
    "LinearPath",
    "LogSignaturePath",
    "NaturalCubicPath",
    "Path",
    "RectilinearPath",
    "fill_forward",
    "fill_linear",
    "log_signature",
    "log_signature_size",
    "signature",
]
