"""The families of observations against scipy, and what each of them is for."""

import math

import pytest
import torch
from scipy import stats
from torch.nn.functional import log_softmax

from ctdyn.data.channels import Channel
from ctdyn.likelihoods import (
    Categorical,
    FixedScale,
    Gaussian,
    GaussianMixture,
    Laplace,
    LogNormal,
    NegativeBinomial,
    PerKind,
    Poisson,
    ZeroInflated,
    entry_log_prob,
)


Z = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TS = torch.arange(4, dtype=torch.float64).expand(5, 4)
COUNTS = torch.tensor([0.0, 1.0, 2.0, 7.0], dtype=torch.float64).view(4, 1).expand(2, 5, 4, 2)


def laplace(values):
    likelihood = Laplace(3, 2, scale=FixedScale(0.6)).double()
    mean = likelihood.mean(Z)
    return likelihood, stats.laplace(mean.detach(), 0.6 / 2**0.5).logpdf(values)


def log_normal(values):
    likelihood = LogNormal(3, 2, scale=FixedScale(0.6)).double()
    return likelihood, stats.lognorm(0.6, scale=likelihood.log_median(Z).exp().detach()).logpdf(values)


def poisson(values):
    likelihood = Poisson(3, 2).double()
    return likelihood, stats.poisson(likelihood.log_rate(Z).exp().detach()).logpmf(values)


def negative_binomial(values):
    likelihood = NegativeBinomial(3, 2, initial_concentration=2.5).double()
    mean, r = likelihood.log_mean(Z).exp().detach().numpy(), 2.5
    return likelihood, stats.nbinom(r, r / (r + mean)).logpmf(values)


@pytest.mark.parametrize("family", [laplace, log_normal, poisson, negative_binomial])
def test_densities_are_those_of_scipy(family):
    values = COUNTS + (family in (laplace, log_normal)) * 0.3
    likelihood, expected = family(values.numpy())
    torch.testing.assert_close(likelihood(Z, TS).log_prob(values).detach().numpy(), expected)


def test_a_known_error_keeps_the_variances_that_it_must():
    noise = torch.full((5, 4, 2), 0.8, dtype=torch.float64)
    wide = Laplace(3, 2, scale=FixedScale(0.6)).double()(Z, TS, noise)
    torch.testing.assert_close(wide.stddev, torch.full_like(wide.stddev, 1.0))
    positive = LogNormal(3, 2, scale=FixedScale(1e-9)).double()
    small = 1e-3 * noise
    narrow = positive(Z, TS, small)
    # A small error of a positive quantity is a relative one of its logarithm.
    torch.testing.assert_close(narrow.stddev, small.expand_as(narrow.stddev), rtol=1e-3, atol=0.0)


def test_a_negative_binomial_becomes_a_poisson_distribution():
    counts, events = NegativeBinomial(3, 2, initial_concentration=1e9).double(), Poisson(3, 2).double()
    events.log_rate.load_state_dict(counts.log_mean.state_dict())
    torch.testing.assert_close(counts(Z, TS).log_prob(COUNTS), events(Z, TS).log_prob(COUNTS), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("level", [1.0, 1e3, 1e7])
@pytest.mark.parametrize("concentration", [None, 5.0, 1e6])
def test_large_counts_keep_their_digits_in_single_precision(level, concentration):
    likelihood = Poisson(3, 1) if concentration is None else NegativeBinomial(3, 1, initial_concentration=concentration)
    with torch.no_grad():
        [*likelihood.parameters()][-1].fill_(math.log(level))
    z, count = torch.zeros(1, 3), torch.tensor([[level]])
    found = likelihood(z, torch.zeros(1)).log_prob(count)
    assert found.dtype == torch.float32
    precise = likelihood.double()(z.double(), torch.zeros(1)).log_prob(count.double())
    torch.testing.assert_close(found.double(), precise, rtol=1e-5, atol=1e-5)


def test_a_mixture_of_one_component_is_a_gaussian():
    mixture, single = GaussianMixture(3, 2, num_components=1).double(), Gaussian(3, 2).double()
    mean = mixture(Z, TS).component_distribution.mean.squeeze(-1)
    expected = torch.distributions.Normal(mean, single(Z, TS).stddev).log_prob(COUNTS)
    torch.testing.assert_close(mixture(Z, TS).log_prob(COUNTS), expected)


def test_a_class_has_the_probability_of_its_logit():
    likelihood = Categorical(3, 2, num_classes=3).double()
    values = torch.tensor([0.0, 1.0, 2.0, 1.0], dtype=torch.float64).view(4, 1).expand(2, 5, 4, 2)
    logits = log_softmax(likelihood.logits(Z).unflatten(-1, (2, 3)), -1)
    expected = logits.gather(-1, values.long().unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(likelihood(Z, TS).log_prob(values), expected)
    draws = likelihood(Z, TS).sample(torch.Size([50]))
    assert draws.dtype == torch.float64
    assert set(draws.unique().tolist()) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize("rest", [Poisson(3, 2).double(), LogNormal(3, 2).double()])
def test_zeros_come_as_often_as_they_say(rest):
    likelihood = ZeroInflated(rest, 3).double()
    joint, inner = likelihood(Z, TS), rest(Z, TS)
    share = torch.sigmoid(likelihood.logits(Z))
    others = (1 - share).log() + inner.log_prob(COUNTS)
    torch.testing.assert_close(joint.log_prob(COUNTS)[:, :, 1:], others[:, :, 1:])
    zero = 0 * COUNTS
    discrete = isinstance(rest, Poisson)
    torch.testing.assert_close(
        joint.log_prob(zero).exp(), share + (1 - share) * (inner.log_prob(zero).exp() if discrete else 0.0)
    )
    draws = joint.sample(torch.Size([4000]))
    torch.testing.assert_close((draws == 0).double().mean(0), joint.log_prob(zero).exp(), rtol=0.0, atol=0.04)


def test_what_is_hidden_reaches_no_gradient_of_a_positive_family():
    likelihood = LogNormal(3, 2).double()
    values, mask = 0 * COUNTS[0], torch.zeros(5, 4, 2, dtype=torch.bool)
    entry_log_prob(likelihood(Z, TS), values, mask).sum().backward()
    assert all((p.grad == 0).all() for p in likelihood.parameters())


def test_an_observation_that_is_known_exactly_has_a_gradient_under_a_positive_family():
    likelihood = LogNormal(3, 2).double()
    found = []
    for noise in (None, torch.zeros(5, 4, 2).double()):
        likelihood.zero_grad()
        likelihood(Z, TS, noise).log_prob(1.0 + COUNTS[0]).sum().backward()
        found.append([p.grad.clone() for p in likelihood.parameters()])
    torch.testing.assert_close(*found)


def test_zero_inflated_is_one_family():
    channels = [Channel("rain", kind="count"), Channel("wind")]
    several = PerKind.default(2, channels)
    with pytest.raises(TypeError, match="ZeroInflated takes one family, and PerKind is several"):
        ZeroInflated(several, 2)
    inflated = PerKind(channels, {"count": ZeroInflated(Poisson(2, 1), 2), "real": Gaussian(2, 1)})
    assert inflated(torch.zeros(1, 3, 2), torch.zeros(1, 3)).mean.shape == (1, 3, 2)


def test_families_side_by_side_decode_one_latent_state():
    channels = [Channel("rain", kind="count"), Channel("wind")]
    with pytest.raises(ValueError, match=r"built for latent sizes \{'count': 2, 'real': 3\}"):
        PerKind(channels, {"count": Poisson(2, 1), "real": Gaussian(3, 1)})
