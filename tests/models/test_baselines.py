import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from ctdyn.data import Channel, IrregularBatch, Window, co2, collate
from ctdyn.models import _gaussian_process, _residuals, baselines
from ctdyn.models._gaussian_process import (
    Hyperparameters,
    _negative_log_likelihood,
    fit_hyperparameters,
    pack,
    posterior,
    union,
)
from ctdyn.models._residuals import Residuals, residual_quantiles
from ctdyn.models.baselines import HoldLast, LinearInterpolation, MaternGP, OwnMean
from ctdyn.testing.latent import example_window
from ctdyn.testing.modelling import check_model


CHANNELS = (Channel("a"), Channel("b"), Channel("c"))
POINTS = (HoldLast, LinearInterpolation, OwnMean)
ALL = (*POINTS, MaternGP)


def batch(times, values, noise=None):
    """A batch from arrays in which NaN means not observed."""
    values = torch.as_tensor(np.asarray(values), dtype=torch.float64)
    mask = ~values.isnan()
    noise = None if noise is None else torch.as_tensor(noise, dtype=torch.float64)
    times = torch.as_tensor(np.asarray(times), dtype=torch.float64)
    return IrregularBatch(times, values.nan_to_num(nan=0.0), mask, noise=noise)


def ragged(rng, num_series=5, num_times=12, num_channels=3, keep=0.5):
    """Series of different lengths, padded, with entries missing at random; some channels are never observed."""
    times = np.sort(rng.uniform(0, 4, (num_series, num_times)), axis=1)
    values = np.where(
        rng.random((num_series, num_times, num_channels)) < keep, rng.normal(size=(*times.shape, 3)), np.nan
    )
    values[0, :, 1] = np.nan
    for row, length in enumerate(rng.integers(1, num_times + 1, num_series)):
        times[row, length:] = times[row, length - 1]
        values[row, length:] = np.nan
    return times, values


def by_hand(kind, times, values, t):
    """One channel of one series."""
    known = ~np.isnan(values)
    times, values = times[known], values[known]
    if not len(times):
        return 0.0
    if kind is OwnMean:
        return values.mean()
    if kind is LinearInterpolation:
        return np.interp(t, times, values)
    past = times <= t
    return values[past][-1] if past.any() else values[0]


