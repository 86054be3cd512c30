"""Every exported controlled field keeps the contract, and the contract is broken by something."""

import inspect

import pytest
import torch
from torch import nn

import ctdyn.fields
from ctdyn.solvers import Euler
from ctdyn.structure import CDEField, DecayField
from ctdyn.testing import check_cde_field, check_solver


EXPORTED = [
    kind
    for kind in (getattr(ctdyn.fields, name) for name in ctdyn.fields.__all__)
    if isinstance(kind, type) and issubclass(kind, CDEField) and not inspect.isabstract(kind)
]


@pytest.mark.parametrize("kind", EXPORTED)
def test_controlled_fields(kind):
    check_cde_field(kind(3, 2), 3, 2)


def test_some_are_exported():
    assert len(EXPORTED) >= 2


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
