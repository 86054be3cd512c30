"""Every kind of dynamics keeps the contract, and refuses what it cannot use."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from ctdyn.linear import (
    OU,
    Dense,
    Diagonal,
    HeldAfter,
    HippoLagT,
    HippoLegS,
    HippoLegT,
    Impulse,
    Matern,
    Oscillators,
    ProductDynamics,
    Rotations,
    SumDynamics,
)
from ctdyn.testing import check_linear


F64 = torch.float64


def rows(*values):
    return torch.tensor(values, dtype=F64)


KINDS = {
    "diagonal": lambda: Diagonal(rows(-1.0, 0.0, -30.0), B=torch.randn(3, 2, dtype=F64), S=torch.eye(3, dtype=F64)),
    "complex": lambda: Diagonal(torch.tensor([-1 + 3j, -0.1 - 10j]), S=torch.eye(2, dtype=torch.complex64)),
    "rotations": lambda: Rotations([0.1, 0.5], [3.0, 6.0], B=torch.randn(4, 2), sigma=0.5),
    "free rotations": lambda: Rotations([0.1, 0.5], [3.0, 6.0], sigma=0.5),
    "ou": lambda: OU(torch.rand(3, 2) + 0.1, 1.0),
    "dense": lambda: Dense(torch.randn(4, 4) - 2 * torch.eye(4), B=torch.randn(4, 2), S=torch.eye(4)),
    "batch": lambda: Dense(torch.randn(3, 4, 4) - 2 * torch.eye(4), S=torch.eye(4)),
    "matern12": lambda: Matern(0.5, lengthscale=0.4),
    "matern32": lambda: Matern(1.5, lengthscale=0.3),
    "matern52": lambda: Matern(2.5, lengthscale=torch.tensor([0.3, 2.0])),
    "legs": lambda: HippoLegS(6),
    "legt": lambda: HippoLegT(8, 2.0),
    "lagt": lambda: HippoLagT(8, 0.5),
    "sum": lambda: SumDynamics([Matern(1.5), OU(1.0, 2.0)]),
    "driven sum": lambda: SumDynamics([Dense(-torch.eye(2), B=torch.ones(2, 1)), HippoLagT(3, 1.0)]),
    "product": lambda: ProductDynamics(Matern(1.5), Rotations([0.2], [6.0], sigma=1.0)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind):
    check_linear(KINDS[kind]())


@pytest.mark.parametrize("kind", ["diagonal", "complex", "rotations", "dense", "legs", "sum"])
def test_single_precision(kind):
    dynamics = KINDS[kind]().float()
    ts = 0.5 + torch.rand(2, 40).cumsum(-1)
    us, y0 = torch.randn(2, 40, dynamics.input_size), torch.randn(2, dynamics.state_size)
    states = dynamics.scan(ts, us, y0)
    expected = dynamics.double().scan(ts.double(), us.double(), y0.double()).detach()
    assert states.dtype.to_real() == torch.float32
    size = float(expected.abs().max())
    torch.testing.assert_close(states.detach().to(expected.dtype), expected, rtol=2e-5, atol=2e-5 * size)


def test_long_scans_are_cut_into_chunks_that_agree():
    torch.manual_seed(0)
    dynamics = Dense(torch.randn(3, 3, dtype=F64) - torch.eye(3, dtype=F64))
    ts = torch.rand(2, 900, dtype=F64).cumsum(-1)
    us = torch.randn(2, 900, 3, dtype=F64)
    y, found = torch.zeros(2, 3, dtype=F64), []
    made = dynamics.discretize(torch.cat([0 * ts[:, :1], ts.diff(dim=-1)], -1))
    for k in range(900):
        before = us[:, k - 1] if k else 0 * us[:, 0]
        y = (made.A_bar[:, k] @ y[..., None] + made.before[:, k] @ before[..., None]).squeeze(-1)
        found.append(y)
    torch.testing.assert_close(dynamics.scan(ts, us), torch.stack(found, 1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("length", [5, 60])
def test_gradients_of_a_dense_scan(length):
    torch.manual_seed(0)
    A = (0.3 * torch.randn(2, 2, dtype=F64) - torch.eye(2, dtype=F64)).requires_grad_()
    ts = torch.rand(2, length, dtype=F64).cumsum(-1).requires_grad_()
    us = torch.randn(2, length, 2, dtype=F64, requires_grad=True)
    y0 = torch.randn(2, 2, dtype=F64, requires_grad=True)

    def run(A, ts, us, y0):
        return Dense(A).scan(ts, us, y0, hold=Impulse())[:, :: max(1, length // 4)]

    assert torch.autograd.gradcheck(run, (A, ts, us, y0))
    if length == 5:
        assert torch.autograd.gradgradcheck(run, (A, ts, us, y0))


def test_parameters_may_be_made_from_other_tensors():
    rate = torch.tensor(0.5, dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(OU(rate.exp(), 1.0).discretize(torch.tensor(1.0, dtype=F64)).A_bar.sum(), rate)
    assert float(gradient) != 0

    class Stable(nn.Module):
        def forward(self, raw):
            return -torch.nn.functional.softplus(raw)

    diagonal = Diagonal(torch.tensor([0.3, 1.0]))
    parametrize.register_parametrization(diagonal, "eigenvalues", Stable())
    assert bool((diagonal.discretize(torch.tensor(1.0)).A_bar < 1.0).all())
    assert len(list(diagonal.parameters())) == 1

    oscillators = Oscillators([1.0, 2.0], decay=0.5)
    parametrize.register_parametrization(oscillators, "frequency", Stable())
    apart = oscillators.apart()
    torch.testing.assert_close(apart.frequency.squeeze(-1), oscillators.frequency)
    (gradient,) = torch.autograd.grad(apart.frequency.sum(), list(oscillators.parameters())[-1])
    assert bool((gradient != 0).all())


def test_axes_of_parameters_and_of_series_broadcast():
    dynamics = Matern(1.5, lengthscale=torch.tensor([0.5, 1.0, 2.0], dtype=F64))
    ts = torch.rand(4, 1, 7, dtype=F64).cumsum(-1)
    states = dynamics.scan(ts, y0=torch.ones(4, 3, 2, dtype=F64))
    assert states.shape == (4, 3, 7, 2)
    alone = Matern(1.5, lengthscale=torch.tensor(1.0, dtype=F64)).scan(ts[2, 0], y0=torch.ones(2, dtype=F64))
    torch.testing.assert_close(states[2, 1], alone)


@pytest.mark.parametrize("kind", ["dense", "diagonal", "rotations", "sum", "product"])
def test_noise_may_have_batch_axes_that_the_transition_lacks(kind):
    densities = torch.stack([torch.eye(2, dtype=F64), rows([4.0, 1.0], [1.0, 9.0])])
    turn = {
        "dense": lambda S: Dense(rows([-1.0, 0.5], [0.0, -2.0]), S=S),
        "diagonal": lambda S: Diagonal(rows(-1.0, -2.0), S=S),
        "rotations": lambda S: Rotations(rows(0.5), rows(1.0), sigma=S[..., 0, :1]),
        "sum": lambda S: SumDynamics([Dense(-torch.eye(2, dtype=F64), S=S), OU(rows(1.0), 1.0)]),
        "product": lambda S: ProductDynamics(Matern(1.5), Rotations(rows(0.5), rows(1.0), sigma=S[..., 0, :1])),
    }[kind]
    dt, both = rows(0.0, 0.3, 2.0), turn(densities)
    for index, density in enumerate(densities):
        alone = turn(density)
        torch.testing.assert_close(both.discretize(dt, noise=True).Q[index], alone.discretize(dt, noise=True).Q)
        torch.testing.assert_close(both.stationary()[index], alone.stationary())
        torch.testing.assert_close(both.density()[index], alone.density())


def test_a_small_slow_state_settles_beside_a_large_fast_one():
    rate, density = rows(1e-4, 1.0), rows(1e-20, 1e10)
    settled = density / (2.0 * rate)
    together = Dense(torch.diag(-rate), S=torch.diag(density)).stationary().detach()
    apart = Dense(-rate[:, None, None], S=density[:, None, None]).stationary().detach()
    torch.testing.assert_close(together.diagonal(), settled, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(apart.flatten(), settled, rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("kind", ["ou", "matern32", "matern52", "sum"])
def test_a_kernel_takes_lags_of_either_precision(kind):
    dynamics = KINDS[kind]()
    assert dynamics.kernel(rows(0.0, 0.5)).dtype == F64
    single = dynamics.kernel(torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(single.double(), dynamics.kernel(rows(0.0, 0.5)), rtol=1e-6, atol=0.0)


def test_what_is_read_after_the_last_time_runs_freely():
    dynamics, ts = Diagonal(rows(-1.0)), rows(0.0, 1.0)
    ys = dynamics.scan(ts, y0=torch.ones(1, dtype=F64))
    torch.testing.assert_close(
        dynamics.read(ts, ys, rows(1.0, 3.0)).detach(), torch.exp(-rows(1.0, 3.0))[:, None], rtol=0, atol=1e-15
    )
    held = dynamics.read(ts, ys, rows(0.5), us=torch.tensor([[2.0], [5.0]], dtype=F64), hold=HeldAfter())
    torch.testing.assert_close(held.detach(), (torch.exp(-rows(0.5)) + 5 * (1 - torch.exp(-rows(0.5))))[:, None])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: OU(1.0, 1.0).discretize(rows(0.5, -0.1)), "negative: dt=-0.1 at index"),
        (lambda: OU(1.0, 1.0).discretize(rows(float("nan"))), "not finite"),
        (lambda: OU(1.0, 1.0).scan(rows(0.0, 2.0, 1.0)), "negative: dt=-1"),
        (lambda: OU(1.0, 1.0).scan(rows(0.0, float("inf"))), "NaN or infinite times"),
        (lambda: OU(1.0, 1.0).scan(rows(0.0, 1.0), t0=0.5), "negative"),
        (lambda: OU(1.0, 1.0).scan(torch.ones(2, 1), torch.ones(3, 1, 1)), "broadcast; got ts: \\(2,\\)"),
        (lambda: OU(1.0, 1.0).scan(torch.ones(2, 1), y0=torch.ones(3, 1)), "broadcast; .*y0: \\(3,\\)"),
        (lambda: OU(1.0, 1.0).read(rows(0.0, 1.0), torch.ones(1, 3, 1), rows(0.5)), "each of the 2 times"),
        (lambda: OU(1.0, 1.0).scan(1.7e9 + torch.tensor([0.0, 150.0, 420.0])), "collapse"),
        (lambda: OU(1.0, 1.0).scan(torch.tensor([2.4e6, 2.4e6])), "collapse"),
        (lambda: OU([1.0, 2.0], 1.0).scan(rows(0.0, 1.0), y0=torch.zeros(3)), "y0 must end in an axis of state_size=2"),
        (lambda: OU(1.0, 1.0).scan(rows(0.0, 1.0), torch.zeros(2, 4)), "us must end in an axis of input_size=1"),
        (lambda: OU(1.0, 1.0).scan(rows(0.0, 1.0), torch.zeros(3, 1)), r"\(\*batch, time, input\)"),
        (lambda: OU(1.0, 1.0).scan(rows(0.0, 1.0), torch.full((2, 1), torch.nan)), "us holds NaN"),
        (lambda: OU(1.0, 1.0).step(rows(float("inf")), rows(0.0)[0], rows(1.0)[0]), "y holds NaN"),
        (lambda: OU(-1.0, 1.0), "rate must be positive"),
        (lambda: OU(1.0, float("nan")), "sigma holds NaN"),
        (lambda: Matern(1.0), "half of an odd number"),
        (lambda: Matern(1.5, lengthscale=0.0), "lengthscale must be positive"),
        (lambda: Diagonal(rows(-1.0, 0.0), S=torch.eye(2, dtype=F64)).stationary(), "real part 0, and it must be neg"),
        (lambda: Dense(rows([0.1]), S=torch.eye(1, dtype=F64)).stationary(), "eigenvalue of A has real part 0.1"),
        (lambda: Dense(-torch.eye(2)).stationary(), "no stationary distribution"),
        (lambda: ProductDynamics(Matern(0.5), Dense(-torch.eye(2))), "no stationary distribution"),
        (lambda: Dense(torch.zeros(2, 3)), r"A must be \(\*batch, n, n\)"),
        (lambda: Dense(torch.zeros(2, 2), B=torch.zeros(3, 1)), "B must be"),
        (lambda: Dense(torch.eye(2), S=torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "not positive semi-definite"),
        (lambda: Dense(torch.eye(2), S=torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "not symmetric"),
        (lambda: Dense(torch.full((1, 1), torch.nan)), "NaN"),
        (lambda: HippoLegS(3).scan(rows(-1.0, 1.0)), "negative; subtract an origin"),
        (lambda: HippoLegT(3, window=0.0), "window must be positive"),
        (lambda: SumDynamics([]), "at least one part"),
        (lambda: SumDynamics([OU(1.0, 1.0), HippoLegS(2)]), "clock of its own"),
        (lambda: SumDynamics([OU(1.0, 1.0), HippoLagT(2, 1.0)]), "must all have an input matrix"),
        (lambda: Dense(torch.eye(2)).kernel(rows(0.0)), "no readout"),
        (lambda: Diagonal(rows(-1.0)).read(rows(1.0), torch.ones(1, 1), rows(0.5)), "before the first time"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_integer_clocks_in_single_precision_are_exact_and_welcome():
    ts = torch.arange(200_000, 200_005).float()
    assert OU(1.0, 1.0).scan(ts, y0=torch.ones(1)).shape == (5, 1)


@pytest.mark.parametrize("kind", ["diagonal", "rotations", "dense", "matern32", "legs", "sum"])
def test_an_empty_batch_has_no_states(kind):
    dynamics = KINDS[kind]().float()
    ys = dynamics.scan(torch.zeros(0, 40), torch.zeros(0, 40, dynamics.input_size))
    assert ys.shape == (0, 40, dynamics.state_size)
    assert dynamics.discretize(torch.zeros(0, 40), noise=True).Q.shape == (0, 40, *2 * [dynamics.state_size])
