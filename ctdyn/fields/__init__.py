"""Fields: the right-hand sides of differential equations. Bring your own by subclassing one of the contracts.

`VectorField` is any ordinary equation; a `DecayField` or a `SecondOrderField` says more of itself, and methods use it.
`SDEField` is driven by noise, `CDEField` by a control path.
"""

from .base import CDEField, DecayField, SDEField, SecondOrderField, VectorField
from .cde import LinearCDEField, MLPCDEField
from .ct_rnn import CTRNNField
from .gru_ode import GRUODEField
from .linear import LinearField
from .ltc import LTCField
from .mlp import MLPField


__all__ = [
    "CDEField",
    "CTRNNField",
    "DecayField",
    "GRUODEField",
    "LTCField",
    "LinearCDEField",
    "LinearField",
    "MLPCDEField",
    "MLPField",
    "SDEField",
    "SecondOrderField",
    "VectorField",
]
