import json
import os
from pathlib import Path

import pytest
import torch

from ctdyn.linear import Dense, Diagonal, HeldAfter, HeldBefore, HippoLegS, HippoLegT, Impulse, Matern, legs_matrices
from ctdyn.linear.layers import LSSL, S4, legs_normal
from ctdyn.testing import check_layer


HOLDS = [HeldBefore(), HeldAfter(), Impulse()]
ROOT = Path(os.environ.get("CTDYN_REFERENCE", "/nonexistent")) / "ssm"


@pytest.fixture(autouse=True)
def doubles():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def layers(hold, tile=None):
    yield S4(3, state_size=4, steps=(0.3, 1.0), hold=hold, tile=tile)
    own = Dense(-torch.eye(2) + 0.5 * torch.randn(3, 2, 2), B=torch.ones(2, 1))
    yield LSSL(3, own, steps=(0.3, 1.0), hold=hold, tile=tile)
    yield LSSL(3, HippoLegT(4, window=2.0), steps=(0.3, 1.0), hold=hold, tile=tile)
    yield LSSL(3, Diagonal(torch.tensor([-0.5, -1.0]), B=torch.ones(2, 1)), hold=hold, tile=tile)


@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: type(hold).__name__)
def test_contract(hold):
    for layer in layers(hold, tile=5 if hold.causal else None):
        check_layer(layer, impulse=isinstance(hold, Impulse))


@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: type(hold).__name__)
def test_the_convolution_is_the_scan(hold):
    for layer in layers(hold):
        ts, us = 7.0 + 0.1 * torch.arange(70.0), torch.randn(2, 70, 3)
        by_scan, scanned = layer(ts.clone().requires_grad_(), us)
        by_convolution, convolved = layer(ts, us)
        torch.testing.assert_close(by_convolution, by_scan, rtol=0, atol=1e-11)
        torch.testing.assert_close(convolved.h, scanned.h, rtol=0, atol=1e-11)
        again, last = layer(ts + 9.5, us, scanned)
        want, end = layer((ts + 9.5).requires_grad_(), us, scanned)
        torch.testing.assert_close(again, want, rtol=0, atol=1e-11)
        torch.testing.assert_close(last.h, end.h, rtol=0, atol=1e-11)
        parameters = [p for p in layer.parameters() if p.requires_grad]
        want = torch.autograd.grad(by_scan.square().sum() + scanned.h.square().sum(), parameters)
        got = torch.autograd.grad(by_convolution.square().sum() + convolved.h.square().sum(), parameters)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_s4_begins_as_legs():
    layer = S4(2, state_size=6)
    _, V = legs_normal(6)
    A, B = legs_matrices(6)
    # From the real parts and imaginary parts of half of the states to the state of LegS.
    basis = 2.0 * torch.cat([V.real, -V.imag], 1)
    torch.testing.assert_close(basis @ layer.A, A @ basis, rtol=0, atol=1e-11)
    torch.testing.assert_close(basis @ layer.B.mT.reshape(-1, 1), B, rtol=0, atol=1e-11)
    assert float(layer.C.detach().square().sum(-1).mean()) == pytest.approx(1.0, abs=0.9)


def test_the_bilinear_kernel_is_that_of_the_dense_system():
    """The paper's lemma: Cauchy sums and Woodbury's identity give C A_bar^l B_bar, also for an odd length."""
    layer = S4(3, state_size=8, steps=(0.05, 0.5))
    for length in (1, 16, 31):
        kernel = layer.bilinear_kernel(0.7, length)
        for channel, step in enumerate(layer.log_step.exp() * 0.7):
            inverse = torch.linalg.inv(torch.eye(8) - 0.5 * step * layer.A)
            state, lags = inverse @ layer.B.mT.flatten() * step, []
            for _ in range(length):
                lags.append(layer.weights()[channel] @ state)
                state = inverse @ (state + 0.5 * step * layer.A @ state)
            torch.testing.assert_close(kernel[:, channel], torch.stack(lags), rtol=0, atol=1e-11)


