"""Every check fails on a part that breaks the contract."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from ctdyn.paths import Brownian, VirtualBrownianTree
from ctdyn.solvers import EulerHeun, EulerMaruyama, Step
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.testing import check_brownian, check_sde_field, check_sde_solver


F64 = torch.float64


class Changed(Brownian):
    """A good motion and a way to spoil it."""

    size = 2

    def __init__(self, spoil):
        self.tree = VirtualBrownianTree(torch.arange(500), 2)
        self.spoil = spoil

    @property
    def batch_shape(self):
        return self.tree.batch_shape

    def evaluate(self, t):
        return self.spoil(t, self.tree.evaluate(t))

    def integrate(self, t):
        value, integral = self.tree.integrate(t)
        return self.spoil(t, value), integral


class Forgetful(Changed):
    def evaluate(self, t):
        return super().evaluate(t) + 1e-3 * torch.randn(*t.shape, 2, dtype=F64)


class FlatArea(Changed):
    def integrate(self, t):
        value, _ = super().integrate(t)
        return value, value * t.unsqueeze(-1) / 2


class Copied(Changed):
    """Motions, or series, that are all the same."""

    def __init__(self, dim):
        super().__init__(lambda t, w: w.narrow(dim, 0, 1).expand_as(w))

    def integrate(self, t):
        value, integral = self.tree.integrate(t)
        return self.spoil(t, value), self.spoil(t, integral)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Forgetful(lambda t, w: w), "asked alone"),
        (FlatArea(lambda t, w: w), "area"),
        (Changed(lambda t, w: 1.1 * w), "variance"),
        (Changed(lambda t, w: w + 0.5 * t.unsqueeze(-1)), "mean"),
        (Copied(-1), "correlated"),
        (Copied(-2), "mean|variance|normal|correlated"),
        (Changed(lambda t, w: w[..., :1]), "evaluate gives"),
    ],
)
def test_a_broken_motion_is_found(broken, reason):
    zero = torch.zeros(500, dtype=F64)
    with pytest.raises(AssertionError, match=reason):
        check_brownian(broken, zero, zero + 2)


class Good(SDEField):
    noise, calculus = Noise.DIAGONAL, Calculus.ITO

    def __init__(self, size=3):
        super().__init__()
        self.rate = nn.Parameter(torch.ones(size))
        self.size = nn.Parameter(torch.ones(size))

    def drift(self, t, y, u=None):
        return -self.rate * y

    def diffusion(self, t, y, u=None):
        return torch.sigmoid(self.size * y)


class Mixing(Good):
    def diffusion(self, t, y, u=None):
        return torch.sigmoid(self.size * (y + y.flip(-1)))


class NotAdditive(Good):
    noise = Noise.ADDITIVE


class BatchNorm(Good):
    def drift(self, t, y, u=None):
        return -self.rate * (y - y.mean(0, keepdim=True)) if y.dim() > 1 else -self.rate * y


class Frozen(Good):
    def diffusion(self, t, y, u=None):
        return torch.sigmoid(self.size.detach() * y)


class Hidden(Good):
    def diffusion(self, t, y, u=None):
        g = super().diffusion(t, y) - 0.5
        return torch.where(g > 0, g.sqrt(), g)


class Infinite(Good):
    def diffusion(self, t, y, u=None):
        return super().diffusion(t, y) / torch.zeros(3, dtype=y.dtype)


def test_a_good_field_passes():
    check_sde_field(Good(), 3)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Mixing(), "declared diagonal"),
        (NotAdditive(), "declared additive"),
        (BatchNorm(), "series mix"),
        (Frozen(), "no gradient reaches the parameter size"),
        (Infinite(), "are not finite"),
        (Hidden(), "the gradient of the parameter size is not finite"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_broken_field_is_found(broken, reason):
    with pytest.raises(AssertionError, match=reason):
        check_sde_field(broken, 3)


@dataclass(frozen=True)
class WrongCalculus(EulerMaruyama):
    calculus: ClassVar[Calculus | None] = Calculus.STRATONOVICH


@dataclass(frozen=True)
class Boastful(EulerMaruyama):
    def strong_order(self, noise):
        return 1.0


@dataclass(frozen=True)
class Detached(EulerHeun):
    def step(self, term, t0, t1, y0, state, *, dense=True, estimate=False):
        step = super().step(term, t0, t1, y0, state)
        return Step(y0 + (step.y1 - y0).detach(), None, None, ())


@dataclass(frozen=True)
class Restless(EulerMaruyama):
    def step(self, term, t0, t1, y0, state, *, dense=True, estimate=False):
        step = super().step(term, t0, t1, y0, state)
        return step._replace(y1=step.y1 + 1e-9)


@dataclass(frozen=True)
class Social(EulerMaruyama):
    def step(self, term, t0, t1, y0, state, *, dense=True, estimate=False):
        step = super().step(term, t0, t1, y0, state)
        spread = (t1 - t0).unsqueeze(-1) * (y0.mean(-2, keepdim=True) - y0)
        return step._replace(y1=step.y1 + 1e-6 * spread)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (WrongCalculus(), "falls with the power"),
        (Boastful(), "strong_order says 1"),
        (Detached(), "gradient"),
        (Restless(), "length zero"),
        (Social(), "otherwise alone"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_broken_method_is_found(broken, reason):
    with pytest.raises(AssertionError, match=reason):
        check_sde_solver(broken, paths=200)


def test_a_method_for_smooth_equations_is_none_for_stochastic_ones():
    from ctdyn.solvers import Euler

    with pytest.raises(AssertionError, match="no calculus"):
        check_sde_solver(Euler())
