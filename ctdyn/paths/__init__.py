"""Paths: functions of time, one per series, that drive a field or come out of a solve.

Through given values: `LinearPath`, `HermitePath` (smooth, slopes from the past), `NaturalCubicPath` (smoothest, knows
the future), `RectilinearPath` (never looks ahead); `ConstantPath` stands still. Missing values: `fill_linear`,
`fill_forward`. From observations with gaps to the control of a neural CDE, and no look ahead where none is allowed:
`Control`. A rough path in short, over windows: `LogSignaturePath`. Brownian motion that answers the same twice:
`StoredBrownian` and `VirtualBrownianTree`.
"""

from .base import Path
from .brownian import Brownian, StoredBrownian, VirtualBrownianTree
from .constant import ConstantPath
from .control import Control
from .cubic import NaturalCubicPath
from .hermite import HermitePath
from .linear import LinearPath
from .missing import fill_forward, fill_linear
from .rectilinear import RectilinearPath
from .signature import LogSignaturePath, log_signature, log_signature_size, signature


__all__ = [
    "Brownian",
    "ConstantPath",
    "Control",
    "HermitePath",
    "LinearPath",
    "LogSignaturePath",
    "NaturalCubicPath",
    "Path",
    "RectilinearPath",
    "StoredBrownian",
    "VirtualBrownianTree",
    "fill_forward",
    "fill_linear",
    "log_signature",
    "log_signature_size",
    "signature",
]
