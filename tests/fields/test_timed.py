"""Layers that know the time: their formulas, and how a perceptron of them behaves."""

import jaxtyping
import pytest
import torch

from ctdyn.fields import (
    Augment,
    BlendTime,
    ConcatSquashTime,
    ConcatTime,
    HyperTime,
    IgnoreTime,
    LinearField,
    MLPField,
    Scaled,
    SquashTime,
)
from ctdyn.testing import check_field


F64 = torch.float64
LAYERS = [IgnoreTime, ConcatTime, SquashTime, ConcatSquashTime, BlendTime, HyperTime]


def affine(layer, x):
    return x @ layer.weight.mT + layer.bias


FORMULAS = {
    IgnoreTime: lambda m, t, x: affine(m.affine, x),
    ConcatTime: lambda m, t, x: x @ m.affine.weight[:, 1:].mT + t[:, None] * m.affine.weight[:, 0] + m.affine.bias,
    SquashTime: lambda m, t, x: affine(m.affine, x) * torch.sigmoid(affine(m.gate, t[:, None])),
    ConcatSquashTime: lambda m, t, x: (
        affine(m.affine, x) * torch.sigmoid(affine(m.gate, t[:, None])) + t[:, None] * m.shift.weight[:, 0]
    ),
    BlendTime: lambda m, t, x: (1 - t[:, None]) * affine(m.first, x) + t[:, None] * affine(m.last, x),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_layer_is_its_formula(kind):
    torch.manual_seed(0)
    layer, t, x = kind(3, 2).double(), torch.randn(5, dtype=F64), torch.randn(5, 3, dtype=F64)
    torch.testing.assert_close(layer(t, x), FORMULAS[kind](layer, t, x))


def test_a_hyper_layer_is_affine_at_every_time_and_another_one_at_another():
    torch.manual_seed(0)
    layer, x = HyperTime(3, 2).double(), torch.randn(3, 3, dtype=F64)
    at = lambda time, x: layer(torch.full(x.shape[:-1], time, dtype=F64), x)  # noqa: E731
    for time in (0.0, 2.0):
        weights = at(time, torch.eye(3, dtype=F64)) - at(time, torch.zeros(3, 3, dtype=F64))
        torch.testing.assert_close(at(time, x), x @ weights + at(time, torch.zeros(3, 3, dtype=F64)))
    assert (at(0.0, x) - at(2.0, x)).abs().min() > 1e-3
    assert 0.2 < float(HyperTime(100, 50)(torch.zeros(200), torch.randn(200, 100)).std()) < 1.5


@pytest.mark.parametrize("kind", LAYERS)
def test_a_perceptron_of_them_keeps_the_contract(kind):
    torch.manual_seed(0)
    check_field(MLPField(3, hidden=(8,), input_size=2, layer=kind), 3, input_size=2)


@pytest.mark.parametrize("kind", LAYERS)
def test_only_one_of_them_is_autonomous(kind):
    torch.manual_seed(0)
    field, y = MLPField(3, hidden=(8,), layer=kind), torch.randn(4, 3)
    same = torch.equal(field(torch.zeros(4), y), field(torch.ones(4), y))
    assert same == (kind is IgnoreTime)


def test_a_zero_last_layer_begins_at_rest_and_learns():
    for kind in LAYERS:
        field = MLPField(3, hidden=(8,), layer=kind, zero_last=True)
        velocity = field(torch.rand(4), torch.randn(4, 3))
        assert not velocity.any()
        velocity.sum().backward()
        assert any(p.grad is not None and p.grad.any() for p in field.layers[-1].parameters())


def test_what_is_not_a_class_of_layers_is_refused():
    for options in ({"layer": torch.nn.Linear}, {"activation": torch.nn.Tanh()}):
        # Under the checks of the tests the annotation speaks first.
        with pytest.raises((TypeError, jaxtyping.TypeCheckError), match=next(iter(options))):
            MLPField(2, **options)
    with pytest.raises(ValueError, match="hidden"):
        MLPField(2, hidden=(0,))


def test_augment_adds_zeros_or_what_it_has_learned():
    y0 = torch.randn(4, 5, 2)
    for learned in (False, True):
        augment = Augment(2, 3, learned=learned)
        assert torch.equal(augment(y0), torch.cat([y0, torch.zeros(4, 5, 3)], -1))
    augment(y0).square().sum().backward()
    with torch.no_grad():
        augment.start.weight.fill_(1.0)
    torch.testing.assert_close(augment(y0)[..., 2:], y0.sum(-1, keepdim=True).expand(4, 5, 3))
    with pytest.raises(ValueError, match="state_size=2"):
        augment(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="extra_size"):
        Augment(2, 0)


def test_a_scaled_field_is_slower_by_its_span():
    torch.manual_seed(0)
    field = MLPField(3, input_size=1)
    scaled = Scaled(field, span=20.0)
    check_field(scaled, 3, input_size=1)
    t, y, u = torch.zeros(4), torch.randn(4, 3), torch.randn(4, 1)
    torch.testing.assert_close(20 * scaled(t, y, u), field(t, y, u))
    with pytest.raises(ValueError, match="span must be positive"):
        Scaled(LinearField(2), span=0.0)
