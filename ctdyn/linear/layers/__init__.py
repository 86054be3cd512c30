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
`LRU`                one diagonal system whose inputs are normalized kicks
`Selective`          a system per channel whose clock, inputs and outputs depend on what it reads (Mamba)
`Hierarchical`       a layer over windows of time, each of them read by another layer
`SequenceStack`      residual blocks around layers, itself a layer
`Decay`              how eigenvalues stay stable while they learn: `ExpDecay`, `SoftplusDecay`, `RationalDecay`
                     (StableSSM), `S7Decay`, and `Polarized` for states that never forget, or remember nothing
`Bidirectional`      two layers, one of which reads backward
`Spectrum`           eigenvalues to begin with: `LegSSpectrum`, `InvSpectrum`, `LinSpectrum`; `legs_normal`, and steps
                     that are `log_uniform`
==================== ===========================================================================================
"""

from .base import LayerState, SequenceLayer, StateSpaceLayer
from .bidirectional import Bidirectional
from .channelwise import ChannelwiseLayer, DiagonalChannels
from .coupled import CoupledChannels
from .decays import Decay, ExpDecay, Polarized, RationalDecay, S7Decay, SoftplusDecay
from .diagonal import DiagonalLayer
from .dss import DSSExp, DSSSoftmax
from .hierarchical import Hierarchical
from .initialization import InvSpectrum, LegSSpectrum, LinSpectrum, Spectrum, legs_normal, log_uniform
from .lru import LRU
from .lssl import LSSL
from .s4 import S4
from .s4d import S4D
from .s5 import S5
from .selective import Selective
from .stack import SequenceStack


__all__ = [
    "LRU",
    "LSSL",
    "S4",
    "S4D",
    "S5",
    "Bidirectional",
    "ChannelwiseLayer",
    "CoupledChannels",
    "DSSExp",
    "DSSSoftmax",
    "Decay",
    "DiagonalChannels",
    "DiagonalLayer",
    "ExpDecay",
    "Hierarchical",
    "InvSpectrum",
    "LayerState",
    "LegSSpectrum",
    "LinSpectrum",
    "Polarized",
    "RationalDecay",
    "S7Decay",
    "Selective",
    "SequenceLayer",
    "SequenceStack",
    "SoftplusDecay",
    "Spectrum",
    "StateSpaceLayer",
    "legs_normal",
    "log_uniform",
]
