"""What can be added to the loss of a latent-variable model: penalties and second tasks."""

from .base import Inference, LossTerm
from .linear_prior import LinearPriorPenalty
from .representation import RepresentationTerm
from .supervision import Supervision


__all__ = ["Inference", "LinearPriorPenalty", "LossTerm", "RepresentationTerm", "Supervision"]