@pytest.mark.parametrize("kind", POINTS)
def test_points_by_hand(kind):
    rng = np.random.default_rng(0)
    times, values = ragged(rng)
    queries = np.concatenate([rng.uniform(-1, 6, (5, 9)), times[:, :3]], axis=1)
    mean = kind(CHANNELS).predict(batch(times, values), torch.as_tensor(queries)).mean
    for b, q, c in np.ndindex(mean.shape):
        expected = by_hand(kind, times[b], values[b, :, c], queries[b, q])
        assert float(mean[b, q, c]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_more_batch_axes_and_one_series_alone_agree(kind):
    rng = np.random.default_rng(1)
    times, values = ragged(rng, num_series=6)
    queries = torch.as_tensor(rng.uniform(-1, 6, (6, 7)))
    model, whole = kind(CHANNELS), batch(times, values)
    folded = IrregularBatch(whole.times.view(2, 3, -1), whole.values.view(2, 3, -1, 3), whole.mask.view(2, 3, -1, 3))
    expected = model.predict(whole, queries)
    actual = model.predict(folded, queries.view(2, 3, -1))
    torch.testing.assert_close(actual.mean.flatten(0, 1), expected.mean)
    torch.testing.assert_close(actual.stddev.flatten(0, 1), expected.stddev)
    alone = model.predict(whole[2:3], queries[2:3])
    torch.testing.assert_close(alone.mean[0], expected.mean[2])
    torch.testing.assert_close(alone.stddev[0], expected.stddev[2])
    assert model.predict(whole[:0], queries[:0]).mean.shape == (0, 7, 3)


@pytest.mark.parametrize("kind", ALL)
def test_padding_and_what_lies_under_the_mask_change_nothing(kind):
    times, values = ragged(np.random.default_rng(2))
    model, plain = kind(CHANNELS), batch(times, values)
    longer = torch.cat([plain.times, plain.times[:, -1:].expand(-1, 3)], 1)
    blank = torch.zeros(5, 3, 3, dtype=torch.float64)
    poisoned = torch.where(plain.mask, plain.values, 1e6)
    padded = IrregularBatch(longer, torch.cat([poisoned, blank + 1e6], 1), torch.cat([plain.mask, blank.bool()], 1))
    queries = torch.linspace(-1, 6, 8, dtype=torch.float64).expand(5, -1)
    expected, actual = model.predict(plain, queries), model.predict(padded, queries)
    torch.testing.assert_close(actual.mean, expected.mean)
    torch.testing.assert_close(actual.stddev, expected.stddev)


@pytest.mark.parametrize("kind", ALL)
def test_context_without_rows(kind):
    empty = batch(np.zeros((2, 0)), np.zeros((2, 0, 3)))
    predictive = kind(CHANNELS).predict(empty, torch.ones(2, 4, dtype=torch.float64))
    assert predictive.mean.shape == (2, 4, 3)
    torch.testing.assert_close(predictive.mean, torch.zeros(2, 4, 3, dtype=torch.float64))
    assert bool((predictive.stddev > 0.9).all())


def windows(rng, num_series=400, noise=None):
    """Random walks observed at random times: what comes next spreads with the root of the distance."""
    times = np.sort(rng.uniform(0, 10, (num_series, 60)), axis=1)
    steps = np.diff(times, axis=1, prepend=times[:, :1])
    draw = rng.normal if noise is None else noise
    values = np.cumsum(draw(size=times.shape) * np.sqrt(steps), axis=1)[..., None]
    return Window(batch(times[:, :30], values[:, :30]), batch(times[:, 30:], values[:, 30:]))


def skewed(size):
    return np.random.default_rng(3).exponential(size=size) - 1.0


@pytest.mark.parametrize("noise", [None, skewed])
@pytest.mark.parametrize("kind", POINTS)
def test_residual_intervals_are_calibrated_at_every_distance(kind, noise):
    rng = np.random.default_rng(0)
    channels = (Channel("x"),)
    model = kind(channels)
    model.fit_exact([windows(rng, noise=noise)])
    fresh = windows(np.random.default_rng(9), noise=noise)
    context, target = fresh.context, fresh.target
    distribution = model.distribution(context, target.times)
    below = distribution.cdf(target.values)[0]
    gap = target.times - context.times[:, -1:]
    for low, high in ((0.0, 0.7), (0.7, 2.0), (2.0, 10.0)):
        near = (gap >= low) & (gap < high)
        for level in (0.5, 0.8, 0.9):
            covered = ((below - 0.5).abs() <= level / 2)[near].double().mean()
            assert float(covered) == pytest.approx(level, abs=0.06), (low, high, level)


def test_spread_grows_with_the_distance():
    model = HoldLast((Channel("x"),))
    model.fit_exact([windows(np.random.default_rng(0))])
    context = batch([[0.0]], [[[0.0]]])
    stddev = model.predict(context, torch.tensor([[0.5, 2.0, 5.0]], dtype=torch.float64)).stddev.flatten()
    assert bool((stddev.diff() > 0).all())
    np.testing.assert_allclose(stddev.square(), [0.5, 2.0, 5.0], rtol=0.35)


def test_equal_distances_share_a_bin_however_they_are_rounded():
    ones = torch.ones(100, dtype=torch.float64)
    rounding = 1.0 + 1e-15 * torch.randint(-3, 4, (100,), generator=torch.Generator().manual_seed(0))
    distance = torch.cat([ones, 2 * ones, 3 * ones]) * rounding.repeat(3)
    edges, bins = baselines._bin(distance)
    torch.testing.assert_close(edges[edges.isfinite()], torch.tensor([1.5, 2.5], dtype=torch.float64))
    assert bins.tolist() == [0] * 100 + [1] * 100 + [2] * 100


def test_a_residual_that_is_a_quantile_is_no_tail_by_rounding():
    excess = torch.tensor([-0.5, 0.0, 0.2, 0.4], dtype=torch.float64)
    least = torch.tensor(0.01, dtype=torch.float64)
    found = [_residuals._mean_excess(excess + shift, least) for shift in (-1e-16, 0.0, 1e-16)]
    torch.testing.assert_close(torch.stack(found), torch.full((3,), 0.3, dtype=torch.float64))


@pytest.mark.parametrize("kind", POINTS)
def test_fitting_leaves_the_point_alone(kind):
    rng = np.random.default_rng(4)
    window = windows(rng)
    # A drift makes every residual of hold-last and own mean positive.
    context = IrregularBatch(
        window.context.times, window.context.values + 3 * window.context.times[..., None], window.context.mask
    )
    target = IrregularBatch(
        window.target.times, window.target.values + 3 * window.target.times[..., None], window.target.mask
    )
    model = kind((Channel("x"),))
    before = model.predict(context, target.times).mean
    model.fit_exact([Window(context, target)])
    after = model.predict(context, target.times, num_samples=3)
    torch.testing.assert_close(after.mean, before)
    distribution = model.distribution(context, target.times)
    lower, upper = (distribution.icdf(torch.tensor(level, dtype=torch.float64)) for level in (0.05, 0.95))
    covered = ((lower[0] <= target.values) & (target.values <= upper[0])).double().mean()
    assert 0.85 < float(covered) < 0.97


def test_a_channel_without_context_gets_the_training_mean_and_spread():
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=(200, 6)), rng.normal(5.0, 2.0, size=(200, 6))], -1)
    times = np.tile(np.arange(6.0), (200, 1))
    hidden = values[:, :3].copy()
    hidden[::2, :, 1] = np.nan
    window = Window(batch(times[:, :3], hidden), batch(times[:, 3:], values[:, 3:]))
    for kind in POINTS:
        model = kind((Channel("a"), Channel("b")))
        model.fit_exact([window])
        blind = batch([[0.0]], [[[1.0, np.nan]]])
        predictive = model.predict(blind, torch.tensor([[4.0]], dtype=torch.float64))
        assert float(predictive.mean[0, 0, 1]) == pytest.approx(5.0, abs=0.2)
        assert float(predictive.stddev[0, 0, 1]) == pytest.approx(2.0, abs=0.2)


