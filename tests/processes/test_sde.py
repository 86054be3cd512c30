"""The latent SDE's processes against closed forms: Ornstein-Uhlenbeck processes, and an exact likelihood."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from ctdyn.encoders import Encoding
from ctdyn.fields import MLPSDEField
from ctdyn.models import ELBO, IWAE
from ctdyn.paths import ConstantPath, LinearPath
from ctdyn.processes import MatchedSDEProcess, SDEProcess
from ctdyn.solvers import SRA1, Milstein
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.systems import OrnsteinUhlenbeck
from ctdyn.testing import check_process


F64 = torch.float64
STARTS = torch.tensor([0.0, 0.5, 2.0], dtype=F64)


def _perturbed(process):
    """A correction that is zero lets no gradient through to its hidden layers."""
    torch.manual_seed(0)
    for parameter in process.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    return process


PARTS = {
    "SDEProcess": [
        lambda: SDEProcess(MLPSDEField(2, (8,)), 2, 3, hidden=(8,), dt=0.1),
        lambda: SDEProcess(MLPSDEField(2, (8,), noise=Noise.GENERAL, brownian_size=3), 2, 3, hidden=(8,), dt=0.25),
        lambda: SDEProcess(MLPSDEField(2, (8,)), 2, 3, hidden=(8,), dt=0.1, solver=Milstein()),
    ],
    "MatchedSDEProcess": [
        lambda: MatchedSDEProcess(MLPSDEField(2, (8,)), 2, 3, hidden=(8,), dt=0.1, num_times=3),
        lambda: MatchedSDEProcess(
            MLPSDEField(2, (8,), noise=Noise.ADDITIVE), 2, 3, hidden=(), num_times=1, dt=0.25, solver=SRA1()
        ),
    ],
}


def _encodings(size, length=0.85):
    """The encoding of the contract, with a context on the clock of each series that bends on the way."""
    rng = torch.Generator().manual_seed(0)
    known = 0.3 * torch.randn(3, 2, generator=rng, dtype=F64)

    def build(mean, std):
        t0 = STARTS[[int((row == known).all(-1).nonzero()[0]) for row in mean]]
        knots = t0[:, None] + length * torch.tensor([0.0, 0.35, 1.0], dtype=F64)
        height = torch.tensor([1.0, -0.5, 0.5], dtype=F64)[:, None] * torch.ones(size, dtype=F64)
        return Encoding(
            q0=Independent(Normal(mean, std), 1), context=LinearPath(knots, height.expand(len(t0), 3, size))
        )

    return build


@pytest.mark.parametrize("build", [build for builds in PARTS.values() for build in builds])
def test_contract(build):
    check_process(_perturbed(build()), encoding=_encodings(3))


class Affine(nn.Module):
    """A correction whose coefficients are the context itself: what the optimum of a linear problem looks like."""

    def forward(self, x):
        z, slope, level, _ = x.split(1, -1)
        return slope * z + level


class Steps(LinearPath):
    """A context that is held from knot to knot."""

    def _polynomials(self, starts, slopes, gaps):
        return starts.unsqueeze(-2)


def _ou_process(theta, sigma, dt):
    """The stationary process."""
    process = SDEProcess(OrnsteinUhlenbeck(theta, 0.0, sigma), 1, 2, dt=dt).double()
    process.correction = Affine()
    process.prior_log_std.data.fill_(0.5 * math.log(sigma**2 / (2 * theta)))
    return process


def _sampled(process, encoding, end, num_samples=4000, seed=0):
    start = torch.zeros(1, dtype=F64)
    with torch.no_grad():
        return process.posterior(encoding, start, end[None], num_samples, torch.Generator().manual_seed(seed))


def test_the_divergence_of_two_ornstein_uhlenbeck_processes_is_the_closed_form():
    theta, sigma, other, level, end = 1.5, 0.7, 0.6, 0.8, 2.0
    start, spread = -0.4, 0.3
    process = _ou_process(theta, sigma, dt=0.01)
    # The posterior's drift other * (level - z), in units of the noise.
    row = torch.tensor([(theta - other) / sigma, other * level / sigma], dtype=F64)
    context = LinearPath(torch.tensor([[0.0, end]], dtype=F64), row.expand(1, 2, 2))
    q0 = Independent(Normal(torch.tensor([[start]], dtype=F64), spread), 1)
    latent = _sampled(process, Encoding(q0=q0, context=context), torch.tensor([end, 3.0], dtype=F64))

    decay = math.exp(-other * end)
    away = start - level
    mean = level * end + away * (1 - decay) / other
    square = level**2 * end + 2 * level * away * (1 - decay) / other + away**2 * (1 - decay**2) / (2 * other)
    limit = sigma**2 / (2 * other)
    variance = limit * end + (spread**2 - limit) * (1 - decay**2) / (2 * other)
    slope, offset = row.tolist()
    expected = 0.5 * (slope**2 * (square + variance) + 2 * slope * offset * mean + offset**2 * end)
    assert float(latent.kl["path"]) == pytest.approx(expected, rel=0.02)
    estimate = -latent.log_terms["path"]
    assert abs(float(estimate.mean() - latent.kl["path"])) < 5 * float(estimate.std()) / math.sqrt(len(estimate))
    # Beyond the context it is the prior's process, which forgets.
    limit = sigma**2 / (2 * theta)
    law = level + away * decay, limit + (latent.zs[:, 0, 0].var() - limit) * math.exp(-2 * theta)
    assert float(latent.zs[:, 0, 1].mean()) == pytest.approx(law[0] * math.exp(-theta), abs=0.05)
    assert float(latent.zs[:, 0, 1].var()) == pytest.approx(float(law[1]), rel=0.1)


OBSERVED = torch.tensor([0.0, 0.4, 0.5, 1.3], dtype=F64)
VALUES = torch.tensor([0.5, -0.3, -0.6, 0.9], dtype=F64)
NOISE, THETA, SIGMA = 0.3, 1.2, 0.9


def _covariance(s, t):
    return SIGMA**2 / (2 * THETA) * torch.exp(-THETA * (s[:, None] - t[None, :]).abs())


def _exact():
    total = _covariance(OBSERVED, OBSERVED) + NOISE**2 * torch.eye(4, dtype=F64)
    return MultivariateNormal(torch.zeros(4, dtype=F64), total).log_prob(VALUES)


def _smoothed(ts):
    """Mean and standard deviation of the exact posterior."""
    total = _covariance(OBSERVED, OBSERVED) + NOISE**2 * torch.eye(4, dtype=F64)
    gain = torch.linalg.solve(total, _covariance(OBSERVED, ts)).mT
    variance = SIGMA**2 / (2 * THETA) - (gain * _covariance(ts, OBSERVED)).sum(-1)
    return gain @ VALUES, variance.sqrt()


def _future(ts):
    """What is known at each time of the observations after it: precision and precision times mean."""
    rows = []
    for t in ts:
        precision = information = 0.0
        at = OBSERVED[-1]
        for when, value in zip(OBSERVED.flip(0), VALUES.flip(0), strict=True):
            if when <= t:
                break
            precision, information = _back(precision, information, float(at - when))
            precision, information, at = precision + NOISE**-2, information + float(value) / NOISE**2, when
        rows.append(_back(precision, information, float(at - t)))
    return torch.tensor(rows, dtype=F64)


def _back(precision, information, span):
    decay = math.exp(-THETA * span)
    shrink = 1 + SIGMA**2 / (2 * THETA) * (1 - decay**2) * precision
    return decay**2 * precision / shrink, decay * information / shrink


def _optimal(process):
    knots = torch.arange(0.0, 1.3 + 1e-9, process.walk.dt, dtype=F64)
    # A hair behind each knot, so that an observation there has been made, however the knot was rounded.
    future = _future(knots + 1e-9)
    context = Steps(knots[None], torch.stack([-SIGMA * future[:, 0], SIGMA * future[:, 1]], -1)[None])
    mean, std = _smoothed(torch.zeros(1, dtype=F64))
    return Encoding(q0=Independent(Normal(mean[None], std[None]), 1), context=context)


def _log_prob(zs):
    return Normal(zs[..., 0], NOISE).log_prob(VALUES).sum(-1)


def _bounds(process, encoding, num_samples):
    start = torch.zeros(1, dtype=F64)
    with torch.no_grad():
        latent = process.posterior(encoding, start, OBSERVED[None], num_samples, torch.Generator().manual_seed(1))
    log_prob = _log_prob(latent.zs)
    return float(ELBO().bound(log_prob, latent)), log_prob + sum(latent.log_terms.values()), latent


def test_the_bound_is_the_exact_likelihood_at_the_optimum_and_below_it_elsewhere():
    process = _ou_process(THETA, SIGMA, dt=0.0025)
    encoding = _optimal(process)
    exact = float(_exact())
    bound, weights, latent = _bounds(process, encoding, 500)
    assert bound == pytest.approx(exact, abs=0.03)
    # At the optimum every single path says how likely the data are, but for the length of the steps.
    assert float(weights.std()) < 0.2
    assert float(IWAE(500).bound(weights - sum(latent.log_terms.values()), latent)) == pytest.approx(exact, abs=0.03)
    ignorant = Encoding(encoding.q0, LinearPath(OBSERVED[None], torch.zeros(1, 4, 2, dtype=F64)))
    worse, weights, latent = _bounds(process, ignorant, 4000)
    assert worse < exact - 1.0
    assert float(IWAE(4000).bound(weights - sum(latent.log_terms.values()), latent)) == pytest.approx(exact, abs=0.2)


# ------------------------------------------------------------------------------------------------------------ matching


def _matched(field=None, **options):
    field = OrnsteinUhlenbeck(THETA, 0.0, SIGMA) if field is None else field
    process = MatchedSDEProcess(field, 1, 2, hidden=(), **options).double()
    affine = process.marginal.layers[0]
    affine.weight.data = torch.eye(2, 3, dtype=F64)
    process.prior_log_std.data.fill_(0.5 * math.log(SIGMA**2 / (2 * THETA)))
    return process


def _smoothing(pieces=400):
    """The exact posterior as a context, in straight pieces that end at the observations."""
    inner = [torch.linspace(float(a), float(b), pieces + 1, dtype=F64)[:-1] for a, b in itertools.pairwise(OBSERVED)]
    knots = torch.cat([*inner, OBSERVED[-1:]])
    mean, std = _smoothed(knots)
    context = LinearPath(knots[None], torch.stack([mean, std.log()], -1)[None])
    return Encoding(q0=Independent(Normal(mean[None, :1], std[None, :1]), 1), context=context)


#: Exact for polynomials of degree 5.
POINTS = torch.tensor([-math.sqrt(3.0), 0.0, math.sqrt(3.0)], dtype=F64)
WEIGHTS = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=F64)


def _quadrature(process, encoding):
    """The divergence of the paths: in the middle of every piece, over normal noise."""
    knots = encoding.context.knots()
    middle = 0.5 * (knots[:, 1:] + knots[:, :-1])
    noise = POINTS[:, None, None, None].expand(3, *middle.shape, 1)
    rate = process.divergence_rate(encoding, torch.zeros(1, dtype=F64), middle, noise)
    return ((rate * WEIGHTS[:, None, None]).sum(0) * knots.diff(dim=-1)).sum()


def _matched_bound(process, encoding):
    t0 = torch.zeros(1, dtype=F64)
    start = process.posterior(encoding, t0, OBSERVED[None])
    ends = [process._marginals(encoding, t0).at(OBSERVED[None])[k][0, :, 0] for k in range(2)]
    expected = Normal(ends[0], NOISE).log_prob(VALUES) - 0.5 * (ends[1].exp() / NOISE) ** 2
    return expected.sum() - start.kl["z0"].sum() - _quadrature(process, encoding)


def test_the_matched_bound_is_the_exact_likelihood_at_the_optimum_and_below_it_elsewhere():
    process, encoding = _matched(), _smoothing()
    best = _matched_bound(process, encoding)
    assert float(best) == pytest.approx(float(_exact()), abs=1e-3)
    gradients = torch.autograd.grad(best, list(process.marginal.parameters()))
    assert max(float(gradient[..., :2].abs().max()) for gradient in gradients) < 0.02
    torch.manual_seed(0)
    for _ in range(5):
        process = _matched()
        process.marginal.layers[0].weight.data += 0.1 * torch.randn(2, 3, dtype=F64)
        assert float(_matched_bound(process, encoding)) < float(best) - 1e-3


def test_the_divergence_at_random_times_is_unbiased():
    process, encoding = _matched(num_times=2), _smoothing(pieces=20)
    process.marginal.layers[0].weight.data += 0.2
    rng, t0 = torch.Generator().manual_seed(0), torch.zeros(1, dtype=F64)
    with torch.no_grad():
        exact = _quadrature(process, encoding)
        draws = torch.stack([process.posterior(encoding, t0, t0[:, None], 4, rng).kl["path"] for _ in range(400)])
    assert abs(float(draws.mean() - exact)) < 5 * float(draws.std()) / 20


class Rough(SDEField):
    """A noise that depends on the state, and a drift above every posterior's, so that a rate tells its sign."""

    noise, calculus = Noise.DIAGONAL, Calculus.ITO
    high = 50.0

    def drift(self, t, y, u=None):
        return torch.full_like(y, self.high)

    def diffusion(self, t, y, u=None):
        return 1.0 + 0.3 * y


