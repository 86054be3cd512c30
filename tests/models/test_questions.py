"""What every model looks at before it answers: times, channels, intervals, errors, and how many samples."""

import re

import jaxtyping
import pytest
import torch

from ctdyn.cells import GRUDCell
from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.models import (
    Encodes,
    FilteringModel,
    HippoProphecy,
    HoldLast,
    KoopmanVAE,
    LatentODE,
    LinearGaussianSSM,
    MaternGP,
    Recalibrated,
    Refined,
)


CHANNELS = (Channel("x"),)


@pytest.fixture(autouse=True)
def _without_runtime_types(monkeypatch):
    """What a user sees: the types that the tests check at run time are not checked outside of them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def _batch(*batch, length=3):
    times = torch.linspace(0.0, 1.0, length).expand(*batch, length)
    values = torch.sin(times).unsqueeze(-1)
    return IrregularBatch(times, values, torch.ones_like(values, dtype=torch.bool))


@pytest.mark.parametrize("model", [LatentODE(CHANNELS, 2), Refined(KoopmanVAE(CHANNELS, 1)), HoldLast(CHANNELS)])
def test_questions_that_no_model_can_answer(model):
    context, ts = _batch(2), torch.rand(2, 3)
    for wrong in (ts[0], ts[:1], ts[None]):
        with pytest.raises(ValueError, match=re.escape(f"batch axes (2,) of the context; got {tuple(wrong.shape)}")):
            model.predict(context, wrong)
    with pytest.raises(ValueError, match="num_samples must be at least 1; got 0"):
        model.predict(context, ts, num_samples=0)
    assert model.predict(context, ts=ts[0].expand(2, -1), num_samples=1).mean.shape == (2, 3, 1)


@pytest.mark.parametrize("model", [LatentODE(CHANNELS, 2), LinearGaussianSSM(CHANNELS, 1), HoldLast(CHANNELS)])
def test_what_a_model_is_asked_with_is_looked_at(model):
    context, ts = _batch(2), torch.rand(2, 3)
    for ask, message in (
        (lambda: model.loss(context), r"window must be an instance of Window, .*got a IrregularBatch"),
        (lambda: model.predict(Window(context, context), ts), "context must be an instance of IrregularBatch"),
        (lambda: model.predict(context, [0.5, 1.0]), "ts must be an instance of Tensor"),
        (lambda: model.predict(context, ts, generator=0), r"generator must be .*manual_seed\(0\); got 0"),
        (lambda: model.predict(context, ts, num_samples=2.5), "num_samples must be a whole number"),
    ):
        with pytest.raises(TypeError, match=message):
            ask()
    for noise in (torch.ones(1), torch.ones(2, 4, 1), -torch.ones(2, 3, 1), torch.full((2, 3, 1), torch.nan)):
        with pytest.raises(ValueError, match=r"noise must be .* \(2, 3, 1\), and nowhere negative or NaN"):
            model.predict(context, ts, noise=noise)
    model.predict(context, ts, noise=None, generator=None, num_samples=2)


@pytest.mark.parametrize(
    "model",
    [LatentODE(CHANNELS, 2), FilteringModel(CHANNELS, GRUDCell(1, 2)), MaternGP(CHANNELS), HoldLast(CHANNELS)],
)
def test_no_model_answers_at_no_time(model):
    for never in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="ts holds NaN or infinite entries"):
            model.predict(_batch(2), torch.tensor([[0.5, never]]).expand(2, -1))


@pytest.mark.parametrize("model", [LinearGaussianSSM(CHANNELS, 1), LatentODE(CHANNELS, 2)])
def test_an_interval_that_is_asked_for_begins_before_it_ends(model):
    context, ts = _batch(2), torch.rand(2, 3)
    for start in (ts + 1.0, ts * torch.nan, ts[0], torch.zeros(2)):
        with pytest.raises(ValueError, match=r"start must have the shape of ts \(2, 3\), and lie nowhere after it"):
            model.predict_means(context, start, ts)


@pytest.mark.parametrize("model", [LinearGaussianSSM(CHANNELS, 1), KoopmanVAE(CHANNELS, 1), LatentODE(CHANNELS, 2)])
def test_a_new_series_has_a_time_to_start_at(model):
    for ts in (torch.tensor(1.0), torch.zeros(2, 0)):
        with pytest.raises(ValueError, match="at least one time, where each series starts"):
            model.sample(ts)
    with pytest.raises(ValueError, match="ts holds NaN"):
        model.sample(torch.tensor([0.0, torch.nan]))


@pytest.mark.parametrize(
    "model",
    [
        LatentODE(CHANNELS, 2),
        FilteringModel(CHANNELS, GRUDCell(1, 2)),
        LinearGaussianSSM(CHANNELS, 1),
        MaternGP(CHANNELS),
        Recalibrated(MaternGP(CHANNELS)),
        HoldLast(CHANNELS),
    ],
)
def test_no_model_reads_other_channels(model):
    context = _batch(2)
    wide = IrregularBatch(context.times, context.values.expand(-1, -1, 2), context.mask.expand(-1, -1, 2))
    asked = [lambda: model.predict(wide, wide.times), lambda: model.loss(Window(wide, wide))]
    if isinstance(model, Encodes):
        asked.append(lambda: model.encode(wide))
    for ask in asked:
        with pytest.raises(ValueError, match=r"built for 1 channels \['x'\]; the batch has 2"):
            ask()


@pytest.mark.parametrize("model", [LatentODE(CHANNELS, 2), FilteringModel(CHANNELS, GRUDCell(1, 2))])
def test_weights_and_values_are_of_one_precision(model):
    context = _batch(2).to(torch.float64)
    message = r"weights of the model are torch.float32 .* batch torch.float64; give it batch.to\(torch.float32\)"
    for ask in (
        lambda: model.predict(context, context.times),
        lambda: model.loss(Window(context, context)),
        lambda: model.encode(context),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


def test_models_in_closed_form_take_any_precision():
    for model in (LinearGaussianSSM(CHANNELS, 1), Recalibrated(MaternGP(CHANNELS)), HippoProphecy(CHANNELS)):
        for dtype in (torch.float32, torch.float64):
            context = _batch(2).to(dtype)
            assert model.predict(context, context.times, num_samples=1).mean.dtype == dtype


def test_samples_of_nothing_are_refused_wherever_they_are_asked_for():
    model, context = LatentODE(CHANNELS, 2), _batch(2)
    for ask in (
        lambda: model.sample(context.times, num_samples=0),
        lambda: model.log_prob(Window(context, context), num_samples=0),
        lambda: model.predict_means(context, context.times, context.times, num_samples=0),
    ):
        with pytest.raises(ValueError, match="num_samples must be at least 1"):
            ask()
