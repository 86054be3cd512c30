"""Hidden states that flow between observations and jump at them."""

from .base import Cell
from .cfc import CfCCell
from .cru import CRUCell
from .gru_d import GRUDCell
from .gru_ode_bayes import GRUODEBayesCell
from .held import HeldCell
from .lem import LEMCell
from .ltc import LTCCell
from .ncps import load_ncps
from .ode_lstm import ODELSTMCell
from .ode_rnn import ODERNNCell


__all__ = [
    "CRUCell",
    "Cell",
    "CfCCell",
    "GRUDCell",
    "GRUODEBayesCell",
    "HeldCell",
    "LEMCell",
    "LTCCell",
    "ODELSTMCell",
    "ODERNNCell",
    "load_ncps",
]
