"""Whether a model visits the states that the truth visits: for dynamics that nobody can predict for long."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


__all__ = ["StateDivergence", "state_divergence"]

_MOST_CELLS = 10_000_000


class StateDivergence(NamedTuple):
    """How far a set of visited states lies from another.

    Args:
        value: the divergence, in nats; infinite where a generated state is not finite.
        floor: that of the second half of the truth from its first: what no model can be asked to fall below.
        bins: cells per dimension, without which the other two mean nothing.

    Example:
        >>> StateDivergence(0.7, 0.5, 30).floor
        0.5
    """

    value: float
    floor: float
    bins: int


def state_divergence(
    truth: ArrayLike, generated: ArrayLike, *, bins: int = 30, smoothing: float = 1e-5
) -> StateDivergence:
    r"""The divergence of the states that a model visits from those of the truth, counted in cells: :math:`D_{stsp}`.

    .. math:: D = \sum_k \hat p_k \log \frac{\hat p_k}{\hat q_k}, \qquad
              \hat p_k = \frac{n_k + \alpha}{\sum_j (n_j + \alpha)}

    The cells cover the range of the truth; generated states outside of it count as a cell of their own. The value
    depends on the number of cells and of states, so that it is given together with its floor, the divergence of the two
    halves of the truth. For up to four dimensions.

    Args:
        truth: states, `(time, state)`.
        generated: states, `(time, state)`; when they were visited does not matter.
        bins: cells per dimension.
        smoothing: :math:`\alpha`, what an empty cell counts.

    Raises:
        ValueError: the shapes disagree, the truth is not finite or too short, or there are too many cells.

    References:
        Identifying nonlinear dynamical systems via generative recurrent neural networks, D. Koppe, H. Toutounji,
        P. Kirsch, S. Lis, D. Durstewitz, 2019, https://doi.org/10.1371/journal.pcbi.1007263

    Example:
        >>> rng = np.random.default_rng(0)
        >>> circle = np.stack([np.cos(np.arange(4000) * 0.7), np.sin(np.arange(4000) * 0.7)], -1)
        >>> near = state_divergence(circle, circle[::-1], bins=10)
        >>> far = state_divergence(circle, rng.normal(size=(4000, 2)), bins=10)
        >>> near.value < near.floor < far.value
        True
    """
    true, made = np.asarray(truth, np.float64), np.asarray(generated, np.float64)
    if true.ndim != 2 or made.ndim != 2 or true.shape[1] != made.shape[1] or len(true) < 4 or not len(made):
        raise ValueError(
            f"truth and generated states must be (time, state) of one state size, four true ones at least; got "
            f"{true.shape} and {made.shape}."
        )
    if not np.isfinite(true).all():
        raise ValueError("the truth holds NaN or infinite states; leave these rows out.")
    if bins < 2 or smoothing <= 0 or float(bins) ** true.shape[1] > _MOST_CELLS:
        raise ValueError(
            f"{bins} bins in each of {true.shape[1]} dimensions are fewer than 2 or more than {_MOST_CELLS:,} cells "
            f"(or smoothing={smoothing} is not positive). Take other bins, or the leading principal components."
        )
    low, high = true.min(0), true.max(0)
    half = len(true) // 2
    floor = _divergence(true[:half], true[half:], low, high, bins, smoothing)
    if not np.isfinite(made).all():
        return StateDivergence(float("inf"), floor, bins)
    return StateDivergence(_divergence(true, made, low, high, bins, smoothing), floor, bins)


def _divergence(
    true: NDArray[np.float64],
    made: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    bins: int,
    smoothing: float,
) -> float:
    p, q = (_shares(states, low, high, bins, smoothing) for states in (true, made))
    return float((p * np.log(p / q)).sum())


def _shares(
    states: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], bins: int, smoothing: float
) -> NDArray[np.float64]:
    """How often each cell is visited, smoothed; the last entry is everything outside."""
    width = np.where(high > low, high - low, 1.0)
    inside = ((states >= low) & (states <= high)).all(1)
    # The upper end of the range belongs to the last cell.
    cells = np.minimum((bins * (states[inside] - low) / width).astype(np.int64), bins - 1)
    flat = np.ravel_multi_index(tuple(cells.T), (bins,) * states.shape[1])
    counts = np.append(np.bincount(flat, minlength=bins ** states.shape[1]), (~inside).sum()) + smoothing
    return counts / counts.sum()
