"""Gains and their derivatives in closed form, compiled and in plain torch."""

import pytest
import torch

from ctdyn.linear import _gains
from ctdyn.linear._gains import gains


F64 = torch.float64


@pytest.fixture(params=["compiled", "torch"])
def way(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(_gains, "can_compile", lambda P: False)
    else:
        pytest.importorskip("numba")


def covariance(*shape):
    root = torch.randn(*shape, shape[-1], dtype=F64)
    return root @ root.mT + 0.1 * torch.eye(shape[-1], dtype=F64)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 2), (1, 3), (4, 2), (5, 5)])
def test_gains_and_what_is_left(way, m, n):
    P, F, Q = covariance(3, 4, n), torch.randn(4, m, n, dtype=F64), covariance(m)
    gain, left = gains(P, F, Q)
    S = F @ P @ F.mT + Q
    torch.testing.assert_close(gain, P @ F.mT @ S.inverse(), rtol=0, atol=1e-10)
    torch.testing.assert_close(left, P - gain @ S @ gain.mT, rtol=0, atol=1e-10)
    assert torch.equal(left, left.mT)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 3), (2, 3), (3, 2)])
def test_derivatives(way, m, n):
    roots = [torch.randn(2, k, k, dtype=F64, requires_grad=True) for k in (n, m)]
    F = torch.randn(2, m, n, dtype=F64, requires_grad=True)

    def run(root, F, other):
        eye = [0.1 * torch.eye(k, dtype=F64) for k in (n, m)]
        return gains(root @ root.mT + eye[0], F, other @ other.mT + eye[1])

    assert torch.autograd.gradcheck(run, (roots[0], F, roots[1]))
    assert torch.autograd.gradgradcheck(run, (roots[0], F, roots[1]))


def test_where_nothing_varies_nothing_is_corrected(way):
    still = torch.zeros(2, 2, dtype=F64)
    P = torch.diag(torch.tensor([1.0, 0.0], dtype=F64)).requires_grad_()
    gain, left = gains(P, torch.eye(2, dtype=F64), still)
    torch.testing.assert_close(gain, torch.diag(torch.tensor([1.0, 0.0], dtype=F64)), rtol=0, atol=1e-14)
    torch.testing.assert_close(left, still, rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(gain.sum() + left.sum(), P)
    assert bool(gradient.isfinite().all())


def test_both_ways_agree_far_from_one(monkeypatch):
    """Variances of very different sizes, as of a smooth process over a short step."""
    pytest.importorskip("numba")
    scale = torch.tensor([1e-9, 1e-3, 1e3], dtype=F64)
    P, Q = (scale[:, None] * covariance(3) * scale for _ in range(2))
    F = torch.eye(3, dtype=F64) + 0.1 * torch.randn(3, 3, dtype=F64) * scale[:, None] / scale
    given = [x.requires_grad_() for x in (P, F, Q)]

    def both():
        gain, left = gains(*given)
        unit = gain * scale / scale[:, None]
        return [unit.detach(), *torch.autograd.grad(unit.sum() + (left / scale / scale[:, None]).sum(), given)]

    compiled = both()
    monkeypatch.setattr(_gains, "can_compile", lambda P: False)
    for found, expected in zip(compiled, both(), strict=True):
        assert bool(((found - expected).abs() <= 1e-7 * expected.abs().amax()).all())
