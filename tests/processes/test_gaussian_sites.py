"""The posterior given sites is that of a dense Gaussian process."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from ctdyn.encoders import Encoding, Sites
from ctdyn.linear import OU, Matern, Oscillators, Periodic, ProductDynamics, Rotations, SumDynamics
from ctdyn.processes import LinearGaussianProcess
from ctdyn.testing import check_process


F64 = torch.float64


def f64(*values):
    return torch.tensor(values, dtype=F64)


def both():
    return SumDynamics([Matern(2.5, lengthscale=[1.0, 0.4]), Matern(0.5, lengthscale=[0.3, 2.0], variance=0.5)])


PARTS = {
    "independent": lambda: LinearGaussianProcess(Matern(1.5, lengthscale=[0.5, 1.0, 3.0], variance=[1.0, 2.0, 3.0])),
    "one": lambda: LinearGaussianProcess(Matern(0.5, lengthscale=[2.0])),
    "sum": lambda: LinearGaussianProcess(both()),
    "product": lambda: LinearGaussianProcess(
        ProductDynamics(Matern(0.5, lengthscale=[4.0, 9.0]), Matern(2.5, lengthscale=[1.0, 2.0]))
    ),
    "circle": lambda: LinearGaussianProcess(Oscillators([2.0, 5.0], variance=1.3)),
    "cycle": lambda: LinearGaussianProcess(
        ProductDynamics(Periodic([1.5, 0.7], harmonics=2), Matern(0.5, lengthscale=[4.0, 9.0]))
    ),
    "coupled": lambda: LinearGaussianProcess(Rotations([0.5], [2.0], sigma=1.5)),
    "turns": lambda: LinearGaussianProcess(Rotations([0.5, 1.0], [2.0, 3.0], sigma=1.5)),
    "oscillators": lambda: LinearGaussianProcess(Oscillators([2.0, 5.0], decay=[0.3, 0.1], variance=1.3)),
    "forgets": lambda: LinearGaussianProcess(OU([1.0, 0.3], [2.0, 1.0])),
    "read": lambda: LinearGaussianProcess(OU([1.0, 0.3], [2.0, 1.0]), H=[[1.0, 0.5], [0.2, 1.0]]),
}


def at_start(process):
    """The encoding that gives the initial state of the contract its moments: one site at the start of each series."""
    rng = torch.Generator().manual_seed(0)
    known = 0.3 * torch.randn(3, process.latent_size, generator=rng, dtype=F64)
    starts = f64(0.0, 0.5, 2.0)
    none = torch.zeros(1, 1, process.latent_size, dtype=F64)
    variance = (
        process.marginals(Sites(none[..., 0], none, none + 1, none > 0), none[..., 0]).variance.detach().flatten()
    )

    def build(mean, std):
        t0 = starts[[int((row == known).all(-1).nonzero()[0]) for row in mean]]
        precision = std**-2 - 1 / variance
        site = mean / std**2 / precision
        return Encoding(sites=Sites(t0[:, None], site[:, None], precision[:, None], torch.ones_like(site[:, None]) > 0))

    return build


@pytest.mark.parametrize("name", sorted(set(PARTS) - {"read"}))
def test_contract(name):
    process = PARTS[name]()
    check_process(process, encoding=at_start(process))


def sites(process, seed=0, batch=(2,), length=5):
    rng = torch.Generator().manual_seed(seed)
    size = process.latent_size
    times = torch.rand(*batch, length, generator=rng, dtype=F64).cumsum(-1)
    mean = torch.randn(*batch, length, size, generator=rng, dtype=F64)
    precision = 5 * torch.rand(*batch, length, size, generator=rng, dtype=F64)
    return Sites(times, mean, precision, torch.rand(*batch, length, size, generator=rng) < 0.7)


def learned(process):
    return isinstance(process.H, torch.nn.Parameter)


def prior_covariance(process, ts):
    """Of all latent dimensions at all times, time first, from the transitions of the dynamics."""
    dynamics, size = process.dynamics, process.latent_size
    lag = (ts[:, None] - ts[None, :]).abs()
    F = dynamics.flow(lag.flatten())[0]
    F = torch.diag_embed(F) if dynamics.diagonal else F
    # Without a matrix of its own, a process is its whole state or, along a batch axis, what the dynamics read.
    H = process.H.detach() if learned(process) or dynamics.batch_shape else torch.eye(size, dtype=F64)
    later = H @ F @ dynamics.stationary()[..., None, :, :] @ H.mT
    if dynamics.batch_shape:
        later = torch.diag_embed(later.squeeze(-1).squeeze(-1).mT)
    # The covariance of the later with the earlier one; its transpose the other way round.
    later = later.unflatten(0, (len(ts), len(ts)))
    order = (ts[:, None] >= ts[None, :])[..., None, None]
    return torch.where(order, later, later.mT).transpose(1, 2).reshape(len(ts) * size, -1)


def dense(process, site, i, ts):
    """Posterior of one series at `ts`, its log evidence, and its divergence from the prior at the sites."""
    every = torch.cat([site.times[i], ts])
    K = prior_covariance(process, every)
    seen = torch.cat([site.mask[i].flatten(), torch.zeros(len(ts) * process.latent_size, dtype=torch.bool)])
    y, noise = site.mean[i].flatten()[site.mask[i].flatten()], 1 / site.precision[i].flatten()[site.mask[i].flatten()]
    S = K[seen][:, seen] + noise.diag()
    gain = torch.linalg.solve(S, K[seen]).mT
    mean, covariance = gain @ y, K - gain @ K[seen]
    evidence = MultivariateNormal(torch.zeros_like(y), S).log_prob(y)
    prior = MultivariateNormal(torch.zeros_like(y), K[seen][:, seen])
    kl = kl_divergence(MultivariateNormal(mean[seen], covariance[seen][:, seen]), prior)
    tail = len(ts) * process.latent_size
    return mean[-tail:], covariance[-tail:, -tail:], evidence, kl


# The covariance of a few rotations at many times is singular: no dense formula.
@pytest.mark.parametrize("name", sorted(set(PARTS) - {"circle"}))
def test_posterior_evidence_and_divergence_are_those_of_a_dense_process(name):
    process = PARTS[name]().double()
    site = sites(process)
    ts = f64(-1.0, 0.3, 0.31, 1.7, 4.0)
    got = process.marginals(site, ts.expand(2, -1))
    latent = process.posterior(Encoding(sites=site), site.times[:, 0], ts.expand(2, -1), 2)
    for i in range(2):
        mean, covariance, evidence, kl = dense(process, site, i, ts)
        size = process.latent_size
        torch.testing.assert_close(got.mean[i].flatten(), mean, rtol=0, atol=1e-8)
        blocks = torch.stack([covariance[k * size :][:size, k * size :][:, :size] for k in range(len(ts))])
        torch.testing.assert_close(got.covariance[i], blocks, rtol=0, atol=1e-8)
        torch.testing.assert_close(process.log_evidence(site)[i], evidence, rtol=0, atol=1e-8)
        torch.testing.assert_close(latent.kl["sites"][i], kl, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["independent", "coupled"])
def test_samples_have_the_joint_covariance_of_the_posterior(name):
    process = PARTS[name]().double()
    site = sites(process, batch=(1,))
    ts = f64(-1.0, 0.3, 0.31, 1.7, 4.0)
    generator = torch.Generator().manual_seed(0)
    zs = process.posterior(Encoding(sites=site), site.times[:, 0], ts[None], 8000, generator).zs[:, 0].flatten(1)
    mean, covariance, *_ = dense(process, site, 0, ts)
    draws = zs.detach() - mean
    error = (draws[:, :, None] * draws[:, None, :]).std(0) / math.sqrt(len(zs))
    assert (draws.mean(0).abs() < 5 * (covariance.diagonal() / len(zs)).sqrt()).all()
    assert ((draws.mT @ draws / len(zs) - covariance).abs() < 5 * error).all()


def test_a_missing_site_says_nothing():
    process = PARTS["independent"]().double()
    site = sites(process)
    mean = torch.where(site.mask, site.mean, 1e3)
    poisoned = Sites(site.times, mean, torch.where(site.mask, site.precision, 1e9), site.mask)
    torch.testing.assert_close(process.log_evidence(poisoned), process.log_evidence(site), rtol=0, atol=0)
    nothing = Sites(site.times, mean, site.precision, torch.zeros_like(site.mask))
    latent = process.posterior(Encoding(sites=nothing), site.times[:, 0], site.times, 2)
    assert (latent.kl["sites"] == 0).all()
    assert (latent.log_terms["sites"] == 0).all()


@pytest.mark.parametrize("name", ["one", "independent"])
def test_no_query_has_no_answer(name):
    process = PARTS[name]().double()
    site = sites(process)
    nothing = site.times[:, :0]
    found = process.marginals(site, nothing)
    assert found.mean.shape == (*nothing.shape, process.latent_size)
    assert found.covariance.shape == (*nothing.shape, process.latent_size, process.latent_size)
    assert process.posterior(Encoding(sites=site), site.times[:, 0], nothing, 2).zs.shape == (2, *found.mean.shape)


def test_results_have_the_dtype_of_the_sites():
    process = PARTS["independent"]()
    site = sites(process)
    single = Sites(site.times, site.mean.float(), site.precision.float(), site.mask)
    latent = process.posterior(Encoding(sites=single), site.times[:, 0], site.times, 2)
    assert latent.zs.dtype == latent.kl["sites"].dtype == latent.log_terms["sites"].dtype == torch.float32


def test_bad_input():
    with pytest.raises(ValueError, match="stationary"):
        LinearGaussianProcess(Rotations([0.0], [1.0]))
    with pytest.raises(ValueError, match="one batch axis"):
        LinearGaussianProcess(Matern(0.5, lengthscale=torch.ones(2, 3)))
    with pytest.raises(ValueError, match="H must be"):
        LinearGaussianProcess(Matern(1.5, lengthscale=[1.0, 2.0]), H=[[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="SiteEncoder"):
        PARTS["one"]().posterior(Encoding(), torch.zeros(1), torch.zeros(1, 1))
