"""For each clause of the contract of linear dynamics, one part that breaks it."""

import pytest
import torch

from ctdyn.linear import OU, Dense, LinearDynamics, Matern
from ctdyn.testing import check_linear


A = torch.tensor([[-1.0, 2.0], [-2.0, -0.5]])


class Given(LinearDynamics):
    """Correct dense dynamics, spoiled in one way by each of its children."""

    def __init__(self):
        super().__init__(2)
        self.inner = Dense(A, S=torch.eye(2))
        self.B = None

    @property
    def A(self):
        return self.inner.A

    def flow(self, dt, order=0):
        return self.inner.flow(dt, order)

    def noise(self, dt):
        return self.inner.noise(dt)


class EulerSteps(Given):
    def flow(self, dt, order=0):
        step = dt[..., None, None]
        return (torch.eye(2, dtype=dt.dtype) + step * self.A, *self.inner.flow(dt, order)[1:])


class Twice(Given):
    """A correct flow of another matrix than it says."""

    @property
    def A(self):
        return 2 * self.inner.A


class NaiveNoise(Given):
    def noise(self, dt):
        return dt[..., None, None] * torch.eye(2, dtype=dt.dtype)


class WrongLevel(Given):
    def flow(self, dt, order=0):
        found = self.inner.flow(dt, order)
        return (found[0], *(dt[..., None, None] * torch.eye(2, dtype=dt.dtype) for _ in found[1:2]), *found[2:])


class WrongRamp(Given):
    def flow(self, dt, order=0):
        found = self.inner.flow(dt, order)
        return (*found[:2], *(level / 2 for level in found[1:2] if order == 2))


class Restless(Given):
    def flow(self, dt, order=0):
        found = self.inner.flow(dt, order)
        return (found[0] + 1e-12, *found[1:])


class Unsettled(Given):
    def stationary(self):
        return torch.eye(2, dtype=self.A.dtype)


class Unlike(Given):
    """Its scan is not its step."""

    def _march(self, dt, us, y0, hold):
        return self.inner._march(dt, us, y0, hold) * (1 + 1e-9)


class Shared(Given):
    """All series take the steps of the first."""

    def _march(self, dt, us, y0, hold):
        return self.inner._march(dt[:1].expand_as(dt) if dt.dim() > 1 else dt, us, y0, hold)


class Idle(Given):
    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("cls", "match"),
    [
        (EulerSteps, "not the exponential"),
        (Twice, "not the exponential"),
        (NaiveNoise, "noise of two steps"),
        (WrongLevel, "level is not the integral"),
        (WrongRamp, "ramp is not the integral"),
        (Restless, "length zero"),
        (Unsettled, "stationary"),
        (Unlike, "one step after another"),
        (Shared, "one step after another|clocks of the other"),
        (Idle, "no gradient reaches the parameter unused"),
    ],
)
def test_broken_dynamics_are_found(cls, match):
    with pytest.raises(AssertionError, match=match):
        check_linear(cls())


def test_sound_dynamics_pass():
    check_linear(Given())
    check_linear(OU([0.5, 2.0], 1.0))
    check_linear(Matern(1.5))
