"""The divergence of visited states: against counts by hand, and beside its floor on a chaotic system."""

import numpy as np
import pytest
import torch

from ctdyn import solve
from ctdyn.metrics import state_divergence
from ctdyn.solvers import RK4
from ctdyn.systems import Lorenz


def test_it_is_the_divergence_of_smoothed_counts():
    truth = np.array([[0.0], [0.1], [0.9], [1.0]])
    made = np.array([[0.0], [0.2], [0.3], [0.8]])
    p, q = np.array([2.0, 2.0, 0.0]) + 0.5, np.array([3.0, 1.0, 0.0]) + 0.5
    p, q = p / p.sum(), q / q.sum()
    found = state_divergence(truth, made, bins=2, smoothing=0.5)
    assert found.value == pytest.approx((p * np.log(p / q)).sum(), rel=1e-12)
    assert found.bins == 2
    assert state_divergence(truth, truth, bins=2).value == 0.0


def published(truth, made, bins, smoothing=1e-5):
    """The divergence of the published code, in one dimension: cells from 1 on, and nothing outside of the range."""
    low, high = truth.min(0), truth.max(0)
    shares = []
    for states in (truth, made):
        cells = ((states - low) / (high - low) * bins).astype(int)[:, 0]
        counts = np.bincount(cells[(cells > 0) & (cells < bins)], minlength=bins) + smoothing
        shares.append(counts / counts.sum())
    p, q = shares
    return float((p * np.log(p / q)).sum())


def test_no_state_is_lost_at_the_edge_of_the_range_or_beyond_it():
    """Published code drops the first cell and what lies outside; both then cost a model nothing."""
    truth = np.linspace(0.0, 1.0, 100)[:, None]
    edge = state_divergence(truth, np.where(truth < 0.1, 0.5, truth), bins=10)
    outside = state_divergence(truth, np.where(truth < 0.1, 7.0, truth), bins=10)
    assert edge.value > 0.5
    assert outside.value > 0.5
    assert published(truth, np.where(truth < 0.1, 0.5, truth), bins=10) < 0.1
    assert published(truth, np.where(truth < 0.1, 7.0, truth), bins=10) < 0.1


def test_on_a_chaotic_system_the_floor_is_not_zero():
    from ctdyn.integrate import ConstantStep

    ts = torch.linspace(0.0, 80.0, 4001, dtype=torch.float64)
    start = torch.tensor([1.0, 1.0, 20.0], dtype=torch.float64)
    states = solve(Lorenz().double(), start, ts, solver=RK4(), controller=ConstantStep(0.02)).ys[500:].numpy()
    half = len(states) // 2
    rng = np.random.default_rng(0)
    noise = states.mean(0) + states.std(0) * rng.normal(size=states.shape)
    floors = [state_divergence(states, noise, bins=bins).floor for bins in (10, 20, 30)]
    assert 0 < floors[0] < floors[1] < floors[2]
    own = state_divergence(states[:half], states[half:], bins=20)
    other = state_divergence(states[:half], noise, bins=20)
    constant = state_divergence(states[:half], np.broadcast_to(states.mean(0), states.shape), bins=20)
    assert own.value == pytest.approx(floors[1], rel=0.3)
    assert own.value < 0.3 * other.value < 0.3 * constant.value


def test_what_is_not_finite_is_infinitely_far_and_bad_input_is_refused():
    truth, made = np.random.default_rng(0).normal(size=(50, 2)), np.zeros((10, 2))
    made[3, 1] = np.nan
    assert state_divergence(truth, made).value == float("inf")
    for bad, options, match in (
        ((made, truth), {}, "leave these rows out"),
        ((truth, truth[:, :1]), {}, "one state size"),
        ((truth[:3], truth), {}, "four true ones"),
        ((truth, truth), {"bins": 1}, "fewer than 2"),
        ((np.zeros((9, 8)), np.zeros((9, 8))), {}, "principal components"),
    ):
        with pytest.raises(ValueError, match=match):
            state_divergence(*bad, **options)
