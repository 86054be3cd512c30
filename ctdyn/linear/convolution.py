"""Time-invariant linear systems on a regular grid: their kernels, and convolution with them by FFT."""

from __future__ import annotations

import math

import torch
from torch import Tensor


__all__ = ["causal_convolution", "exponential_kernel"]


def causal_convolution(kernel: Tensor, u: Tensor) -> Tensor:
    r"""The response of a time-invariant system to an input on a regular grid, by FFT.

    .. math:: y_k = \sum_{j=0}^{k} K_j \, u_{k-j}

    It equals the scan of the same system and costs :math:`O(L \log L)` whatever the number of states behind the kernel:
    for many states per channel. With few, or at irregular times, scan.

    Args:
        kernel: values at the lags 0, 1, ..., broadcastable to `u`, `(*batch, lag, channel)`; lags beyond the length of
            the input do not matter, missing ones are zero.
        u: inputs, `(*batch, time, channel)`, of the same dtype.

    Returns:
        Responses, `(*batch, time, channel)`.

    Raises:
        ValueError: an argument has no time and channel axis, or the channels do not broadcast.
        TypeError: the dtypes differ.

    Reference:
        Albert Gu, Karan Goel, Christopher Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
        https://arxiv.org/abs/2111.00396

    Example:
        >>> kernel, u = torch.tensor([[1.0], [0.5]]), torch.tensor([[1.0], [0.0], [2.0], [0.0]])
        >>> causal_convolution(kernel, u).flatten().round(decimals=4)
        tensor([1.0000, 0.5000, 2.0000, 1.0000])
    """
    if kernel.dim() < 2 or u.dim() < 2 or kernel.shape[-1] not in (1, u.shape[-1]):
        shapes = f"{tuple(kernel.shape)} and {tuple(u.shape)}"
        raise ValueError(f"kernel and u must be (*batch, lag, channel) and (*batch, time, channel); got {shapes}.")
    if kernel.dtype != u.dtype:
        raise TypeError(f"kernel and u must have one dtype; got {kernel.dtype} and {u.dtype}.")
    length = u.shape[-2]
    if not u.numel():
        return u + kernel[..., :0, :].sum(-2, keepdim=True)
    kernel = kernel[..., :length, :]
    size = 1 << (length + kernel.shape[-2] - 2).bit_length() if length > 1 else 1
    if u.is_complex():
        product = torch.fft.fft(kernel, size, dim=-2) * torch.fft.fft(u, size, dim=-2)
        return torch.fft.ifft(product, dim=-2)[..., :length, :]
    product = torch.fft.rfft(kernel, size, dim=-2) * torch.fft.rfft(u, size, dim=-2)
    return torch.fft.irfft(product, size, dim=-2)[..., :length, :]


def exponential_kernel(lam: Tensor, weight: Tensor, dt: Tensor, length: int) -> Tensor:
    r"""The kernel of a diagonal system on a regular grid: the real part of a sum of exponentials.

    .. math:: K_l = \mathrm{Re} \sum_n w_n e^{\lambda_n \Delta l}, \qquad l = 0 \dots L - 1

    With inputs held over a step the weights are :math:`C_n B_n (e^{\lambda_n \Delta} - 1) / \lambda_n` (`held_gain`);
    with impulses :math:`C_n B_n`. Of a conjugate pair, keep one and double its weight. Lags are split in two levels,
    :math:`l = i S + j`, so that only :math:`O(\sqrt L)` exponentials per state are taken, in double precision, and the
    rest is one matrix product.

    Args:
        lam: eigenvalues, `(*channel, state)`, real or complex.
        weight: weights, `(*channel, state)`, real or complex.
        dt: the step of the grid, broadcastable to `(*channel, 1)`; real.
        length: number of lags.

    Returns:
        The kernel, `(lag, *channel)`; real, of the precision of `weight`.

    Raises:
        ValueError: the shapes do not broadcast, or `length` is not positive.

    Reference:
        Albert Gu, Ankit Gupta, Karan Goel, Christopher Ré, "On the Parameterization and Initialization of Diagonal
        State Space Models", 2022, https://arxiv.org/abs/2206.11893

    Example:
        >>> exponential_kernel(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 2.0]), torch.tensor([1.0]), 3)
        tensor([3.0000, 1.7358, 1.2707])
    """
    if length < 1:
        raise ValueError(f"length must be a positive number of lags; got {length}.")
    try:
        shape = torch.broadcast_shapes(lam.shape, weight.shape, dt.shape)
    except RuntimeError as error:
        shapes = f"{tuple(lam.shape)}, {tuple(weight.shape)} and {tuple(dt.shape)}"
        raise ValueError(f"lam, weight, dt must be (*channel, state) or broadcast to it; got {shapes}.") from error
    real = weight.real.dtype if weight.is_complex() else weight.dtype
    wide = (lam.to(torch.complex128) * dt.double()).expand(shape)
    span = math.isqrt(length - 1) + 1
    lags = torch.arange(span, dtype=torch.float64, device=lam.device)
    near = torch.exp(wide[..., None] * lags)
    far = weight.to(torch.complex128)[..., None, :] * torch.exp(wide[..., None, :] * (lags * span)[:, None])
    # The real part of a product, as one real product.
    left = torch.cat([far.real, -far.imag], -1).to(real)
    right = torch.cat([near.real, near.imag], -2).to(real)
    return (left @ right).flatten(-2)[..., :length].movedim(-1, 0)
