"""Linear controlled equations along straight lines: against the exponential of an augmented matrix."""

import pytest
import torch

from ctdyn.linear import follow_control


F64 = torch.float64


def draw(blocks, size, channels=3, batch=(2,), pieces=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(channels, blocks, size, size, generator=generator, dtype=F64)
    b = torch.randn(channels, blocks * size, generator=generator, dtype=F64)
    dxs = torch.randn(*batch, pieces, channels, generator=generator, dtype=F64)
    return A, b, dxs, torch.randn(*batch, blocks * size, generator=generator, dtype=F64)


def whole(A):
    return torch.stack([torch.block_diag(*matrix) for matrix in A])


def by_exponentials(A, b, dxs, y0):
    """The state and a constant one, carried by the exponential of one matrix."""
    n = y0.shape[-1]
    matrices = torch.zeros(*dxs.shape[:-1], n + 1, n + 1, dtype=F64)
    matrices[..., :n, :n] = torch.einsum("...c,cij->...ij", dxs, whole(A))
    matrices[..., :n, n] = dxs @ b
    y = torch.cat([y0, torch.ones_like(y0[..., :1])], -1)
    states = []
    for flow in torch.linalg.matrix_exp(matrices).unbind(-3):
        y = (flow @ y.unsqueeze(-1)).squeeze(-1)
        states.append(y[..., :n])
    return torch.stack(states, -2)


@pytest.mark.parametrize(("blocks", "size"), [(5, 1), (3, 2), (1, 6)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 8.0])
def test_it_is_the_exponential(blocks, size, scale):
    A, b, dxs, y0 = draw(blocks, size)
    found, truth = follow_control(A, b, scale * dxs, y0), by_exponentials(A, b, scale * dxs, y0)
    assert ((found - truth).abs().amax(-1) / (1e-300 + truth.abs().amax(-1))).max() < 1e-11


def test_blocks_are_a_whole_matrix_with_zeros():
    A, b, dxs, y0 = draw(3, 2)
    full = follow_control(whole(A).unsqueeze(1), b, dxs, y0)
    torch.testing.assert_close(follow_control(A, b, dxs, y0), full, rtol=1e-12, atol=1e-12)
    diagonal = draw(6, 1)
    full = follow_control(whole(diagonal[0]).unsqueeze(1), *diagonal[1:])
    torch.testing.assert_close(follow_control(*diagonal), full, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("blocks", "size"), [(3, 1), (2, 2)])
def test_derivatives_are_exact(blocks, size):
    inputs = tuple(x.requires_grad_() for x in draw(blocks, size, channels=2, batch=(1,), pieces=3))
    assert torch.autograd.gradcheck(follow_control, inputs)


@pytest.mark.parametrize(("blocks", "size"), [(4, 1), (2, 2)])
def test_any_axes(blocks, size):
    A, b, dxs, y0 = draw(blocks, size, batch=(3, 2))
    samples = torch.stack([y0, -2 * y0])
    ys = follow_control(A, b, dxs, samples)
    assert ys.shape == (2, 3, 2, 5, 4)
    torch.testing.assert_close(ys[1, 2, 0], follow_control(A, b, dxs[2, 0], -2 * y0[2, 0]), rtol=1e-12, atol=1e-12)
    shared = follow_control(A, b, dxs[0, 0], y0)
    torch.testing.assert_close(shared[2, 1], follow_control(A, b, dxs[0, 0], y0[2, 1]), rtol=1e-12, atol=1e-12)
    assert follow_control(A, b, dxs[..., :0, :], samples).shape == (2, 3, 2, 0, 4)
    assert follow_control(A.float(), b.float(), dxs.float(), y0.float()).dtype == torch.float32


@pytest.mark.parametrize("size", [1, 2])
def test_an_empty_batch_has_no_states(size):
    A, b = torch.zeros(2, 3, size, size), torch.zeros(2, 3 * size)
    assert follow_control(A, b, torch.zeros(0, 5, 2), torch.zeros(3 * size)).shape == (0, 5, 3 * size)


def test_many_pieces_are_not_built_at_once(monkeypatch):
    from ctdyn.linear import following

    A, b, dxs, y0 = draw(2, 2)
    before = follow_control(A, b, dxs, y0)
    monkeypatch.setattr(following, "_AT_ONCE", 1)
    assert torch.equal(follow_control(A, b, dxs, y0), before)


def test_bad_input_is_refused():
    A, b, dxs, y0 = draw(2, 2)
    with pytest.raises(ValueError, match="3 control channels and 4 states"):
        follow_control(A, b, dxs[..., :2], y0)
    with pytest.raises(ValueError, match="control, block, size, size"):
        follow_control(A, b[:2], dxs, y0)
    with pytest.raises(ValueError, match="size of one"):
        follow_control(A, b, 1e6 * dxs, y0)
    assert torch.isnan(follow_control(A, b, torch.nan * dxs, y0)).all()
