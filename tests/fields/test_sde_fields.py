"""Stochastic fields: contracts, closed forms, and the signs and bounds that their class promises."""

import math

import pytest
import torch

from ctdyn import solve
from ctdyn._config import from_config, to_config
from ctdyn.fields import GeometricSDEField, LangevinSDEField, LinearNoiseSDEField, MLPSDEField
from ctdyn.integrate import StepTo
from ctdyn.nn import ACTIVATIONS
from ctdyn.paths import ConstantPath
from ctdyn.solvers import EulerMaruyama, Heun
from ctdyn.structure import Calculus, Noise
from ctdyn.testing import check_sde_field


F64 = torch.float64
STABLE = [GeometricSDEField, LangevinSDEField, LinearNoiseSDEField]
CLASSES = {k.__name__: k for k in (*STABLE, MLPSDEField, Calculus, Noise)} | dict(ACTIVATIONS)


def fields():
    torch.manual_seed(0)
    yield from (kind(3, (8,), input_size=2) for kind in STABLE)
    for calculus in Calculus:
        for noise, size in (
            (Noise.DIAGONAL, None),
            (Noise.SCALAR, None),
            (Noise.ADDITIVE, None),
            (Noise.ADDITIVE, 2),
            (Noise.GENERAL, 4),
        ):
            yield MLPSDEField(3, (8,), noise=noise, calculus=calculus, input_size=2, brownian_size=size)


@pytest.mark.parametrize("field", fields(), ids=lambda f: f"{type(f).__name__}-{f.noise.value}-{f.calculus.value}")
def test_contract_configuration_and_solve(field):
    check_sde_field(field, 3, input_size=2)
    again = from_config(to_config(field), CLASSES)
    again.load_state_dict(field.state_dict())
    t, y, u = torch.rand(4), torch.randn(4, 3), torch.randn(4, 2)
    assert torch.equal(again.drift(t, y, u), field.drift(t, y, u))
    assert torch.equal(again.diffusion(t, y, u), field.diffusion(t, y, u))
    assert (again.noise, again.calculus) == (field.noise, field.calculus)
    ts = torch.tensor([0.0, 0.5, 1.0])
    ys = solve(field, y, ts, inputs=ConstantPath(u), controller=StepTo(4)).ys
    assert torch.isfinite(ys).all()


@pytest.mark.parametrize("kind", [*STABLE, MLPSDEField])
def test_arguments_that_do_not_fit_are_refused(kind):
    with pytest.raises(ValueError, match="state_size"):
        kind(0)
    with pytest.raises(ValueError, match="none were given"):
        kind(3, input_size=2).drift(torch.zeros(4), torch.zeros(4, 3))
    if kind is MLPSDEField:
        with pytest.raises(ValueError, match="needs brownian_size"):
            kind(3, noise=Noise.GENERAL)
        with pytest.raises(ValueError, match="leave brownian_size"):
            kind(3, brownian_size=2)
        with pytest.raises(TypeError, match=r"Noise\.DIAGONAL"):
            kind(3, noise="diagonal")
    else:
        with pytest.raises(ValueError, match="sigma must be positive"):
            kind(3, sigma=0.0)


def simulate(field, y0, ts, steps, solver=None):
    with torch.no_grad():
        return solve(
            field, y0, ts, solver=solver, controller=StepTo(steps), generator=torch.Generator().manual_seed(0)
        ).ys


def test_the_langevin_class_holds_the_ornstein_uhlenbeck_process():
    theta, sigma, paths = 0.7, 0.4, 20000
    field = LangevinSDEField(1, hidden=(), sigma=sigma).double()
    with torch.no_grad():
        field.mlp.layers[0].weight.fill_(-theta)
        field.mlp.layers[0].bias.fill_(theta * 2.0)
    ts = torch.tensor([0.0, 0.5, 2.0, 6.0], dtype=F64)
    ys = simulate(field, torch.full((paths, 1), -1.0, dtype=F64), ts, 20)[..., 0]
    for k, t in enumerate(ts.tolist()[1:], 1):
        mean = 2.0 + (-1.0 - 2.0) * math.exp(-theta * t)
        variance = sigma**2 / (2 * theta) * (1 - math.exp(-2 * theta * t))
        assert abs(float(ys[:, k].mean()) - mean) < 4 * math.sqrt(variance / paths) + 1e-3
        assert abs(float(ys[:, k].var()) / variance - 1) < 4 * math.sqrt(2 / paths) + 2e-3


