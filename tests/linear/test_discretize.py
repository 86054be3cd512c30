"""Transitions, integrals and noise over steps of every length."""

import json
import math

import mpmath
import pytest
import torch

from ctdyn.linear import (
    OU,
    Dense,
    Diagonal,
    HeldAfter,
    HeldBefore,
    Impulse,
    Matern,
    ProductDynamics,
    Ramp,
    Rotations,
    SumDynamics,
    legs_matrices,
)
from ctdyn.linear._exponentials import exponentials, noise_integrals


F64 = torch.float64
STEPS = [1e-12, 1e-8, 1e-4, 1e-3, 1e-2, 0.1, 0.7, 1.0, 3.0, 10.0, 30.0, 100.0]


def scaled_error(got, expected):
    size = expected.diagonal(dim1=-2, dim2=-1).sqrt()
    return float(((got.double() - expected).abs() / (size[..., :, None] * size[..., None, :])).max())


def van_loan(A, S, dt):
    """Transition and noise at as many digits as the block matrix needs."""
    n = len(A)
    with mpmath.workdps(int(100 + 1.5 * dt * float(A.abs().sum(-1).max()))):
        block = mpmath.zeros(2 * n)
        for i in range(n):
            for j in range(n):
                block[i, j] = -mpmath.mpf(float(A[i, j]))
                block[i, n + j] = mpmath.mpf(float(S[i, j]))
                block[n + i, n + j] = mpmath.mpf(float(A[j, i]))
        whole = mpmath.expm(block * mpmath.mpf(dt))
        transition = whole[n : 2 * n, n : 2 * n].T
        noise = transition * whole[0:n, n : 2 * n]
        return (torch.tensor([[float(m[i, j]) for j in range(n)] for i in range(n)], dtype=F64)
                for m in (transition, noise))  # fmt: skip


@pytest.mark.parametrize("smoothness", [0.5, 1.5, 2.5])
def test_noise_of_a_matern_process_for_every_step(smoothness):
    made = Matern(smoothness, lengthscale=torch.tensor(1.3, dtype=F64), variance=torch.tensor(2.0, dtype=F64))
    dense = Dense(made.A.detach(), S=made.density().detach())
    for dt in STEPS:
        transition, expected = van_loan(made.A.detach(), made.density().detach(), dt)
        step = torch.tensor([dt], dtype=F64)
        assert scaled_error(made.noise(step)[0].detach(), expected) < 1e-14
        assert scaled_error(dense.noise(step)[0].detach(), expected) < 2e-14
        for dynamics in (made, dense):
            torch.testing.assert_close(dynamics.flow(step)[0][0].detach(), transition, rtol=0, atol=2e-14)
        if dt >= 1e-4:
            single = Matern(smoothness, lengthscale=1.3, variance=2.0).noise(torch.tensor([dt]))
            assert scaled_error(single[0].detach(), expected) < 1e-6
            torch.linalg.cholesky(made.noise(step)[0])


def test_noise_of_dense_dynamics_for_every_step():
    torch.manual_seed(1)
    A = torch.randn(4, 4, dtype=F64) - 2.5 * torch.eye(4, dtype=F64)
    L = torch.randn(4, 4, dtype=F64)
    stiff = torch.tensor([[-1000.0, 3.0], [2.0, -0.5]], dtype=F64)
    for matrix, S in ((A, L @ L.mT), (stiff, torch.eye(2, dtype=F64))):
        for dt in (1e-12, 1e-4, 1e-2, 1.0):
            transition, expected = van_loan(matrix, S, dt)
            step = torch.tensor([dt], dtype=F64)
            assert scaled_error(noise_integrals(matrix, S, step)[0], expected) < 3e-13
            torch.testing.assert_close(exponentials(matrix, step, 0)[0][0], transition, rtol=0, atol=1e-13)


def test_the_longest_steps_end_in_the_stationary_state():
    for dynamics in (
        Matern(2.5, lengthscale=torch.tensor(0.7, dtype=F64)),
        OU(torch.tensor([2.0, 0.1], dtype=F64), torch.tensor(1.0, dtype=F64)),
        Dense(torch.tensor([[-1.0, 4.0], [-4.0, -1.0]], dtype=F64), S=torch.eye(2, dtype=F64)),
    ):
        for dt in (1e3, 1e6):
            step = dynamics.discretize(torch.tensor(dt, dtype=F64), noise=True)
            torch.testing.assert_close(step.Q, dynamics.stationary())
            assert float(step.A_bar.detach().abs().max()) < 1e-12


