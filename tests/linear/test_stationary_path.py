"""A trajectory as a value: exact in law, and the same whoever asks."""

import math

import pytest
import torch

from ctdyn.linear import OU, Matern, Rotations, StationaryPath, SumDynamics


F64 = torch.float64
KINDS = {
    "rough": lambda: Matern(0.5, lengthscale=0.5),
    "smooth": lambda: Matern(2.5, lengthscale=2.0),
    "sum": lambda: SumDynamics([Matern(1.5, lengthscale=3.0), OU(1.0, 1.0)]),
    "turning": lambda: Rotations([0.3], [5.0], sigma=1.0),
}
TS = torch.tensor([0.3, -5.3, -0.2, 0.0, 0.31, 0.9, 1.0, 2.0, 2.0, 9.0], dtype=F64)


def draw(dynamics, count=8000, **other):
    return StationaryPath.draw(
        dynamics, (count,), torch.zeros(1, dtype=F64), generator=torch.Generator().manual_seed(0), **other
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_states_have_the_joint_moments_of_the_process(kind):
    dynamics = KINDS[kind]().double()
    xs = draw(dynamics).evaluate(TS).detach()
    lag = TS[:, None] - TS[None, :]
    F = dynamics.flow(lag.clamp(min=0).flatten())[0]
    F = torch.diag_embed(F) if dynamics.diagonal else F
    expected = (F @ dynamics.stationary()).unflatten(0, lag.shape).detach()
    products = torch.einsum("sti,suj->tuij", xs, xs) / len(xs)
    spread = dynamics.stationary().detach().diagonal()
    allowed = 5 * math.sqrt(2 / len(xs)) * (spread[:, None] * spread[None, :]).sqrt()
    later = (lag >= 0)[..., None, None]
    assert torch.where(later, (products - expected).abs() < allowed, True).all()
    assert torch.equal(xs[:, 7], xs[:, 8])


def test_more_times_in_any_order_and_other_trajectories_change_nothing():
    dynamics = KINDS["smooth"]().double()
    path = draw(dynamics, 5)
    expected = path.evaluate(TS)
    more = torch.cat([TS.flip(0), torch.linspace(-40.0, 900.0, 77, dtype=F64)])
    torch.testing.assert_close(path.evaluate(more)[:, : len(TS)].flip(1), expected, rtol=0, atol=1e-7)
    alone = StationaryPath(dynamics, path.keys[2:3], path.t0)
    torch.testing.assert_close(alone.evaluate(TS), expected[2:3], rtol=0, atol=1e-7)


def test_a_shift_of_the_clock_moves_the_trajectory_with_it():
    path = draw(KINDS["rough"]().double(), 5)
    shifted = StationaryPath(path.dynamics, path.keys, path.t0 + 1000.0)
    torch.testing.assert_close(shifted.evaluate(TS + 1000.0), path.evaluate(TS), rtol=0, atol=1e-8)


def test_a_trajectory_is_continuous_across_all_its_cuts():
    path = draw(KINDS["smooth"]().double(), 50)
    cuts = torch.tensor([-8.0, -4.0, -1.0, 0.0, 0.5, 0.75, 1.0, 2.0, 4.0, 1 + 2.0**-9], dtype=F64)
    before, after = path.evaluate(cuts - 1e-7), path.evaluate(cuts + 1e-7)
    # The last entry is rough: within a cell it is as steep as its noise.
    assert ((before - after).abs().amax((0, 1)) < torch.tensor([1e-6, 1e-5, 1e-3])).all()


def test_gradients_reach_the_parameters():
    dynamics = KINDS["smooth"]().double()
    draw(dynamics, 5).evaluate(TS).square().sum().backward()
    for parameter in dynamics.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).all()


def test_bad_input():
    with pytest.raises(ValueError, match="resolution"):
        draw(KINDS["rough"](), 1, resolution=2.0)
    with pytest.raises(ValueError, match="stationary"):
        draw(Rotations([0.1], [1.0]), 1).evaluate(TS)
