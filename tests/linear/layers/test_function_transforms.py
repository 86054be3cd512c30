"""Layers under `torch.func`: ensembles of parameters, forward-mode derivatives, gradients as a function."""

import pytest
import torch
from torch.func import functional_call, grad, jvp, stack_module_state, vmap

from ctdyn.linear.layers import LRU, S4D, S5, Selective


BUILDS = [lambda: S5(3, 8), lambda: LRU(3, 8), lambda: S4D(3, 8), lambda: Selective(3, 4)]


@pytest.mark.parametrize("build", BUILDS, ids=["S5", "LRU", "S4D", "Selective"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_function_transforms(build):
    torch.manual_seed(0)
    layers = [build().double() for _ in range(3)]
    ts, us = torch.rand(2, 6, dtype=torch.float64).cumsum(-1), torch.randn(2, 6, 3, dtype=torch.float64)

    def run(parameters, us=us):
        return functional_call(layers[0], parameters, (ts, us))[0]

    one_by_one = torch.stack([layer(ts, us)[0] for layer in layers])
    parameters, _ = stack_module_state(layers)
    torch.testing.assert_close(vmap(run)(parameters), one_by_one)

    own = {name: p.detach() for name, p in layers[0].named_parameters()}
    slopes = grad(lambda p: run(p).square().sum())(own)
    layers[0](ts, us)[0].square().sum().backward()
    for name, p in layers[0].named_parameters():
        torch.testing.assert_close(slopes[name], p.grad)

    direction = torch.randn_like(us)
    _, forward = jvp(lambda x: run(own, x), (us,), (direction,))
    step = 1e-6
    expected = (run(own, us + step * direction) - run(own, us - step * direction)) / (2 * step)
    torch.testing.assert_close(forward, expected, rtol=1e-6, atol=1e-8)
