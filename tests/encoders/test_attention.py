"""Attention over time: averages of what was observed, each channel over its own."""

import pytest
import torch

from ctdyn.data import IrregularBatch
from ctdyn.encoders import AttentionEncoder


F64 = torch.float64


def attended(encoder, times, values, mask):
    times = times - times[..., :1]
    return encoder._attend(times[..., [0, -1]], times, torch.where(mask, values, 0.0), mask.double())


def test_what_a_head_sees_is_an_average_of_the_channel():
    torch.manual_seed(0)
    encoder = AttentionEncoder(2, 3, heads=2).double()
    times = torch.rand(4, 7, dtype=F64).sort(-1).values
    values = torch.stack([torch.full((4, 7), 3.0, dtype=F64), torch.randn(4, 7, dtype=F64)], -1)
    mask = torch.rand(4, 7, 2) < 0.6
    mask[:, 0] = True
    mask[3, :, 1] = False
    seen = attended(encoder, times, values, mask).unflatten(-1, (2, 4))
    torch.testing.assert_close(seen[..., 0], torch.full_like(seen[..., 0], 3.0))
    low = torch.where(mask, values, torch.inf).amin(1)[:3, 1]
    high = torch.where(mask, values, -torch.inf).amax(1)[:3, 1]
    inside = (seen[:3, ..., 1] >= low[:, None, None] - 1e-9) & (seen[:3, ..., 1] <= high[:, None, None] + 1e-9)
    assert inside.all()
    # A channel that was never seen is 0, and said to be so.
    assert not seen[3, ..., 1].any()
    assert not seen[3, ..., 3].any()
    assert (seen[:3, ..., 3] == 1).all()


def test_attention_can_be_as_sharp_as_the_nearest_observation():
    encoder = AttentionEncoder(1, 1, heads=1, time_size=3).double()
    with torch.no_grad():
        # A sine and a cosine of one frequency: their product is the cosine of the distance.
        encoder.frequency.fill_(1.0)
        encoder.phase.copy_(torch.tensor([0.0, torch.pi / 2]))
        weight = torch.diag(torch.tensor([0.0, 60.0, 60.0]))
        encoder.query.weight.copy_(weight)
        encoder.key.weight.copy_(weight)
    times = torch.tensor([[0.0, 0.4, 1.0]], dtype=F64)
    values = torch.tensor([[[1.0], [2.0], [5.0]]], dtype=F64)
    seen = attended(encoder, times, values, torch.ones_like(values, dtype=torch.bool))
    torch.testing.assert_close(seen[0, :, 0], torch.tensor([1.0, 5.0], dtype=F64))


def test_a_channel_that_was_seen_far_away_alone_is_averaged_as_any_other():
    torch.manual_seed(0)
    encoder = AttentionEncoder(2, 3, heads=1)
    with torch.no_grad():
        for layer in (encoder.query, encoder.key):
            layer.weight.copy_(torch.diag(torch.eye(len(layer.weight))[0]))
    times = torch.tensor([[0.0, 0.1, 100.0]])
    mask = torch.tensor([[[True, True], [True, True], [True, False]]])
    values = torch.where(mask, torch.tensor([[[1.0, 5.0], [2.0, 5.0], [3.0, 0.0]]]), 0.0)
    seen = encoder._attend(times[..., [2]], times, values, mask.float()).flatten()
    torch.testing.assert_close(seen, torch.tensor([3.0, 5.0, 1.0, 1.0]))
    encoder(IrregularBatch(times, values, mask)).q0.mean.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters() if parameter.grad is not None)


def test_the_order_of_time_matters():
    torch.manual_seed(0)
    encoder = AttentionEncoder(1, 3).double()
    times = torch.tensor([[0.0, 0.4, 1.0]], dtype=F64)
    values = torch.tensor([[[1.0], [2.0], [5.0]]], dtype=F64)
    mask = torch.ones_like(values, dtype=torch.bool)
    there, back = (encoder(IrregularBatch(times, v, mask)).q0.mean for v in (values, values.flip(1)))
    assert (there - back).abs().max() > 1e-4


def test_too_few_points_are_refused():
    for wrong in ({"points": 1}, {"heads": 0}, {"time_size": 0}):
        with pytest.raises(ValueError, match="points must be at least 2"):
            AttentionEncoder(2, 3, **wrong)
