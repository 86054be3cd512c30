r"""Sequence layers around exact linear dynamics: whole series on clocks of their own, or one observation at a time.

==================== ===========================================================================================
`SequenceLayer`      the contract: `scan`, `step` (equal to the scan, at constant cost) and `flow` between times
`LayerState`         what is carried from one call to the next
`StateSpaceLayer`    clocks, holds, resets, tiles and single steps for a layer that says how its state marches
`DiagonalLayer`      the same for a diagonal system, by one fused scan
`ChannelwiseLayer`   the same for one system per channel, by a convolution where times are regular:
                     `DiagonalChannels`, and `CoupledChannels` for a full matrix
`S5`                 one diagonal system of many inputs and outputs
`S4D`                a diagonal system per channel
`DSSExp`             the same with shared eigenvalues; `DSSSoftmax` normalizes them over a horizon
`S4`                 a diagonal plus rank one, which is HiPPO-LegS itself; with the paper's kernel for regular grids
`LSSL`               any linear dynamics per channel
`Bidirectional`      two layers, one of which reads backward
`Spectrum`           eigenvalues to begin with: `LegSSpectrum`, `InvSpectrum`, `LinSpectrum`; `legs_normal`, and steps
                     that are `log_uniform`
==================== ===========================================================================================
"""

from .base import LayerState, SequenceLayer, StateSpaceLayer
from .bidirectional import Bidirectional
from .channelwise import ChannelwiseLayer, DiagonalChannels
from .coupled import CoupledChannels
from .diagonal import DiagonalLayer
from .dss import DSSExp, DSSSoftmax
from .initialization import InvSpectrum, LegSSpectrum, LinSpectrum, Spectrum, legs_normal, log_uniform
from .lssl import LSSL
from .s4 import S4
from .s4d import S4D
from .s5 import S5


__all__ = [
    "LSSL",
    "S4",
    "S4D",
    "S5",
    "Bidirectional",
    "ChannelwiseLayer",
    "CoupledChannels",
    "DSSExp",
    "DSSSoftmax",
    "DiagonalChannels",
    "DiagonalLayer",
    "InvSpectrum",
    "LayerState",
    "LegSSpectrum",
    "LinSpectrum",
    "SequenceLayer",
    "Spectrum",
    "StateSpaceLayer",
    "legs_normal",
    "log_uniform",
]
