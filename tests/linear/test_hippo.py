"""What the memories remember."""

import pytest
import torch

from ctdyn.linear import HippoLagT, HippoLegS, HippoLegT, Impulse, Ramp


F64 = torch.float64


def signal(t):
    return torch.sin(3 * t) + 0.5 * torch.cos(7 * t + 1)


def test_legs_remembers_the_whole_past_whatever_the_clock():
    torch.manual_seed(0)
    memory = HippoLegS(48, dtype=F64)
    x = torch.linspace(0.02, 0.98, 60, dtype=F64)
    errors = []
    for ts in (torch.linspace(0, 3, 400, dtype=F64), torch.rand(900, dtype=F64).sort().values * 3):
        ts = torch.cat([ts, ts.new_tensor([3.0])])
        ts[0] = 0.0
        states = memory.scan(ts, signal(ts)[:, None], hold=Ramp())
        errors.append(float((memory.basis(x) @ states[-1] - signal(3 * x)).abs().max()))
    assert max(errors) < 5e-3


def test_legs_is_exact_for_polynomials_between_knots_of_any_distance():
    memory = HippoLegS(5, dtype=F64)
    ts = torch.tensor([0.0, 1e-6, 0.3, 0.30001, 2.0, 700.0], dtype=F64)
    states = memory.scan(ts, (2 * ts - 1)[:, None], hold=Ramp())
    x = torch.linspace(0, 1, 7, dtype=F64)
    for k in range(1, len(ts)):
        torch.testing.assert_close(memory.basis(x) @ states[k], 2 * x * ts[k] - 1, rtol=1e-10, atol=1e-10)


def test_legs_does_not_know_the_unit_of_time():
    memory, ts = HippoLegS(8, dtype=F64), torch.rand(30, dtype=F64).cumsum(-1)
    us = torch.randn(30, 1, dtype=F64)
    for hold in (Ramp(), Impulse()):
        torch.testing.assert_close(memory.scan(3600 * ts, us, hold=hold), memory.scan(ts, us, hold=hold))


def test_legs_keeps_its_accuracy_when_it_is_large():
    memory = HippoLegS(96, dtype=F64)
    dt = torch.tensor([1e-9, 1e-3, 0.1, 2.0, 50.0], dtype=F64)
    ones = torch.zeros(96, 1, dtype=F64)
    ones[0] = 1.0
    for transition, level in zip(*memory.flow(dt, 1), strict=True):
        # A signal that stays at 1 is remembered as that.
        torch.testing.assert_close(transition @ ones + level, ones, rtol=0, atol=1e-13)
        assert float(torch.linalg.matrix_norm(transition, 2)) <= 1 + 1e-12


def test_legs_takes_gradients_to_signal_and_times():
    memory = HippoLegS(3, dtype=F64)
    ts = torch.tensor([0.0, 0.4, 1.0], dtype=F64)
    inner = torch.tensor([0.5, 0.9], dtype=F64, requires_grad=True)
    us = torch.randn(3, 1, dtype=F64, requires_grad=True)

    def run(inner, us):
        return memory.scan(torch.cat([ts[:1], inner]), us, hold=Ramp())

    assert torch.autograd.gradcheck(run, (inner, us))


def test_legt_remembers_a_window():
    memory = HippoLegT(24, window=1.5, dtype=F64)
    ts = torch.linspace(0, 6, 1200, dtype=F64)
    states = memory.scan(ts, signal(ts)[:, None], hold=Ramp())
    x = torch.linspace(0, 1, 40, dtype=F64)
    torch.testing.assert_close(memory.basis(x) @ states[-1], signal(4.5 + 1.5 * x), rtol=0, atol=1e-3)


def test_lagt_holds_the_coefficients_of_laguerre_functions():
    memory = HippoLagT(6, timescale=0.7, dtype=F64)
    ts = torch.linspace(0, 40, 8001, dtype=F64)
    states = memory.scan(ts, signal(ts)[:, None], hold=Ramp())
    s = torch.linspace(0, 56, 40001, dtype=F64)
    products = memory.basis(s) * signal(40 - 0.7 * s)[:, None]
    expected = torch.trapezoid(products, s, dim=0)
    torch.testing.assert_close(states[-1], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("cls", [HippoLegT, HippoLagT])
def test_constants_keep_their_digits_in_any_dtype(cls):
    assert torch.equal(cls(5, 0.3).double().A, cls(5, 0.3, dtype=F64).A)