def test_rare_channels_borrow_the_spread_of_the_others():
    window = windows(np.random.default_rng(0))
    nothing = torch.zeros_like(window.target.values)
    target = IrregularBatch(
        window.target.times,
        torch.cat([window.target.values, nothing], -1),
        torch.cat([window.target.mask, nothing.bool()], -1),
    )
    context = IrregularBatch(
        window.context.times, window.context.values.expand(-1, -1, 2).clone(), window.context.mask.expand(-1, -1, 2)
    )
    model = HoldLast((Channel("x"), Channel("never")))
    model.fit_exact([Window(context, target)])
    stddev = model.predict(context, target.times).stddev
    torch.testing.assert_close(stddev[..., 0], stddev[..., 1])


@pytest.mark.parametrize("kind", POINTS)
def test_windows_that_say_nothing_about_gaps_are_refused(kind):
    context = batch([[0.0, 1.0]], [[[1.0], [2.0]]])
    with pytest.raises(ValueError, match="away from the context"):
        kind((Channel("x"),)).fit_exact([Window(context, context)])
    with pytest.raises(ValueError, match="no observed target"):
        kind((Channel("x"),)).fit_exact([])


@pytest.mark.parametrize("kind", ALL)
def test_state_survives_a_round_trip_and_samples_follow_the_generator(kind):
    window = windows(np.random.default_rng(0), num_series=30)
    model, other = kind((Channel("x"),)), kind((Channel("x"),))
    model.fit_exact([window])
    other.load_state_dict(model.state_dict())
    draws = [
        each.predict(window.context, window.target.times, num_samples=20).sample(torch.Generator().manual_seed(1))
        for each in (model, other)
    ]
    assert draws[0].shape == (20, 30, 30, 1)
    assert torch.equal(*draws)
    assert bool((draws[0].std(0) > 0).all())


