"""Densities along a field: against closed forms, exact and estimated."""

import pytest
import torch

from ctdyn.fields import ConcatSquashTime, LinearField, MLPField
from ctdyn.flows import ContinuousNormalizingFlow
from ctdyn.integrate import Checkpoint, JacobianNorm, PIDController, StepTo, solve
from ctdyn.paths import ConstantPath
from ctdyn.solvers import RK4


F64 = torch.float64
FINE = PIDController(1e-9, 1e-9)


def curved(**options):
    torch.manual_seed(0)
    field = MLPField(2, hidden=(16,), layer=ConcatSquashTime).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.mul_(2.0)
    return ContinuousNormalizingFlow(field, 2, **options)


def test_a_linear_field_carries_a_normal_density_into_a_normal_one():
    matrix = [[-0.3, 0.8], [-0.5, 0.4]]
    flow = ContinuousNormalizingFlow(LinearField(2, matrix=matrix).double(), 2, controller=FINE)
    x = torch.randn(7, 2, dtype=F64)
    factor = torch.linalg.matrix_exp(torch.tensor(matrix, dtype=F64))
    exact = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=F64), factor @ factor.mT)
    torch.testing.assert_close(flow.log_prob(x), exact.log_prob(x), rtol=0, atol=1e-7)
    draws = flow.sample(20000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws.detach().mT.cov(), factor @ factor.mT, rtol=0.05, atol=0.02)


def test_a_density_integrates_to_one():
    flow = curved(controller=PIDController(1e-6, 1e-6))
    axis = torch.linspace(-8, 8, 161, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(float(mass) - 1) < 1e-4


def test_the_estimate_is_unbiased_and_two_of_them_may_be_differentiated_together():
    flow = curved(solver=RK4(), controller=StepTo(10))
    x = torch.randn(3, 2, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    many = flow.rademacher(x, 100, generator=generator)
    each = torch.stack([flow.log_prob(x, probes=many[k : k + 1]) for k in range(100)])
    error = (each.mean(0) - flow.log_prob(x)).detach().abs()
    assert (error < 4 * each.std(0).detach() / 100**0.5 + 1e-9).all()
    assert (each.std(0) > 1e-3).all()
    # All probes at once are the mean of each alone, and the gradients of several calls do not touch each other.
    first, second = many[:1], many[1:2]
    both = flow.log_prob(x, probes=many[:2])
    torch.testing.assert_close(both, (flow.log_prob(x, probes=first) + flow.log_prob(x, probes=second)) / 2)
    parameters = list(flow.parameters())
    together = torch.autograd.grad((flow.log_prob(x, probes=first) + flow.log_prob(x, probes=second)).sum(), parameters)
    apart = [torch.autograd.grad(flow.log_prob(x, probes=p).sum(), parameters) for p in (first, second)]
    for total, one, two in zip(together, *apart, strict=True):
        torch.testing.assert_close(total, one + two)


def test_checkpointed_gradients_are_the_same():
    x = torch.randn(3, 2, dtype=F64)
    found = []
    for adjoint in (None, Checkpoint()):
        flow = curved(solver=RK4(), controller=StepTo(6), adjoint=adjoint)
        found.append(torch.autograd.grad(flow.log_prob(x).sum(), list(flow.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_a_condition_moves_the_density():
    torch.manual_seed(0)
    flow = ContinuousNormalizingFlow(MLPField(2, input_size=1).double(), 2)
    x = torch.randn(4, 2, dtype=F64)
    low, high = (flow.log_prob(x, inputs=ConstantPath(torch.full((4, 1), c, dtype=F64))) for c in (0.0, 3.0))
    assert (low - high).abs().min() > 1e-4
    assert flow.sample(4, inputs=ConstantPath(torch.zeros(4, 1, dtype=F64))).shape == (4, 2)


def test_a_flow_learns_a_density():
    torch.manual_seed(0)
    flow = ContinuousNormalizingFlow(
        MLPField(1, hidden=(16,), layer=ConcatSquashTime), 1, solver=RK4(), controller=StepTo(4)
    )
    signs = 2 * torch.randint(0, 2, (256, 1)) - 1
    x = signs * 1.5 + 0.3 * torch.randn(256, 1)
    optimizer = torch.optim.Adam(flow.parameters(), 3e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        optimizer.step()
    normal = torch.distributions.Normal(x.mean(), x.std()).log_prob(x).mean()
    assert -float(loss) > float(normal) + 0.3


def test_arguments_that_do_not_fit_are_refused():
    flow = curved()
    with pytest.raises(ValueError, match="state_size=2"):
        flow.log_prob(torch.zeros(3, 5, dtype=F64))
    with pytest.raises(ValueError, match="probes must be"):
        flow.log_prob(torch.zeros(3, 2, dtype=F64), probes=torch.ones(3, 2, dtype=F64))
    with pytest.raises(ValueError, match="state_size must be"):
        ContinuousNormalizingFlow(LinearField(2), 0)


def test_the_norm_of_a_jacobian_is_estimated_without_bias():
    field = MLPField(3, hidden=(8,)).double()
    y = torch.randn(4, 3, dtype=F64)
    probes = ContinuousNormalizingFlow.rademacher(y, 4000, generator=torch.Generator().manual_seed(0))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: field(torch.zeros((), dtype=F64), y)))(y)
    exact = jacobian.square().sum((-1, -2))
    at = torch.zeros(4, dtype=F64)
    torch.testing.assert_close(JacobianNorm(field)(at, y), exact)
    torch.testing.assert_close(JacobianNorm(field, probes)(at, y), exact, rtol=0.1, atol=0)
    ts = torch.tensor([0.0, 1.0], dtype=F64)
    assert solve(field, y, ts, aux=JacobianNorm(field)).aux.shape == (4, 2, 1)
