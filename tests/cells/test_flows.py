"""Cells that go over a gap at once, by what they found at its start."""

import pytest
import torch

from ctdyn.cells import CRUCell, LEMCell


@pytest.mark.parametrize("build", [lambda: CRUCell(2, 2), lambda: LEMCell(2, 4)], ids=["CRUCell", "LEMCell"])
def test_two_halves_of_a_gap_are_not_the_whole_and_it_says_so(build):
    torch.manual_seed(0)
    cell = build().double()
    h = cell.update(torch.zeros(1, cell.hidden_size).double(), torch.ones(1, 2).double(), torch.tensor([[True, True]]))
    start, middle, end = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    halves = cell.evolve(cell.evolve(h, start, middle), middle, end)
    assert not torch.allclose(halves, cell.evolve(h, start, end), atol=1e-4)
    assert not cell.is_flow
    assert "it is not a flow" in cell.explain()
