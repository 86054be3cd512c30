"""The three averages that this literature calls "the MSE", by name; each applies to any error of single entries."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


__all__ = ["average_per_channel", "average_per_series_and_channel", "average_pooled"]

Array = NDArray[np.float64]


def average_pooled(errors: ArrayLike) -> float:
    r"""Average over all observed entries: the pooled protocol ("M1"), in which a dense series counts more.

    .. math:: \frac{1}{K} \sum_{k=1}^{K} e_k

    Args:
        errors: the error of each observed entry, squared, absolute or any other, `(entry,)`.

    Returns:
        The average; NaN where there is no entry.

    Reference:
        Used by Multi-Time Attention Networks for Irregularly Sampled Time Series (Shukla & Marlin, 2021,
        https://arxiv.org/abs/2101.10318).

    Example:
        >>> average_pooled([1.0, 2.0, 6.0])
        3.0
    """
    errors = np.asarray(errors, dtype=np.float64)
    return float(errors.mean()) if errors.size else float("nan")


def average_per_series_and_channel(
    errors: ArrayLike, series: ArrayLike, channel: ArrayLike, *, num_pairs: int | None = None
) -> float:
    r"""Average within each pair of series and channel, then over the pairs ("M2"): every pair counts the same.

    .. math:: \frac{1}{|P|} \sum_{(s,c) \in P} \frac{1}{K_{sc}} \sum_{k \in (s,c)} e_k

    :math:`P` holds the pairs with at least one observed entry. The code of latent_ode and LS4 divides by the number of
    *all* pairs, so that an empty pair counts as an error of 0 and sparse data look easy: to compare with their figures
    pass `num_pairs = series * channels`.

    Args:
        errors: the error of each observed entry, `(entry,)`.
        series: which series each entry belongs to, `(entry,)`.
        channel: which channel each entry belongs to, `(entry,)`.
        num_pairs: divide by this number of pairs; None counts the pairs that have an entry.

    Returns:
        The average; NaN where there is no entry.

    Raises:
        ValueError: `num_pairs` is smaller than the number of pairs that have an entry.

    Reference:
        Latent ODEs for Irregularly-Sampled Time Series (Rubanova, Chen & Duvenaud, 2019,
        https://arxiv.org/abs/1907.03907).

    Example:
        >>> average_per_series_and_channel([1.0, 3.0, 6.0], series=[0, 0, 1], channel=[0, 0, 0])
        4.0
        >>> average_per_series_and_channel([1.0, 3.0, 6.0], series=[0, 0, 1], channel=[0, 0, 0], num_pairs=4)
        2.0
    """
    means = _group_means(errors, series, channel)
    if num_pairs is None:
        return float(means.mean()) if means.size else float("nan")
    if num_pairs < means.size:
        raise ValueError(
            f"num_pairs must count every pair of series and channel; got {num_pairs}, but {means.size} pairs have an "
            "observed entry."
        )
    return float(means.sum() / num_pairs)


def average_per_channel(errors: ArrayLike, channel: ArrayLike) -> float:
    r"""Average within each channel over all series, then over the channels ("M3"): rare ones count as dense ones.

    .. math:: \frac{1}{C} \sum_{c=1}^{C} \frac{1}{K_c} \sum_{k \in c} e_k

    Channels without an observed entry are left out.

    Args:
        errors: the error of each observed entry, `(entry,)`.
        channel: which channel each entry belongs to, `(entry,)`.

    Returns:
        The average; NaN where there is no entry.

    Reference:
        Used by Irregular Multivariate Time Series Forecasting: A Transformable Patching Graph Neural Networks Approach
        (Zhang et al., 2024, https://proceedings.mlr.press/v235/zhang24bw.html).

    Example:
        >>> average_per_channel([1.0, 3.0, 6.0], channel=["hr", "hr", "bp"])
        4.0
    """
    means = _group_means(errors, channel)
    return float(means.mean()) if means.size else float("nan")


def _group_means(errors: ArrayLike, *keys: ArrayLike) -> Array:
    errors = np.asarray(errors, dtype=np.float64)
    if not errors.size:
        return np.empty(0)
    place = np.zeros(errors.shape, dtype=np.int64)
    for key in keys:
        _, codes = np.unique(np.asarray(key), return_inverse=True)
        place = place * (int(codes.max()) + 1) + codes
    _, place, counts = np.unique(place, return_inverse=True, return_counts=True)
    return np.bincount(place, weights=errors) / counts
