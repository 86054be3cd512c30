"""Fields: the right-hand sides of differential equations. Bring your own by subclassing one of the contracts.

`VectorField` is any ordinary equation; a `DecayField` or a `SecondOrderField` says more of itself, and methods use it.
`SDEField` is driven by noise, `CDEField` by a control path; an `ExactCDEField` needs no steps along straight lines. A
`Transition` is given by its answer, not by its velocity.
"""

from .augment import Augment
from .base import CDEField, DecayField, ExactCDEField, SDEField, SecondOrderField, Transition, VectorField
from .cde import LinearCDEField, MLPCDEField
from .cfc import CfCMode, CfCTransition
from .ct_rnn import CTRNNField
from .geometric_sde import GeometricSDEField
from .gru_ode import GRUODEField
from .hamiltonian import HamiltonianField, SeparableHamiltonianField
from .lagrangian import LagrangianField
from .langevin_sde import LangevinSDEField
from .linear import LinearField
from .linear_noise_sde import LinearNoiseSDEField
from .log_ode import LogODEField
from .ltc import LTCField
from .mlp import MLPField
from .mlp_sde import MLPSDEField
from .scaled import Scaled
from .second_order import AccelerationField, ForceField
from .timed import BlendTime, ConcatSquashTime, ConcatTime, HyperTime, IgnoreTime, SquashTime, TimedLayer
from .wired_cfc import WiredCfCTransition


__all__ = [
    "AccelerationField",
    "Augment",
    "BlendTime",
    "CDEField",
    "CTRNNField",
    "CfCMode",
    "CfCTransition",
    "ConcatSquashTime",
    "ConcatTime",
    "DecayField",
    "ExactCDEField",
    "ForceField",
    "GRUODEField",
    "GeometricSDEField",
    "HamiltonianField",
    "HyperTime",
    "IgnoreTime",
    "LTCField",
    "LagrangianField",
    "LangevinSDEField",
    "LinearCDEField",
    "LinearField",
    "LinearNoiseSDEField",
    "LogODEField",
    "MLPCDEField",
    "MLPField",
    "MLPSDEField",
    "SDEField",
    "Scaled",
    "SecondOrderField",
    "SeparableHamiltonianField",
    "SquashTime",
    "TimedLayer",
    "Transition",
    "VectorField",
    "WiredCfCTransition",
]