def test_the_matched_drift_moves_the_marginals_where_the_noise_depends_on_the_state():
    process, encoding = _matched(Rough()), _smoothing(pieces=1)
    ts = torch.tensor([[0.25, 0.9]], dtype=F64)
    noise = POINTS[:, None, None, None].expand(3, 1, 2, 1)
    t0 = torch.zeros(1, dtype=F64)
    mean, log_std, mean_rate, log_std_rate = (x[..., 0] for x in process._marginals(encoding, t0).moving(ts))
    z = mean + log_std.exp() * noise[..., 0]
    g = 1.0 + 0.3 * z
    drift = Rough.high - g * (2.0 * process.divergence_rate(encoding, t0, ts, noise)).sqrt()

    def expect(x):
        return (x * WEIGHTS[:, None, None]).sum(0)

    torch.testing.assert_close(expect(drift), mean_rate)
    square_rate = 2 * mean * mean_rate + 2 * (2 * log_std).exp() * log_std_rate
    torch.testing.assert_close(expect(2 * z * drift + g.square()), square_rate)


def test_matched_samples_have_the_marginals_and_then_follow_the_prior():
    process, encoding = _matched(dt=0.01), _smoothing()
    ts = torch.tensor([[0.45, 1.3, 2.3]], dtype=F64)
    with torch.no_grad():
        zs = process.posterior(encoding, torch.zeros(1, dtype=F64), ts, 4000, torch.Generator().manual_seed(0)).zs[
            :, 0, :, 0
        ]
    mean, std = _smoothed(ts[0])
    torch.testing.assert_close(zs.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(zs.std(0), std, rtol=0.06, atol=0)


@pytest.mark.parametrize(("solver", "factor"), [(None, 1 - 0.6), (SRA1(), 1 - 0.6 + 0.6**2 / 2)])
def test_beyond_the_context_the_method_says_what_a_step_is_worth(solver, factor):
    process, encoding = _matched(dt=0.5, solver=solver), _smoothing()
    ts = OBSERVED[-1] + torch.tensor([[0.0, 1.0]], dtype=F64)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        zs = process.posterior(encoding, torch.zeros(1, dtype=F64), ts, 20000, rng).zs[:, 0, :, 0]
    # THETA times a step is 0.6, of which a method sees the first terms of an exponential function.
    assert float(zs[:, 1].mean()) == pytest.approx(factor**2 * float(zs[:, 0].mean()), abs=0.02)


# ------------------------------------------------------------------------------------------------------------ bad input


def test_a_posterior_without_density_ratio_is_refused_by_importance_weights():
    latent = _matched().posterior(_smoothing(), torch.zeros(1, dtype=F64), OBSERVED[None], 3)
    with pytest.raises(ValueError, match="what ELBO"):
        IWAE(3).bound(_log_prob(latent.zs), latent)


def test_bad_input():
    t0, q0 = torch.zeros(1), Independent(Normal(torch.zeros(1, 2), 1.0), 1)
    still = ConstantPath(torch.zeros(1, 3))
    for process in (SDEProcess(MLPSDEField(2), 2, 3), MatchedSDEProcess(MLPSDEField(2), 2, 3)):
        for encoding in (Encoding(q0=q0), Encoding(q0=q0, context=still), Encoding(context=still)):
            with pytest.raises(ValueError, match="needs an encoding with"):
                process.posterior(encoding, t0, t0[:, None])
    with pytest.raises(ValueError, match="dt"):
        SDEProcess(MLPSDEField(2), 2, 3, dt=0.0)
    with pytest.raises(ValueError, match="num_times"):
        MatchedSDEProcess(MLPSDEField(2), 2, 3, num_times=0)
    with pytest.raises(ValueError, match="SDEProcess takes any"):
        MatchedSDEProcess(MLPSDEField(2, noise=Noise.SCALAR), 2, 3)
    with pytest.raises(ValueError, match="SDEProcess takes any"):
        MatchedSDEProcess(MLPSDEField(2, calculus=Calculus.STRATONOVICH), 2, 3)
    twisted = MLPSDEField(2, noise=Noise.ADDITIVE, brownian_size=3)
    context = LinearPath(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="one Brownian motion per latent dimension"):
        MatchedSDEProcess(twisted, 2, 3).posterior(Encoding(q0=q0, context=context), t0, t0[:, None])
