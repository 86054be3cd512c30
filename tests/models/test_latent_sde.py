"""The latent SDE: with a solver and without one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.likelihoods import PoissonTimes
from ctdyn.models import LatentSDE
from ctdyn.processes import MatchedSDEProcess, SDEProcess
from ctdyn.testing import check_model, example_window


CHANNELS = (Channel("a"), Channel("b"))
SMALL = {"latent_size": 3, "hidden": (8,), "context_size": 4, "encoder_size": 6, "dt": 0.25}


def test_contract_without_a_solver():
    check_model(LatentSDE(CHANNELS, **SMALL, matching=True), example_window(2))


@pytest.mark.parametrize("matching", [False, True])
def test_inputs_and_static_covariates(matching):
    model = LatentSDE(CHANNELS, **SMALL, input_size=2, static_size=3, matching=matching)
    if not matching:
        nn.init.normal_(model.process.correction.layers[-1].weight)
    check_model(model, example_window(2, input_size=2, static_size=3))


def test_times_that_tell_something():
    model = LatentSDE(CHANNELS, **SMALL, times=PoissonTimes(3, (4,)))
    nn.init.normal_(model.process.correction.layers[-1].weight)
    check_model(model, example_window(2))
    with pytest.raises(ValueError, match=r"the compensator of PoissonTimes needs a process that integrates"):
        LatentSDE(CHANNELS, **SMALL, matching=True, times=PoissonTimes(3))


@pytest.mark.parametrize("matching", [True, False])
def test_times_may_be_finer_than_values(matching):
    torch.manual_seed(0)
    model = LatentSDE(CHANNELS, **SMALL, matching=matching)
    fine = example_window(2).context
    coarse = fine.to(torch.float32)
    fine = replace(coarse, times=fine.times)
    found = [
        model.loss(Window(batch, batch), generator=torch.Generator().manual_seed(0)).total for batch in (fine, coarse)
    ]
    torch.testing.assert_close(*found)


def test_both_ways_share_the_prior():
    """What is trained without a solver can be sampled and scored with one: the field is the same part."""
    solved, matched = LatentSDE(CHANNELS, **SMALL), LatentSDE(CHANNELS, **SMALL, matching=True)
    assert isinstance(solved.process, SDEProcess)
    assert isinstance(matched.process, MatchedSDEProcess)
    solved.process.field.load_state_dict(matched.process.field.state_dict())


def test_it_learns_what_a_process_forgets():
    """Paths of dx = -3 (x - 1) dt + dW: the level, the spread and the forgetting."""
    rng = torch.Generator().manual_seed(0)
    times, size = torch.arange(0.0, 1.01, 0.1), 100
    theta, level, spread = 3.0, 1.0, 1.0 / math.sqrt(6.0)
    decay = math.exp(-theta * 0.1)
    x = [level + spread * torch.randn(size, generator=rng)]
    for _ in times[1:]:
        noise = spread * math.sqrt(1 - decay**2) * torch.randn(size, generator=rng)
        x.append(level + decay * (x[-1] - level) + noise)
    values = torch.stack(x, -1).unsqueeze(-1)
    batch = IrregularBatch(times.expand(size, -1), values, torch.ones_like(values, dtype=torch.bool))
    start = IrregularBatch(times[:1].expand(size, 1), values[:, :1], batch.mask[:, :1])
    torch.manual_seed(0)
    model = LatentSDE([Channel("x")], 1, (16,), context_size=8, encoder_size=16, dt=0.05)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for step in range(250):
        optimizer.zero_grad()
        # The encoder must also have met a series of one observation to say where it starts.
        for seen in (batch, start):
            model.loss(Window(seen, seen), step=step, generator=rng).total.backward()
        optimizer.step()
    with torch.no_grad():
        ahead = model.predict(start, torch.tensor([[0.1, 3.0]]).expand(size, 2), num_samples=100, generator=rng)
    away = values[:, 0, 0] - values[:, 0, 0].mean()
    assert float((away * ahead.mean[:, 0, 0]).sum() / away.square().sum()) == pytest.approx(decay, abs=0.15)
    assert float(ahead.mean[:, 1].mean()) == pytest.approx(level, abs=0.2)
    spreads = ahead.stddev[:, :, 0].mean(0)
    assert spreads.tolist() == pytest.approx([spread * math.sqrt(1 - decay**2), spread], rel=0.25)
