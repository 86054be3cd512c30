r"""Exact linear dynamics between any two times, and scans over whole series.

===================  ===========================================================================================
`linear_recurrence`  :math:`h_k = a_k h_{k-1} + b_k` for factors that you have as tensors
`zoh_scan`           the same for :math:`a_k = e^{\lambda \Delta_k}` and a held or impulsive input, at irregular
                     times; coefficients are accurate for every step and never stored
`decay`              :math:`e^{\lambda \Delta}`, elementwise
`held_gain`          :math:`(e^{\lambda \Delta} - 1) / \lambda`, elementwise, with accurate gradients
`BlockedScan`        the scans in plain torch
===================  ===========================================================================================
"""

from ._backends import ScanBackend
from ._blocked import BlockedScan
from ._coefficients import decay, held_gain
from .recurrence import linear_recurrence, zoh_scan


__all__ = ["BlockedScan", "ScanBackend", "decay", "held_gain", "linear_recurrence", "zoh_scan"]
