"""Nonlinear recurrences in parallel: the same states and gradients as the loop, or the loop itself."""

import pytest
import torch

from ctdyn.linear import NewtonScan, nonlinear_recurrence


F64 = torch.float64
METHODS = [NewtonScan(), NewtonScan(diagonal=True), NewtonScan(damping=0.2)]


def cell(seed=0, state=3, size=2, gain=0.6):
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(state, state, dtype=F64, generator=generator) * gain / state**0.5
    U = torch.randn(state, size, dtype=F64, generator=generator)
    return W.requires_grad_(), U.requires_grad_()


def loop(step, h, xs):
    hs = []
    for x in xs.unbind(-2):
        h = step(h.unsqueeze(-2), x.unsqueeze(-2)).squeeze(-2)
        hs.append(h)
    return torch.stack(hs, -2)


def problem(length=400, gain=0.6):
    torch.manual_seed(1)
    W, U = cell(gain=gain)
    xs = torch.randn(2, 3, length, 2, dtype=F64, requires_grad=True)
    h0 = torch.randn(2, 3, 3, dtype=F64, requires_grad=True)

    def step(h, x):
        return torch.tanh(h @ W.mT + x @ U.mT)

    return step, h0, xs, (h0, xs, W, U)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_states_and_gradients_are_those_of_the_loop(method):
    step, h0, xs, leaves = problem()
    found = nonlinear_recurrence(step, h0, xs, method=method)
    truth = loop(step, h0, xs)
    assert not found.sequential.any()
    assert int(found.iterations.amax()) < 50
    torch.testing.assert_close(found.hs, truth, atol=1e-9, rtol=0)
    weights = torch.randn_like(truth)
    ours = torch.autograd.grad((found.hs * weights).sum(), leaves)
    theirs = torch.autograd.grad((truth * weights).sum(), leaves)
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-7)


def test_iterations_do_not_grow_with_the_length_of_a_forgetful_recurrence():
    counts = []
    for length in (100, 1600):
        step, h0, xs, _ = problem(length)
        with torch.no_grad():
            counts.append(int(nonlinear_recurrence(step, h0, xs).iterations.amax()))
    assert counts[1] <= counts[0] + 3


def test_a_chaotic_series_falls_back_to_the_loop_and_leaves_the_others_alone():
    rates = torch.tensor([[3.9], [0.5]], dtype=F64)
    xs = rates.unsqueeze(-2).expand(2, 300, 1)
    h0 = torch.tensor([[0.3], [0.3]], dtype=F64)

    def logistic(h, x):
        return x * h * (1 - h)

    with torch.no_grad():
        found = nonlinear_recurrence(logistic, h0, xs, method=NewtonScan(max_iterations=10))
    assert found.sequential.tolist() == [True, False]
    torch.testing.assert_close(found.hs[1], loop(logistic, h0, xs)[1], atol=1e-10, rtol=0)
    assert torch.equal(found.hs[0], loop(logistic, h0, xs)[0])


def test_a_good_guess_saves_iterations():
    step, h0, xs, _ = problem()
    with torch.no_grad():
        first = nonlinear_recurrence(step, h0, xs)
        again = nonlinear_recurrence(step, h0, xs, guess=first.hs)
    assert int(again.iterations.amax()) == 0
    assert int(first.iterations.amax()) > 0


def test_linear_recurrences_take_one_iteration():
    A = torch.tensor([[0.9, 0.3], [-0.3, 0.9]], dtype=F64)
    xs = torch.randn(500, 2, dtype=F64)
    with torch.no_grad():
        found = nonlinear_recurrence(lambda h, x: h @ A.mT + x, torch.zeros(2, dtype=F64), xs)
    assert int(found.iterations) == 1


@pytest.mark.parametrize("shape", [(0, 30, 2), (3, 0, 2)], ids=str)
def test_nothing_to_solve(shape):
    h0 = torch.ones(shape[0], 2, requires_grad=True)
    for diagonal in (False, True):
        found = nonlinear_recurrence(torch.add, h0, torch.ones(shape), method=NewtonScan(diagonal=diagonal))
        assert found.hs.shape == shape
        assert not bool(found.sequential.any())


def test_bad_input_is_named():
    h0, xs = torch.zeros(2, dtype=F64), torch.zeros(5, 1, dtype=F64)
    with pytest.raises(ValueError, match="next states"):
        nonlinear_recurrence(lambda h, x: h[..., :1], h0, xs)
    with pytest.raises(ValueError, match="guess"):
        nonlinear_recurrence(lambda h, x: h, h0, xs, guess=torch.zeros(5, 1, dtype=F64))
    with pytest.raises(ValueError, match="time, input"):
        nonlinear_recurrence(lambda h, x: h, h0, torch.zeros(5, dtype=F64))
    with pytest.raises(ValueError, match="must broadcast"):
        nonlinear_recurrence(lambda h, x: h, h0.new_zeros(2, 1), xs.new_zeros(3, 5, 1))
    for name, given in (("h0", (h0 * torch.nan, xs)), ("xs", (h0, xs + torch.inf))):
        with pytest.raises(ValueError, match=f"{name} holds NaN"):
            nonlinear_recurrence(lambda h, x: h, *given)
    for options in ({"max_iterations": 0}, {"tolerance": 0.0}, {"damping": 1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            NewtonScan(**options)
