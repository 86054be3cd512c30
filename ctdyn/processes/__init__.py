"""Latent dynamics with a prior and a posterior."""

from .base import IntegratingProcess, LatentProcess, LatentSample
from .categorical import CategoricalProcess
from .gaussian_sites import LinearGaussianProcess
from .joint import JointProcess
from .ode import ODEProcess
from .sde import SDEProcess
from .sde_matching import MatchedSDEProcess
from .sequence import SequenceProcess
from .static import StaticProcess


__all__ = [
    "CategoricalProcess",
    "IntegratingProcess",
    "JointProcess",
    "LatentProcess",
    "LatentSample",
    "LinearGaussianProcess",
    "MatchedSDEProcess",
    "ODEProcess",
    "SDEProcess",
    "SequenceProcess",
    "StaticProcess",
]
