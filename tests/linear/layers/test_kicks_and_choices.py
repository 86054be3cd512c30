"""LRU, selective, hierarchical layers and stacks against the formulas of their papers."""

import math

import pytest
import torch
from torch.nn.functional import softplus

from ctdyn.linear import HeldAfter, HeldBefore, HippoLegT, Impulse
from ctdyn.linear.layers import LRU, LSSL, S5, Hierarchical, Selective, SequenceStack
from ctdyn.testing import check_layer


def clock(rows: int = 2, length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ts = torch.rand(rows, length, generator=generator, dtype=torch.float64).cumsum(-1)
    return ts, torch.randn(rows, length, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("build", "impulse"),
    [
        (lambda: LRU(3, 8, output_size=2), True),
        (lambda: LRU(3, 8, tile=5), True),
        (lambda: Selective(3, 4), False),
        (lambda: Selective(3, 4, rank=2, hold=HeldAfter(), tile=5), False),
        (lambda: Hierarchical(S5(3, 4), S5(3, 4, output_size=2), window=2.0), False),
        (lambda: Hierarchical(SequenceStack([S5(4, 4)], 3, 4), S5(4, 4), window=0.7), False),
        (lambda: SequenceStack([S5(4, 8), Selective(4, 2)], 3, 2), False),
        (lambda: SequenceStack([LRU(4, 8)], 3, 2), True),
    ],
)
def test_contract(build, impulse):
    torch.manual_seed(1)
    check_layer(build(), impulse=impulse)


def test_lru_at_unit_gaps_is_the_recurrence_of_the_paper():
    layer = LRU(3, 8, output_size=2).double()
    us = clock()[1]
    lam = torch.exp(layer.rates())
    B = torch.view_as_complex(layer.B) * layer.log_gain.exp()[:, None]
    C = 2.0 * torch.view_as_complex(layer.C)
    h, expected = torch.zeros(2, 8, dtype=torch.complex128), []
    for k in range(us.shape[1]):
        h = lam * h + us[:, k].to(B.dtype) @ B.mT
        expected.append((h @ C.mT).real + us[:, k] @ layer.D.mT)
    torch.testing.assert_close(layer(torch.arange(9.0), us)[0], torch.stack(expected, 1))
    # A gap of two is two steps, the second without an input.
    wide, _ = layer(2.0 * torch.arange(9.0), us)
    apart = torch.stack([us, torch.zeros_like(us)], 2).flatten(1, 2)
    torch.testing.assert_close(wide, layer(torch.arange(18.0), apart)[0][:, ::2])


def test_lru_begins_on_its_ring_with_states_of_variance_one():
    torch.manual_seed(0)
    layer = LRU(4, 4000, radius=(0.5, 0.9), max_phase=math.pi / 2).double()
    lam = torch.exp(layer.rates()).detach()
    assert bool(((lam.abs() >= 0.5) & (lam.abs() <= 0.9)).all())
    assert bool(((lam.angle() >= 0) & (lam.angle() <= math.pi / 2)).all())
    # Evenly over the area: half of it lies beyond this radius.
    half = math.sqrt((0.5**2 + 0.9**2) / 2)
    assert abs(float((lam.abs() > half).double().mean()) - 0.5) < 0.03
    small = LRU(4, 50, radius=(0.5, 0.9)).double()
    _, state = small.scan(torch.arange(60.0), torch.randn(1000, 60, 4, dtype=torch.float64))
    assert abs(float(state.h.detach().abs().square().mean()) - 1.0) < 0.1


def selective_by_hand(layer: Selective, dt: torch.Tensor, us: torch.Tensor, exact: bool) -> torch.Tensor:
    """The recurrence of the paper in a loop; Mamba's first-order input where not `exact`."""
    rank, n = layer.speed.in_features, layer.state_size
    delta_low, B, C = layer.select(us).split([rank, n, n], -1)
    delta = softplus(layer.speed(delta_low)) * dt[..., None]
    A = -layer.log_decay.exp()
    h, found = torch.zeros(us.shape[0], *A.shape, dtype=us.dtype), []
    for k in range(us.shape[1]):
        decayed = delta[:, k, :, None] * A
        gain = torch.expm1(decayed) / A if exact else delta[:, k, :, None]
        h = decayed.exp() * h + gain * B[:, k, None, :] * us[:, k, :, None]
        found.append((h * C[:, k, None, :]).sum(-1) + layer.D * us[:, k])
    return torch.stack(found, 1)


def test_selective_is_mamba_with_the_integral_taken():
    layer = Selective(3, 4, hold=HeldAfter()).double()
    ts, us = clock()
    dt = torch.cat([torch.zeros(2, 1, dtype=torch.float64), ts.diff(dim=-1)], -1)
    torch.testing.assert_close(layer(ts, us)[0], selective_by_hand(layer, dt, us, exact=True))
    # Mamba's own input differs at second order in the step.
    errors = [
        float((layer(share * ts, us)[0] - selective_by_hand(layer, share * dt, us, exact=False)).abs().max())
        for share in (1e-1, 1e-2)
    ]
    assert 50 < errors[0] / errors[1] < 200


def test_selective_begins_as_the_paper_says():
    layer = Selective(64, 16, steps=(1e-3, 1e-1))
    torch.testing.assert_close(layer.log_decay.exp()[0], torch.arange(1.0, 17.0))
    step = softplus(layer.speed.bias)
    assert bool(((step > 1e-3 * 0.99) & (step < 1e-1 * 1.01)).all())
    assert layer.speed.in_features == 4
    assert bool((layer.D == 1).all())


def test_windows_are_made_where_the_times_are():
    layer = Hierarchical(LSSL(2, HippoLegT(4, 1.0)), LSSL(2, HippoLegT(4, 1.0)), window=1.5)
    ts, us = torch.linspace(0.0, 5.0, 9), torch.ones(3, 9, 2)
    expected, _ = layer.scan(ts, us)
    # What is made without saying where is then elsewhere.
    with torch.device("meta"):
        found, _ = layer.scan(ts, us)
    assert torch.equal(found, expected)


def test_the_upper_layer_sees_complete_windows_alone():
    torch.manual_seed(0)
    inner, outer = S5(3, 4).double(), S5(3, 4).double()
    layer = Hierarchical(inner, outer, window=1.0)
    # The third window is empty.
    ts = torch.tensor([[10.0, 10.3, 10.9, 11.1, 11.2, 13.5, 14.2]], dtype=torch.float64)
    us = torch.randn(1, 7, 3, dtype=torch.float64)
    first = inner.scan(ts[:, :3], us[:, :3])[0][:, -1]
    second = inner.scan(ts[:, 3:5], us[:, 3:5])[0][:, -1]
    fourth = inner.scan(ts[:, 5:6], us[:, 5:6])[0][:, -1]
    summaries = torch.stack([0 * first] * 3 + [first] * 2 + [second, fourth], 1)
    torch.testing.assert_close(layer(ts, us)[0], outer.scan(ts, summaries)[0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LRU(3, 0), "state_size must be at least 1"),
        (lambda: LRU(3, 4, radius=(0.5, 1.5)), "the ring must have"),
        (lambda: Selective(3, 4, hold=Impulse()), "inputs that last"),
        (lambda: Selective(3, 4, rank=0), "rank must be at least 1"),
        (lambda: Hierarchical(S5(3, 4), S5(2, 4), window=1.0), "must be as many"),
        (lambda: Hierarchical(S5(3, 4), S5(3, 4), window=0.0), "window must be positive"),
        (lambda: SequenceStack([], 3, 2), "got no layer"),
        (lambda: SequenceStack([S5(3, 4), S5(4, 4)], 3, 2), r"got \[3, 4\]"),
        (lambda: SequenceStack([S5(3, 4)], 3, 2, dropout=1.0), "dropout"),
        (lambda: SequenceStack([S5(3, 4)], 3, 2).scan(torch.zeros(4), torch.zeros(4, 5)), "input_size=3"),
        (lambda: S5(3, 4, hold=HeldBefore()).scan(torch.zeros(4), torch.zeros(4, 5)), "input_size=3"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
