r"""Scores of single entries, from samples: proper scores, calibration, and the gap that a forecast had to bridge.

Every quantile here is read from samples at the level :math:`k/(M+1)` of the k-th of M ordered samples (the "weibull"
rule): a further draw falls below it with exactly the probability asked. numpy's default rule makes intervals from
100 samples about two points too narrow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scoringrules
from numpy.typing import ArrayLike, NDArray

from .averages import average_pooled


__all__ = [
    "coverage",
    "crps",
    "distance_to_nearest",
    "interval",
    "interval_score",
    "pit",
    "quantiles",
    "worst_coverage",
]

#: A channel with fewer scored entries than this has no say in the coverage of the worst channel.
MIN_COUNT = 50

Array = NDArray[np.float64]


def quantiles(samples: ArrayLike, levels: ArrayLike | float) -> Array:
    r"""Quantiles from samples, unbiased in probability: the k-th of M ordered samples is the level :math:`k/(M+1)`.

    Levels beyond the outermost samples are held at them.

    Args:
        samples: `(sample, ...)`.
        levels: probabilities between 0 and 1, `(level,)` or one number.

    Returns:
        Quantiles, `(level, ...)`; without the first axis where `levels` is one number.

    Reference:
        Sample Quantiles in Statistical Packages (Hyndman & Fan, 1996, https://doi.org/10.2307/2684934), definition 6.

    Example:
        >>> quantiles([1.0, 2.0, 3.0], [0.25, 0.5, 0.75])
        array([1., 2., 3.])
    """
    return np.quantile(np.asarray(samples, dtype=np.float64), np.asarray(levels), axis=0, method="weibull")


def interval(samples: ArrayLike, level: float) -> tuple[Array, Array]:
    """Central interval of each entry: as much probability below it as above it.

    Args:
        samples: draws, `(sample, ...)`.
        level: probability of the interval, for example 0.9.

    Returns:
        Lower and upper ends, each `(...)`.

    Raises:
        ValueError: the level is not strictly between 0 and 1.

    Example:
        >>> interval([[1.0], [2.0], [3.0]], level=0.5)
        (array([1.]), array([3.]))
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of an interval is a probability strictly between 0 and 1; got {level!r}.")
    lower, upper = quantiles(samples, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return lower, upper


def crps(samples: ArrayLike, truth: ArrayLike) -> Array:
    r"""Continuous ranked probability score of each entry, in the unit of the data; smaller is better.

    .. math::
        \mathrm{CRPS}(F, y) = \mathbb{E}\,|X - y| - \tfrac{1}{2}\, \mathbb{E}\,|X - X'|, \qquad X, X' \sim F

    The estimator is the *fair* one (divisor :math:`M(M-1)` in the second term, computed by probability-weighted moments
    in :math:`O(M \log M)`): its expectation does not depend on the number of independent samples M, so forecasts with
    few and with many samples compare. The empirical estimator (divisor :math:`M^2`) would charge every forecast about
    :math:`1/M` of its spread.

    Args:
        samples: independent draws, at least two, `(sample, ...)`.
        truth: observations, `(...)`.

    Returns:
        The score of each entry, `(...)`.

    Raises:
        ValueError: there are fewer than two samples, or the shapes disagree.

    Reference:
        Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting & Raftery, 2007,
        https://doi.org/10.1198/016214506000001437); Fair scores for ensemble forecasts (Ferro, 2014,
        https://doi.org/10.1002/qj.2270).

    Example:
        >>> crps([[0.0], [2.0]], [1.0])
        array([0.])
        >>> crps([[0.0], [2.0]], [3.0])
        array([1.])
    """
    samples, truth = _aligned(samples, truth)
    if len(samples) < 2:
        raise ValueError(f"the CRPS needs at least two samples per entry; got {len(samples)}.")
    score = scoringrules.crps_ensemble(truth, samples, m_axis=0, estimator="pwm", backend="numpy")
    return np.asarray(score, dtype=np.float64)


def interval_score(samples: ArrayLike, truth: ArrayLike, level: float) -> Array:
    r"""Interval score of the central interval of each entry: its width, plus a fine for every miss; smaller is better.

    .. math::
        S_\alpha(l, u; y) = (u - l) + \tfrac{2}{\alpha} (l - y)_+ + \tfrac{2}{\alpha} (y - u)_+,
        \qquad \alpha = 1 - \mathrm{level}

    Args:
        samples: draws, `(sample, ...)`.
        truth: observations, `(...)`.
        level: probability of the interval, for example 0.9.

    Returns:
        The score of each entry, `(...)`.

    Raises:
        ValueError: the level is not strictly between 0 and 1, or the shapes disagree.

    Reference:
        Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting & Raftery, 2007,
        https://doi.org/10.1198/016214506000001437), equation 43.

    Example:
        >>> interval_score([[1.0], [2.0], [3.0]], [4.0], level=0.5)
        array([6.])
    """
    samples, truth = _aligned(samples, truth)
    lower, upper = interval(samples, level)
    fine = 2.0 / (1.0 - level)
    return (upper - lower) + fine * np.maximum(lower - truth, 0.0) + fine * np.maximum(truth - upper, 0.0)


def coverage(samples: ArrayLike, truth: ArrayLike, level: float) -> float:
    """Share of the observations inside their central interval; a calibrated forecast gives the level itself.

    Args:
        samples: draws, `(sample, ...)`.
        truth: observations, `(...)`.
        level: probability of the interval, for example 0.9.

    Returns:
        A number between 0 and 1; NaN where there is no entry.

    Raises:
        ValueError: the level is not strictly between 0 and 1, or the shapes disagree.

    Example:
        >>> coverage([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], [1.5, 9.0], level=0.5)
        0.5
    """
    samples, truth = _aligned(samples, truth)
    lower, upper = interval(samples, level)
    return average_pooled((lower <= truth) & (truth <= upper))


def worst_coverage(
    covered: ArrayLike, channel: ArrayLike, level: float, *, min_count: int = MIN_COUNT
) -> tuple[float, Any]:
    """Coverage of the channel that is farthest from the level: what a pooled coverage can hide.

    Args:
        covered: whether each entry lies in its interval, `(entry,)`.
        channel: which channel each entry belongs to, `(entry,)`.
        level: probability of the interval.
        min_count: channels with fewer entries are left out, because their coverage is mostly chance.

    Returns:
        The coverage and the channel; `(nan, None)` where no channel has enough entries.

    Example:
        >>> worst_coverage([True, True, False, True], ["a", "a", "b", "b"], 0.9, min_count=2)
        (0.5, 'b')
    """
    covered, channel = np.asarray(covered, dtype=np.float64), np.asarray(channel)
    names, place, counts = np.unique(channel, return_inverse=True, return_counts=True)
    if not np.any(counts >= min_count):
        return float("nan"), None
    shares = np.bincount(place, weights=covered, minlength=len(names)) / counts
    worst = int(np.argmax(np.where(counts >= min_count, np.abs(shares - level), -1.0)))
    return float(shares[worst]), names.tolist()[worst]


def pit(samples: ArrayLike, truth: ArrayLike) -> Array:
    r"""Probability integral transform of each entry: where the observation falls in its forecast.

    .. math:: u = \frac{\#\{x_m < y\} + \tfrac{1}{2} (1 + \#\{x_m = y\})}{M + 1}

    Over many observations a calibrated forecast gives uniform values: a U shape says the intervals are too narrow, a
    hump that they are too wide, a slope that they are biased.

    Args:
        samples: draws, `(sample, ...)`.
        truth: observations, `(...)`.

    Returns:
        Values strictly between 0 and 1, `(...)`.

    Reference:
        Probabilistic forecasts, calibration and sharpness (Gneiting, Balabdaoui & Raftery, 2007,
        https://doi.org/10.1111/j.1467-9868.2007.00587.x).

    Example:
        >>> pit([[1.0], [2.0], [3.0]], [2.5])
        array([0.625])
    """
    samples, truth = _aligned(samples, truth)
    rank = (samples < truth).sum(0) + 0.5 * (1.0 + (samples == truth).sum(0))
    return rank / (len(samples) + 1.0)


def distance_to_nearest(times: ArrayLike, context_times: ArrayLike) -> Array:
    """Distance in time from each query to the nearest observation: the gap that a forecast has to bridge.

    Args:
        times: query times, `(time,)`.
        context_times: times of the observations, in any order, `(n,)`.

    Returns:
        Distances, `(time,)`; infinite where there is no observation at all.

    Example:
        >>> distance_to_nearest([0.0, 1.5, 9.0], [1.0, 4.0])
        array([1. , 0.5, 5. ])
    """
    times, known = np.asarray(times, dtype=np.float64), np.sort(np.asarray(context_times, dtype=np.float64))
    if known.size == 0:
        return np.full(times.shape, np.inf)
    place = np.searchsorted(known, times)
    left = np.abs(times - known[np.maximum(place - 1, 0)])
    right = np.abs(known[np.minimum(place, known.size - 1)] - times)
    return np.minimum(left, right)


def _aligned(samples: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    samples, truth = np.asarray(samples, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if samples.ndim == 0 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"samples must be (sample, *truth), with the samples along the first axis; got samples {samples.shape} and "
            f"truth {truth.shape}."
        )
    return samples, truth