def test_many_steps_at_once_are_the_steps_one_by_one():
    torch.manual_seed(2)
    A = torch.randn(5, 5, dtype=F64) - 2 * torch.eye(5, dtype=F64)
    for longest in (1e-6, 1.0, 50.0, 1e4):
        dt = longest * torch.rand(700, dtype=F64) ** 4
        together = exponentials(A, dt, 2)
        alone = [exponentials(A, dt[i : i + 1], 2) for i in range(0, 700, 50)]
        for order, values in enumerate(together):
            expected = torch.cat([one[order] for one in alone])
            scale = max(1.0, longest) if order else 1.0
            torch.testing.assert_close(values[::50], expected, rtol=1e-11, atol=1e-13 * scale)
        torch.testing.assert_close(together[0], torch.matrix_exp(A * dt[:, None, None]), rtol=0, atol=1e-12)


def test_repeated_steps_are_made_once_and_stand_where_they_belong():
    A = torch.tensor([[-1.0, 2.0], [-2.0, -1.0]], dtype=F64)
    dt = torch.tensor([0.5, 0.0, 0.25, 0.5], dtype=F64).repeat(3, 40)
    expected = torch.matrix_exp(A * dt[..., None, None])
    torch.testing.assert_close(exponentials(A, dt, 0)[0], expected, rtol=0, atol=1e-14)
    eye = torch.eye(2, dtype=F64)
    torch.testing.assert_close(
        noise_integrals(A, eye, dt)[0, :4], noise_integrals(A, eye, dt[0, :4]), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_chains_of_integrators(dtype):
    A = torch.diag(torch.ones(3, dtype=dtype), 1)
    S = torch.zeros(4, 4, dtype=dtype)
    S[3, 3] = 1.0
    dt = torch.tensor([0.0, 1e-3, 1.0, 50.0], dtype=dtype)
    made = Dense(A, S=S).discretize(dt, noise=True)
    powers = torch.stack([dt**j / math.factorial(j) for j in range(4)], -1)
    torch.testing.assert_close(made.A_bar[:, 0].detach(), powers, rtol=1e-5 if dtype != F64 else 1e-13, atol=0)
    expected = dt**7 / (7 * 36)
    torch.testing.assert_close(made.Q[:, 0, 0].detach(), expected, rtol=1e-5 if dtype != F64 else 1e-13, atol=0)


def test_steps_of_length_zero_alone():
    A = torch.eye(2, dtype=F64).expand(3, 2, 2)
    dt = torch.zeros(3, 90, dtype=F64)
    assert torch.equal(exponentials(-A, dt, 0)[0], A[:, None].expand(3, 90, 2, 2))
    assert not noise_integrals(-A, A, dt).any()


def test_each_matrix_of_a_batch_has_its_own_pace():
    A = torch.stack([torch.eye(3, dtype=F64) * rate for rate in (-1e-3, -1.0, -300.0)])
    dt = torch.rand(3, 200, dtype=F64)
    expected = torch.matrix_exp(A[:, None] * dt[..., None, None])
    torch.testing.assert_close(exponentials(A, dt, 0)[0], expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("order", [0, 2])
def test_gradients_of_matrix_functions(order):
    torch.manual_seed(3)
    A = (torch.randn(2, 2, dtype=F64) - torch.eye(2, dtype=F64)).requires_grad_()
    for dt in (torch.tensor([0.0, 0.4, 2.0], dtype=F64), torch.linspace(0.1, 9.0, 140, dtype=F64)):
        dt.requires_grad_()
        pick = slice(None, None, max(1, dt.numel() // 3))
        assert torch.autograd.gradcheck(lambda a, t: tuple(x[pick] for x in exponentials(a, t, order)), (A, dt))  # noqa: B023
    S = torch.eye(2, dtype=F64).requires_grad_()
    short = torch.tensor([1e-3, 0.4, 5.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, s, t: noise_integrals(a, s @ s.mT, t), (A, S, short))


def make(kind, *p):
    one, two = p
    if kind == "diagonal":
        return Diagonal(-torch.stack([one, two]), B=torch.ones(2, 1, dtype=F64), S=torch.eye(2, dtype=F64))
    if kind == "rotations":
        return Rotations(one[None], two[None], sigma=one)
    if kind == "dense":
        return Dense(torch.stack([torch.stack([-one, two]), torch.stack([-two, -one])]), S=torch.eye(2, dtype=F64))
    if kind == "ou":
        return OU(one, two)
    if kind == "sum":
        return SumDynamics([OU(one, two), Matern(1.5, lengthscale=two)])
    if kind == "product":
        return ProductDynamics(OU(one, two), Matern(1.5, lengthscale=two))
    return Matern(2.5, lengthscale=one, variance=two)


@pytest.mark.parametrize("kind", ["diagonal", "rotations", "dense", "ou", "matern", "sum", "product"])
def test_gradients_to_parameters_and_steps(kind):
    one, two = (torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.7, 1.3))
    dt = torch.tensor([1e-3, 0.5, 3.0], dtype=F64, requires_grad=True)

    def run(one, two, dt):
        made = make(kind, one, two).discretize(dt, hold=Ramp(), noise=True)
        return made.A_bar, made.before, made.after, made.Q

    assert torch.autograd.gradcheck(run, (one, two, dt))


def test_every_hold_is_the_integral_that_it_says():
    A = torch.tensor([[-0.5, 2.0], [-2.0, 0.1]], dtype=F64)
    B = torch.tensor([[1.0], [0.3]], dtype=F64)
    dynamics = Dense(A, B=B)
    dt, u0, u1 = 0.8, torch.tensor([1.5], dtype=F64), torch.tensor([-0.4], dtype=F64)
    nodes, weights = (torch.from_numpy(x) for x in __import__("numpy").polynomial.legendre.leggauss(40))
    s, weights = dt * (nodes + 1) / 2, dt * weights / 2
    response = (torch.matrix_exp(A * (dt - s)[:, None, None]) @ B).squeeze(-1) * weights[:, None]
    y0 = torch.tensor([0.2, -1.0], dtype=F64)
    free = torch.matrix_exp(A * dt) @ y0
    expected = {
        HeldBefore(): free + (response * u0).sum(0),
        HeldAfter(): free + (response * u1).sum(0),
        Impulse(): free + (B @ u1),
        Ramp(): free + (response * (u0 + (u1 - u0) * (s / dt)[:, None])).sum(0),
    }
    zero, end = torch.zeros((), dtype=F64), torch.tensor(dt, dtype=F64)
    for hold, value in expected.items():
        torch.testing.assert_close(dynamics.step(y0, zero, end, u0, u1, hold=hold), value, rtol=0, atol=1e-13)


def test_time_differences_are_taken_in_double_precision():
    ts = 2.4e6 + torch.tensor([0.0, 0.1, 0.3], dtype=F64)
    states = Matern(1.5).scan(ts, y0=torch.tensor([1.0, 0.0]))
    expected = Matern(1.5).scan(ts - 2.4e6, y0=torch.tensor([1.0, 0.0]))
    assert states.dtype == torch.float32
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-7)


def test_reference_transitions_and_noise(reference_root):
    case = json.loads((reference_root / "ssm" / "lti_sde_partial_missing.json").read_text())
    A, L = (torch.tensor([[float(x) for x in row] for row in case[name]], dtype=F64) for name in ("A", "L"))
    dynamics = Dense(A, S=L @ L.mT)
    for dt, expected in case["van_loan_discretisation"].items():
        step = dynamics.discretize(torch.tensor(float(dt), dtype=F64), noise=True)
        for got, name in ((step.A_bar, "Ad"), (step.Q, "Qd")):
            want = torch.tensor([[float(x) for x in row] for row in expected[name]], dtype=F64)
            torch.testing.assert_close(got.detach(), want, rtol=1e-12, atol=1e-14 * float(want.abs().max()))


def test_reference_kernels_of_hippo(reference_root):
    case = json.loads((reference_root / "ssm" / "hippo_legs_discretisation.json").read_text())
    for name, model in case["models"].items():
        size = int(name[1:])
        A, B = legs_matrices(size)
        dynamics = Dense(A, B=B)
        C = torch.tensor([float(x) for x in model["C"]], dtype=F64)
        for dt, expected in model["dt"].items():
            step = dynamics.discretize(torch.tensor(float(dt), dtype=F64))
            transition, drive, _ = (None if m is None else m.detach() for m in step.matrices())
            for got, key in (
                (drive[:, 0], "zoh_B"),
                (transition[:, 0], "zoh_A_first_col"),
                (transition.diagonal(), "zoh_A_diag"),
            ):
                want = torch.tensor([float(x) for x in expected[key]], dtype=F64)
                torch.testing.assert_close(got, want, rtol=0, atol=1e-12 * max(1.0, float(want.abs().max())))
            kernel = torch.tensor([float(x) for x in expected["zoh_kernel16"]], dtype=F64)
            step = float(dt)
            inputs = torch.zeros(17, 1, dtype=F64)
            inputs[0] = 1.0
            ts = step * torch.arange(17, dtype=F64)
            states = dynamics.scan(ts, inputs)[1:] @ C
            torch.testing.assert_close(
                states, kernel, rtol=1e-11, atol=1e-11 * float(kernel.abs().max()), msg=name + dt
            )


def test_the_density_of_a_matern_process_is_that_of_its_kernel():
    made = Matern(2.5, lengthscale=torch.tensor(0.8, dtype=F64), variance=torch.tensor(1.7, dtype=F64))
    residual = made.A @ made.stationary() + made.stationary() @ made.A.mT + made.density()
    assert float(residual.detach().abs().max()) < 1e-12
    lag = torch.linspace(-3, 3, 25, dtype=F64)
    r = math.sqrt(5) * lag.abs() / 0.8
    torch.testing.assert_close(made.kernel(lag).detach(), 1.7 * (1 + r + r**2 / 3) * torch.exp(-r), rtol=0, atol=1e-14)
