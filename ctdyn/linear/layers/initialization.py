"""Where diagonal state-space layers begin: spectra, and steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..hippo import legs_matrices


__all__ = ["InvSpectrum", "LegSSpectrum", "LinSpectrum", "Spectrum", "legs_normal", "log_uniform"]


def legs_normal(size: int, blocks: int = 1) -> tuple[Tensor, Tensor]:
    r"""Eigenvalues and eigenvectors of the normal part of HiPPO-LegS, block-diagonal if wanted: where S5 begins.

    .. math:: A^{(N)} = A + p p^\top, \quad p_n = \sqrt{n + \tfrac12}; \qquad A^{(N)} = V \Lambda V^*

    It is skew-symmetric but for :math:`-\frac12` on the diagonal, so :math:`V` is unitary. The eigenvalues come in
    conjugate pairs, of which those with a positive imaginary part are kept.

    Args:
        size: size of the real system, a multiple of `2 * blocks`.
        blocks: number of equal blocks on the diagonal.

    Returns:
        Eigenvalues `(size / 2,)`, by blocks, ascending in frequency; eigenvectors `(size, size / 2)`; complex128.

    Raises:
        ValueError: `size` is not a positive multiple of `2 * blocks`.

    Reference:
        Simplified State Space Layers for Sequence Modeling, J. T. H. Smith, A. Warrington, S. W. Linderman, 2023,
        https://arxiv.org/abs/2208.04933

    Example:
        >>> lam, V = legs_normal(4)
        >>> lam.real, torch.allclose(V.mH @ V, torch.eye(2, dtype=V.dtype))
        (tensor([-0.5000, -0.5000], dtype=torch.float64), True)
    """
    if size < 1 or blocks < 1 or size % (2 * blocks):
        raise ValueError(f"size must be a positive multiple of 2 * blocks={2 * blocks}; got {size}.")
    block = size // blocks
    A, _ = legs_matrices(block)
    p = torch.sqrt(torch.arange(block, dtype=torch.float64) + 0.5)
    skew = A + p[:, None] * p + 0.5 * torch.eye(block, dtype=torch.float64)
    frequencies, vectors = torch.linalg.eigh(-1j * skew)
    kept = slice(block // 2, None)
    lam = torch.complex(torch.full((block // 2,), -0.5, dtype=torch.float64), frequencies[kept])
    return lam.repeat(blocks), torch.block_diag(*[vectors[:, kept]] * blocks)


@dataclass(frozen=True)
class Spectrum(ABC):
    """Eigenvalues for a system of any size, for a diagonal layer to begin with.

    Example:
        >>> [type(spectrum).__name__ for spectrum in (LegSSpectrum(), InvSpectrum(), LinSpectrum())]
        ['LegSSpectrum', 'InvSpectrum', 'LinSpectrum']
    """

    @abstractmethod
    def eigenvalues(self, size: int) -> Tensor:
        """One eigenvalue of each conjugate pair, `(size / 2,)`, complex128.

        Args:
            size: size of the real system, even.

        Raises:
            ValueError: `size` is odd or below 2.
        """


class LegSSpectrum(Spectrum):
    """The S4D-LegS spectrum: eigenvalues of the normal part of HiPPO-LegS, see `legs_normal`.

    Reference:
        On the Parameterization and Initialization of Diagonal State Space Models, A. Gu, A. Gupta, K. Goel, C. Re,
        2022, https://arxiv.org/abs/2206.11893

    Example:
        >>> LegSSpectrum().eigenvalues(2)
        tensor([-0.5000+0.8660j], dtype=torch.complex128)
    """

    def eigenvalues(self, size: int) -> Tensor:
        """As in `Spectrum`."""
        return legs_normal(size)[0]


class LinSpectrum(Spectrum):
    r"""The S4D-Lin spectrum, the frequencies of a Fourier series.

    .. math:: \lambda_n = -\tfrac12 + i \pi n, \qquad n = 0 \dots N/2 - 1

    Reference:
        On the Parameterization and Initialization of Diagonal State Space Models, A. Gu, A. Gupta, K. Goel, C. Re,
        2022, https://arxiv.org/abs/2206.11893

    Example:
        >>> LinSpectrum().eigenvalues(4)
        tensor([-0.5000+0.0000j, -0.5000+3.1416j], dtype=torch.complex128)
    """

    def eigenvalues(self, size: int) -> Tensor:
        """As in `Spectrum`."""
        return _beside(math.pi * _orders(size))


class InvSpectrum(Spectrum):
    r"""The S4D-Inv spectrum, close to that of S4D-LegS.

    .. math:: \lambda_n = -\tfrac12 + i \frac N\pi \left(\frac N{2n + 1} - 1\right), \qquad n = 0 \dots N/2 - 1

    Reference:
        On the Parameterization and Initialization of Diagonal State Space Models, A. Gu, A. Gupta, K. Goel, C. Re,
        2022, https://arxiv.org/abs/2206.11893

    Example:
        >>> InvSpectrum().eigenvalues(2)
        tensor([-0.5000+0.6366j], dtype=torch.complex128)
    """

    def eigenvalues(self, size: int) -> Tensor:
        """As in `Spectrum`."""
        return _beside(size / math.pi * (size / (2.0 * _orders(size) + 1.0) - 1.0))


def log_uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
    r"""Logarithms of numbers that are uniform on a logarithmic scale: time scales from fast to slow.

    Args:
        shape: of the result.
        low: the smallest number, positive.
        high: the largest, not below `low`.

    Returns:
        :math:`\log \Delta` with :math:`\Delta` between `low` and `high`, in the default dtype.

    Raises:
        ValueError: the bounds are not positive, finite and in order.

    Example:
        >>> log_uniform((3,), 0.1, 0.1).exp()
        tensor([0.1000, 0.1000, 0.1000])
    """
    if not 0 < low <= high < math.inf:
        raise ValueError(f"steps must be given as positive (low, high), finite and in order; got ({low}, {high}).")
    return math.log(low) + torch.rand(shape) * (math.log(high) - math.log(low))


def _orders(size: int) -> Tensor:
    if size < 2 or size % 2:
        raise ValueError(f"size must be even and positive: eigenvalues come in conjugate pairs; got {size}.")
    return torch.arange(size // 2, dtype=torch.float64)


def _beside(frequencies: Tensor) -> Tensor:
    return torch.complex(torch.full_like(frequencies, -0.5), frequencies)
