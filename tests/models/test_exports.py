"""Every exported model keeps the contract; a new export without a line here fails."""

import inspect

import pytest
import torch
from torch import nn

from ctdyn import models
from ctdyn.cells import GRUODEBayesCell
from ctdyn.data.channels import Channel
from ctdyn.encoders import GRUEncoder
from ctdyn.fields import MLPField
from ctdyn.integrate import ConstantStep
from ctdyn.likelihoods import Gaussian
from ctdyn.models import (
    LS4,
    FilteringModel,
    HippoProphecy,
    HoldLast,
    KalmanVAE,
    KoopmanVAE,
    LatentODE,
    LatentSDE,
    LatentVAE,
    LinearGaussianSSM,
    LinearInterpolation,
    MarkovianGPVAE,
    MaternGP,
    MaximumLikelihood,
    Model,
    OwnMean,
    Recalibrated,
    Reencoded,
    Refined,
    SideBySide,
)
from ctdyn.processes import ODEProcess
from ctdyn.solvers import RK4
from ctdyn.testing import check_model, example_window


CHANNELS = (Channel("a"), Channel("b"))


def _latent_vae() -> LatentVAE:
    process = ODEProcess(MLPField(3, hidden=(8,)), 3, learned_prior=True, solver=RK4(), controller=ConstantStep(0.25))
    return LatentVAE(CHANNELS, GRUEncoder(2, 3, 6), process, Gaussian(3, 2))


def _latent_sde() -> LatentSDE:
    model = LatentSDE(CHANNELS, 3, (8,), encoder_size=6, dt=0.25)
    # As long as the correction is zero, as it is at the start, no gradient reaches what it reads.
    nn.init.normal_(model.process.correction.layers[-1].weight)
    return model


MODELS = {
    "FilteringModel": lambda: FilteringModel(CHANNELS, GRUODEBayesCell(2, 6)),
    "HippoProphecy": lambda: HippoProphecy(CHANNELS),
    "HoldLast": lambda: HoldLast(CHANNELS),
    "KalmanVAE": lambda: KalmanVAE(CHANNELS, 2, 3, encoder_hidden=(8,), decoder_hidden=(8,)),
    "KoopmanVAE": lambda: KoopmanVAE(CHANNELS, 2, encoder_hidden=(8,), decoder_hidden=(8,)),
    "LS4": lambda: LS4(CHANNELS, 2, 6, 1, dt=0.25, decoder_hidden=(8,)),
    "LatentODE": lambda: LatentODE(CHANNELS, 3, (8,), encoder_size=6, controller=ConstantStep(0.25)),
    "LatentSDE": _latent_sde,
    "LatentVAE": _latent_vae,
    "LinearGaussianSSM": lambda: LinearGaussianSSM(CHANNELS, 2, fitting=MaximumLikelihood(max_steps=10)),
    "LinearInterpolation": lambda: LinearInterpolation(CHANNELS),
    "MarkovianGPVAE": lambda: MarkovianGPVAE(CHANNELS, 3, encoder_hidden=(8,), decoder_hidden=(8,)),
    "MaternGP": lambda: MaternGP(CHANNELS),
    "OwnMean": lambda: OwnMean(CHANNELS),
    "Recalibrated": lambda: Recalibrated(MaternGP(CHANNELS)),
    "Reencoded": lambda: Reencoded(_latent_vae(), every=0.3),
    "Refined": lambda: Refined(_latent_vae(), steps=2, num_samples=1),
    "SideBySide": lambda: SideBySide([MaternGP(CHANNELS[:1]), HoldLast(CHANNELS[1:])]),
}


#: Models that label a series and do not continue it; their contract is checked in test_sequence.py.
LABELLING = {"SequenceModel"}


def test_every_exported_model_is_checked():
    exported = {name: getattr(models, name) for name in models.__all__}
    concrete = {
        name
        for name, x in exported.items()
        if isinstance(x, type) and issubclass(x, Model) and not inspect.isabstract(x)
    }
    assert concrete == set(MODELS) | LABELLING


@pytest.mark.parametrize("name", MODELS)
def test_contract(name):
    check_model(MODELS[name](), example_window(2))


#: Answers that are made of residuals of the training, which hold such errors already.
RESIDUAL = {"HippoProphecy", "HoldLast", "LinearInterpolation", "OwnMean"}


@pytest.mark.parametrize("name", MODELS)
def test_a_known_error_widens_an_answer_and_moves_no_mean(name):
    model, window = MODELS[name]().double().eval(), example_window(2)
    ts = window.target.times
    plain, noisy = (
        model.predict(window.context, ts, noise=noise, num_samples=3, generator=torch.Generator().manual_seed(0))
        for noise in (None, torch.full((*ts.shape, 2), 0.7, dtype=torch.float64))
    )
    torch.testing.assert_close(noisy.mean, plain.mean)
    grown = noisy.distribution.variance - plain.distribution.variance
    if name == "SideBySide":
        grown, still = grown[..., :1], grown[..., 1:]
        torch.testing.assert_close(still, torch.zeros_like(still))
    if name == "Recalibrated":
        assert bool((grown > 0).all())
    else:
        torch.testing.assert_close(grown, torch.full_like(grown, 0.0 if name in RESIDUAL else 0.49))
