"""Latent dynamics with a prior and a posterior."""

from .base import LatentProcess, LatentSample
from .ode import ODEProcess


__all__ = ["LatentProcess", "LatentSample", "ODEProcess"]
