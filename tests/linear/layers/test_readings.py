"""A layer can be read between its inputs, and that changes nothing."""

import pytest
import torch

from ctdyn.linear import HeldAfter, HeldBefore, Impulse
from ctdyn.linear.layers import LRU, S4D, S5, Hierarchical, Selective, SequenceStack, StateSpaceLayer


@pytest.fixture(autouse=True)
def doubles():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


LAYERS = {
    "S5": lambda: S5(3, state_size=8, steps=(0.3, 1.0)),
    "S5 of kicks": lambda: S5(3, state_size=8, steps=(0.3, 1.0), hold=Impulse()),
    "S5 in tiles": lambda: S5(3, state_size=8, steps=(0.3, 1.0), tile=4),
    "LRU": lambda: LRU(3, state_size=4),
    "Selective": lambda: Selective(3, state_size=4),
    "stack": lambda: SequenceStack([S5(4, state_size=8), S5(4, state_size=8, hold=Impulse())], 3, 3),
    "deep": lambda: SequenceStack([SequenceStack([S4D(4, 8), S4D(4, 8)], 4, 4)], 3, 3),
}


def merged():
    """Inputs at some times, readings at others, in the order of time."""
    ts = (0.1 + torch.rand(2, 14)).cumsum(-1)
    us = torch.randn(2, 14, 3)
    arrives = torch.rand(2, 14) < 0.5
    arrives[0, 0], arrives[1, 0] = False, True
    return ts, us, arrives


def inputs(ts, us, arrives, row):
    return ts[row][arrives[row]], us[row][arrives[row]]


@pytest.mark.parametrize("name", LAYERS)
def test_readings_change_no_other_output(name):
    layer = LAYERS[name]()
    ts, us, arrives = merged()
    ys, state = layer.scan(ts, us, arrives=arrives)
    end = ts[:, -1] + 0.3
    later, _ = layer.step(end, us[:, 0], state)
    for row in range(2):
        alone, kept = layer.scan(*inputs(ts, us, arrives, row))
        torch.testing.assert_close(ys[row][arrives[row]], alone, rtol=0, atol=1e-12)
        # The state to go on with knows the last input, and not the last reading.
        want, _ = layer.step(end[row], us[row, 0], kept)
        torch.testing.assert_close(later[row], want, rtol=0, atol=1e-12)


# In a stack with kicks a step acts at once, and a reading does not.
@pytest.mark.parametrize("name", sorted(set(LAYERS) - {"stack"}))
def test_a_reading_is_what_a_step_would_give(name):
    layer = LAYERS[name]()
    ts, us, arrives = merged()
    ys, _ = layer.scan(ts, us, arrives=arrives)
    for row in range(2):
        for place in torch.nonzero(~arrives[row]).flatten().tolist():
            before = arrives[row].clone()
            before[place:] = False
            state = layer.scan(ts[row][before], us[row][before])[1] if bool(before.any()) else None
            if isinstance(layer, StateSpaceLayer) and isinstance(layer.hold, Impulse):
                h = layer.rest() if state is None else layer.flow(state, ts[row, place]).h
                want = layer.readout(h[None], us[row, place][None])[0]
            else:
                want = layer.step(ts[row, place], us[row, place], state)[0]
            torch.testing.assert_close(ys[row, place], want, rtol=0, atol=1e-12)


def test_all_inputs_are_the_scan_and_gradients_agree():
    layer = S5(3, state_size=8, hold=HeldBefore())
    ts, us, arrives = merged()
    state = layer.scan(ts[:, :3] - 10.0, us[:, :3])[1]
    torch.testing.assert_close(
        layer.scan(ts, us, state, arrives=torch.ones_like(arrives))[0], layer.scan(ts, us, state)[0], rtol=0, atol=0
    )
    wide = torch.stack([us, 2 * us])
    torch.testing.assert_close(
        layer.scan(ts, wide, arrives=arrives)[0][0], layer.scan(ts, us, arrives=arrives)[0], rtol=0, atol=1e-13
    )


def test_bad_input():
    ts, us, arrives = merged()
    with pytest.raises(ValueError, match="HeldBefore"):
        S5(3, state_size=8, hold=HeldAfter()).scan(ts, us, arrives=arrives)
    layer = S5(3, state_size=8)
    with pytest.raises(ValueError, match="arrives must be bool"):
        layer.scan(ts, us, arrives=arrives[:, 1:])
    with pytest.raises(ValueError, match="arrives must be bool"):
        layer.scan(ts, us, arrives=arrives.double())
    with pytest.raises(ValueError, match="do not go together"):
        layer.scan(ts, us, arrives=arrives, reset=arrives)
    windows = Hierarchical(S5(3, state_size=8), S5(3, state_size=8), window=1.0)
    with pytest.raises(ValueError, match="Hierarchical cannot be read"):
        SequenceStack([windows], 3, 2).scan(ts, us, arrives=arrives)
