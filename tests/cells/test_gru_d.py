"""The decays of GRU-D, by hand."""

import torch
from torch.nn.functional import softplus

from ctdyn.cells import GRUDCell


F64 = torch.float64


def test_memory_fades_and_unseen_channels_return_to_their_usual_value():
    torch.manual_seed(0)
    cell = GRUDCell(2, 3).double()
    with torch.no_grad():
        cell.usual.copy_(torch.tensor([0.5, -2.0]))
    h, gap = torch.randn(4, 5, dtype=F64), torch.tensor([0.1, 1.0, 0.0, 1e6], dtype=F64)
    found = cell.evolve(h, torch.zeros(4, dtype=F64), gap)
    fade = torch.exp(-softplus(cell.raw_rate) * gap[:, None])
    usual = torch.tensor([0.0, 0.0, 0.0, 0.5, -2.0], dtype=F64)
    torch.testing.assert_close(found, usual + (h - usual) * fade)
    torch.testing.assert_close(found[-1], usual)


def test_two_gaps_are_one():
    cell, h = GRUDCell(2, 3).double(), torch.randn(4, 5, dtype=F64)
    t = torch.tensor([0.0, 0.3, 1.1], dtype=F64)[:, None].expand(3, 4)
    torch.testing.assert_close(cell.evolve(cell.evolve(h, t[0], t[1]), t[1], t[2]), cell.evolve(h, t[0], t[2]))


def test_a_missing_channel_enters_as_its_faded_value():
    torch.manual_seed(0)
    cell, h = GRUDCell(2, 3).double(), torch.randn(1, 5, dtype=F64)
    mask = torch.tensor([[True, False]])
    found = cell.update(h, torch.tensor([[1.5, torch.nan]], dtype=F64), mask)
    inputs = torch.cat([torch.tensor([[1.5]], dtype=F64), h[:, 4:], mask.double()], -1)
    torch.testing.assert_close(found[:, :3], cell.gru(inputs, h[:, :3]))
    torch.testing.assert_close(found[:, 3:], inputs[:, :2])
