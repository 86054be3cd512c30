"""Chains whose transitions come from elsewhere: the filter written out, and what is refused."""

import math

import pytest
import torch

from ctdyn.linear import Chain


F64 = torch.float64


def f64(*values):
    return torch.tensor(values, dtype=F64)


def test_transitions_from_elsewhere():
    torch.manual_seed(0)
    F, Q = 0.5 * torch.randn(3, 9, 2, 2, dtype=F64), torch.eye(2, dtype=F64).expand(9, 2, 2)
    H, y = torch.randn(9, 1, 2, dtype=F64), torch.randn(3, 9, 1, dtype=F64)
    zero, one = torch.zeros(9, 2, dtype=F64), torch.eye(2, dtype=F64)
    chain = Chain(
        F.requires_grad_(), zero, Q, H, y, -0.5 * math.log(2 * math.pi) * torch.ones(9, dtype=F64), zero[0], one
    )
    mean, P = zero[0].expand(3, 2)[..., None], one.expand(3, 2, 2)
    nats = torch.zeros(3, dtype=F64)
    for k in range(9):
        mean, P = F[:, k] @ mean, F[:, k] @ P @ F[:, k].mT + Q[k]
        S = (H[k] @ P @ H[k].mT + 1.0).squeeze(-1)
        error = y[:, k] - (H[k] @ mean).squeeze(-1)
        nats = nats - 0.5 * (error**2 / S + S.log() + math.log(2 * math.pi)).squeeze(-1)
        gain = P @ H[k].mT / S[..., None]
        mean, P = mean + gain * error[..., None], P - gain @ H[k] @ P
    for chunks in (None, 1, 3):
        means, covariances, found = chain.filter(chunks=chunks)
        torch.testing.assert_close(found.sum(-1), nats)
        torch.testing.assert_close(means[:, -1], mean.squeeze(-1))
        torch.testing.assert_close(covariances[:, -1], P)
        (slope,) = torch.autograd.grad(found.sum(), F, retain_graph=True)
        (expected,) = torch.autograd.grad(nats.sum(), F, retain_graph=True)
        torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"Q": -torch.eye(2, dtype=F64).expand(5, 2, 2)}, "Q has a negative variance, -1"),
        ({"P0": torch.diag(f64(1.0, -2.0))}, "P0 has a negative variance, -2"),
        ({"y": torch.full((5, 1), torch.nan, dtype=F64)}, "y holds NaN"),
        ({"F": torch.zeros(5, 3, 3, dtype=F64)}, r"F must be float64 and end in axes \(2, 2\)"),
        ({"b": torch.zeros(5, 2)}, "b must be float64"),
        ({"y": torch.ones(6, 1, dtype=F64)}, "as many times, .*y: 6"),
    ],
)
def test_a_chain_names_what_is_wrong_with_it(change, match):
    eye = torch.eye(2, dtype=F64)
    made = {
        "F": 0.5 * eye.expand(5, 2, 2),
        "b": torch.zeros(5, 2, dtype=F64),
        "Q": eye.expand(5, 2, 2),
        "H": torch.ones(5, 1, 2, dtype=F64),
        "y": torch.ones(5, 1, dtype=F64),
        "nats": torch.zeros(5, dtype=F64),
        "m0": torch.zeros(2, dtype=F64),
        "P0": eye,
    }
    assert bool(torch.isfinite(Chain(**made).filter()[2]).all())
    with pytest.raises(ValueError, match=match):
        Chain(**{**made, **change}).filter()
