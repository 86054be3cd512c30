import pytest
import torch
from torch import nn

from ctdyn.integrate import Checkpoint, ConstantStep, Direct, PIDController, StepTo, solve
from ctdyn.solvers import RK4, Bosh3, Dopri5, Euler, Heun, Midpoint, Tsit5


F64 = torch.float64
SETTINGS = [
    (Tsit5(), PIDController(1e-5, 1e-7)),
    (Dopri5(), PIDController(1e-4, 1e-6)),
    (Bosh3(), PIDController(1e-4, 1e-6)),
    (Heun(), PIDController(1e-3, 1e-5)),
    (Euler(), ConstantStep(0.05)),
    (Midpoint(), StepTo(4)),
    (RK4(), StepTo(1)),
    (RK4(), ConstantStep(0.13)),
]


def names(setting):
    return type(setting[0]).__name__ + "-" + type(setting[1]).__name__


class Stiffening(nn.Module):
    """Van der Pol with a parameter per series carried in the state: series need very different steps."""

    def forward(self, t, y):
        x, v, mu = y.unbind(-1)
        return torch.stack([v, mu * (1 - x**2) * v - x, torch.zeros_like(mu)], -1)


def problem(batch=6, times=9):
    generator = torch.Generator().manual_seed(1)
    ts = torch.rand(batch, times, dtype=F64, generator=generator).mul(2).sort(-1).values
    mu = torch.logspace(-1, 0.8, batch, dtype=F64)
    y0 = torch.stack([torch.full_like(mu, 2.0), torch.zeros_like(mu), mu], -1)
    return Stiffening(), y0, ts


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("setting", SETTINGS, ids=names)
def test_own_clocks_are_separate_solves(setting, grad):
    solver, controller = setting
    field, y0, ts = problem()
    y0.requires_grad_(grad)
    together = solve(field, y0, ts, solver=solver, controller=controller)
    for row in range(len(ts)):
        alone = solve(field, y0[row], ts[row], solver=solver, controller=controller)
        torch.testing.assert_close(together.ys[row], alone.ys, rtol=1e-12, atol=1e-12)
        for name, counts in together.stats.items():
            assert int(counts[row]) == int(alone.stats[name]), name


def test_series_take_the_steps_they_need():
    field, y0, ts = problem()
    steps = solve(field, y0, ts[:1].expand(6, -1)).stats["steps"]
    assert int(steps.max()) > 2 * int(steps.min())


def test_reading_the_plan_and_replaying_it_agree():
    field, y0, ts = problem()
    for solver, controller in SETTINGS[:3]:
        read = solve(field, y0, ts, solver=solver, controller=controller)
        replayed = solve(field, y0.clone().requires_grad_(), ts, solver=solver, controller=controller)
        torch.testing.assert_close(read.ys, replayed.ys, rtol=1e-13, atol=1e-13)
        assert int(replayed.stats["evaluations"].max()) > int(read.stats["evaluations"].max())


def test_the_cost_does_not_grow_with_the_number_of_times():
    calls = [0]

    def field(t, y):
        calls[0] += 1
        return torch.stack([-y[..., 1], y[..., 0]], -1)

    counts = []
    for times in (2, 300):
        calls[0] = 0
        ts = torch.rand(8, times, dtype=F64, generator=torch.Generator().manual_seed(0)).sort(-1).values
        solve(field, torch.ones(8, 2, dtype=F64), torch.cat([ts, torch.ones(8, 1, dtype=F64)], -1), t0=0.0)
        counts.append(calls[0])
    assert counts[0] == counts[1]


def test_sample_axes_stand_before_the_batch():
    field, y0, ts = problem()
    samples = torch.stack([y0, y0 * 0.5, y0 + 0.1])
    ys = solve(field, samples, ts).ys
    assert ys.shape == (3, 6, 9, 3)
    torch.testing.assert_close(ys[1], solve(field, samples[1], ts).ys, rtol=1e-12, atol=1e-12)
    shared = solve(field, samples, ts[0], solver=RK4(), controller=StepTo(1)).ys
    torch.testing.assert_close(
        shared[2], solve(field, samples[2], ts[0], solver=RK4(), controller=StepTo(1)).ys, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("setting", SETTINGS, ids=names)
def test_backward_time_undoes_forward_time(setting):
    solver, controller = setting
    ts = torch.tensor([[0.0, 0.7, 1.2], [3.0, 3.1, 3.9]], dtype=F64)
    y0 = torch.tensor([[1.0, 0.0], [0.3, -2.0]], dtype=F64)
    field = lambda t, y: torch.stack([-y[..., 1], y[..., 0]], -1)  # noqa: E731
    there = solve(field, y0, ts, solver=solver, controller=controller)
    back = solve(field, there.ys[:, -1], ts.flip(-1), solver=solver, controller=controller)
    tolerance = {Euler: 0.3, Midpoint: 0.05}.get(type(solver), 0.02)
    torch.testing.assert_close(back.ys.flip(-2), there.ys, rtol=0, atol=tolerance)


def test_an_output_at_the_start_and_at_the_end_is_exact():
    ts = torch.tensor([[0.0, 1.0, 1.0]], dtype=F64)
    y0 = torch.tensor([[0.123456789, 1.0]], dtype=F64)
    for controller in (PIDController(), ConstantStep(0.3), StepTo(2)):
        ys = solve(lambda t, y: -y, y0, ts, controller=controller).ys
        assert torch.equal(ys[:, 0], y0)


@pytest.mark.parametrize("adjoint", [Direct(), Checkpoint()], ids=repr)
def test_float32_states_stay_float32(adjoint):
    field, y0, ts = problem()
    for solver, controller in (SETTINGS[1], SETTINGS[6]):
        y = y0.float().requires_grad_()
        ys = solve(field, y, ts.float(), solver=solver, controller=controller, adjoint=adjoint).ys
        assert ys.dtype == torch.float32
        ys.sum().backward()
        assert y.grad is not None
        assert torch.isfinite(y.grad).all()
