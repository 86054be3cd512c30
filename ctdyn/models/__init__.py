"""Models of irregular series, and what they are trained on.

| name | paper | parts | tasks |
|---|---|---|---|
| `LatentODE` | Chen et al. 2018; Rubanova et al. 2019 | GRU encoder, ODE, affine decoder | fill, forecast, generate |
| `LatentSDE` | Li et al. 2020; Bartosh et al. 2025 | context encoder, SDE, affine decoder | fill, forecast, generate |
| `LS4` | Zhou et al. 2023 | S5 encoder, autoregressive sequence, S5 decoder | fill, forecast, generate |
| `MarkovianGPVAE` | Zhu et al. 2023 | per-point sites, Matern processes, perceptron decoder | fill, generate |
| `KalmanVAE` | Fraccaro et al. 2017 | per-point sites, linear dynamics, perceptron decoder | fill, forecast, generate |
| `KoopmanVAE` | Naiman et al. 2024 | per-point sites, oscillators, perceptron decoder | fill, forecast, generate |
| `LatentVAE` | the composition behind it | any encoder, process, likelihood and objective | those of its parts |
| `Refined` | Kim et al. 2018; Ahmadi, Tani 2019 | a `LatentVAE`, its posterior improved | those of its model |
| `Reencoded` | Fathi et al. 2024 | a `LatentVAE`, its forecasts encoded again on the way | fill, forecast |
| `FilteringModel` | De Brouwer et al. 2019; Schirmer et al. 2022 | any cell, heteroscedastic decoder | forecast |
| `SequenceModel` | Kidger et al. 2020; Walker et al. 2025 | any encoder, labels | classes, numbers |
| `LinearGaussianSSM` | Hartikainen, Sarkka 2010 | Matern processes that all channels read | fill, forecast, generate |
| `SideBySide` | - | models of some channels each | fill, forecast |
| `Recalibrated` | Gneiting et al. 2005; Shah et al. 2014 | a closed-form model, its spread corrected | fill, forecast |
| `HoldLast` | - | the last observation | baseline |
| `LinearInterpolation` | - | a line between neighbours | baseline |
| `OwnMean` | - | the mean of the context | baseline |
| `MaternGP` | Rasmussen, Williams 2006 | a Gaussian process with a Matern-3/2 kernel per channel | baseline |
| `HippoProphecy` | Arangath Joseph et al. 2024 | a HiPPO memory per channel, carried on | baseline |
"""

from .base import Aggregates, Encodes, ExactlyFitted, Generative, Labels, Loss, Model, Predictive, Scorable
from .baselines import Baseline, HoldLast, LinearInterpolation, MaternGP, OwnMean, PointBaseline
from .filtering import FilteringModel
from .kalman_vae import KalmanVAE
from .koopman_vae import KoopmanVAE
from .latent_ode import LatentODE
from .latent_sde import LatentSDE
from .latent_vae import LatentVAE
from .linear_gaussian import ExpectationMaximisation, Fitting, LinearGaussianSSM, MaximumLikelihood
from .ls4 import LS4
from .markovian_gp_vae import MarkovianGPVAE
from .objectives import ELBO, IWAE, Anneal, CapacityELBO, Objective
from .prophecy import HippoProphecy
from .recalibrated import Recalibrated
from .reencoded import Reencoded
from .refined import Refined
from .representation import InformationScore, RelaxedScore, RepresentationScore, VAMPScore
from .sequence import SequenceModel
from .side_by_side import SideBySide
from .spectrum import Spectral, Spectrum
from .terms import Inference, LinearPriorPenalty, LossTerm, RepresentationTerm, Supervision


__all__ = [
    "ELBO",
    "IWAE",
    "LS4",
    "Aggregates",
    "Anneal",
    "Baseline",
    "CapacityELBO",
    "Encodes",
    "ExactlyFitted",
    "ExpectationMaximisation",
    "FilteringModel",
    "Fitting",
    "Generative",
    "HippoProphecy",
    "HoldLast",
    "Inference",
    "InformationScore",
    "KalmanVAE",
    "KoopmanVAE",
    "Labels",
    "LatentODE",
    "LatentSDE",
    "LatentVAE",
    "LinearGaussianSSM",
    "LinearInterpolation",
    "LinearPriorPenalty",
    "Loss",
    "LossTerm",
    "MarkovianGPVAE",
    "MaternGP",
    "MaximumLikelihood",
    "Model",
    "Objective",
    "OwnMean",
    "PointBaseline",
    "Predictive",
    "Recalibrated",
    "Reencoded",
    "Refined",
    "RelaxedScore",
    "RepresentationScore",
    "RepresentationTerm",
    "Scorable",
    "SequenceModel",
    "SideBySide",
    "Spectral",
    "Spectrum",
    "Supervision",
    "VAMPScore",
]
