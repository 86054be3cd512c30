"""Forecasts from a HiPPO memory: exact for what it can hold, and by the formula of the paper for a short while."""

import pytest
import torch

from ctdyn.data import Channel, IrregularBatch, Window
from ctdyn.linear import HippoLegS, Ramp
from ctdyn.models import HippoProphecy, HoldLast, LinearInterpolation


CHANNELS = [Channel("a"), Channel("b")]


def context(count: int, function, *, masked: bool = False) -> IrregularBatch:
    generator = torch.Generator().manual_seed(0)
    ts = 5.0 + torch.rand(3, count, generator=generator, dtype=torch.float64).sort(-1).values
    values = torch.stack([function(ts), -2.0 * function(ts)], -1)
    mask = torch.ones_like(values, dtype=torch.bool)
    if masked:
        mask = torch.rand(values.shape, generator=generator) < 0.6
        mask[:, :2] = mask[:, -2:] = True
    return IrregularBatch(ts, torch.where(mask, values, 0.0), mask)


def test_a_line_goes_on_for_ever():
    batch = context(12, lambda t: 3.0 * t - 1.0, masked=True)
    ts = torch.tensor([[6.5, 9.0]], dtype=torch.float64).expand(3, -1)
    expected = 3.0 * ts - 1.0
    found = HippoProphecy(CHANNELS, size=2).guess(batch, ts).value
    torch.testing.assert_close(found, torch.stack([expected, -2.0 * expected], -1), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("degree", [2, 3])
def test_a_polynomial_goes_on_as_closely_as_it_was_seen(degree):
    ts, errors = torch.tensor([[6.2]], dtype=torch.float64).expand(3, -1), []
    for count in (100, 1000):
        batch = context(count, lambda t: (t - 5.0) ** degree)
        found = HippoProphecy(CHANNELS, size=degree + 1).guess(batch, ts).value[..., 0]
        errors.append(float((found - 1.2**degree).abs().max()))
    # Between the observations the signal is a line: the error is of second order in the gap.
    assert errors[1] < 2e-3
    assert errors[1] < errors[0] / 20


def test_for_a_short_horizon_it_is_the_derivative_of_the_paper():
    batch = context(200, lambda t: torch.sin(4.0 * t))
    start, end = batch.times[:, :1], batch.times[:, -1:]
    memory = HippoLegS(5, dtype=torch.float64)
    c = memory.scan(batch.times - start, batch.values[..., :1], hold=Ramp())[:, -1]
    A, B = memory.A, memory.basis(torch.ones(1, dtype=torch.float64))
    h = 1e-6
    slope = ((c @ A.mT + B * (c @ B.mT)) @ B.mT).squeeze(-1) / (end - start).squeeze(-1)
    found = HippoProphecy(CHANNELS, size=5).guess(batch, end + h).value[:, 0, 0]
    torch.testing.assert_close(found - batch.values[:, -1, 0], h * slope, rtol=1e-4, atol=0.0)


def test_the_next_state_is_foreseen_better_than_by_holding_the_last_one():
    batch = context(60, lambda t: torch.sin(4.0 * t))
    ts = batch.times[:, -1:] + 0.02
    truth = torch.stack([torch.sin(4.0 * ts), -2.0 * torch.sin(4.0 * ts)], -1)
    errors = [
        float((model.guess(batch, ts).value - truth).abs().mean())
        for model in (HippoProphecy(CHANNELS, size=6), HoldLast(CHANNELS))
    ]
    assert errors[0] < errors[1] / 5


def test_inside_it_reads_the_memory_and_outside_of_it_holds():
    batch = context(300, lambda t: torch.sin(4.0 * t))
    model = HippoProphecy(CHANNELS, size=8)
    inside = torch.tensor([[5.3, 5.7]], dtype=torch.float64).expand(3, -1)
    line = LinearInterpolation(CHANNELS).guess(batch, inside).value
    torch.testing.assert_close(model.guess(batch, inside).value, line, rtol=0.0, atol=2e-3)
    before = torch.tensor([[4.0]], dtype=torch.float64).expand(3, -1)
    torch.testing.assert_close(model.guess(batch, before).value, HoldLast(CHANNELS).guess(batch, before).value)
    single = IrregularBatch(batch.times[:, :1], batch.values[:, :1], batch.mask[:, :1])
    torch.testing.assert_close(model.guess(single, inside).value, batch.values[:, :1].expand(3, 2, 2))


def test_its_intervals_come_from_training_residuals():
    batch = context(40, lambda t: torch.sin(4.0 * t))
    ts = batch.times[:, -1:] + torch.tensor([0.05, 0.1], dtype=torch.float64)
    values = torch.stack([torch.sin(4.0 * ts), -2.0 * torch.sin(4.0 * ts)], -1)
    window = Window(batch, IrregularBatch(ts, values, torch.ones_like(values, dtype=torch.bool)))
    model = HippoProphecy(CHANNELS, size=5).double()
    wide = model.predict(batch, ts).stddev
    model.fit_exact([window] * 20)
    assert bool((model.predict(batch, ts).stddev < wide).all())
