import math
import re
from pathlib import Path

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from ctdyn import processes
from ctdyn.encoders import Encoding
from ctdyn.fields import LinearField, MLPField
from ctdyn.integrate import ConstantStep, PIDController, StepTo
from ctdyn.paths import LinearPath
from ctdyn.processes import ODEProcess
from ctdyn.solvers import RK4, Tsit5
from ctdyn.testing import check_process


PARTS = {
    "ODEProcess": [
        lambda: ODEProcess(MLPField(2, hidden=(8,)), 2),
        lambda: ODEProcess(
            MLPField(2, hidden=(8,)), 2, learned_prior=True, solver=RK4(), controller=ConstantStep(0.05)
        ),
        lambda: ODEProcess(LinearField(3), 3, solver=Tsit5(), controller=StepTo(2)),
    ]
}

ROTATION = [[0.0, 1.0], [-1.0, 0.0]]


def _rotation(**kwargs) -> ODEProcess:
    kwargs = {"solver": RK4(), "controller": ConstantStep(0.02), **kwargs}
    return ODEProcess(LinearField(2, matrix=ROTATION), 2, **kwargs).double()


def _sharp(mean: torch.Tensor) -> Encoding:
    return Encoding(q0=Independent(Normal(mean, 1e-12), 1))


def test_every_exported_process_is_checked():
    """Each in one of the files beside this one, by its name among the parts of that file."""
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    checked = [text for text in sources if "check_process(" in text]
    missing = [name for name in processes.__all__ if not any(re.search(rf"\b{name}\(", text) for text in checked)]
    assert set(missing) <= {"IntegratingProcess", "LatentProcess", "LatentSample"}


@pytest.mark.parametrize("build", [build for builds in PARTS.values() for build in builds])
def test_contract(build):
    check_process(build())


@pytest.mark.parametrize("controller", [ConstantStep(0.02), StepTo(16), PIDController(rtol=1e-8, atol=1e-8)])
def test_times_before_at_and_after_the_start_in_any_order(controller):
    process = _rotation(controller=controller, solver=Tsit5())
    t0 = torch.tensor([1.0, -2.0], dtype=torch.float64)
    ts = torch.tensor([[1.5, 0.2, 1.0, 3.0, 0.2, 1.5], [-2.0, -2.0, -1.0, -2.5, 0.0, -4.0]], dtype=torch.float64)
    z0 = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    zs = process.posterior(_sharp(z0), t0, ts).zs[0]
    angle = ts - t0.unsqueeze(-1)
    cos, sin = angle.cos(), angle.sin()
    exact = torch.stack([cos * z0[:, None, 0] + sin * z0[:, None, 1], -sin * z0[:, None, 0] + cos * z0[:, None, 1]], -1)
    torch.testing.assert_close(zs, exact, rtol=0, atol=1e-6)


def test_the_start_itself_costs_no_solve_and_no_error():
    process = _rotation()
    t0 = torch.tensor([1.0], dtype=torch.float64)
    z0 = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    zs = process.posterior(_sharp(z0), t0, t0.expand(1, 3)).zs
    torch.testing.assert_close(zs, z0.expand(1, 1, 3, 2), atol=1e-10, rtol=0)


def test_no_query_times_give_no_states():
    process = _rotation()
    t0 = torch.zeros(3, dtype=torch.float64)
    assert process.prior(t0, torch.zeros(3, 0, dtype=torch.float64), 4).zs.shape == (4, 3, 0, 2)


def test_the_divergence_is_the_closed_form_and_splits_by_dimension():
    process = _rotation()
    mean = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    std = torch.tensor([[0.3, 0.2]], dtype=torch.float64)
    encoding = Encoding(q0=Independent(Normal(mean, std), 1))
    t0 = torch.zeros(1, dtype=torch.float64)
    latent = process.posterior(encoding, t0, t0.unsqueeze(-1))
    expected = 0.5 * (std.square() + mean.square() - 1) - std.log()
    torch.testing.assert_close(latent.kl_by_dimension, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(latent.kl["z0"], expected.sum(-1), rtol=0, atol=1e-12)


def test_a_posterior_with_full_covariance_is_welcome():
    process = _rotation()
    covariance = torch.tensor([[[0.5, 0.3], [0.3, 0.4]]], dtype=torch.float64)
    q0 = MultivariateNormal(torch.tensor([[1.0, -1.0]], dtype=torch.float64), covariance)
    t0 = torch.zeros(1, dtype=torch.float64)
    latent = process.posterior(Encoding(q0=q0), t0, t0.unsqueeze(-1), num_samples=5)
    standard = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(latent.kl["z0"], kl_divergence(q0, standard))
    assert latent.kl_by_dimension is None
    torch.testing.assert_close(
        latent.log_terms["z0"], standard.log_prob(latent.zs[..., 0, :]) - q0.log_prob(latent.zs[..., 0, :])
    )


def test_samples_from_the_prior_have_its_moments():
    process = _rotation(learned_prior=True)
    process.prior_mean.data = torch.tensor([2.0, -1.0], dtype=torch.float64)
    t0 = torch.zeros(1, dtype=torch.float64)
    quarter = torch.full((1, 1), math.pi / 2, dtype=torch.float64)
    zs = process.prior(t0, quarter, 20_000, torch.Generator().manual_seed(0)).zs.squeeze()
    torch.testing.assert_close(zs.mean(0), torch.tensor([-1.0, -2.0], dtype=torch.float64), rtol=0, atol=0.04)
    torch.testing.assert_close(zs.std(0), torch.ones(2, dtype=torch.float64), rtol=0, atol=0.04)


def test_the_standard_normal_prior_is_not_trained():
    assert not any(name.startswith("prior") for name, p in _rotation().named_parameters() if p.requires_grad)
    names = [name for name, p in _rotation(learned_prior=True).named_parameters() if p.requires_grad]
    assert {"prior_mean", "prior_log_std"} <= set(names)


def test_inputs_drive_the_dynamics():
    process = ODEProcess(
        LinearField(1, matrix=[[0.0]], input_size=1), 1, solver=RK4(), controller=ConstantStep(0.1)
    ).double()
    process.field.B.data.fill_(1.0)
    ts = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    ramp = LinearPath(ts, ts.unsqueeze(-1))
    zs = process.posterior(_sharp(torch.zeros(1, 1, dtype=torch.float64)), ts[:, 0], ts, 2, inputs=ramp).zs
    torch.testing.assert_close(zs[1, 0, :, 0], ts[0].square() / 2, rtol=0, atol=1e-8)


def test_an_encoding_without_an_initial_state_is_refused():
    t0 = torch.zeros(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="needs an encoding with q0"):
        _rotation().posterior(Encoding(), t0, t0.unsqueeze(-1))