@pytest.mark.parametrize("kind", ALL)
def test_loss_is_the_mean_negative_log_density_per_series(kind):
    times, values = ragged(np.random.default_rng(5))
    window = Window(batch(times, values), batch(times + 5.0, values))
    model = kind(CHANNELS)
    loss = model.loss(window)
    target = window.target
    log_prob = model.predict(window.context, target.times, num_samples=4).log_prob(target.values, target.mask)
    torch.testing.assert_close(loss.total, -log_prob.sum((-1, -2)).mean())
    torch.testing.assert_close(loss.parts["nats_per_observation"], -log_prob.sum() / target.mask.sum())


@pytest.mark.parametrize("kind", ALL)
def test_half_precision_context_gives_answers_in_kind(kind):
    window = windows(np.random.default_rng(0), num_series=20).to(torch.float32)
    model = kind((Channel("x"),))
    model.fit_exact([window])
    predictive = model.predict(window.context, window.target.times)
    assert predictive.mean.dtype == torch.float32
    assert model.predict(window.context, window.target.times.double()).mean.dtype == torch.float32
    assert bool(predictive.log_prob(window.target.values, window.target.mask).isfinite().all())


@pytest.mark.parametrize("kind", ALL)
def test_contract_of_a_model(kind):
    window = example_window(2)
    model = kind((Channel("a"), Channel("b")))
    check_model(model, window)
    model.fit_exact([window])
    check_model(model, window)


# -- the residual distribution


def table(seed=0, size=500):
    residuals = torch.as_tensor(np.random.default_rng(seed).gamma(2.0, size=size))
    quantiles, tails = residual_quantiles(residuals)
    return residuals, Residuals(torch.zeros(1, dtype=torch.float64), torch.tensor([0]), quantiles[None], tails[None])


def test_residual_density_integrates_to_one_and_is_the_slope_of_the_distribution():
    _, distribution = table()
    x = torch.linspace(-12, 30, 400_001, dtype=torch.float64)
    density = distribution.log_prob(x).exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1.0, abs=1e-3)
    cdf = distribution.cdf(x)
    assert bool((cdf.diff() >= 0).all())
    np.testing.assert_allclose(cdf[1:], torch.cumulative_trapezoid(density, x) + cdf[0], atol=1e-3)
    assert float(torch.trapezoid(density * x, x)) == pytest.approx(float(distribution.mean), abs=1e-3)
    second = float(torch.trapezoid(density * x * x, x))
    assert second - float(distribution.mean) ** 2 == pytest.approx(float(distribution.variance), rel=1e-2)


@settings(max_examples=30, deadline=None)
@given(level=st.floats(1e-6, 1 - 1e-6), seed=st.integers(0, 5), size=st.integers(1, 60))
def test_quantile_and_distribution_are_inverse(level, seed, size):
    _, distribution = table(seed, size)
    u = torch.tensor([level], dtype=torch.float64)
    torch.testing.assert_close(distribution.cdf(distribution.icdf(u)), u, atol=1e-9, rtol=1e-9)
    assert float(distribution.mean) == pytest.approx(0.0, abs=1e-9)


def test_residual_distribution_is_that_of_the_residuals():
    residuals, distribution = table(size=20_000)
    centred = residuals - residuals.mean()
    # Shape and skewness survive; the bias is what is not corrected, so give it none.
    quantiles, tails = residual_quantiles(centred)
    distribution = Residuals(torch.zeros(1, dtype=torch.float64), torch.tensor([0]), quantiles[None], tails[None])
    draws = distribution.sample((50_000,)).flatten()
    assert stats.ks_2samp(draws, centred).statistic < 0.015


