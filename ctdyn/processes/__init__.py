"""Latent dynamics with a prior and a posterior."""

from .base import LatentProcess, LatentSample
from .gaussian_sites import LinearGaussianProcess
from .ode import ODEProcess


__all__ = ["LatentProcess", "LatentSample", "LinearGaussianProcess", "ODEProcess"]
