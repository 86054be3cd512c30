"""Hidden states that flow between observations and jump at them."""

from .base import Cell
from .cru import CRUCell
from .gru_d import GRUDCell
from .gru_ode_bayes import GRUODEBayesCell
from .lem import LEMCell
from .ode_rnn import ODERNNCell


__all__ = ["CRUCell", "Cell", "GRUDCell", "GRUODEBayesCell", "LEMCell", "ODERNNCell"]
