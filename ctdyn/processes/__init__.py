"""Latent dynamics with a prior and a posterior."""

from .base import LatentProcess, LatentSample
from .gaussian_sites import LinearGaussianProcess
from .ode import ODEProcess
from .sde import SDEProcess
from .sde_matching import MatchedSDEProcess
from .sequence import SequenceProcess


__all__ = [
    "LatentProcess",
    "LatentSample",
    "LinearGaussianProcess",
    "MatchedSDEProcess",
    "ODEProcess",
    "SDEProcess",
    "SequenceProcess",
]
