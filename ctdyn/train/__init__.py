"""Training by gradient steps, on Lightning's Trainer; nothing else in the library knows Lightning."""

from ._keeping import SafetensorsIO
from ._loop import fit
from .schedules import Cosine, Exponential, Schedule


__all__ = ["Cosine", "Exponential", "SafetensorsIO", "Schedule", "fit"]
