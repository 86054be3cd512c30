r"""Exact linear dynamics between any two times, and scans over whole series.

==================== ===========================================================================================
`linear_recurrence`  :math:`h_k = a_k h_{k-1} + b_k` for factors that you have as tensors
`zoh_scan`           the same for :math:`a_k = e^{\lambda \Delta_k}` and a held or impulsive input, at irregular
                     times; coefficients are accurate for every step and never stored
`over_tiles`         a layer around a scan in tiles of times, remade in the backward pass: the memory of one tile
`nonlinear_recurrence`
                     :math:`h_k = f(h_{k-1}, x_k)` for all times at once, by Newton's method (`NewtonScan`)
`follow_control`     linear controlled equations along straight lines of their control, exactly
`decay`              :math:`e^{\lambda \Delta}`, elementwise
`held_gain`          :math:`(e^{\lambda \Delta} - 1) / \lambda`, elementwise, with accurate gradients
`causal_convolution` the same on a regular grid by FFT, with `exponential_kernel` of a diagonal system
`CompiledScan`       the scans on a CPU at the speed of its memory, by numba (`pip install ctdyn[fast]`); used by itself
                     where numba is installed
`TritonScan`         the scans on a CUDA device; used by itself there
`BlockedScan`        the scans in plain torch, anywhere; what a `ScanBackend` must do
`LinearDynamics`     what can be discretized, scanned and stepped exactly: `Diagonal`, `Rotations`, `Dense`, `OU`,
                     `Matern`, `Oscillators`, `Periodic`, `HippoLegS`, `HippoLegT`, `HippoLagT`, `SumDynamics`,
                     `ProductDynamics`; with an integral of its readings, `IntegratedDynamics`
`Hold`               what an input does between its times: `HeldBefore`, `HeldAfter`, `Impulse`, `Ramp`
`phi1`, `phi2` ...   the functions that carry an input over a step
`SeriesMemory`       the past of irregular series as HiPPO coefficients: a feature without parameters
`LinearGaussian`     dynamics observed with noise: filter, smoother, forecasts, samples, likelihood
`StationaryPath`     a trajectory of stationary dynamics as a value: asked twice, it answers the same
`Chain`              the same written out over its steps, for transitions that come from elsewhere; `Solved` is what the
                     filter and the smoother make of it
`maximum_likelihood` fits its parameters; so does `expectation_maximisation`
`fit_transition`     the linear map between states a step apart (dynamic mode decomposition)
`layers`             sequence layers on all this: S5, S4D, S4 ...; by a scan or one observation at a time
==================== ===========================================================================================
"""

from . import layers
from ._backends import ScanBackend
from ._blocked import BlockedScan
from ._coefficients import decay, held_gain
from ._compiled import CompiledScan
from ._triton import TritonScan
from .chain import Chain, Solved
from .combined import ProductDynamics, SumDynamics
from .convolution import causal_convolution, exponential_kernel
from .dense import Dense, MatrixDynamics
from .diagonal import OU, Diagonal, Rotations
from .distribution import Gaussian
from .dynamics import Discretization, LinearDynamics
from .fitting import expectation_maximisation, maximum_likelihood
from .following import follow_control
from .gaussian import LinearGaussian
from .hippo import HippoLagT, HippoLegS, HippoLegT, legs_matrices
from .holds import HeldAfter, HeldBefore, Hold, Impulse, Ramp
from .integrated import IntegratedDynamics
from .matern import Matern
from .memory import SeriesMemory
from .newton import NewtonScan, NonlinearScan, nonlinear_recurrence
from .oscillators import Oscillators
from .periodic import Periodic
from .phi import phi1, phi2, phi3
from .recurrence import linear_recurrence, zoh_scan
from .stationary import Stationary
from .stationary_path import StationaryPath
from .tiling import over_tiles
from .transition import fit_transition


__all__ = [
    "OU",
    "BlockedScan",
    "Chain",
    "CompiledScan",
    "Dense",
    "Diagonal",
    "Discretization",
    "Gaussian",
    "HeldAfter",
    "HeldBefore",
    "HippoLagT",
    "HippoLegS",
    "HippoLegT",
    "Hold",
    "Impulse",
    "IntegratedDynamics",
    "LinearDynamics",
    "LinearGaussian",
    "Matern",
    "MatrixDynamics",
    "NewtonScan",
    "NonlinearScan",
    "Oscillators",
    "Periodic",
    "ProductDynamics",
    "Ramp",
    "Rotations",
    "ScanBackend",
    "SeriesMemory",
    "Solved",
    "Stationary",
    "StationaryPath",
    "SumDynamics",
    "TritonScan",
    "causal_convolution",
    "decay",
    "expectation_maximisation",
    "exponential_kernel",
    "fit_transition",
    "follow_control",
    "held_gain",
    "layers",
    "legs_matrices",
    "linear_recurrence",
    "maximum_likelihood",
    "nonlinear_recurrence",
    "over_tiles",
    "phi1",
    "phi2",
    "phi3",
    "zoh_scan",
]
