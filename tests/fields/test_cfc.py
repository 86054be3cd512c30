"""Closed-form networks: their equations, the loop by hand, and that they are no flows."""

from functools import partial

import pytest
import torch
from torch import nn

from ctdyn import solve
from ctdyn._config import from_config, to_config
from ctdyn.fields import CfCMode, CfCTransition, WiredCfCTransition
from ctdyn.integrate import StepTo
from ctdyn.nn import LeCunTanh, LowRankSparse
from ctdyn.solvers import Dopri5
from ctdyn.wirings import AutoNCP, Random


F64 = torch.float64
STEPS = {
    **{
        f"{mode.value} {hidden}": lambda mode=mode, hidden=hidden: CfCTransition(3, 2, mode=mode, hidden=hidden)
        for mode in CfCMode
        for hidden in ((), (5,), (5, 4))
    },
    "tanh": lambda: CfCTransition(3, 2, hidden=(5,), activation=nn.Tanh),
    "silu": lambda: CfCTransition(3, 2, hidden=(5,), activation=nn.SiLU),
    "low rank": lambda: CfCTransition(3, 2, hidden=(5,), recurrent=LowRankSparse(2, 0.4)),
    "wired": lambda: WiredCfCTransition(AutoNCP(8, 2), 2),
    "wired pure": lambda: WiredCfCTransition(Random(5, sparsity=0.5), 2, mode=CfCMode.PURE),
}


def built(name):
    torch.manual_seed(0)
    step = STEPS[name]().double()
    gaps = torch.rand(4, 6, dtype=F64)
    gaps[1, 2] = gaps[0, -2:] = gaps[3, 0] = 0.0
    tensors = [torch.randn(4, step.state_size, dtype=F64), gaps, torch.randn(4, 6, 2, dtype=F64)]
    return step, [x.requires_grad_() for x in tensors]


def one_by_one(step, y, gaps, us):
    found = []
    for k in range(gaps.shape[-1]):
        y = step.transition(y, torch.zeros_like(gaps[:, k]), gaps[:, k], us[:, k])
        found.append(y)
    return torch.stack(found, 1)


@pytest.mark.parametrize("name", STEPS)
def test_a_scan_is_its_steps_with_their_gradients(name):
    step, tensors = built(name)
    found, expected = step.scan(*tensors), one_by_one(step, *tensors)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights, leaves = torch.randn_like(found), [*tensors, *step.parameters()]
    pairs = (torch.autograd.grad((ys * weights).sum(), leaves) for ys in (found, expected))
    for ours, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-11)


@pytest.mark.parametrize("hidden", [(), (5,)])
@pytest.mark.parametrize("shape", [(1, 700), (40, 33), (600, 2)])
def test_gradients_of_many_rows_are_those_of_its_steps(hidden, shape):
    torch.manual_seed(0)
    step = CfCTransition(3, 2, hidden=hidden).double()
    y, gaps, us = (torch.rand(*size, dtype=F64) for size in ((shape[0], 3), shape, (*shape, 2)))
    leaves = [us.requires_grad_(), *step.parameters()]
    pairs = [
        torch.autograd.grad(run(y, gaps, us).square().sum(), leaves) for run in (step.scan, partial(one_by_one, step))
    ]
    for ours, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_modes_are_their_equations():
    y, u, gap = torch.randn(4, 3, dtype=F64), torch.randn(4, 2, dtype=F64), torch.rand(4, dtype=F64) + 0.1
    for mode in CfCMode:
        step = CfCTransition(3, 2, mode=mode, hidden=(5,)).double()
        first, dt = step.backbone[0], gap[:, None]
        x = 1.7159 * torch.tanh(0.666 * (torch.cat([u, y], -1) @ first.weight.mT + first.bias))
        heads = (x @ step.heads.weight.mT + step.heads.bias).chunk(1 if mode is CfCMode.PURE else 4, -1)
        if mode is CfCMode.PURE:
            expected = step.level - step.level * torch.exp(-dt * (step.rate.abs() + heads[0].abs())) * heads[0]
        else:
            a, one, other, b = heads
            gate = torch.sigmoid(a * dt + b)
            kept = 1.0 - gate if mode is CfCMode.DEFAULT else 1.0
            expected = kept * torch.tanh(one) + gate * torch.tanh(other)
        torch.testing.assert_close(step.transition(y, torch.zeros(4, dtype=F64), gap, u), expected)
        # Backwards is the same gap, and none is none, to the last bit.
        torch.testing.assert_close(step.transition(y, gap, torch.zeros(4, dtype=F64), u), expected)
        assert torch.equal(step.transition(y, gap, gap, u), y)


