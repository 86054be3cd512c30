"""Models with Gaussian sites: bounds against the exact evidence, and spectra that were planted."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.encoders import Encoder, Encoding, Sites
from ctdyn.likelihoods import FixedScale, Gaussian
from ctdyn.linear import LinearGaussian, Matern, MatrixDynamics, Oscillators, Stationary, maximum_likelihood
from ctdyn.models import ELBO, IWAE, KoopmanVAE, LatentVAE, MarkovianGPVAE
from ctdyn.processes import LinearGaussianProcess
from ctdyn.testing import check_linear, check_model, example_window


F64 = torch.float64
CHANNELS = (Channel("a"), Channel("b"))
W, C, SCALE = torch.tensor([2.0, -0.5], dtype=F64), torch.tensor([0.3, 1.0], dtype=F64), 0.4


class ExactSites(Encoder):
    """The likelihood of a diagonal decoder as sites, or these with a wrong precision and mean."""

    provides = frozenset({"sites"})

    def __init__(self, factor=1.0, shift=0.0):
        super().__init__()
        self.factor = factor
        self.shift = shift

    def forward(self, batch):
        mean = (torch.where(batch.mask, batch.values, 0) - C) / W + self.shift
        precision = (self.factor * W.square() / SCALE**2).expand(mean.shape)
        return Encoding(sites=Sites(batch.times, mean, precision, batch.mask))


def diagonal_model(encoder, objective):
    """Two processes, each decoded into one channel."""
    likelihood = Gaussian(2, 2, scale=FixedScale(SCALE)).double()
    (layer,) = (module for module in likelihood.mean.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        layer.weight.copy_(W.diag())
        layer.bias.copy_(C)
    process = LinearGaussianProcess(Matern(1.5, lengthscale=[0.5, 1.5], variance=[1.0, 0.7])).double()
    return LatentVAE(CHANNELS, encoder, process, likelihood, objective)


def evidence(model, batch):
    """The log density of each series under the dense Gaussian process."""
    found = []
    for ts, values, mask in zip(batch.times, batch.values, batch.mask, strict=True):
        K = model.process.dynamics.kernel((ts[:, None] - ts[None, :]).abs().flatten()).detach()
        total = torch.zeros((), dtype=F64)
        for d in range(2):
            seen = mask[:, d]
            covariance = W[d] ** 2 * K[d].view(len(ts), -1) + SCALE**2 * torch.eye(len(ts), dtype=F64)
            if seen.any():
                normal = MultivariateNormal(C[d].expand(int(seen.sum())), covariance[seen][:, seen])
                total = total + normal.log_prob(values[seen, d])
        found.append(total)
    return torch.stack(found)


def whole():
    target = example_window(2).to(F64).target
    return Window(target, target)


def test_at_the_exact_sites_every_sample_gives_the_evidence():
    model, window = diagonal_model(ExactSites(), IWAE(3)), whole()
    latent = model.process.posterior(model.encoder(window.context), window.target.times[:, 0], window.target.times, 3)
    likelihood = model.likelihood(latent.zs, window.target.times)
    log_prob = torch.where(window.target.mask, likelihood.log_prob(window.target.values), 0.0).sum((-1, -2))
    exact = evidence(model, window.target)
    for sample in log_prob + latent.log_terms["sites"]:
        torch.testing.assert_close(sample, exact, rtol=0, atol=1e-8)
    bound = -model.loss(window, generator=torch.Generator().manual_seed(0)).total
    torch.testing.assert_close(bound, exact.mean(), rtol=0, atol=1e-8)


def test_the_elbo_is_a_bound_that_is_reached_at_the_exact_sites():
    window = whole()
    gaps = []
    for factor, shift in ((1.0, 0.0), (0.7, 0.0), (1.0, 0.2), (3.0, -0.4)):
        model = diagonal_model(ExactSites(factor, shift), ELBO(num_samples=2000))
        bound = -model.loss(window, generator=torch.Generator().manual_seed(0)).total
        gaps.append(float((evidence(model, window.target).mean() - bound).detach()))
    assert abs(gaps[0]) < 0.1
    assert all(gap > 0.1 for gap in gaps[1:])


def test_the_posterior_is_that_of_the_exact_smoother():
    model, window = diagonal_model(ExactSites(), ELBO()), example_window(2).to(F64)
    ts = window.target.times
    sites = model.encoder(window.context).sites
    got = model.process.marginals(sites, ts)
    for d, (length, variance) in enumerate(((0.5, 1.0), (1.5, 0.7))):
        dynamics = Matern(1.5, lengthscale=length, variance=variance).double()
        H = (W[d] * dynamics.readout)[None]
        exact = LinearGaussian(dynamics, H=H, R=torch.tensor([SCALE**2], dtype=F64), offset=C[d : d + 1])
        context = window.context
        one = IrregularBatch(context.times, context.values[..., d : d + 1], context.mask[..., d : d + 1])
        states = exact.predict(one, ts)
        torch.testing.assert_close(got.mean[..., d], states.mean[..., 0], rtol=0, atol=1e-7)
        torch.testing.assert_close(got.variance[..., d], states.variance[..., 0], rtol=0, atol=1e-7)
    predicted = model.predict(window.context, ts, num_samples=2000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(predicted.mean, got.mean * W + C, rtol=0, atol=0.2)


@pytest.mark.parametrize(
    "model",
    [
        lambda: MarkovianGPVAE(CHANNELS, dynamics=Oscillators([3.0], decay=[0.5]), reads_noise=True),
        lambda: KoopmanVAE(CHANNELS, dynamics=Oscillators([3.0, 5.0]), decoder_hidden=()),
        lambda: KoopmanVAE(CHANNELS, dynamics=Oscillators([3.0, 5.0], decay=0.3, fixed=True), encoder_hidden=()),
    ],
)
def test_contract(model):
    check_model(model(), example_window(2))


def test_a_planted_spectrum_is_recovered_through_a_nonlinear_observation():
    """Two damped oscillators, seen through a map that bends them, at irregular times."""
    generator = torch.Generator().manual_seed(0)
    truth = Oscillators([4.0, 11.0], decay=[0.15, 0.4]).double()
    ts = 4.0 * torch.rand(32, 40, generator=generator, dtype=F64).sort(-1).values
    z = LinearGaussianProcess(truth).prior(ts[:, 0], ts, 1, generator).zs[0].detach()
    mixing = torch.randn(4, 6, generator=generator, dtype=F64)
    values = torch.tanh(0.4 * z @ mixing) + 0.05 * torch.randn(32, 40, 6, generator=generator, dtype=F64)
    batch = IrregularBatch(ts, values, torch.ones_like(values, dtype=torch.bool))
    torch.manual_seed(0)
    model = KoopmanVAE(
        [Channel(str(i)) for i in range(6)],
        dynamics=Oscillators([3.0, 9.0], decay=1.0),
        encoder_hidden=(32,),
        decoder_hidden=(32,),
    ).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(90):
        rows = torch.randperm(32, generator=generator)[:8]
        optimiser.zero_grad()
        model.loss(Window(batch[rows], batch[rows]), generator=generator, step=step).total.backward()
        optimiser.step()
    dynamics = model.process.dynamics
    found = dynamics.frequency.detach().abs().sort().values
    torch.testing.assert_close(found, torch.tensor([4.0, 11.0], dtype=F64), rtol=0.05, atol=0)
    assert (dynamics.eigenvalues.real < 0).all()
    torch.testing.assert_close(dynamics.period, 2 * math.pi / dynamics.frequency.abs())


def test_learned_dynamics_are_stationary_whatever_is_learned():
    torch.manual_seed(0)
    dynamics = Stationary(4, rate=2.0).double()
    dynamics.factor.data.normal_(std=3.0)
    assert float(torch.linalg.eigvals(dynamics.A).real.max()) < 0
    residual = MatrixDynamics.stationary(dynamics)
    torch.testing.assert_close(residual, torch.eye(4, dtype=F64), rtol=0, atol=1e-8)
    check_linear(dynamics, tolerance=1e-9)


def test_a_coupled_process_is_found_by_maximum_likelihood():
    """A damped turn of the plane that is read in one coordinate: its period comes out of the matrix."""
    torch.manual_seed(0)
    planted = LinearGaussian(Oscillators([6.0], decay=[0.3]), H=torch.tensor([[1.0, 0.0]]), R=0.01).double()
    ts = (0.1 * torch.rand(20, 60, dtype=F64)).cumsum(-1)
    generator = torch.Generator().manual_seed(0)
    values = planted.emit_samples(planted.sample(ts, 1, generator=generator), generator=generator)[0].detach()
    batch = IrregularBatch(ts, values, torch.ones_like(values, dtype=torch.bool))
    model = LinearGaussian(Stationary(2), H=torch.tensor([[1.0, 0.5]]), R=0.1).double()
    reached = maximum_likelihood(model, batch, max_steps=60)
    assert reached > float(planted.log_prob(batch).sum()) - 0.5
    torch.testing.assert_close(model.dynamics.periods, torch.tensor([2 * math.pi / 6.0], dtype=F64), rtol=0.05, atol=0)
