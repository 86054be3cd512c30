"""A convolution is the scan of the same system, and its kernel is what the system answers to an impulse."""

import pytest
import torch
from torch.autograd import gradcheck

from ctdyn.linear import causal_convolution, exponential_kernel, held_gain, zoh_scan


PAIRS = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def system(channels: int, states: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    lam = torch.complex(
        -torch.rand(channels, states, generator=draw, dtype=torch.float64),
        5.0 * torch.rand(channels, states, generator=draw, dtype=torch.float64),
    )
    return lam, torch.randn(channels, states, generator=draw, dtype=torch.complex128)


@pytest.mark.parametrize("length", [1, 2, 5, 64, 300])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)], ids=str)
def test_convolution_is_the_scan(length: int, dtype: torch.dtype, tolerance: float) -> None:
    lam, weight = system(3, 8)
    dt = torch.tensor([[0.1], [0.01], [1.0]], dtype=torch.float64)
    u = torch.randn(2, length, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gains = (weight * held_gain(lam, dt)).to(PAIRS[dtype])
    kernel = exponential_kernel(lam, gains, dt, length)
    assert kernel.dtype == dtype
    assert kernel.shape == (length, 3)
    y = causal_convolution(kernel, u.to(dtype))
    for channel in range(3):
        v = u[:, :, channel, None].to(lam.dtype).expand(2, length, 8)
        h = zoh_scan(lam[channel], dt[channel], v)
        expected = (h * weight[channel]).sum(-1).real
        error = (y[..., channel].double() - expected).abs().max() / expected.abs().max()
        assert float(error) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)], ids=str)
def test_scan_convolution_steps_and_a_dense_solve_are_one(dtype: torch.dtype, tolerance: float) -> None:
    lam, weight = system(1, 8)
    length, dt = 40, torch.full((1,), 0.1, dtype=torch.float64)
    u = torch.randn(length, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    # All states at once: (1 - shift kron diag(a)) h = gain u.
    a, gain = torch.exp(lam[0] * dt), held_gain(lam[0], dt)
    shift = torch.diag(torch.ones(length - 1, dtype=torch.float64), -1).to(a.dtype)
    system_matrix = torch.eye(8 * length, dtype=a.dtype) - torch.kron(shift, torch.diag(a))
    h = torch.linalg.solve(system_matrix, (gain * u).flatten()).unflatten(0, (length, 8))
    expected = (h @ weight[0]).real

    wide = PAIRS[dtype]
    low, v, w = lam[0].to(wide), u.to(wide).expand(length, 8), weight[0].to(wide)
    step = dt.to(dtype)
    found = {"scan": (zoh_scan(low, step, v) @ w).real}
    before, ys = torch.zeros(8, dtype=wide), []
    for k in range(length):
        before = zoh_scan(low, step, v[k : k + 1], before)[0]
        ys.append((before @ w).real)
    found["steps"] = torch.stack(ys)
    kernel = exponential_kernel(low[None], (w * held_gain(low, step))[None], step[None], length)
    found["convolution"] = causal_convolution(kernel, u.to(dtype))[:, 0]
    for name, y in found.items():
        error = float((y.double() - expected).abs().max() / expected.abs().max())
        assert error < tolerance, f"{name} is off by {error:.1e}"


def test_convolution_is_the_sum() -> None:
    draw = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.complex128):
        kernel, u = (torch.randn(4, 2, generator=draw, dtype=dtype), torch.randn(3, 7, 2, generator=draw, dtype=dtype))
        expected = torch.stack([sum(kernel[j] * u[:, k - j] for j in range(min(k + 1, 4))) for k in range(7)], 1)
        torch.testing.assert_close(causal_convolution(kernel, u), expected)
        torch.testing.assert_close(causal_convolution(kernel, u[:, :2]), expected[:, :2])
    assert causal_convolution(kernel, u[:, :0]).shape == (3, 0, 2)


def test_gradients() -> None:
    lam, weight = system(2, 3)
    dt = torch.tensor([[0.3], [0.1]], dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (lam, weight, dt)]
    assert gradcheck(lambda *x: exponential_kernel(*x, 7), inputs)
    kernel, u = torch.rand(5, 2, dtype=torch.float64, requires_grad=True), torch.rand(2, 6, 2, dtype=torch.float64)
    assert gradcheck(causal_convolution, (kernel, u.requires_grad_()))


def test_arguments() -> None:
    with pytest.raises(ValueError, match="kernel and u must be"):
        causal_convolution(torch.ones(4, 3), torch.ones(4, 2))
    with pytest.raises(TypeError, match="one dtype"):
        causal_convolution(torch.ones(4, 2), torch.ones(4, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="length must be"):
        exponential_kernel(torch.ones(2), torch.ones(2), torch.ones(1), 0)
    with pytest.raises(ValueError, match="lam, weight, dt"):
        exponential_kernel(torch.ones(2), torch.ones(3), torch.ones(1), 4)
