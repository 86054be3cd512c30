"""From a latent state to the distribution of an observation: a decoder network and a family, pointwise in time."""

from .base import Likelihood, entry_log_prob, masked_log_prob
from .bernoulli import Bernoulli
from .gaussian import Gaussian
from .per_kind import PerKind
from .scales import FixedScale, HeteroscedasticScale, LearnedScale, Scale
from .student_t import StudentT


__all__ = [
    "Bernoulli",
    "FixedScale",
    "Gaussian",
    "HeteroscedasticScale",
    "LearnedScale",
    "Likelihood",
    "PerKind",
    "Scale",
    "StudentT",
    "entry_log_prob",
    "masked_log_prob",
]
