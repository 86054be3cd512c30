"""For each clause of the contract of sequence layers, one part that breaks it."""

import pytest
import torch

from ctdyn.linear import HeldAfter, Impulse
from ctdyn.linear.layers import S5, DiagonalLayer, LayerState
from ctdyn.testing import check_layer


class Given(DiagonalLayer):
    """A correct layer, spoiled in one way by each of its children."""

    def __init__(self):
        super().__init__(2, 3)
        self.weight = torch.nn.Parameter(torch.randn(4, 2))
        self.log_rate = torch.nn.Parameter(torch.linspace(-1.0, 1.0, 4))
        self.out = torch.nn.Linear(6, 3)

    def rates(self):
        return -self.log_rate.exp()

    def drive(self, us):
        return us @ self.weight.mT

    def readout(self, hs, us):
        batch = torch.broadcast_shapes(hs.shape[:-1], us.shape[:-1])
        return self.out(torch.cat([hs.expand(*batch, -1), us.expand(*batch, -1)], -1)).tanh()


class Wide(Given):
    def readout(self, hs, us):
        return torch.cat([super().readout(hs, us)] * 2, -1)


class Unlike(Given):
    """Its step is not its scan."""

    def step(self, t, u, state=None):
        y, state = super().step(t, u, state)
        return y * (1 + 1e-9), state


class Forgetful(Given):
    """A scan that goes on begins with an empty memory."""

    def scan(self, ts, us, state=None, *, reset=None):
        if state is not None and ts.shape[-1] > 1:
            state = state._replace(h=torch.zeros_like(state.h))
        return super().scan(ts, us, state, reset=reset)


class Still(Given):
    """Time does not pass in its flow, and is then lost."""

    def flow(self, state, t):
        super().flow(state, t)
        return LayerState(t.expand(state.t.shape), state.h, state.u)


class Timeless(Given):
    """It counts observations instead of time."""

    def march(self, dt, us, h0, reset):
        return super().march(torch.ones_like(dt), us, h0, reset)


class OnTheUnionClock(Given):
    """It counts observations, but not repeated ones."""

    def march(self, dt, us, h0, reset):
        return super().march((dt > 0).to(dt), us, h0, reset)


class Clinging(Given):
    """A reset does not reset."""

    def march(self, dt, us, h0, reset):
        return super().march(dt, us, h0, None)


class Mixing(Given):
    def readout(self, hs, us):
        ys = super().readout(hs, us)
        return ys + ys.mean(0, keepdim=True) if ys.dim() == 3 else ys


class Seer(Given):
    """It sees the end of the series, and hides it in the steps."""

    def readout(self, hs, us):
        ys = super().readout(hs, us)
        return ys + 1e-6 * us.sum((-2, -1), keepdim=True)


class Hurried(Given):
    def stepper(self, dt):
        return super().stepper(1.01 * dt)


class Absolute(Given):
    """It reads the clock itself."""

    def scan(self, ts, us, state=None, *, reset=None):
        ys, state = super().scan(ts, us, state, reset=reset)
        return ys + 0.01 * ts[..., None].sin() * us[..., :1], state


class Idle(Given):
    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.ones(1))


class Doubles(Given):
    def readout(self, hs, us):
        return super().readout(hs, us).double()


class Tolerant(Given):
    def _check(self, ts, us, reset, dtype):
        pass


@pytest.mark.parametrize(
    ("cls", "match"),
    [
        (Wide, "the outputs have shape"),
        (Unlike, "one step after another"),
        (Forgetful, "goes on where another ended"),
        (Still, "flow to the time of a step"),
        (Timeless, "flow to the time of a step|padded times|repeated time"),
        (OnTheUnionClock, "flow to a time before a step|the gaps between the times"),
        (Clinging, "after a reset"),
        (Mixing, "one step after another|alone, without batch axes|after a reset"),
        (Seer, "one step after another|depends on later inputs"),
        (Hurried, "on a regular clock"),
        (Absolute, "begins anew at a reset|shift of the clock"),
        (Idle, "no gradient reaches the parameter unused"),
        (Doubles, "a float32 layer gives"),
        (Tolerant, "no ValueError"),
    ],
)
def test_broken_layers_are_found(cls, match):
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=match):
        check_layer(cls())


def test_sound_layers_pass():
    torch.manual_seed(0)
    check_layer(Given())
    check_layer(S5(2, 8, hold=HeldAfter()))
    check_layer(S5(2, 8, hold=Impulse()), impulse=True)
