import math

import pytest
import torch

from ctdyn.linear import legs_matrices
from ctdyn.linear.layers import InvSpectrum, LegSSpectrum, LinSpectrum, legs_normal, log_uniform


def test_the_normal_part_of_legs():
    """A + p p' has the eigenvectors and eigenvalues that are given, in every block."""
    A, _ = legs_matrices(6)
    p = torch.sqrt(torch.arange(6, dtype=torch.float64) + 0.5)
    normal = A + p[:, None] * p
    torch.testing.assert_close(normal @ normal.mT, normal.mT @ normal)
    lam, V = legs_normal(12, blocks=2)
    blocks = torch.block_diag(normal, normal).to(V.dtype)
    torch.testing.assert_close(blocks @ V, V * lam, rtol=0, atol=1e-12)
    assert bool((lam.imag > 0).all())
    # The two halves of the pairs make the whole matrix.
    torch.testing.assert_close(2.0 * ((V * lam) @ V.mH).real, blocks.real, rtol=0, atol=1e-12)


def test_spectra():
    torch.testing.assert_close(LinSpectrum().eigenvalues(8), -0.5 + 1j * math.pi * torch.arange(4, dtype=torch.float64))
    inverse = [8 / math.pi * (8 / (2 * n + 1) - 1) for n in range(4)]
    torch.testing.assert_close(InvSpectrum().eigenvalues(8), -0.5 + 1j * torch.tensor(inverse, dtype=torch.float64))
    torch.testing.assert_close(LegSSpectrum().eigenvalues(8), legs_normal(8)[0])


def test_inv_approximates_legs():
    """As the paper has it: the largest frequencies agree as the size grows."""
    errors = []
    for size in (16, 128):
        largest = float(LegSSpectrum().eigenvalues(size).imag.max())
        errors.append(abs(float(InvSpectrum().eigenvalues(size).imag.max()) / largest - 1.0))
    assert errors[1] < errors[0] < 0.1


def test_refusals():
    for spectrum in (LinSpectrum(), InvSpectrum(), LegSSpectrum()):
        with pytest.raises(ValueError, match="size must be"):
            spectrum.eigenvalues(5)
    with pytest.raises(ValueError, match="positive"):
        log_uniform((3,), 0.0, 1.0)
