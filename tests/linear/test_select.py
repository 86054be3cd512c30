"""What runs where: the compiled ways wherever numba is, and the same answers in plain torch where it is not."""

import pytest
import torch

from ctdyn.data import IrregularBatch
from ctdyn.linear import BlockedScan, CompiledScan, LinearGaussian, Matern, _kalman_compiled, _select
from ctdyn.linear.layers import S5


def everything() -> list[torch.Tensor]:
    """Outputs and gradients of a layer, and a likelihood with its gradients."""
    torch.manual_seed(0)
    layer = S5(2, state_size=8, steps=(0.3, 1.0)).double()
    ts = torch.rand(3, 50, dtype=torch.float64).cumsum(-1)
    us = torch.randn(3, 50, 2, dtype=torch.float64)
    ys, _ = layer(ts, us)
    model = LinearGaussian(Matern(1.5, lengthscale=torch.tensor(0.7, dtype=torch.float64)), R=0.1)
    nats = model.log_prob(IrregularBatch(ts, us[..., :1], torch.ones(3, 50, 1, dtype=torch.bool)))
    total = ys.square().sum() + nats.sum()
    return [ys, nats, *torch.autograd.grad(total, [*layer.parameters(), *model.parameters()])]


def test_the_compiled_scan_is_taken_wherever_it_can_be():
    pytest.importorskip("numba")
    for dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        assert isinstance(_select.default_backend(torch.ones(1, 2, 1, dtype=dtype)), CompiledScan)
    assert isinstance(_select.default_backend(torch.ones(1, 2, 1, dtype=torch.float16)), BlockedScan)


def test_without_numba_all_runs_in_plain_torch(monkeypatch: pytest.MonkeyPatch):
    expected = everything()
    for module in (_select, _kalman_compiled):
        monkeypatch.setattr(module, "numba_is_installed", lambda: False)
    assert isinstance(_select.default_backend(torch.ones(1, 2, 1)), BlockedScan)
    for got, value in zip(everything(), expected, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-11, atol=1e-11)
