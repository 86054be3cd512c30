import json
import math

import pytest
import torch

from ctdyn._config import from_config, to_config
from ctdyn.linear import Dense, HeldAfter, HeldBefore, Impulse, Ramp
from ctdyn.linear.layers import S5, legs_normal
from ctdyn.testing import check_layer


@pytest.fixture(autouse=True)
def doubles():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def gaps(*shape):
    return (2.0 * torch.rand(*shape) ** 3).cumsum(-1)


@pytest.mark.parametrize("hold", [HeldBefore(), HeldAfter(), Impulse()], ids=lambda hold: type(hold).__name__)
@pytest.mark.parametrize("tile", [None, 5])
def test_contract(hold, tile):
    layer = S5(3, state_size=12, output_size=2, blocks=3, hold=hold, tile=tile, steps=(0.3, 1.0))
    check_layer(layer, impulse=isinstance(hold, Impulse))


@pytest.mark.parametrize("hold", [HeldBefore(), HeldAfter(), Impulse()], ids=lambda hold: type(hold).__name__)
def test_it_is_the_real_system_it_begins_as(hold):
    """Conjugate symmetry: half of the states are kept, and the output is that of the dense real system."""
    layer = S5(3, state_size=12, blocks=2, steps=(0.5, 0.5), hold=hold)
    lam, V = legs_normal(12, 2)
    B = 2.0 * (V @ torch.view_as_complex(layer.B.detach())).real
    C = 2.0 * (torch.view_as_complex(layer.C.detach()) @ V.mH).real
    A = 2.0 * ((V * lam) @ V.mH).real
    ts, us = gaps(2, 40), torch.randn(2, 40, 3)
    states = Dense(0.5 * A, B=B if isinstance(hold, Impulse) else 0.5 * B).scan(ts, us, hold=hold)
    if isinstance(hold, Impulse):
        states = 0.5 * states
    expected = states @ C.mT + layer.D * us
    torch.testing.assert_close(layer(ts, us)[0], expected, rtol=0, atol=1e-11)


def test_one_step_is_the_formula_of_the_paper():
    """Zero-order hold over the gap, with the step of each state times the true gap."""
    layer = S5(2, state_size=6, hold=HeldAfter())
    lam = layer.decay.eigenvalues(layer.raw_decay, layer.frequency)
    B, C = torch.view_as_complex(layer.B), torch.view_as_complex(layer.C)
    us, gap = torch.randn(2, 2), 1.7
    step = layer.log_step.exp() * gap
    A_bar = torch.exp(lam * step)
    B_bar = ((A_bar - 1.0) / lam)[:, None] * B
    x = B_bar @ us[1].to(B_bar.dtype)
    y = 2.0 * (C @ x).real + layer.D * us[1]
    torch.testing.assert_close(layer(torch.tensor([0.0, gap]), us)[0][1], y, rtol=0, atol=1e-12)


def test_initialisation():
    torch.manual_seed(3)
    layer = S5(50, state_size=400, blocks=4)
    lam, _ = legs_normal(400, 4)
    step = layer.log_step.detach().exp()
    torch.testing.assert_close(layer.rates().detach(), step * lam)
    assert float(step.min()) >= 1e-3
    assert float(step.max()) <= 1e-1
    assert float(step.log().mean()) == pytest.approx(math.log(1e-2), abs=0.3)
    # V is unitary: the entries keep their variance.
    assert float(layer.B.detach().square().sum(-1).mean()) * 50 == pytest.approx(1.0, rel=0.05)
    assert float(layer.C.detach().square().sum(-1).mean()) * 400 == pytest.approx(1.0, rel=0.05)
    assert float(layer.D.detach().var()) == pytest.approx(1.0, rel=0.5)


def test_memory_of_tiles():
    """What autograd keeps beside inputs and outputs grows with the number of tiles, not of times."""

    def kept(tile):
        layer, sizes = S5(2, state_size=64, tile=tile), {}
        us = torch.randn(1, 512, 2, requires_grad=True)

        def pack(x):
            sizes[x.data_ptr()] = x.numel() * x.element_size()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            layer(gaps(1, 512), us)
        return sum(sizes.values())

    assert kept(32) < kept(None) / 5


def test_gradients_are_those_of_the_steps():
    ts, us = gaps(2, 9).requires_grad_(), torch.randn(2, 9, 3, requires_grad=True)
    layer = S5(3, state_size=4)
    torch.autograd.gradcheck(lambda ts, us, *_: layer(ts, us)[0], (ts, us, *layer.parameters()))


def test_it_is_built_again_from_its_configuration():
    layer = S5(3, state_size=8, hold=HeldAfter(), steps=(0.1, 0.2))
    written = json.loads(json.dumps(to_config(layer)))
    again = from_config(written, {"S5": S5, "HeldAfter": HeldAfter})
    again.load_state_dict(layer.state_dict())
    ts, us = gaps(5), torch.randn(5, 3)
    assert torch.equal(again(ts, us)[0], layer(ts, us)[0])


def test_refusals():
    with pytest.raises(ValueError, match="hold must be"):
        S5(3, state_size=8, hold=Ramp())
    with pytest.raises(ValueError, match="multiple of 2"):
        S5(3, state_size=8, blocks=3)
    with pytest.raises(ValueError, match="steps must be"):
        S5(3, state_size=8, steps=(0.1, 0.01))
    with pytest.raises(ValueError, match="tile must be"):
        S5(3, state_size=8, tile=0)
    with pytest.raises(ValueError, match="output_size must be"):
        S5(3, state_size=8, output_size=0)
    layer = S5(3, state_size=8, hold=HeldAfter())
    ts, us = gaps(5), torch.randn(5, 3)
    _, state = layer(ts, us)
    with pytest.raises(ValueError, match="arrives at its end"):
        layer.flow(state, ts[-1] + 1.0)
    with pytest.raises(TypeError, match="dtype of the layer"):
        layer(ts, us.float())
    with pytest.raises(ValueError, match="reset must be bool"):
        layer(ts, us, reset=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="collapse"):
        layer(1e6 + 1e-3 * ts.float(), us)
    with pytest.raises(ValueError, match="must broadcast"):
        layer(gaps(2, 5), torch.randn(3, 5, 3))
