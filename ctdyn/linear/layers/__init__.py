r"""Sequence layers around exact linear dynamics: whole series on clocks of their own, or one observation at a time.

==================== ===========================================================================================
`SequenceLayer`      the contract: `scan`, `step` (equal to the scan, at constant cost) and `flow` between times
`LayerState`         what is carried from one call to the next
`StateSpaceLayer`    clocks, holds, resets, tiles and single steps for a layer that says how its state marches
`DiagonalLayer`      the same for a diagonal system, by one fused scan
`S5`                 one diagonal system of many inputs and outputs
`s4d_lin` ...        spectra to begin with: `s4d_lin`, `s4d_inv`, `s4d_legs`, `legs_normal`; and steps: `log_uniform`
==================== ===========================================================================================
"""

from .base import LayerState, SequenceLayer, StateSpaceLayer
from .diagonal import DiagonalLayer
from .initialization import legs_normal, log_uniform, s4d_inv, s4d_legs, s4d_lin
from .s5 import S5


__all__ = [
    "S5",
    "DiagonalLayer",
    "LayerState",
    "SequenceLayer",
    "StateSpaceLayer",
    "legs_normal",
    "log_uniform",
    "s4d_inv",
    "s4d_legs",
    "s4d_lin",
]
