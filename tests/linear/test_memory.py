"""The memory of irregular series: what it is, and that it does not depend on how a signal was seen."""

import pytest
import torch

from ctdyn.data import IrregularBatch
from ctdyn.linear import HeldBefore, HippoLegS, Impulse, Ramp, SeriesMemory


def signal(ts: torch.Tensor) -> torch.Tensor:
    """Two channels, `(*batch, time, 2)`."""
    return torch.stack([torch.sin(3.0 * ts) + 0.3 * ts, torch.cos(5.0 * ts)], -1)


def seen(ts: torch.Tensor, mask: torch.Tensor | None = None) -> IrregularBatch:
    values = signal(ts)
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    return IrregularBatch(ts, torch.where(mask, values, torch.nan).nan_to_num(7.0), mask)


def irregular(count: int, seed: int) -> torch.Tensor:
    inner = 2.0 * torch.rand(count - 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([torch.zeros(1), inner.sort().values, torch.full((1,), 2.0)]).double()[None]


def test_it_reconstructs_a_signal_from_irregular_times():
    memory, share = SeriesMemory(24, hold=Ramp()), torch.linspace(0.0, 1.0, 50, dtype=torch.float64)
    found = memory.read(memory(seen(irregular(400, 0)))[:, -1], share)
    torch.testing.assert_close(found[0], signal(2.0 * share).mT, rtol=0.0, atol=4e-3)


def test_another_rate_gives_the_same_memory_without_training():
    memory = SeriesMemory(12, hold=Ramp())
    dense, sparse = (memory(seen(irregular(count, seed)))[:, -1] for count, seed in ((2000, 1), (300, 2)))
    assert float((dense - sparse).abs().max()) < 2e-3
    assert float(dense.abs().max()) > 0.3
    # And in another unit of time.
    ts = irregular(300, 2)
    batch = seen(ts)
    stretched = memory(IrregularBatch(60.0 * ts, batch.values, batch.mask))[:, -1]
    torch.testing.assert_close(stretched, sparse, rtol=0.0, atol=1e-12)


def test_each_channel_has_a_clock_and_gaps_of_its_own():
    ts = irregular(60, 3)
    mask = torch.rand(1, 60, 2, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[:, :10, 1] = False
    memory = SeriesMemory(6)
    found = memory(seen(ts, mask))
    for channel in range(2):
        own = ts[0, mask[0, :, channel]]
        alone = HippoLegS(6, dtype=torch.float64).scan(own - own[0], signal(own)[:, channel, None])
        torch.testing.assert_close(found[0, mask[0, :, channel], channel], alone, rtol=0.0, atol=1e-12)
    assert bool((found[0, :10, 1] == 0).all())


def test_held_values_do_not_look_ahead():
    ts, memory = irregular(30, 4), SeriesMemory(6)
    batch = seen(ts)
    later = batch.values.clone()
    later[:, 20:] += 5.0
    changed = memory(IrregularBatch(ts, later, batch.mask))
    torch.testing.assert_close(changed[:, :20], memory(batch)[:, :20], rtol=0.0, atol=0.0)
    padded = torch.cat([ts, ts[:, -1:].expand(-1, 3)], 1)
    more = IrregularBatch(padded, signal(padded), torch.arange(33)[None, :, None].expand(1, 33, 2) < 30)
    torch.testing.assert_close(memory(more)[:, -1], memory(batch)[:, -1], rtol=0.0, atol=1e-13)


def test_a_channel_that_was_never_seen_is_remembered_as_nothing():
    ts = irregular(10, 5)
    mask = torch.ones(1, 10, 2, dtype=torch.bool)
    mask[..., 1] = False
    for hold in (HeldBefore(), Ramp()):
        found = SeriesMemory(4, hold=hold)(seen(ts, mask))
        assert bool((found[..., 1, :] == 0).all())
        assert bool(torch.isfinite(found).all())


def test_a_hold_that_is_no_signal_is_refused():
    with pytest.raises(ValueError, match="a signal that is there at all times"):
        SeriesMemory(4, hold=Impulse())
