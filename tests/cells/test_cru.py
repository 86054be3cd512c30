"""The continuous recurrent unit is a Kalman filter on the equation that it says."""

import torch
from torch.nn.functional import softplus

from ctdyn.cells import CRUCell


F64 = torch.float64


def state(cell, count=3):
    """Means and proper covariances."""
    torch.manual_seed(1)
    n = cell.size
    mean, factor = torch.randn(count, n, dtype=F64), torch.randn(count, n, n, dtype=F64) / 2
    P = factor @ factor.mT + torch.eye(n, dtype=F64)
    return mean, P, torch.cat([mean, (torch.linalg.cholesky(P) - torch.eye(n, dtype=F64)).flatten(-2)], -1)


def split(cell, h):
    mean, rest = h[..., : cell.size], h[..., cell.size :].unflatten(-1, (cell.size, cell.size))
    factor = rest + torch.eye(cell.size, dtype=F64)
    return mean, factor @ factor.mT


def test_between_observations_it_follows_its_equation():
    torch.manual_seed(0)
    cell = CRUCell(2, 2, 3, (4,)).double()
    mean, P, h = state(cell)
    gap = torch.tensor([0.01, 0.5, 30.0], dtype=F64)
    found_mean, found_P = split(cell, cell.evolve(h, torch.zeros(3, dtype=F64), gap))
    share = torch.softmax(cell.mixture(mean), -1)
    decay = torch.diag_embed(softplus(cell.raw_decay))
    A = torch.einsum("bk,kij->bij", share, cell.turn - cell.turn.mT - decay)
    assert (torch.linalg.eigvals(A).real < 0).all()
    S, n = torch.diag_embed(softplus(cell.raw_noise)), cell.size
    # Van Loan's block matrix, where the gap is not long.
    for k, dt in enumerate(gap.tolist()[:2]):
        block = torch.zeros(2 * n, 2 * n, dtype=F64)
        block[:n, :n], block[:n, n:], block[n:, n:] = -A[k], S, A[k].mT
        found = torch.linalg.matrix_exp(block * dt)
        transition = found[n:, n:].mT
        torch.testing.assert_close(found_mean[k], transition @ mean[k])
        Q = transition @ found[:n, n:]
        torch.testing.assert_close(found_P[k], transition @ P[k] @ transition.mT + Q, rtol=1e-5, atol=5e-6)


def test_an_observation_is_a_kalman_update():
    torch.manual_seed(0)
    cell = CRUCell(2, 2, 3, (4,)).double()
    mean, P, h = state(cell)
    x, mask = torch.randn(3, 2, dtype=F64), torch.tensor([[True, True], [True, False], [False, False]])
    found_mean, found_P = split(cell, cell.update(h, x, mask))
    y, raw = cell.encoder(torch.cat([torch.where(mask, x, 0.0), mask.double()], -1)).chunk(2, -1)
    R, H = torch.diag_embed(softplus(raw) + 1e-3), torch.eye(cell.size, dtype=F64)[:2]
    for k in range(2):
        # The precision form of the same update.
        precision = torch.linalg.inv(P[k]) + H.mT @ torch.linalg.inv(R[k]) @ H
        posterior = torch.linalg.inv(precision)
        expected = posterior @ (torch.linalg.inv(P[k]) @ mean[k] + H.mT @ torch.linalg.inv(R[k]) @ y[k])
        torch.testing.assert_close(found_mean[k], expected)
        torch.testing.assert_close(found_P[k], posterior, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(found_mean[2], mean[2])
    read = cell.read(h)
    torch.testing.assert_close(read[..., cell.size :], P.diagonal(dim1=-2, dim2=-1).log())
