"""Hidden states that flow between observations and jump at them."""

from .base import Cell
from .lem import LEMCell
from .ode_rnn import ODERNNCell


__all__ = ["Cell", "LEMCell", "ODERNNCell"]