@pytest.mark.parametrize("mode", CfCMode)
def test_two_half_steps_are_not_one_and_the_class_says_so(mode):
    step = CfCTransition(4, mode=mode).double()
    y, t = torch.randn(8, 4, dtype=F64), torch.tensor([0.0, 0.3, 1.0], dtype=F64)[:, None].expand(3, 8)
    twice = step.transition(step.transition(y, t[0], t[1]), t[1], t[2])
    whole = step.transition(y, t[0], t[2])
    assert ((twice - whole).norm() / (whole - y).norm()).item() > 0.02
    assert not step.is_flow
    assert not WiredCfCTransition.is_flow


def test_a_solver_refuses_what_has_no_velocity_and_says_why():
    step, y0, ts = CfCTransition(3), torch.randn(1, 3), torch.tensor([0.0, 0.4, 1.0])
    for options in ({"solver": Dopri5()}, {"solver": Dopri5(), "controller": StepTo(3)}, {"controller": StepTo(3)}):
        with pytest.raises(TypeError, match=r"needs a velocity.*CfCTransition has none.*not even a flow"):
            solve(step, y0, ts, **options)
    # By itself it is asked for every time from the start.
    found = solve(step, y0, ts)
    torch.testing.assert_close(found.ys[:, 2], step.transition(y0, torch.zeros(1), torch.ones(1)))
    assert "not a flow" in found.plan


@pytest.mark.parametrize("name", ["default ()", "no_gate (5,)", "wired"])
def test_derivatives_of_derivatives_and_ensembles(name):
    step, (y, gaps, us) = built(name)
    # Where a gap is zero there is a jump.
    small = (y[:2].detach(), gaps[:2, :3].detach().clamp(min=0.1), us[:2, :3].detach())
    assert torch.autograd.gradgradcheck(lambda *x: step.scan(*x), [x.clone().requires_grad_() for x in small])
    tangents = [torch.randn_like(x) for x in small]
    _, along = torch.func.jvp(step.scan, small, tuple(tangents))
    _, expected = torch.func.jvp(lambda *x: one_by_one(step, *x), small, tuple(tangents))
    torch.testing.assert_close(along, expected)
    others = [STEPS[name]().double() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(others)

    class Scan(nn.Module):
        def __init__(self, step):
            super().__init__()
            self.step = step

        def forward(self, *tensors):
            return self.step.scan(*tensors)

    def called(p, b):
        named = {f"step.{key}": value for key, value in {**p, **b}.items()}
        return torch.func.functional_call(Scan(step), named, small)

    found = torch.func.vmap(called)(parameters, buffers)
    torch.testing.assert_close(found, torch.stack([other.scan(*small) for other in others]))
    gradients = torch.func.vmap(torch.func.grad(lambda p, b: called(p, b).square().sum()))(parameters, buffers)
    for i, other in enumerate(others):
        plain = torch.autograd.grad(one_by_one(other, *small).square().sum(), list(other.parameters()))
        for (key, _), value in zip(other.named_parameters(), plain, strict=True):
            torch.testing.assert_close(gradients[key][i], value)


def test_a_wired_network_sees_only_what_it_is_connected_to():
    wiring = AutoNCP(10, 2, 0.7)
    step, circuit = WiredCfCTransition(wiring, 3).double(), wiring.connect(3)
    first = step.steps[0]
    masked = first.heads.weight.chunk(4)[1][:, :3] == 0
    inter = list(wiring.layers[0])
    assert torch.equal(masked, torch.from_numpy(circuit.sensory[:, inter] == 0).t())
    assert masked.any()


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    step, y = CfCTransition(3, hidden=(8,), dropout=0.5), torch.randn(4, 3)
    gaps = torch.ones(4, 5)
    assert not torch.equal(step.scan(y, gaps), step.scan(y, gaps))
    step.eval()
    assert torch.equal(step.scan(y, gaps), step.scan(y, gaps))


def test_configurations_come_back_and_bad_arguments_are_refused():
    classes = {x.__name__: x for x in (CfCMode, CfCTransition, WiredCfCTransition, AutoNCP, LowRankSparse, LeCunTanh)}
    steps = (
        CfCTransition(3, 2, mode=CfCMode.NO_GATE, recurrent=LowRankSparse(2, 0.5)),
        WiredCfCTransition(AutoNCP(7, 2), 3),
    )
    for step in steps:
        again = from_config(to_config(step), classes)
        again.load_state_dict(step.state_dict())
        y, gaps, us = torch.randn(2, step.state_size), torch.rand(2, 3), torch.randn(2, 3, step.input_size)
        assert torch.equal(again.scan(y, gaps, us), step.scan(y, gaps, us))
    with pytest.raises(ValueError, match="dropout must be at least 0"):
        CfCTransition(3, dropout=1.0)
    with pytest.raises(ValueError, match="input_size=2"):
        CfCTransition(3, 2).transition(torch.zeros(1, 3), torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match="input_size must be at least 1"):
        WiredCfCTransition(AutoNCP(7, 2), 0)
