"""Means over intervals: the filter against dense Gaussian processes with integrated kernels."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from ctdyn.data import IrregularBatch
from ctdyn.linear import (
    OU,
    Dense,
    Diagonal,
    Gaussian,
    IntegratedDynamics,
    LinearGaussian,
    Matern,
    Oscillators,
    Periodic,
    ProductDynamics,
    Ramp,
    Rotations,
    SumDynamics,
    expectation_maximisation,
    maximum_likelihood,
)
from ctdyn.testing import check_linear


F64 = torch.float64


def f64(*values):
    return torch.tensor(values, dtype=F64)


#: Points, overlapping and nested intervals, two that end at one time, and one that begins before everything.
ENDS = f64(0.3, 1.0, 1.0, 1.7, 2.0, 3.0, 3.0, 4.2)
BEGINS = f64(0.3, 0.0, 1.0, 0.4, 1.0, 0.0, 2.0, 4.2)
ASKED_BEGINS, ASKED_ENDS = f64(0.5, 3.0, 5.0, 1.5, -2.0), f64(2.5, 3.0, 6.0, 4.0, -1.0)


def integrated(kernel, begins, ends, other_begins, other_ends):
    """The covariance of means: the kernel, weighted by how long two intervals overlap when one is shifted."""
    x, w = (torch.from_numpy(np.array(part)) for part in np.polynomial.legendre.leggauss(24))

    def entry(s, t, u, v):
        if s == t and u == v:
            return kernel((t - v)[None])[0]
        # Between its kinks everything is smooth.
        cuts = torch.stack([s - v, t - v, s - u, t - u, 0 * s]).unique()
        cuts = cuts[(cuts >= s - v) & (cuts <= t - u)]
        half = cuts.diff()[:, None] / 2
        lag = (cuts[:-1, None] + half + half * x).flatten()
        overlap = torch.minimum(t, v + lag) - torch.maximum(s, u + lag) if s < t and u < v else torch.ones_like(lag)
        width = (t - s if s < t else 1.0) * (v - u if u < v else 1.0)
        return ((half * w).flatten() * overlap * kernel(lag)).sum() / width

    pairs = list(zip(other_begins, other_ends, strict=True))
    return torch.stack([torch.stack([entry(s, t, u, v) for u, v in pairs]) for s, t in zip(begins, ends, strict=True)])


def ou_covariance(rate, variance, begins, ends, other_begins, other_ends):
    """The same for an Ornstein-Uhlenbeck process, in closed form."""

    def once(x):
        return x.sign() * variance * (1 - (-rate * x.abs()).exp()) / rate

    def twice(x):
        return variance * (x.abs() / rate + ((-rate * x.abs()).exp() - 1) / rate**2)

    def entry(s, t, u, v):
        if s == t and u == v:
            return variance * (-rate * (t - v).abs()).exp()
        if s == t:
            return (once(v - t) - once(u - t)) / (v - u)
        if u == v:
            return (once(t - v) - once(s - v)) / (t - s)
        return (twice(t - u) + twice(s - v) - twice(t - v) - twice(s - u)) / ((t - s) * (v - u))

    pairs = list(zip(other_begins, other_ends, strict=True))
    return torch.stack([torch.stack([entry(s, t, u, v) for u, v in pairs]) for s, t in zip(begins, ends, strict=True)])


def observed(values, mask=None, **other):
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    return IrregularBatch(ENDS[None], torch.where(mask, values, 0.0), mask, start=BEGINS[None], **other)


def draw(channels, seed=0):
    return torch.randn(1, len(ENDS), channels, dtype=F64, generator=torch.Generator().manual_seed(seed))


def agrees(model, batch, covariance, offset, noise):
    """Likelihood, filled means and smoothed points of a model with one channel, against one large Gaussian."""
    given = (BEGINS, ENDS)
    S = covariance(*given, *given) + noise * torch.eye(len(ENDS), dtype=F64)
    x = batch.values[0, :, 0]
    expected = MultivariateNormal(torch.full_like(x, offset), S).log_prob(x)
    torch.testing.assert_close(model.log_prob(batch)[0], expected, rtol=0, atol=1e-8)
    asked = (ASKED_BEGINS, ASKED_ENDS)
    across = covariance(*asked, *given)
    mean = offset + across @ torch.linalg.solve(S, x - offset)
    spread = covariance(*asked, *asked) - across @ torch.linalg.solve(S, across.mT)
    found = model.aggregate(batch, asked[0][None], asked[1][None], noise=False)
    torch.testing.assert_close(found.mean[0, :, 0], mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.variance[0, :, 0], spread.diagonal(), rtol=0, atol=1e-8)
    points = f64(0.1, 1.0, 2.2, 6.0)
    across = covariance(points, points, *given)
    states = model.emit(model.predict(batch, points[None]), noise=False)
    mean = offset + across @ torch.linalg.solve(S, x - offset)
    torch.testing.assert_close(states.mean[0, :, 0], mean, rtol=0, atol=1e-8)


def test_an_ornstein_uhlenbeck_process_in_closed_form():
    rate, variance = 0.7, 1.3
    dynamics = OU(rate=f64(rate), sigma=f64(math.sqrt(2 * rate * variance)))
    model = LinearGaussian(dynamics, H=torch.ones(1, 1, dtype=F64), R=f64(0.1), offset=f64(0.4))
    agrees(model, observed(draw(1)), lambda *ends: ou_covariance(rate, variance, *ends), 0.4, 0.1)


@pytest.mark.parametrize(
    "dynamics",
    [
        Matern(1.5, lengthscale=f64(0.8)[0], variance=f64(1.4)[0]),
        Matern(2.5, lengthscale=f64(2.0)[0]),
        SumDynamics([Matern(0.5, lengthscale=f64(3.0)[0]), Oscillators(f64(4.0), decay=f64(0.3))]),
        ProductDynamics(Periodic(f64(1.7)[0], harmonics=3), Matern(0.5, lengthscale=f64(3.0)[0])),
    ],
    ids=["rough", "smooth", "sum", "product"],
)
def test_any_kernel_by_quadrature(dynamics):
    model = LinearGaussian(dynamics, R=f64(0.05))

    def covariance(*ends):
        return integrated(lambda lag: dynamics.kernel(lag).detach(), *ends)

    agrees(model, observed(draw(1)), covariance, 0.0, 0.05)


def _two_channels(seed=0):
    dynamics = SumDynamics([Matern(1.5, lengthscale=f64(0.8)[0]), OU(rate=f64(0.5), sigma=f64(1.0))])
    H = torch.randn(2, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return LinearGaussian(dynamics, H=H, R=f64(0.2, 0.1), offset=f64(0.3, -0.2))


def test_what_is_known_of_a_mean_is_what_is_known_of_its_parts():
    """Two channels, one missing at times, with errors of their own: nothing but linearity of the posterior."""
    model = _two_channels()
    mask = torch.rand(1, len(ENDS), 2, generator=torch.Generator().manual_seed(1)) > 0.3
    batch = observed(draw(2), mask, noise=0.3 * torch.ones(1, len(ENDS), 2, dtype=F64))
    whole = model.aggregate(batch, f64(0.2)[None], f64(3.2)[None]).mean
    parts = model.aggregate(batch, f64(0.2, 1.2, 2.2)[None], f64(1.2, 2.2, 3.2)[None]).mean
    torch.testing.assert_close(parts.mean(-2, keepdim=True), whole, rtol=0, atol=1e-10)
    narrow = model.aggregate(batch, f64(1.1 - 1e-6)[None], f64(1.1)[None])
    point = model.emit(model.predict(batch, f64(1.1)[None]))
    torch.testing.assert_close(narrow.mean, point.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(narrow.covariance, point.covariance, rtol=0, atol=1e-5)


def test_more_channels_than_states():
    dynamics = Matern(0.5, lengthscale=f64(0.8)[0])
    H = f64(1.0, -0.5, 2.0)[:, None]
    model = LinearGaussian(dynamics, H=H, R=f64(0.2, 0.1, 0.3))
    one = LinearGaussian(dynamics, H=H[:1], R=f64(0.2))
    batch = observed(draw(3), torch.tensor([True, False, False]).expand(1, len(ENDS), 3))
    single = observed(draw(3)[..., :1])
    torch.testing.assert_close(model.log_prob(batch), one.log_prob(single), rtol=0, atol=1e-10)


def test_series_in_a_batch_and_padding():
    model = _two_channels()
    batch = observed(draw(2))
    last = ENDS[-1].expand(1, 3)
    times = torch.cat([ENDS[None], last], -1)
    nothing = torch.zeros(1, 3, 2, dtype=F64)
    padded = IrregularBatch(
        times,
        torch.cat([batch.values, nothing], -2),
        torch.cat([batch.mask, nothing.bool()], -2),
        start=torch.cat([BEGINS[None], last], -1),
    )
    other = IrregularBatch(times, padded.values + 1.0, padded.mask, start=times)
    names = ("times", "values", "mask", "start")
    both = IrregularBatch(**{name: torch.cat([getattr(one, name) for one in (padded, other)]) for name in names})
    expected = torch.cat([model.log_prob(batch), model.log_prob(IrregularBatch(times, other.values, other.mask))])
    torch.testing.assert_close(model.log_prob(both), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(model.smooth(padded).mean[:, : len(ENDS)], model.smooth(batch).mean, rtol=0, atol=1e-9)
    assert model.filter(batch).covariance.shape == (1, len(ENDS), 3, 3)


def test_parameters_with_batch_axes():
    scales = f64(0.5, 2.0)
    model = LinearGaussian(Matern(1.5, lengthscale=scales), R=f64(0.1))
    values = draw(1)[:, None].expand(1, 2, -1, 1)
    batch = IrregularBatch(
        ENDS.expand(1, 2, -1), values, torch.ones_like(values, dtype=torch.bool), start=BEGINS.expand(1, 2, -1)
    )
    alone = [LinearGaussian(Matern(1.5, lengthscale=s), R=f64(0.1)).log_prob(observed(draw(1)))[0] for s in scales]
    torch.testing.assert_close(model.log_prob(batch)[0], torch.stack(alone))


def test_trajectories_given_means():
    model = _two_channels()
    batch = observed(draw(2))
    at = f64(0.2, 1.5, 5.0)[None]
    drawn = model.sample_posterior(batch, at, 4000, generator=torch.Generator().manual_seed(0))
    exact = model.predict(batch, at)
    error = (drawn.mean(0) - exact.mean).abs() / (exact.variance / 4000).sqrt()
    assert bool((error < 5).all())
    torch.testing.assert_close(drawn.var(0), exact.variance, rtol=0.15, atol=1e-3)


def test_inputs_are_averaged_as_well():
    """Without noise the mean of a driven state is a matter of quadrature."""
    dynamics = Dense(f64(-0.5)[:, None], B=f64(2.0)[:, None])
    start = Gaussian(f64(0.7), torch.zeros(1, 1, dtype=F64))
    model = LinearGaussian(dynamics, H=torch.ones(1, 1, dtype=F64), R=f64(1.0), initial=start, hold=Ramp())
    ts, us = f64(0.0, 1.0, 2.5, 4.0)[None], f64(1.0, -2.0, 0.5, 3.0)[None, :, None]
    batch = IrregularBatch(ts, torch.zeros_like(us), torch.zeros_like(us, dtype=torch.bool), inputs=us)
    found = model.aggregate(batch, f64(0.4)[None], f64(3.1)[None], noise=False).mean
    fine = torch.linspace(0.4, 3.1, 4001, dtype=F64)[None]
    path = model.emit(model.predict(batch, fine), noise=False).mean[..., 0]
    torch.testing.assert_close(found.flatten(), torch.trapezoid(path, fine) / 2.7, rtol=0, atol=1e-6)


def test_gradients_and_fitting():
    batch = observed(draw(1))
    model = LinearGaussian(Matern(1.5, lengthscale=f64(0.8)[0]), R=f64(0.1), offset=f64(0.0))
    before = model.log_prob(batch)
    (gradient,) = torch.autograd.grad(before.sum(), model.dynamics.log_lengthscale)
    moved = [
        LinearGaussian(Matern(1.5, lengthscale=f64(0.8)[0] * math.exp(h)), R=f64(0.1)).log_prob(batch)
        for h in (1e-5, -1e-5)
    ]
    torch.testing.assert_close(gradient, (moved[0] - moved[1])[0] / 2e-5, rtol=1e-5, atol=1e-8)
    assert maximum_likelihood(model, batch, max_steps=5) > float(before.detach())


@pytest.mark.parametrize(
    "dynamics",
    [
        OU(rate=f64(0.5, 2.0), sigma=f64(1.0, 0.3)),
        Matern(2.5, lengthscale=f64(0.4)[0], variance=f64(2.0)[0]),
        Oscillators(f64(1.0, 3.0), decay=f64(0.2, 0.5)),
        Rotations(f64(0.2), f64(1.0), sigma=f64(0.7)[0]),
        Diagonal(f64(-1.0, -0.2), S=f64(1.0, 0.2, 0.2, 2.0).view(2, 2)),
        Dense(f64(-1.0, 0.3, 0.0, -0.5).view(2, 2), S=f64(1.0, 0.2, 0.2, 2.0).view(2, 2)),
        ProductDynamics(Periodic(f64(1.7)[0], harmonics=1), OU(rate=f64(0.5), sigma=f64(1.0))),
        SumDynamics([OU(rate=f64(0.5), sigma=f64(1.0)), Periodic(f64(1.0)[0], harmonics=1)]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_the_density_is_the_noise_of_a_short_step(dynamics):
    short = 1e-7
    density = dynamics.noise(f64(short)).squeeze(-3) / short
    torch.testing.assert_close(dynamics.density(), density, rtol=1e-4, atol=1e-4)


def test_contract():
    check_linear(IntegratedDynamics(Matern(1.5), torch.tensor([[1.0, 0.0], [0.2, 0.5]])))
    check_linear(IntegratedDynamics(Dense(torch.tensor([[-1.0]]), B=torch.tensor([[1.0, 2.0]])), torch.ones(1, 1)))
    with pytest.raises(ValueError, match="no stationary distribution"):
        IntegratedDynamics(Matern(1.5), torch.ones(1, 2)).stationary()


def test_bad_input():
    values = torch.zeros(1, 2, 1)
    with pytest.raises(ValueError, match="start must not lie after its time"):
        IrregularBatch(torch.tensor([[0.0, 1.0]]), values, values.bool(), start=torch.tensor([[0.0, 2.0]]))
    model = LinearGaussian(Dense(-torch.eye(1), S=torch.eye(1)), H=torch.ones(1, 1), R=1.0)
    with pytest.raises(ValueError, match=r"aggregated observations .* Fit by maximum likelihood"):
        expectation_maximisation(model.double(), observed(draw(1)))
    known = LinearGaussian(
        Dense(-torch.eye(1), S=torch.eye(1)), H=torch.ones(1, 1), R=1.0, initial=Gaussian(torch.zeros(1), torch.eye(1))
    )
    with pytest.raises(ValueError, match="begins before the first time of its series"):
        known.log_prob(observed(draw(1)))
