import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from ctdyn.metrics import (
    coverage,
    crps,
    distance_to_nearest,
    interval,
    interval_score,
    pit,
    quantiles,
    worst_coverage,
)


LEVELS = [0.5, 0.8, 0.9]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_crps_of_a_gaussian_is_its_closed_form(rng):
    truth = np.array([-2.0, 0.0, 0.3, 4.0])
    samples = rng.normal(1.0, 2.0, size=(200_000, 4))
    np.testing.assert_allclose(crps(samples, truth), scoringrules.crps_normal(truth, 1.0, 2.0), atol=0.02)


def test_crps_does_not_depend_on_the_number_of_samples(rng):
    truth = rng.normal(size=20_000)
    few = crps(rng.normal(size=(4, truth.size)), truth)
    exact = scoringrules.crps_normal(truth, 0.0, 1.0)
    noise = few.std() / np.sqrt(truth.size)
    # The empirical estimator would be too large by 1 / (4 sqrt(pi)) = 0.14 here, a score of its own.
    assert abs(few.mean() - exact.mean()) < 4 * noise < 0.03


def test_crps_is_the_fair_estimator(rng):
    samples, truth = rng.normal(size=(7, 3)), rng.normal(size=3)
    first = np.abs(samples - truth).mean(0)
    second = np.abs(samples[:, None] - samples[None]).sum((0, 1)) / (7 * 6)
    np.testing.assert_allclose(crps(samples, truth), first - second / 2, atol=1e-12)


def test_crps_needs_two_samples():
    with pytest.raises(ValueError, match="at least two samples"):
        crps(np.zeros((1, 3)), np.zeros(3))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(sample, \*truth\)"):
        crps(np.zeros((3, 4)), np.zeros(3))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("num_samples", [40, 100])
def test_coverage_of_a_calibrated_forecast_is_the_level(rng, level, num_samples):
    samples, truth = rng.standard_t(4, size=(num_samples, 40_000)), rng.standard_t(4, size=40_000)
    assert coverage(samples, truth, level) == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_of_a_forecast_half_as_wide_is_known(rng, level):
    truth = rng.normal(size=20_000)
    samples = rng.normal(0.0, 0.5, size=(400, truth.size))
    half = stats.norm.ppf((1 + level) / 2, scale=0.5)
    assert coverage(samples, truth, level) == pytest.approx(2 * stats.norm.cdf(half) - 1, abs=0.015)


@pytest.mark.parametrize("level", LEVELS)
def test_interval_score_of_a_gaussian_is_its_closed_form(rng, level):
    truth = np.array([-3.0, 0.0, 0.5, 3.0])
    samples = rng.normal(size=(200_000, 4))
    half = stats.norm.ppf((1 + level) / 2)
    expected = 2 * half + 2 / (1 - level) * np.maximum(np.abs(truth) - half, 0)
    np.testing.assert_allclose(interval_score(samples, truth, level), expected, rtol=0.02)
    oracle = scoringrules.interval_score(truth, *interval(samples, level), 1 - level)
    np.testing.assert_allclose(interval_score(samples, truth, level), oracle, rtol=1e-9)


def test_interval_score_is_least_for_the_true_spread(rng):
    truth = rng.normal(size=4000)
    scores = [interval_score(rng.normal(0, s, size=(200, 4000)), truth, 0.9).mean() for s in (0.6, 1.0, 1.6)]
    assert min(scores) == scores[1]


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0, -0.1])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        coverage(np.zeros((3, 2)), np.zeros(2), level)


def test_pit_of_a_calibrated_forecast_is_uniform(rng):
    transformed = pit(rng.gamma(2.0, size=(99, 5000)), rng.gamma(2.0, size=5000))
    # The values are the 100 midpoints of a grid; a jitter of one cell makes the test exact.
    assert stats.kstest(transformed + rng.uniform(-0.005, 0.005, 5000), "uniform").pvalue > 0.01


def test_pit_of_a_biased_forecast_is_not(rng):
    assert pit(rng.normal(1.0, size=(99, 500)), rng.normal(size=500)).mean() < 0.35


def test_ties_share_the_middle():
    assert pit([[1.0], [1.0], [1.0]], [1.0]) == pytest.approx(0.5)


def test_worst_channel_needs_enough_entries():
    covered = [True] * 90 + [False] * 10 + [True] * 60 + [False] * 40 + [False]
    channel = ["a"] * 100 + ["b"] * 100 + ["c"]
    assert worst_coverage(covered, channel, 0.9) == (pytest.approx(0.6), "b")
    assert worst_coverage([True], ["a"], 0.9)[1] is None
    assert np.isnan(worst_coverage([], [], 0.9)[0])


def test_a_channel_that_covers_too_much_is_worst_as_well():
    assert worst_coverage([True] * 100 + [True, False] * 50, ["a"] * 100 + ["b"] * 100, 0.6) == (1.0, "a")


@given(
    times=hnp.arrays(np.float64, st.integers(0, 8), elements=st.floats(-1e3, 1e3)),
    known=hnp.arrays(np.float64, st.integers(0, 8), elements=st.floats(-1e3, 1e3)),
)
def test_distance_is_the_least_of_all(times, known):
    expected = [min((abs(t - k) for k in known), default=np.inf) for t in times]
    np.testing.assert_array_equal(distance_to_nearest(times, known), expected)


@given(
    samples=hnp.arrays(np.float64, (9, 3), elements=st.floats(-100, 100)),
    truth=hnp.arrays(np.float64, 3, elements=st.floats(-100, 100)),
    shift=st.floats(-10, 10),
    scale=st.floats(0.1, 10),
)
def test_scores_follow_the_units(samples, truth, shift, scale):
    moved = (samples * scale + shift, truth * scale + shift)
    np.testing.assert_allclose(crps(*moved), crps(samples, truth) * scale, atol=1e-7)
    np.testing.assert_allclose(interval_score(*moved, 0.8), interval_score(samples, truth, 0.8) * scale, atol=1e-7)


@given(samples=hnp.arrays(np.float64, (12, 2), elements=st.floats(-100, 100)))
def test_quantiles_do_not_cross(samples):
    assert (np.diff(quantiles(samples, [0.05, 0.25, 0.5, 0.75, 0.95]), axis=0) >= 0).all()
