"""What a latent-variable model maximises: bounds on the log evidence, in nats per series."""

from .base import Anneal, Objective
from .capacity import CapacityELBO
from .elbo import ELBO
from .iwae import IWAE


__all__ = ["ELBO", "IWAE", "Anneal", "CapacityELBO", "Objective"]
