import json

import mpmath
import pytest
import torch

from ctdyn.linear import phi1, phi2, phi3


F64, C128 = torch.float64, torch.complex128
PHI = {"phi1": phi1, "phi2": phi2, "phi3": phi3}
REAL = [0.0, 1e-20, -1e-12, 1e-6, -1e-3, 0.1, -0.7, 0.999, -1.0, 1.001, -3.0, 8.0, -40.0, -1e6]
COMPLEX = [1e-9j, 0.5 + 0.5j, -0.7 + 0.72j, 1j, -1 + 3j, -5 + 100j, -1e-3 - 1e3j]


def exact(z, index):
    """By the definition, at 80 digits."""
    with mpmath.workdps(80):
        z = mpmath.mpmathify(z)
        if z == 0:
            return complex(1 / mpmath.factorial(index))
        value = mpmath.exp(z)
        for order in range(index):
            value = (value - 1 / mpmath.factorial(order)) / z
        return complex(value)


@pytest.mark.parametrize(("name", "index"), [("phi1", 1), ("phi2", 2), ("phi3", 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 2e-15), (torch.float32, 5e-7)])
def test_no_digit_is_lost_anywhere(name, index, dtype, tolerance):
    for values, kind in ((REAL, dtype), (COMPLEX, dtype.to_complex())):
        z = torch.tensor(values, dtype=kind)
        expected = torch.tensor([exact(complex(x), index) for x in z.to(C128)], dtype=C128)
        error = (PHI[name](z).to(C128) - expected).abs() / expected.abs()
        assert error.max() < tolerance


@pytest.mark.parametrize("name", PHI)
def test_derivatives_of_first_and_second_order(name):
    z = torch.tensor([0.0, 1e-9, -1e-3, 0.5, -0.999, 1.01, -3.0, 5.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(PHI[name], z)
    assert torch.autograd.gradgradcheck(PHI[name], z)
    z = torch.tensor([0.1j, -0.6 + 0.4j, -2 + 3j], dtype=C128, requires_grad=True)
    assert torch.autograd.gradcheck(PHI[name], z)
    # Where the difference of two large quotients would be left.
    z = torch.tensor([1e-12, -1e6], dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(phi1(z).sum(), z)
    torch.testing.assert_close(slope, torch.tensor([0.5, 1e-12], dtype=F64), rtol=1e-11, atol=0)


def test_they_map_over_batches():
    slopes = torch.func.vmap(torch.func.grad(phi1))(torch.zeros(3, dtype=F64))
    torch.testing.assert_close(slopes, torch.full((3,), 0.5, dtype=F64))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="int64"):
        phi1(torch.tensor([1]))


def test_reference_values(reference_root):
    cases = json.loads((reference_root / "ssm" / "phi_functions.json").read_text())
    for name, phi in PHI.items():
        for case in cases["real"]:
            value = float(phi(torch.tensor(float(case["z"]), dtype=F64)))
            assert abs(value / float(case[name]) - 1) < 3.2e-15, case
        for case in cases["complex"]:
            z, expected = complex(*map(float, case["z"])), complex(*map(float, case[name]))
            # Near a zero of the function only the rounding of z itself is left.
            assert abs(complex(phi(torch.tensor(z, dtype=C128))) - expected) < 3.2e-15 * abs(expected) + 1e-16, case