def test_the_bilinear_rule_is_of_second_order():
    layer = S4(1, state_size=4, steps=(1.0, 1.0), hold=HeldAfter())
    errors = []
    for dt in (0.02, 0.01):
        us = torch.sin(torch.arange(0.0, 2.0 - 1e-9, dt))[:, None]
        exact, _ = layer(dt * torch.arange(len(us)), us)
        errors.append(float((layer.convolve(us, dt) - exact).detach().abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)


def test_lssl_is_its_dynamics():
    """Any dynamics: each channel is a scan of them on a clock of its own speed."""
    dynamics = Dense(torch.tensor([[-0.1, 1.0], [-1.0, -0.2]]), B=torch.tensor([[0.0], [1.0]]))
    for hold in HOLDS:
        layer = LSSL(2, dynamics, steps=(0.3, 1.0), hold=hold)
        ts, us = (2.0 * torch.rand(3, 20)).cumsum(-1), torch.randn(3, 20, 2)
        for channel, step in enumerate(layer.log_step.exp()):
            kick = step if isinstance(hold, Impulse) else 1.0
            states = dynamics.scan(ts * step, kick * us[..., channel, None], hold=hold)
            want = states @ layer.C[channel] + layer.D[channel] * us[..., channel]
            torch.testing.assert_close(layer(ts, us)[0][..., channel], want, rtol=0, atol=1e-11)


def test_initial_steps_are_within_their_bounds():
    step = LSSL(500, HippoLegT(2, window=1.0)).log_step.detach().exp()
    assert 1e-3 <= float(step.min()) < 1.5e-3 < 8e-2 < float(step.max()) <= 1e-1


@pytest.mark.skipif(not ROOT.is_dir(), reason="CTDYN_REFERENCE is not set")
@pytest.mark.parametrize("size", [4, 8, 16])
def test_kernels_of_hippo(size):
    """Against 60 digits: S4 and LSSL have the exact kernel of LegS, and S4 the bilinear one too."""
    models = json.loads((ROOT / "hippo_legs_discretisation.json").read_text())["models"]
    model = models[f"N{size}"]
    C = torch.tensor([float(x) for x in model["C"]])
    A, B = legs_matrices(size)
    s4, lssl = S4(1, size, steps=(1.0, 1.0)), LSSL(1, Dense(A, B=B), steps=(1.0, 1.0))
    _, V = legs_normal(size)
    s4.C.data = torch.view_as_real((C.to(V.dtype) @ V)[None])
    lssl.C.data = C[None]
    for dt, case in model["dt"].items():
        exact = torch.tensor([float(x) for x in case["zoh_kernel16"]])
        bilinear = torch.tensor([float(x) for x in case["bilinear_kernel16"]])
        atol = 1e-9 * float(exact.abs().max())
        for layer in (s4, lssl):
            torch.testing.assert_close(layer.kernel(float(dt), 16)[:, 0], exact, rtol=0, atol=atol)
        torch.testing.assert_close(s4.bilinear_kernel(float(dt), 16)[:, 0], bilinear, rtol=0, atol=atol)


def test_refusals():
    with pytest.raises(ValueError, match="one input"):
        LSSL(2, Dense(torch.eye(2)))
    with pytest.raises(ValueError, match="one input"):
        LSSL(2, Matern(1.5))
    with pytest.raises(ValueError, match="clock of its own"):
        LSSL(2, HippoLegS(4))
    with pytest.raises(TypeError, match="must be real"):
        LSSL(2, Diagonal(torch.tensor([-1.0 + 1j]), B=torch.ones(1, 1, dtype=torch.complex128)))
    with pytest.raises(ValueError, match="batch axes"):
        LSSL(2, Dense(-torch.ones(3, 1, 1)))
    with pytest.raises(ValueError, match="multiple of 2"):
        S4(2, 3)
    with pytest.raises(ValueError, match="must be positive"):
        S4(2, 4).bilinear_kernel(0.0, 4)
