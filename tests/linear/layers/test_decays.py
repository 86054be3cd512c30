"""The maps that keep eigenvalues stable, and states that are fixed."""

import pytest
import torch

from ctdyn.linear import HeldAfter, Impulse
from ctdyn.linear.layers import S4D, S5, ExpDecay, Polarized, RationalDecay, S7Decay, SoftplusDecay
from ctdyn.testing import check_layer


DECAYS = [ExpDecay(), SoftplusDecay(), RationalDecay(), RationalDecay(2.0, 0.3), S7Decay()]
FORMULAS = {
    ExpDecay: lambda w: w.exp(),
    SoftplusDecay: lambda w: (1 + w.exp()).log(),
    S7Decay: lambda w: -(1 - 1 / (w**2 + 1)).log(),
}


@pytest.mark.parametrize("decay", DECAYS, ids=str)
def test_a_decay_is_its_formula_positive_and_begins_where_it_is_told(decay):
    w = torch.linspace(-4, 4, 40, dtype=torch.float64)
    rate = decay.rate(w)
    assert bool((rate > 0).all())
    if type(decay) in FORMULAS:
        torch.testing.assert_close(rate, FORMULAS[type(decay)](w))
    else:
        torch.testing.assert_close(rate, 1 / (decay.a * w**2 + decay.b))
    begun = torch.tensor([0.01, 0.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(decay.rate(decay.begin(begun)), begun)
    assert bool(torch.isfinite(decay.rate(torch.zeros(2))).all())


@pytest.mark.parametrize("decay", [*DECAYS, Polarized(1, 1), Polarized(2, 0, RationalDecay())], ids=str)
@pytest.mark.parametrize("build", [lambda decay: S5(3, 8, decay=decay), lambda decay: S4D(3, 8, decay=decay)])
def test_layers_keep_their_contract_and_begin_with_their_spectrum(build, decay):
    torch.manual_seed(0)
    layer = build(decay)
    check_layer(layer)
    if not isinstance(decay, Polarized):
        torch.testing.assert_close(decay.rate(layer.raw_decay), torch.full_like(layer.raw_decay, 0.5))


def test_polarized_states_integrate_and_follow():
    torch.manual_seed(0)
    layer = S5(2, 8, decay=Polarized(integrators=1, memoryless=1), hold=HeldAfter()).double()
    ts = torch.tensor([0.0, 0.5, 2.0, 2.1], dtype=torch.float64)
    us = torch.randn(4, 2, dtype=torch.float64)
    dt = torch.cat([ts[:1], ts.diff()])
    hs = layer.march(dt, us, layer.rest(), None)
    B = torch.view_as_complex(layer.B)
    summed = (dt[:, None] * us).cumsum(0).to(B.dtype) @ B[0] * layer.log_step[0].exp()
    torch.testing.assert_close(hs[:, 0], summed)
    torch.testing.assert_close(hs[1:, 1], us[1:].to(B.dtype) @ B[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RationalDecay(b=0.0), "must be positive"),
        (lambda: RationalDecay().begin(torch.tensor([20.0])), "stable spectrum"),
        (lambda: ExpDecay().begin(torch.tensor([-0.5])), "stable spectrum"),
        (lambda: Polarized(-1, 0), "must not be negative"),
        (lambda: S5(3, 4, decay=Polarized(2, 2)), "do not fit"),
        (lambda: S5(3, 8, decay=Polarized(0, 1), hold=Impulse()), "memoryless"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
