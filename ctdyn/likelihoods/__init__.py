"""From a latent state to the distribution of an observation: a decoder network and a family, pointwise in time."""

from .base import Likelihood, Located, atoms, entry_log_prob, masked_log_prob
from .bernoulli import Bernoulli
from .categorical import Categorical
from .gaussian import Gaussian
from .gaussian_mixture import GaussianMixture
from .laplace import Laplace
from .log_normal import LogNormal
from .negative_binomial import NegativeBinomial
from .per_kind import PerKind
from .poisson import Poisson
from .poisson_times import PoissonTimes
from .scales import FixedScale, HeteroscedasticScale, LearnedScale, Scale
from .student_t import StudentT
from .zero_inflated import ZeroInflated


__all__ = [
    "Bernoulli",
    "Categorical",
    "FixedScale",
    "Gaussian",
    "GaussianMixture",
    "HeteroscedasticScale",
    "Laplace",
    "LearnedScale",
    "Likelihood",
    "Located",
    "LogNormal",
    "NegativeBinomial",
    "PerKind",
    "Poisson",
    "PoissonTimes",
    "Scale",
    "StudentT",
    "ZeroInflated",
    "atoms",
    "entry_log_prob",
    "masked_log_prob",
]