def test_constant_residuals_have_a_finite_density():
    quantiles, tails = residual_quantiles(torch.zeros(100, dtype=torch.float64))
    distribution = Residuals(torch.zeros(1, dtype=torch.float64), torch.tensor([0]), quantiles[None], tails[None])
    assert math.isfinite(float(distribution.log_prob(torch.zeros(1, dtype=torch.float64))))
    assert float(distribution.variance.sqrt()) < 2e-3


# -- the Gaussian process


def set_hyperparameters(model, mean, offset, amplitude, lengthscale, noise):
    for name, value in zip(
        ("mean", "offset", "amplitude", "lengthscale", "noise"),
        (mean, offset, amplitude, lengthscale, noise),
        strict=True,
    ):
        getattr(model, name).copy_(torch.tensor(value, dtype=torch.float64))


def sklearn_gp(offset, amplitude, lengthscale, noise, alpha=0.0):
    kernel = (
        ConstantKernel(offset**2) + ConstantKernel(amplitude**2) * Matern(lengthscale, nu=1.5) + WhiteKernel(noise**2)
    )
    return GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None)


def test_posterior_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    times, values = ragged(rng, num_times=20)
    standard_error = rng.uniform(0.05, 0.5, values.shape)
    queries = rng.uniform(-1, 6, (5, 8))
    model = MaternGP(CHANNELS)
    hyper = ([0.3, -1.0, 0.0], [0.5, 0.1, 2.0], [1.0, 0.4, 2.0], [0.7, 2.0, 0.1], [0.1, 0.5, 0.05])
    set_hyperparameters(model, *hyper)
    predictive = model.predict(batch(times, values, standard_error), torch.as_tensor(queries))
    for b, c in np.ndindex(5, 3):
        mean, *rest = (column[c] for column in hyper)
        known = ~np.isnan(values[b, :, c])
        expected, deviation = np.full(8, mean), np.full(8, math.sqrt(rest[0] ** 2 + rest[1] ** 2 + rest[3] ** 2))
        if known.any():
            gp = sklearn_gp(*rest, alpha=standard_error[b, known, c] ** 2)
            gp.fit(times[b, known, None], values[b, known, c] - mean)
            expected, deviation = gp.predict(queries[b, :, None], return_std=True)
            expected = expected + mean
        np.testing.assert_allclose(predictive.mean[b, :, c], expected, atol=1e-6)
        np.testing.assert_allclose(predictive.stddev[b, :, c], deviation, atol=1e-6)


def draw_process(rng, num_series, num_times, mean, offset, amplitude, lengthscale, noise):
    times = np.sort(rng.uniform(0, 5, (num_series, num_times)), axis=1)
    kernel = offset**2 + amplitude**2 * Matern(lengthscale, nu=1.5)(times[0][:, None])
    values = np.empty((num_series, num_times))
    for row in range(num_series):
        kernel = offset**2 + amplitude**2 * Matern(lengthscale, nu=1.5)(times[row][:, None])
        values[row] = mean + rng.multivariate_normal(np.zeros(num_times), kernel + noise**2 * np.eye(num_times))
    return times, values


