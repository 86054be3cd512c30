"""Maximum likelihood and expectation maximisation find what made the data."""

import itertools

import pytest
import torch

from ctdyn.data import IrregularBatch
from ctdyn.linear import OU, Dense, LinearGaussian, Matern, expectation_maximisation, maximum_likelihood


F64 = torch.float64


def simulate(model, length, batch=(), seed=0, missing=0.2):
    generator = torch.Generator().manual_seed(seed)
    ts = (0.6 * torch.rand(*batch, length, generator=generator, dtype=F64)).cumsum(-1)
    values = model.emit_samples(model.sample(ts, generator=generator), generator=generator)[0].detach()
    mask = torch.rand(values.shape, generator=generator) > missing
    return IrregularBatch(ts, torch.where(mask, values, 0.0), mask)


def double(value):
    return torch.tensor(value, dtype=F64)


def test_maximum_likelihood_finds_the_parameters():
    truth = LinearGaussian(Matern(1.5, lengthscale=double(2.0), variance=double(1.5)), R=double([0.05]))
    batch = simulate(truth, 400, (4,))
    model = LinearGaussian(Matern(1.5, lengthscale=double(0.3), variance=double(0.5)), R=double([1.0]))
    reached = maximum_likelihood(model, batch)
    assert reached >= float(truth.log_prob(batch).sum().detach())
    assert reached == pytest.approx(float(model.log_prob(batch).sum().detach()))
    assert float(model.dynamics.log_lengthscale.exp().detach()) == pytest.approx(2.0, rel=0.2)
    assert float(model.R.detach()) == pytest.approx(0.05, rel=0.2)
    gradients = torch.autograd.grad(model.log_prob(batch).sum(), list(model.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 0.1


def make(kind, scale):
    if kind == "scalar":
        return LinearGaussian(OU(double(1.0 * scale), double(1.0 / scale)), R=double([0.1 * scale]))
    A = double([[-0.6, 1.5], [-1.5, -0.6]])
    start = A if scale == 1.0 else double([[-1.0, 0.3], [-0.3, -1.0]])
    S = double([[0.5, 0.1], [0.1, 0.4]]) / scale
    R = double([[0.1, 0.03], [0.03, 0.2]]) if kind == "correlated" else double([0.1, 0.2])
    return LinearGaussian(Dense(start, S=S), H=torch.eye(2, dtype=F64), R=R * scale)


@pytest.mark.parametrize("kind", ["scalar", "dense", "correlated"])
def test_expectation_maximisation_rises_at_every_step(kind):
    truth = make(kind, 1.0)
    batch = simulate(truth, 80, (2,))
    model = make(kind, 2.0)
    history = expectation_maximisation(model, batch, max_steps=8)
    assert all(after >= before for before, after in itertools.pairwise(history))
    assert history[-1] > history[0] + 5
    assert history[-1] == pytest.approx(float(model.log_prob(batch).sum().detach()))
    # It is on the way to where the likelihood itself leads.
    other = make(kind, 2.0)
    best = maximum_likelihood(other, batch)
    assert history[-1] <= best + 1e-6
    assert best - history[-1] < 0.7 * (best - history[0])


def test_expectation_maximisation_respects_standard_errors_and_repeated_times():
    truth = make("scalar", 1.0)
    batch = simulate(truth, 60)
    ts = batch.times.clone()
    ts[10:12] = ts[10]
    batch = IrregularBatch(ts, batch.values, batch.mask, noise=torch.full_like(batch.values, 0.3))
    history = expectation_maximisation(make("scalar", 2.0), batch, max_steps=4)
    assert all(after >= before for before, after in itertools.pairwise(history))


@pytest.mark.parametrize("fit", [maximum_likelihood, expectation_maximisation])
def test_a_long_series_does_not_make_short_ones_dear(fit, monkeypatch):
    truth = make("scalar", 1.0)
    long, short = simulate(truth, 1000), simulate(truth, 40, (5,), seed=1)
    whole = IrregularBatch(
        torch.cat([long.times[None], torch.cat([short.times, short.times[:, -1:].expand(-1, 960)], -1)]),
        torch.cat([long.values[None], torch.cat([short.values, short.values.new_zeros(5, 960, 1)], -2)]),
        torch.cat([long.mask[None], torch.cat([short.mask, short.mask.new_zeros(5, 960, 1)], -2)]),
    )
    rows = []
    log_prob = LinearGaussian.log_prob
    monkeypatch.setattr(
        LinearGaussian, "log_prob", lambda self, batch: rows.append(batch.times.numel()) or log_prob(self, batch)
    )
    model = make("scalar", 2.0)
    reached = fit(model, whole, max_steps=2)
    lengths = [int(one.nonzero().max()) + 1 for one in (long.observed, short.observed.any(0))]
    assert set(rows) == {lengths[0], 5 * lengths[1]}
    reached = reached if isinstance(reached, float) else reached[-1]
    assert reached == pytest.approx(float(log_prob(model, whole).sum().detach()), rel=1e-12)


def test_series_with_parameters_of_their_own_stay_together():
    rates = torch.linspace(0.5, 2.0, 3, dtype=F64)
    truth = LinearGaussian(OU(rates, 1.0), R=0.1)
    batch = simulate(truth, 1500, (3,))
    mask = batch.mask.clone()
    mask[1:, 20:] = False
    batch = IrregularBatch(batch.times, torch.where(mask, batch.values, 0.0), mask)
    model = LinearGaussian(OU(double([0.3, 0.3, 0.3]), double([1.0, 1.0, 1.0])), R=double([0.1]))
    reached = maximum_likelihood(model, batch, max_steps=3)
    assert reached == pytest.approx(float(model.log_prob(batch).sum().detach()), rel=1e-12)


def test_intervals_of_ragged_series_are_fitted_as_if_each_was_alone():
    truth = make("scalar", 1.0)
    batch = simulate(truth, 1200, (2,))
    mask = batch.mask.clone()
    mask[1, 20:] = False
    start = torch.cat([batch.times[:, :1], batch.times[:, :-1]], -1)
    batch = IrregularBatch(batch.times, torch.where(mask, batch.values, 0.0), mask, start=start)
    model = make("scalar", 2.0)
    reached = maximum_likelihood(model, batch, max_steps=1)
    assert reached == pytest.approx(float(model.log_prob(batch).sum().detach()), rel=1e-12)


def test_what_a_fit_makes_lies_where_its_model_lies():
    batch = simulate(LinearGaussian(OU(double([1.0, 0.3]), double([1.0, 0.5])), R=double([0.1])), 30)
    model = LinearGaussian(OU(double([2.0, 1.0]), double([1.0, 1.0])), R=double([0.2]))
    # What is made without saying where is then elsewhere.
    with torch.device("meta"):
        assert len(expectation_maximisation(model, batch, max_steps=1)) > 0


def test_bad_input():
    batch = simulate(LinearGaussian(Matern(1.5), R=0.1), 10)
    with pytest.raises(ValueError, match="does not reach every direction"):
        expectation_maximisation(LinearGaussian(Matern(1.5), R=0.1), batch)
    model = LinearGaussian(OU(1.0, 1.0), R=0.1).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to fit"):
        maximum_likelihood(model, batch)
