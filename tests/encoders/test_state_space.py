"""The state-space encoder reads backwards, at true times."""

import torch

from ctdyn.data import IrregularBatch
from ctdyn.encoders import StateSpaceEncoder
from ctdyn.linear.layers import LRU


F64 = torch.float64


def test_it_is_its_stack_read_step_by_step():
    torch.manual_seed(0)
    layers = [LRU(6, state_size=4) for _ in range(2)]
    encoder = StateSpaceEncoder(2, 3, layers=layers).double()
    times = torch.tensor([[0.0, 0.3, 1.0, 7.0]], dtype=F64)
    values = torch.randn(1, 4, 2, dtype=F64)
    mask = torch.tensor([[[True, True], [True, False], [False, False], [True, True]]])
    state, y, before = None, None, times[:, 3]
    for k in (3, 1, 0):
        read = torch.cat([before - times[:, k], (values * mask)[0, k], mask[0, k].double()])[None]
        y, state = encoder.stack.step(-times[:, k], read, state)
        before = times[:, k]
    found = encoder(IrregularBatch(times, values, mask)).q0
    torch.testing.assert_close(found.mean, encoder.head(y, None).mean)


def test_the_gaps_matter_and_an_empty_series_is_described():
    torch.manual_seed(0)
    encoder = StateSpaceEncoder(1, 3, 8).double()
    values = torch.randn(1, 3, 1, dtype=F64)
    seen = torch.ones_like(values, dtype=torch.bool)
    means = [
        encoder(IrregularBatch(torch.tensor([ts], dtype=F64), values, mask)).q0.mean
        for ts, mask in (([0.0, 1.0, 2.0], seen), ([0.0, 0.1, 2.0], seen), ([0.0, 1.0, 2.0], ~seen))
    ]
    assert (means[0] - means[1]).abs().max() > 1e-4
    torch.testing.assert_close(means[2], encoder.head(encoder.empty[None], None).mean)
