import math

import pytest
import torch

from ctdyn.linear import HeldAfter, HeldBefore, Impulse
from ctdyn.linear.layers import S4D, DSSExp, DSSSoftmax, InvSpectrum, LegSSpectrum, LinSpectrum, legs_normal
from ctdyn.testing import check_layer


HOLDS = [HeldBefore(), HeldAfter(), Impulse()]


@pytest.fixture(autouse=True)
def doubles():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def layers(hold, tile=None):
    yield S4D(3, state_size=8, steps=(0.3, 1.0), hold=hold, tile=tile)
    yield DSSExp(3, state_size=4, steps=(0.3, 1.0), hold=hold, tile=tile)
    yield DSSSoftmax(3, state_size=4, horizon=9.0, steps=(0.3, 1.0), hold=hold, tile=tile)


@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: type(hold).__name__)
def test_contract(hold):
    for layer in layers(hold, tile=5 if hold.causal else None):
        check_layer(layer, impulse=isinstance(hold, Impulse))


@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: type(hold).__name__)
def test_the_convolution_is_the_scan(hold):
    """Outputs, last states and gradients, from nothing and from a state, on grids of any origin."""
    for layer in layers(hold):
        ts, us = 7.0 + 0.1 * torch.arange(150.0), torch.randn(2, 150, 3)
        # A gradient to the times is what only the scan gives.
        by_scan, scanned = layer(ts.clone().requires_grad_(), us)
        by_convolution, convolved = layer(ts, us)
        torch.testing.assert_close(by_convolution, by_scan, rtol=0, atol=1e-11)
        torch.testing.assert_close(convolved.h, scanned.h, rtol=0, atol=1e-11)
        more = ts + 15.5
        for one, other in ((scanned, convolved), (convolved, scanned)):
            again, last = layer(more, us, one)
            want, end = layer(more.clone().requires_grad_(), us, other)
            torch.testing.assert_close(again, want, rtol=0, atol=1e-11)
            torch.testing.assert_close(last.h, end.h, rtol=0, atol=1e-11)
        weights = torch.randn_like(by_scan)
        total = (by_scan * weights).sum() + scanned.h.abs().square().sum()
        want = torch.autograd.grad(total, list(layer.parameters()))
        total = (by_convolution * weights).sum() + convolved.h.abs().square().sum()
        got = torch.autograd.grad(total, list(layer.parameters()))
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_the_convolution_is_used_where_it_may_be(monkeypatch):
    layer, lengths = S4D(2, state_size=4), []
    march = type(layer).march
    monkeypatch.setattr(S4D, "march", lambda self, dt, *rest: (lengths.append(dt.shape[-1]), march(self, dt, *rest))[1])
    us = torch.randn(3, 80, 2)
    layer(torch.arange(80.0), us)
    layer(torch.rand(3, 80).cumsum(-1), us)
    layer(torch.arange(80.0), us, reset=torch.zeros(3, 80, dtype=torch.bool))
    layer(torch.stack([torch.arange(80.0), 2 * torch.arange(80.0), torch.arange(80.0)]), us)
    assert lengths == [1, 80, 80, 80]


def test_s4d_has_the_kernel_of_the_paper():
    layer = S4D(2, state_size=6)
    lam = layer.decay.eigenvalues(layer.raw_decay, layer.frequency)
    step, C = layer.log_step.exp()[:, None], torch.view_as_complex(layer.C)
    lags = torch.arange(20.0)
    paper = 2.0 * (
        (C * (torch.exp(lam * step) - 1.0) / lam)[..., None] * torch.exp((lam * step)[..., None] * lags)
    ).sum(-2)
    torch.testing.assert_close(layer.kernel(1.0, 20), paper.real.mT, rtol=0, atol=1e-12)
    # A series whose first input is zero: then its response begins with the second, as in the paper.
    layer.hold = HeldAfter()
    us = torch.cat([torch.zeros(1, 2), torch.randn(19, 2)])
    direct = torch.stack([sum(layer.kernel(1.0, 20)[j] * us[k - j] for j in range(k + 1)) for k in range(20)])
    torch.testing.assert_close(layer(torch.arange(20.0), us)[0], direct + layer.D * us, rtol=0, atol=1e-11)


def test_dss_has_the_kernels_of_the_paper():
    lags = torch.arange(40.0)
    layer = DSSExp(2, state_size=3)
    lam = torch.complex(-layer.log_decay.exp(), layer.frequency)
    x, W = lam * layer.log_step.exp()[:, None], torch.view_as_complex(layer.W)
    powers = torch.exp(x[..., None] * lags)
    exp = ((W * (torch.exp(x) - 1.0) / lam)[..., None] * powers).sum(-2).real
    torch.testing.assert_close(layer.kernel(1.0, 40), exp.mT, rtol=0, atol=1e-12)
    layer = DSSSoftmax(2, state_size=3, horizon=40.0, steps=(0.1, 0.2))
    layer.growth.data[1] = 0.3
    lam = torch.complex(layer.growth, layer.frequency)
    x, W = lam * layer.log_step.exp()[:, None], torch.view_as_complex(layer.W)
    powers = torch.exp(x[..., None] * lags)
    softmax = ((W / lam)[..., None] * powers / powers.sum(-1, keepdim=True)).sum(-2).real
    torch.testing.assert_close(layer.kernel(1.0, 40), softmax.mT, rtol=1e-5, atol=1e-6)


def test_initialisation():
    for spectrum in (LegSSpectrum(), InvSpectrum(), LinSpectrum()):
        layer = S4D(300, state_size=32, spectrum=spectrum)
        step = layer.log_step.detach().exp()
        wanted = spectrum.eigenvalues(32)
        torch.testing.assert_close(layer.system()[0].detach(), step[:, None] * wanted)
        assert 1e-3 <= float(step.min()) < 2e-3 < 5e-2 < float(step.max()) <= 1e-1
        assert float(layer.C.detach().square().sum(-1).mean()) == pytest.approx(1.0, rel=0.1)
    layer = DSSExp(2, state_size=4)
    torch.testing.assert_close(
        layer.rates().detach(), (layer.log_step.detach().exp()[:, None] * legs_normal(8)[0]).flatten()
    )
    assert float(DSSSoftmax(2, 4, 1.0).growth.detach().sum()) == pytest.approx(-2.0)


def test_gradients():
    ts, us = torch.rand(2, 7).cumsum(-1).requires_grad_(), torch.randn(2, 7, 2, requires_grad=True)
    for layer in (S4D(2, 4), DSSSoftmax(2, 2, 5.0)):
        torch.autograd.gradcheck(lambda ts, us, *_, layer=layer: layer(ts, us)[0], (ts, us, *layer.parameters()))


def test_refusals():
    with pytest.raises(ValueError, match="multiple of 2"):
        S4D(3, state_size=5)
    with pytest.raises(ValueError, match="even"):
        S4D(3, state_size=5, spectrum=LinSpectrum())
    with pytest.raises(ValueError, match="horizon"):
        DSSSoftmax(3, 4, math.inf)
    with pytest.raises(ValueError, match="input_size"):
        DSSExp(0, 4)
