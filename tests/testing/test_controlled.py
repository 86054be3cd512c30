"""Every exported controlled field keeps the contract, and the contract is broken by something."""

import inspect

import pytest
import torch
from torch import nn

import ctdyn.fields
from ctdyn.fields import LinearCDEField, LogODEField, MLPCDEField
from ctdyn.solvers import Euler
from ctdyn.structure import CDEField, DecayField
from ctdyn.testing import check_cde_field, check_solver


EXPORTED = [
    kind
    for kind in (getattr(ctdyn.fields, name) for name in ctdyn.fields.__all__)
    if isinstance(kind, type) and issubclass(kind, CDEField) and not inspect.isabstract(kind)
]


BUILT = {
    LinearCDEField: [lambda size=size: (LinearCDEField(6, 2, block_size=size), 6, 2) for size in (None, 1, 3)],
    LogODEField: [lambda: (LogODEField(MLPCDEField(3, 3), 3), 3, 6), lambda: (LogODEField(MLPCDEField(3, 1), 1), 3, 1)],
    MLPCDEField: [lambda: (MLPCDEField(3, 2), 3, 2)],
}


@pytest.mark.parametrize("build", [build for builds in BUILT.values() for build in builds])
def test_controlled_fields(build):
    check_cde_field(*build())


def test_every_exported_field_is_checked():
    assert set(EXPORTED) == set(BUILT)


class Followed(LinearCDEField):
    def __init__(self):
        super().__init__(3, 2)


class EulerFlow(Followed):
    """What the published code of linear controlled equations does: I + A dX in place of its exponential."""

    def follow(self, y0, dxs):
        states = []
        for dx in dxs.unbind(-2):
            y0 = y0 + self.prod(torch.zeros(y0.shape[:-1]), y0, dx)
            states.append(y0)
        return torch.stack(states, -2)


class Slow(Followed):
    def follow(self, y0, dxs):
        return super().follow(y0, 0.5 * dxs)


class Restless(Followed):
    def follow(self, y0, dxs):
        return super().follow(y0, dxs + 0.1)


class Mixing(Followed):
    def follow(self, y0, dxs):
        ys = super().follow(y0, dxs)
        return ys + 0 * ys if ys.dim() < 4 else ys + dxs.square().sum() * 1e-3 * (dxs.sum(-2)[..., None, :1] != 0)


@pytest.mark.parametrize(
    ("kind", "match"),
    [(EulerFlow, "there and back"), (Slow, "sets? out"), (Restless, "stands still"), (Mixing, "line")],
)
def test_broken_following_is_found(kind, match):
    with pytest.raises(AssertionError, match=match):
        check_cde_field(kind(), 3, 2)


class Broken(CDEField):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 6)
        self.unused = nn.Linear(3, 6)

    def matrix(self, y):
        return (self.layer(y) + self.unused(y)).unflatten(-1, (3, 2))

    def forward(self, t, y):
        return self.matrix(y)


class Unused(Broken):
    def forward(self, t, y):
        return self.layer(y).unflatten(-1, (3, 2))


class Transposed(Broken):
    def forward(self, t, y):
        return self.matrix(y).mT


class Normalised(Broken):
    def forward(self, t, y):
        matrix = self.matrix(y)
        return matrix - matrix.mean(tuple(range(y.dim() - 1)))


class OneClock(Broken):
    def forward(self, t, y):
        return self.matrix(y) * t.reshape(-1)[0]


class Single(Broken):
    def forward(self, t, y):
        return self.matrix(y).float()

    def prod(self, t, y, dx):
        return (self.matrix(y) @ dx.unsqueeze(-1)).squeeze(-1)


class OwnProd(Broken):
    def prod(self, t, y, dx):
        return super().prod(t, y, dx) + 1e-6 * y


class Hidden(Broken):
    """Finite where it is asked for; the branch that is not taken has a gradient all the same."""

    def forward(self, t, y):
        matrix = self.matrix(y)
        return torch.where(matrix > 0, matrix.sqrt(), matrix)


class Deaf(Broken):
    def forward(self, t, y):
        return self.matrix(torch.zeros_like(y) + y.detach())


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (Unused, "unused"),
        (Transposed, "shape"),
        (Normalised, "series mix"),
        (OneClock, "series mix"),
        (Single, "float32"),
        (Hidden, "the gradient of .* is not finite"),
        (OwnProd, "prod is not"),
        (Deaf, "the state"),
    ],
)
def test_broken_fields_are_found(kind, match):
    field = kind()
    if kind is Transposed:
        field.prod = lambda t, y, dx: y
    with pytest.raises(AssertionError, match=match):
        check_cde_field(field, 3, 2)


def test_a_method_that_steps_any_field_although_it_requires_structure_is_found():
    class Careless(Euler):
        requires = DecayField

        def step(self, term, t0, t1, y0, state, *, dense=True, estimate=False):
            try:
                return super().step(term, t0, t1, y0, state, dense=dense, estimate=estimate)
            except ValueError:
                return super().step(term, t0, t0, y0, y0, dense=False)

    with pytest.raises(AssertionError, match="requires a DecayField"):
        check_solver(Careless())
