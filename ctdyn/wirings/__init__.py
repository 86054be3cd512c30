"""Wirings: which neuron of a liquid network listens to which, and with what sign.

A wiring is a value: it can be given to any number of models, which all get the same synapses, and it stays as it is.
"""

from .auto_ncp import AutoNCP
from .base import Circuit, Wiring
from .fully_connected import FullyConnected
from .ncp import NCP
from .random import Random


__all__ = ["NCP", "AutoNCP", "Circuit", "FullyConnected", "Random", "Wiring"]