def test_posterior_of_a_long_series_is_that_of_the_matrices(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    times = 10 * torch.rand(2, 80, generator=generator, dtype=torch.float64).sort(-1).values
    times[1, 60:] = times[1, 60]  # padding, and a time that occurs twice
    values = torch.randn(2, 80, 2, generator=generator, dtype=torch.float64) + torch.tensor([0.0, 5.0])
    mask = torch.rand(2, 80, 2, generator=generator) < 0.7
    mask[1, 62:] = False
    noise = 0.3 * torch.rand(2, 80, 2, generator=generator, dtype=torch.float64)
    context = IrregularBatch(times, values, mask, noise=noise)
    ts = torch.tensor([[5.0, -3.0, 2.5, 2.5, 40.0]] * 2, dtype=torch.float64)
    numbers = ((0.1, -0.2), (0.6, 4.0), (0.9, 0.7), (0.8, 3.0), (0.2, 0.001))
    hyper = Hyperparameters(*(torch.tensor(pair, dtype=torch.float64) for pair in numbers))
    dense = posterior(context, ts, hyper)
    monkeypatch.setattr(_gaussian_process, "_DENSE", 0)
    filtered = posterior(context, ts, hyper)
    torch.testing.assert_close(filtered, dense, rtol=1e-6, atol=1e-7)


def test_a_series_too_long_for_matrices_is_answered():
    times = torch.linspace(0.0, 100.0, 200_000, dtype=torch.float64).unsqueeze(0)
    context = IrregularBatch(times, times.sin().unsqueeze(-1), torch.ones(1, 200_000, 1, dtype=torch.bool))
    ts = torch.tensor([[3.3, 70.7]], dtype=torch.float64)
    predictive = MaternGP([Channel("x")]).predict(context, ts)
    torch.testing.assert_close(predictive.mean[..., 0], ts.sin(), rtol=0, atol=0.02)


def test_fit_finds_the_hyperparameters_of_each_channel():
    rng = np.random.default_rng(0)
    truth = [(0.5, 0.8, 1.0, 0.8, 0.2), (-1.0, 0.3, 0.5, 2.0, 0.4)]
    times, first = draw_process(rng, 60, 30, *truth[0])
    other_times, second = draw_process(rng, 60, 30, *truth[1])
    # The channels are never observed together: each row of the union belongs to one of them.
    order = np.argsort(np.concatenate([times, other_times], 1), axis=1)
    union = np.take_along_axis(np.concatenate([times, other_times], 1), order, 1)
    blank = np.full_like(first, np.nan)
    values = np.stack([np.concatenate([first, blank], 1), np.concatenate([blank, second], 1)], -1)
    values = np.take_along_axis(values, order[..., None], 1)
    whole = batch(union, values)
    window = Window(whole, whole)
    model = MaternGP((Channel("a"), Channel("b")))
    model.fit_exact([window])
    for channel, (mean, offset, amplitude, lengthscale, noise) in enumerate(truth):
        found = [float(value[channel]) for value in model.hyperparameters]
        assert found[0] == pytest.approx(mean, abs=0.4)
        assert math.hypot(found[1], found[2]) == pytest.approx(math.hypot(offset, amplitude), rel=0.3)
        assert found[3] == pytest.approx(lengthscale, rel=0.4)
        assert found[4] == pytest.approx(noise, rel=0.1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_fit_reaches_the_likelihood_of_scikit_learn():
    rng = np.random.default_rng(3)
    times, values = draw_process(rng, 1, 80, 0.0, 0.0, 1.0, 0.7, 0.3)
    whole = batch(times, values[..., None])
    fitted = fit_hyperparameters([Window(whole, whole)], 1)
    mean, *rest = (float(value[0]) for value in fitted)
    kernel = 1.0 + 1.0 * Matern(1.0, nu=1.5) + WhiteKernel(0.5)
    best = GaussianProcessRegressor(kernel, n_restarts_optimizer=5, random_state=0).fit(times[0][:, None], values[0])
    own = sklearn_gp(*rest).fit(times[0][:, None], values[0] - mean)
    own_value = own.log_marginal_likelihood(own.kernel_.theta)
    assert own_value > best.log_marginal_likelihood_value_ - 0.3


def test_an_observation_in_context_and_target_counts_once():
    rng = np.random.default_rng(1)
    times, values = draw_process(rng, 20, 20, 0.0, 0.5, 1.0, 0.7, 0.3)
    whole, half, rest = (batch(times[:, part], values[:, part, None]) for part in np.s_[:, ::2, 1::2])
    first, second = (fit_hyperparameters([Window(half, target)], 1) for target in (whole, rest))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_fit_minimises_the_loss_of_the_model():
    rng = np.random.default_rng(2)
    times, values = np.sort(rng.uniform(0, 4, (5, 20)), axis=1), rng.normal(size=(5, 20, 3))
    values = np.where(rng.random(values.shape) < 0.6, values, np.nan)
    pair = Window(batch(times[:, :12], values[:, :12]), batch(times[:, 12:] + 1.0, values[:, 12:]))
    model = MaternGP(CHANNELS)
    hyper = ([0.3, -1.0, 0.0], [0.5, 0.1, 2.0], [1.0, 0.4, 2.0], [0.7, 2.0, 0.1], [0.1, 0.5, 0.05])
    set_hyperparameters(model, *hyper)
    jobs = pack(*union(pair))
    jobs = jobs.take(torch.nonzero((jobs.present & ~jobs.given).any(-1)).squeeze(-1))
    expected = float(_negative_log_likelihood(jobs, model.hyperparameters).sum()) / 5
    assert float(model.loss(pair).total) == pytest.approx(expected, rel=1e-9)
    before = float(model.loss(pair).total)
    model.fit_exact([pair])
    assert float(model.loss(pair).total) < before


def test_gp_intervals_are_calibrated_on_its_own_draws():
    rng = np.random.default_rng(0)
    times, values = draw_process(rng, 150, 40, 1.0, 0.5, 1.0, 0.8, 0.3)
    shown = rng.permuted(np.tile(np.arange(40) < 20, (150, 1)), axis=1)
    context = batch(times, np.where(shown, values, np.nan)[..., None])
    target = batch(times, np.where(shown, np.nan, values)[..., None])
    model = MaternGP((Channel("x"),))
    model.fit_exact([Window(context[:75], target[:75])])
    distribution = model.distribution(context[75:], target.times[75:])
    below = distribution.cdf(target.values[75:])[0][target.mask[75:]]
    for level in (0.5, 0.8, 0.9):
        assert float(((below - 0.5).abs() <= level / 2).double().mean()) == pytest.approx(level, abs=0.05)


def test_packing_keeps_the_observations_in_order():
    times, values = ragged(np.random.default_rng(0))
    jobs = pack(batch(times, values))
    for job in range(15):
        known = ~np.isnan(values[job // 3, :, job % 3])
        present = jobs.present[job]
        np.testing.assert_array_equal(jobs.times[job][present], times[job // 3][known])
        np.testing.assert_array_equal(jobs.values[job][present], values[job // 3, known, job % 3])
        assert (int(jobs.series[job]), int(jobs.channel[job])) == (job // 3, job % 3)


def test_nothing_to_fit_is_said():
    blank = batch(np.zeros((2, 3)), np.full((2, 3, 1), np.nan))
    for given_windows in ([], [Window(blank, blank)]):
        with pytest.raises(ValueError, match="no observation"):
            MaternGP((Channel("x"),)).fit_exact(given_windows)


def test_no_point_of_a_grid_predicts_better_than_what_the_gaussian_process_has_found():
    """Half a year of CO2 hidden: the likelihood has an optimum that takes the seasons for noise, and a better one."""
    record = co2()[0]
    rng = np.random.default_rng(0)
    record = record.take(rng.random(len(record)) < 0.35)
    windows = []
    for start in np.arange(365.0, 12000.0, 700.0):
        stretch = record.between(start, start + 1461.0)
        hidden = (stretch.times > start + 500.0) & (stretch.times < start + 682.0)
        scaled = replace(stretch, times=(stretch.times - start) / 1461.0, values=(stretch.values - 334.0) / 11.6)
        windows.append(collate([(scaled.take(~hidden), scaled.take(hidden))]))
    found = fit_hyperparameters(windows, 1)

    def nats(hyper):
        scores = []
        for window in windows:
            mean, variance = posterior(window.context, window.target.times, hyper)
            scores.append(((window.target.values - mean).square() / variance + variance.log())[window.target.mask])
        return float(torch.cat(scores).mean() / 2)

    grid = [
        found._replace(
            lengthscale=torch.full_like(found.lengthscale, length),
            amplitude=torch.full_like(found.amplitude, amplitude),
            noise=torch.full_like(found.noise, noise),
        )
        for length in (0.03, 0.1, 0.3, 1.0)
        for amplitude in (0.1, 0.3, 1.0, 3.0)
        for noise in (0.02, 0.1)
    ]
    assert nats(found) <= min(map(nats, grid)) + 0.01
