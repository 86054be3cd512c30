"""LS4: what it reads, what it learns, and what it says of a clock that does not fit."""

import math
import warnings

import pytest
import torch

from ctdyn._checks import DataWarning
from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.encoders import GRUEncoder
from ctdyn.likelihoods import Gaussian
from ctdyn.models import LS4, LatentVAE
from ctdyn.processes import JointProcess, StaticProcess
from ctdyn.testing import check_model, example_window


CHANNELS = (Channel("a"), Channel("b"))


def test_inputs_and_static_covariates():
    model = LS4(CHANNELS, 2, 6, 1, dt=0.25, decoder_hidden=(), input_size=2, static_size=3)
    check_model(model, example_window(2, input_size=2, static_size=3), steps=10)


def test_it_learns_what_a_process_forgets_and_when_it_is_asked():
    """Paths of dx = -3 (x - 1) dt + dW at irregular times: the level, the spread and the forgetting."""
    rng = torch.Generator().manual_seed(0)
    size, theta, level, spread = 64, 3.0, 1.0, 1.0 / math.sqrt(6.0)
    gaps = 0.05 + 0.1 * torch.rand(size, 10, generator=rng)
    times = torch.cat([torch.zeros(size, 1), gaps.cumsum(-1)], -1)
    x = [level + spread * torch.randn(size, generator=rng)]
    for gap in gaps.unbind(-1):
        decay = torch.exp(-theta * gap)
        noise = spread * (1 - decay**2).sqrt() * torch.randn(size, generator=rng)
        x.append(level + decay * (x[-1] - level) + noise)
    values = torch.stack(x, -1).unsqueeze(-1)
    batch = IrregularBatch(times, values, torch.ones_like(values, dtype=torch.bool))
    torch.manual_seed(0)
    model = LS4([Channel("x")], 1, 16, 1, dt=0.1, decoder_hidden=())
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for step in range(100):
        optimizer.zero_grad()
        model.loss(Window(batch, batch), step=step, generator=rng).total.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        ahead = model.predict(batch, times[:, -1:] + 0.15, num_samples=100, generator=rng)
        made = model.sample(torch.tensor([[0.0, 0.35, 0.75]]), num_samples=500, generator=rng)
    decay = math.exp(-theta * 0.15)
    away = values[:, -1, 0] - level
    assert float((away * (ahead.mean[:, 0, 0] - level)).sum() / away.square().sum()) == pytest.approx(decay, abs=0.15)
    assert float(ahead.stddev.mean()) == pytest.approx(spread * math.sqrt(1 - decay**2), rel=0.25)
    assert made.mean.flatten().tolist() == pytest.approx([level] * 3, abs=0.15)
    assert made.stddev.flatten().tolist() == pytest.approx([spread] * 3, rel=0.25)


def test_it_says_when_its_clock_is_too_coarse_for_the_series():
    model = LS4(CHANNELS[:1], 1, 6, 1, dt=0.5)
    values = torch.randn(2, 21, 1)
    batch = IrregularBatch(torch.linspace(0, 1, 21).expand(2, -1), values, torch.ones_like(values, dtype=torch.bool))
    with pytest.warns(DataWarning, match=r"dt=0.5 is 10 times the usual gap .* Give dt=0.05"):
        model.loss(Window(batch, batch))


def test_it_says_how_many_knots_a_fine_clock_has():
    values = torch.randn(2, 21, 1)
    batch = IrregularBatch(torch.linspace(0, 1, 21).expand(2, -1), values, torch.ones_like(values, dtype=torch.bool))
    with pytest.warns(DataWarning, match=r"dt=0.0005 puts 2,001 knots on series of up to 21 rows: .* Give dt=0.05"):
        LS4(CHANNELS[:1], 1, 2, 1, dt=5e-4).loss(Window(batch, batch))
    model = LS4(CHANNELS[:1], 1, 2, 1, dt=1e-7)
    for ask in (lambda: model.loss(Window(batch, batch)), lambda: model.sample(torch.tensor([[0.0, 1.0]]))):
        with pytest.raises(ValueError, match=r"dt=1e-07 puts 1e\+07 knots on the 1 units .* Give a wider dt"):
            ask()


def test_between_bursts_a_clock_as_fine_as_their_gaps_is_not_advised_again():
    times = (torch.arange(10.0)[:, None] + torch.linspace(0, 0.02, 11)).flatten()[None]
    values = torch.randn(1, 110, 1)
    batch = IrregularBatch(times, values, torch.ones_like(values, dtype=torch.bool))
    with pytest.warns(DataWarning, match=r"puts 4,\d{3} knots .* usual gap .* is 0.002. Give dt=0.008"):
        LS4(CHANNELS[:1], 1, 2, 1, dt=0.002).loss(Window(batch, batch))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        LS4(CHANNELS[:1], 1, 2, 1, dt=0.0079).loss(Window(batch, batch))


def test_an_encoder_of_the_start_alone_is_refused_with_those_that_will_do():
    process = LS4(CHANNELS, 2, 6, 1).process
    with pytest.raises(ValueError, match=r"needs \['context'\] .* comes from .*BidirectionalStateSpaceEncoder"):
        LatentVAE(CHANNELS, GRUEncoder(2, 2), process, Gaussian(8, 2))
    several = JointProcess([process, StaticProcess(1, 2)])
    with pytest.raises(ValueError, match=r"needs \['context', 'static'\] .* comes from a JointEncoder of several"):
        LatentVAE(CHANNELS, GRUEncoder(2, 2), several, Gaussian(9, 2))