def test_linear_noise_dies_at_zero_and_is_geometric_brownian_motion_without_drift():
    field = LinearNoiseSDEField(1, hidden=(), sigma=0.5).double()
    with torch.no_grad():
        for parameter in field.mlp.parameters():
            parameter.zero_()
    ts = torch.tensor([0.0, 1.0], dtype=F64)
    assert not simulate(field, torch.zeros(10, 1, dtype=F64), ts, 10).any()
    logs = simulate(field, torch.ones(20000, 1, dtype=F64), ts, 100)[:, -1, 0].abs().log()
    assert abs(float(logs.mean()) + 0.125) < 0.02
    assert abs(float(logs.std()) - 0.5) < 0.02


def test_a_geometric_field_stays_positive_at_steps_of_any_length():
    torch.manual_seed(0)
    field = GeometricSDEField(2, sigma=2.0).double()
    ts = torch.tensor([0.0, 5.0, 10.0, 20.0], dtype=F64)
    start = torch.full((10_000, 2), 0.01, dtype=F64)
    ys = simulate(field, start.log(), ts, 1)
    assert torch.isfinite(ys).all()
    assert (ys.exp() > 0).all()

    # The same equation for the state itself leaves the positive numbers.
    class Plain(LinearNoiseSDEField):
        def drift(self, t, y, u=None):
            return self.mlp(torch.tanh(y)) * y

    plain = Plain(2, sigma=2.0).double()
    assert (simulate(plain, start, ts, 1, EulerMaruyama()) < 0).any()


def test_a_geometric_field_in_logarithms_is_its_equation():
    torch.manual_seed(0)
    field = GeometricSDEField(1, hidden=(), sigma=0.3).double()
    with torch.no_grad():
        field.mlp.layers[0].weight.zero_()
        field.mlp.layers[0].bias.fill_(0.2)
    ts = torch.tensor([0.0, 2.0], dtype=F64)
    z = simulate(field, torch.zeros(20000, 1, dtype=F64), ts, 1)[:, -1, 0].exp()
    # E z = exp(growth t), whatever the noise.
    assert abs(float(z.mean()) / math.exp(0.4) - 1) < 4 * float(z.std() / z.mean()) / math.sqrt(20000)
    far = torch.full((1, 1), 500.0, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(field.drift(torch.zeros(1, dtype=F64), far).sum(), far)
    assert torch.isfinite(slope).all()


def test_the_calculus_of_a_field_is_obeyed():
    """The same networks read both ways end apart by the correction of the drift."""
    torch.manual_seed(0)
    ito = MLPSDEField(2, (8,)).double()
    other = MLPSDEField(2, (8,), calculus=Calculus.STRATONOVICH).double()
    other.load_state_dict(ito.state_dict())
    ts, y0 = torch.tensor([0.0, 1.0], dtype=F64), torch.zeros(30, 2, dtype=F64)

    class Corrected(MLPSDEField):
        def drift(self, t, y, u=None):
            with torch.enable_grad():
                y = y.detach().requires_grad_()
                g = self.diffusion(t, y)
                (slope,) = torch.autograd.grad(g.sum(), y)
            return super().drift(t, y) - 0.5 * (slope * g).detach()

    corrected = Corrected(2, (8,), calculus=Calculus.STRATONOVICH).double()
    corrected.load_state_dict(ito.state_dict())
    fine = simulate(ito, y0, ts, 1000, EulerMaruyama())
    same, apart = simulate(corrected, y0, ts, 1000, Heun()), simulate(other, y0, ts, 1000, Heun())
    assert (same - fine).abs().mean() < 0.2 * (apart - fine).abs().mean()
