"""The linear-Gaussian model is a Gaussian process over several channels, exactly."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from ctdyn import Forecaster
from ctdyn.data import IrregularBatch, Window, co2
from ctdyn.data.channels import Channel
from ctdyn.linear import OU, Matern, Oscillators, ProductDynamics
from ctdyn.models import ExpectationMaximisation, Fitting, LinearGaussianSSM, MaximumLikelihood
from ctdyn.testing import example_window


F64 = torch.float64
CHANNELS = (Channel("a"), Channel("b"))


def kernel(model, ts):
    """The covariance of all channels at all times, time first, noise left out."""
    dynamics, H = model.core.dynamics, model.core.H
    lag = ts[:, None] - ts[None, :]
    F = dynamics.flow(lag.abs().flatten())[0]
    F = torch.diag_embed(F) if dynamics.diagonal else F
    later = (H @ F @ dynamics.stationary() @ H.mT).unflatten(0, lag.shape)
    return torch.where((lag >= 0)[..., None, None], later, later.mT).transpose(1, 2).flatten(2).flatten(0, 1)


@pytest.mark.parametrize("dynamics", [None, ProductDynamics(OU(0.3, 1.0), Matern(1.5, lengthscale=0.5))])
def test_predictions_and_densities_are_those_of_one_large_gaussian(dynamics):
    model = LinearGaussianSSM(
        CHANNELS, 2 if dynamics is None else None, dynamics=dynamics, fitting=MaximumLikelihood(max_steps=5)
    )
    window = example_window(2).to(F64)
    model.fit_exact([window])
    ts = window.target.times
    predictive = model.predict(window.context, ts)
    scores = model.log_prob(window)
    for i in range(4):
        every = torch.cat([window.context.times[i], ts[i]])
        values = torch.cat([window.context.values[i], window.target.values[i]]).flatten()
        mask = torch.cat([window.context.mask[i], window.target.mask[i]]).flatten()
        K = kernel(model, every).detach()
        noise = model.core.R.diagonal().repeat(len(every)).detach()
        mean = model.core.offset.repeat(len(every)).detach()
        cut = window.context.times.shape[1] * 2
        seen = mask & (torch.arange(len(mask)) < cut)
        gain = torch.linalg.solve(K[seen][:, seen] + noise[seen].diag(), K[seen]).mT
        posterior = mean + gain @ (values - mean)[seen]
        variance = (K - gain @ K[seen]).diagonal() + noise
        torch.testing.assert_close(predictive.mean[i].flatten(), posterior[cut:], rtol=0, atol=1e-8)
        torch.testing.assert_close(predictive.stddev[i].flatten().square(), variance[cut:], rtol=0, atol=1e-8)

        def density(kept, K=K, noise=noise, mean=mean, values=values):
            if not kept.any():
                return torch.zeros((), dtype=F64)
            return MultivariateNormal(mean[kept], K[kept][:, kept] + noise[kept].diag()).log_prob(values[kept])

        torch.testing.assert_close(scores[i], density(mask) - density(seen), rtol=0, atol=1e-7)


def planted(model, count=40, length=60, seed=0):
    """Series of a model, at irregular times."""
    generator = torch.Generator().manual_seed(seed)
    ts = 10.0 * torch.rand(count, length, generator=generator, dtype=F64).sort(-1).values
    states = model.core.sample(ts, generator=generator)
    values = model.core.emit_samples(states, generator=generator)[0].detach()
    batch = IrregularBatch(ts, values, torch.ones_like(values, dtype=torch.bool))
    return Window(batch, batch)


def test_maximum_likelihood_finds_what_was_planted():
    truth = LinearGaussianSSM(CHANNELS, dynamics=Oscillators([2.0], decay=[0.2]))
    with torch.no_grad():
        truth.core.log_noise.copy_(torch.tensor([0.01, 0.04], dtype=F64).log())
        truth.core.offset.copy_(torch.tensor([3.0, -1.0], dtype=F64))
        truth.core.H.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=F64))
    window = planted(truth)
    model = LinearGaussianSSM(CHANNELS, dynamics=Oscillators([1.5], decay=[1.0]))
    model.fit_exact([window])
    # There is nothing in the target that the context does not hold.
    assert model.log_prob(window).abs().max() < 1e-10
    nothing = IrregularBatch(window.target.times, window.target.values, torch.zeros_like(window.target.mask))
    gain = model.log_prob(Window(nothing, window.target)).sum() - truth.log_prob(Window(nothing, window.target)).sum()
    assert 0 < gain < 15
    assert abs(float(model.core.dynamics.frequency) - 2.0) < 0.05
    torch.testing.assert_close(model.core.R.diagonal(), truth.core.R.diagonal(), rtol=0.15, atol=0)
    torch.testing.assert_close(model.core.offset, truth.core.offset, rtol=0, atol=0.3)
    reach = model.core.H @ model.core.dynamics.stationary() @ model.core.H.mT
    torch.testing.assert_close(reach.diagonal(), torch.tensor([1.0, 4.0], dtype=F64), rtol=0.4, atol=0)


def test_expectation_maximisation_climbs():
    truth = LinearGaussianSSM(CHANNELS, dynamics=OU([0.5, 3.0], [1.0, 2.0]))
    window = planted(truth, count=10, length=40)
    nothing = IrregularBatch(window.target.times, window.target.values, torch.zeros_like(window.target.mask))
    scores = []
    for steps in (0, 5, 20):
        fitting = ExpectationMaximisation(max_steps=steps)
        model = LinearGaussianSSM(CHANNELS, dynamics=OU([0.2, 2.0], [1.0, 1.0]), fitting=fitting)
        model.fit_exact([window])
        scores.append(float(model.log_prob(Window(nothing, window.target)).sum()))
    assert scores[0] + 10 < scores[1] < scores[2]


def test_dynamics_that_two_models_are_built_from_stay_their_own():
    dynamics = OU([0.2, 2.0], [1.0, 1.0])
    window = planted(LinearGaussianSSM(CHANNELS, dynamics=OU([0.5, 3.0], [1.0, 2.0])), count=4, length=20)
    first, second, alone = (
        LinearGaussianSSM(CHANNELS, dynamics=one, fitting=MaximumLikelihood(max_steps=3))
        for one in (dynamics, dynamics, OU([0.2, 2.0], [1.0, 1.0]))
    )
    alone.fit_exact([window])
    second.fit_exact([window])
    torch.testing.assert_close(second.core.state_dict(), alone.core.state_dict())
    for name, value in dynamics.state_dict().items():
        torch.testing.assert_close(first.core.dynamics.state_dict()[name], value.double())
    assert all(parameter.requires_grad for parameter in dynamics.parameters())


def test_a_channel_learns_from_another_which_is_its_rate_of_change():
    """Positions and velocities seen at few times: the velocities bend the curve between the positions."""
    generator = torch.Generator().manual_seed(0)
    phase = 6.28 * torch.rand(30, 1, generator=generator, dtype=F64)
    ts = torch.linspace(0.0, 3.0, 25, dtype=F64).expand(30, -1)
    values = torch.stack([(2 * ts + phase).sin(), (2 * ts + phase).cos()], -1)
    whole = IrregularBatch(ts, values, torch.ones_like(values, dtype=torch.bool))
    model = LinearGaussianSSM(CHANNELS, 2, fitting=MaximumLikelihood(max_steps=60))
    model.fit_exact([Window(whole[:20], whole[:20])])
    few = torch.zeros_like(whole.mask)
    few[:, ::8] = True
    error = []
    for mask in (few, few & torch.tensor([True, False])):
        mean = model.predict(IrregularBatch(ts, values, mask)[20:], ts[20:]).mean
        error.append(float((mean - values[20:])[..., 0].square().mean()))
    assert error[0] < 0.01
    assert error[0] < 0.5 * error[1]


def test_samples_are_those_of_the_prior_at_times_in_any_order():
    model = LinearGaussianSSM(CHANNELS, dynamics=OU([1.0, 2.0], [1.0, 1.0]))
    ts = torch.tensor([[2.0, 0.0, 0.5]], dtype=F64)
    drawn = model.sample(ts, num_samples=20000, generator=torch.Generator().manual_seed(0)).distribution
    mean = drawn.mean[:, 0].flatten(1) - model.core.offset.repeat(3)
    torch.testing.assert_close(mean.mT @ mean / len(mean), kernel(model, ts[0]), rtol=0, atol=0.05)


class Seen(Fitting):
    """Keeps what it is given to fit to."""

    def fit(self, model, batch):
        self.batch = batch
        return 0.0


def test_windows_of_the_same_series_are_fitted_to_once():
    data = co2().before(1962.0)
    seen = Seen()
    # A batch of few series holds many windows of each, of which either half may begin.
    Forecaster(LinearGaussianSSM(data.channels, fitting=seen)).fit(data, batch_size=16)
    assert seen.batch.batch_shape == (1,)
    assert int(seen.batch.mask.sum()) == sum(int(one.observed.sum()) for one in data)


def test_series_that_are_alike_keep_their_share():
    times, mask = torch.arange(3.0, dtype=F64).expand(3, 3), torch.ones(3, 3, 2, dtype=torch.bool)
    values = torch.tensor([0.0, 0.0, 1.0], dtype=F64).view(3, 1, 1).expand(3, 3, 2)
    batch = IrregularBatch(times, values, mask)
    seen = Seen()
    LinearGaussianSSM(CHANNELS, fitting=seen).fit_exact([Window(batch, batch)] * 2)
    assert sorted(seen.batch.values[:, 0, 0].tolist()) == [0.0, 0.0, 1.0]
    apart = IrregularBatch(times + torch.tensor([[0.0], [7.0], [0.0]], dtype=F64), values, mask)
    LinearGaussianSSM(CHANNELS, fitting=seen).fit_exact([Window(apart, apart)] * 2)
    assert sorted(seen.batch.values[:, 0, 0].tolist()) == [0.0, 0.0, 1.0]
    slower = IrregularBatch(times * torch.tensor([[1.0], [1.1], [1.0]], dtype=F64), values, mask)
    LinearGaussianSSM(CHANNELS, fitting=seen).fit_exact([Window(slower, slower)] * 2)
    assert sorted(seen.batch.times[:, -1].tolist()) == [2.0, 2.0, 2.2]


def test_bad_input():
    with pytest.raises(ValueError, match="batch axes"):
        LinearGaussianSSM(CHANNELS, dynamics=Matern(0.5, lengthscale=[1.0, 2.0]))
    with pytest.raises(ValueError, match="no windows"):
        LinearGaussianSSM(CHANNELS).fit_exact([])
    empty = example_window(2).context
    nothing = IrregularBatch(empty.times, empty.values, torch.zeros_like(empty.mask))
    with pytest.raises(ValueError, match="no observation"):
        LinearGaussianSSM(CHANNELS).fit_exact([Window(nothing, nothing)])
    with pytest.raises(ValueError, match="2 channels"):
        LinearGaussianSSM(CHANNELS).predict(example_window(3).context, example_window(3).target.times)
