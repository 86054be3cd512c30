"""Oscillators and cycles: their kernels in closed form, and exact inference with them."""

import math

import pytest
import torch

from ctdyn.data import IrregularBatch
from ctdyn.linear import LinearGaussian, Matern, Oscillators, Periodic, ProductDynamics, Rotations, SumDynamics
from ctdyn.testing import check_linear


F64 = torch.float64
KINDS = {
    "oscillators": lambda: Oscillators([3.0, 6.0], decay=[0.1, 2.0], variance=0.5),
    "batch": lambda: Oscillators(torch.tensor([[3.0, 6.0], [1.0, 0.5]]), decay=0.3),
    "circle": lambda: Oscillators([3.0, 6.0], variance=[2.0, 1.0]),
    "periodic": lambda: Periodic(1.3, lengthscale=0.7, harmonics=4),
    "periodic batch": lambda: Periodic([1.3, 0.8], variance=[1.0, 2.0], harmonics=2),
    "quasi-periodic": lambda: ProductDynamics(Periodic(1.0, harmonics=2), Matern(0.5, lengthscale=5.0)),
    "trend and cycle": lambda: SumDynamics([Periodic(1.0, harmonics=2), Matern(1.5)]),
}
LAGS = torch.linspace(0.0, 5.0, 31, dtype=F64)


@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind):
    check_linear(KINDS[kind]())


def test_oscillators_are_damped_cosines():
    process = Oscillators([3.0, 6.0], decay=[0.1, 2.0], variance=[0.5, 3.0]).double()
    expected = 0.5 * (-0.1 * LAGS).exp() * (3 * LAGS).cos() + 3 * (-2 * LAGS).exp() * (6 * LAGS).cos()
    torch.testing.assert_close(process.kernel(LAGS).detach(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(process.period, torch.tensor([2 * math.pi / 3, math.pi / 3], dtype=F64))


def test_driven_rotations_of_the_same_variance_are_the_same():
    ours = Oscillators([3.0], decay=[0.4], variance=2.0).double()
    theirs = Rotations([0.4], [3.0], sigma=math.sqrt(2 * 0.4 * 2.0)).double()
    dt = torch.tensor([0.0, 1e-6, 0.3, 20.0], dtype=F64)
    torch.testing.assert_close(ours.noise(dt), theirs.noise(dt), rtol=1e-6, atol=0)


@pytest.mark.parametrize("lengthscale", [0.5, 1.0, 3.0])
def test_the_periodic_kernel_is_the_closed_form(lengthscale):
    process = Periodic(1.7, lengthscale=lengthscale, variance=2.5, harmonics=16).double()
    expected = 2.5 * torch.exp(-2 * (math.pi * LAGS / 1.7).sin() ** 2 / lengthscale**2)
    torch.testing.assert_close(process.kernel(LAGS).detach(), expected, rtol=0, atol=2e-6)


def test_a_cycle_is_known_for_ever_and_its_likelihood_is_that_of_one_large_gaussian():
    cycle = Periodic(torch.tensor(1.0, dtype=F64), harmonics=10)
    model = LinearGaussian(cycle, R=torch.tensor(1e-4, dtype=F64))
    generator = torch.Generator().manual_seed(0)
    ts = 3.0 * torch.rand(30, generator=generator, dtype=F64).sort().values
    shape = (2 * math.pi * ts).sin().exp()
    batch = IrregularBatch(ts[None], shape[None, :, None], torch.ones(1, 30, 1, dtype=torch.bool))
    K = cycle.kernel((ts[:, None] - ts[None, :]).abs().flatten()).view(30, 30)
    normal = torch.distributions.MultivariateNormal(torch.zeros(30, dtype=F64), K + 1e-4 * torch.eye(30, dtype=F64))
    torch.testing.assert_close(model.log_prob(batch)[0], normal.log_prob(shape), rtol=1e-7, atol=0)
    later = ts + 40.0
    ahead = model.predict(batch, later[None]).mean[0] @ cycle.readout
    assert (ahead - (2 * math.pi * later).sin().exp()).abs().max() < 0.1


def test_bad_input():
    with pytest.raises(ValueError, match="decay must be positive"):
        Oscillators([1.0], decay=[0.0])
    with pytest.raises(ValueError, match="single number"):
        Oscillators(torch.tensor(1.0))
    with pytest.raises(ValueError, match="harmonics"):
        Periodic(1.0, harmonics=0)
    with pytest.raises(ValueError, match="period must be positive"):
        Periodic(-1.0)
