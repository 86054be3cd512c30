import pytest
import torch

from ctdyn.linear.layers import S4D, S5, Bidirectional


def test_it_is_one_layer_forward_and_one_backward():
    torch.manual_seed(0)
    layer = Bidirectional(S5(3, 8), S5(3, 8, steps=(0.1, 1.0))).double()
    ts, us = torch.rand(2, 9, dtype=torch.float64).cumsum(-1), torch.randn(2, 9, 3, dtype=torch.float64)
    ys = layer(ts, us)
    for k in range(9):
        ahead, _ = layer.ahead(ts[:, : k + 1], us[:, : k + 1])
        back, _ = layer.back(-ts[:, k:].flip(-1), us[:, k:].flip(-2))
        torch.testing.assert_close(ys[:, k], ahead[:, -1] + back[:, -1], rtol=0, atol=1e-12)


def test_padding_and_resets():
    torch.manual_seed(0)
    layer = Bidirectional(S5(3, 8), S5(3, 8)).double()
    ts, us = torch.rand(2, 9, dtype=torch.float64).cumsum(-1), torch.randn(2, 9, 3, dtype=torch.float64)
    ys = layer(ts, us)
    last = slice(-1, None)
    padded = layer(torch.cat([ts, ts[:, last], ts[:, last]], 1), torch.cat([us, us[:, last], us[:, last]], 1))
    torch.testing.assert_close(padded[:, :9], ys, rtol=0, atol=1e-12)
    begins = torch.zeros(2, 9, dtype=torch.bool)
    begins[:, 4] = True
    parts = torch.cat([layer(ts[:, :4], us[:, :4]), layer(ts[:, 4:], us[:, 4:])], 1)
    torch.testing.assert_close(layer(ts, us, reset=begins), parts, rtol=0, atol=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match="same output_size"):
        Bidirectional(S5(3, 8, output_size=2), S4D(3, 8))
