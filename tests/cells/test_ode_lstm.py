"""The ODE-LSTM: its memory outlives every gap, and every series gets its own."""

import torch

from ctdyn.cells import ODELSTMCell
from ctdyn.fields import LinearField
from ctdyn.solvers import RK4


F64 = torch.float64


def test_every_series_is_carried_over_its_own_gap():
    """The published code sorts the gaps of a batch and hands the states back in the wrong order."""
    decay = LinearField(1, matrix=[[-1.0]])
    cell = ODELSTMCell(1, 1, field=decay, solver=RK4(), num_steps=20).double()
    gaps = torch.tensor([0.7, 0.1, 0.9, 0.4, 0.2], dtype=F64)
    h = cell.evolve(torch.ones(5, 2, dtype=F64), torch.zeros(5, dtype=F64), gaps)
    torch.testing.assert_close(h[:, 0], torch.exp(-gaps), rtol=1e-7, atol=0)
    published = torch.exp(-gaps.sort().values)[gaps.argsort()]
    assert (published - torch.exp(-gaps)).abs().max() > 0.1
    assert torch.equal(h[:, 1], torch.ones(5, dtype=F64))


def test_an_observation_is_a_step_of_an_lstm():
    torch.manual_seed(0)
    cell, h = ODELSTMCell(2, 3).double(), torch.randn(4, 6, dtype=F64)
    x, mask = torch.randn(4, 2, dtype=F64), torch.tensor([[True, True], [True, False], [False, False], [True, True]])
    plain = torch.nn.LSTMCell(4, 3).double()
    order = (1, 2, 0, 3)
    with torch.no_grad():
        for name, value in (("weight_ih", cell.memory.inputs.weight), ("bias_ih", cell.memory.inputs.bias)):
            getattr(plain, name).copy_(torch.cat([value.chunk(4)[i] for i in order]))
        plain.weight_hh.copy_(torch.cat([cell.memory.recurrent.weight.chunk(4)[i] for i in order]))
        plain.bias_hh.zero_()
    seen = torch.cat([torch.where(mask, x, 0.0), mask.double()], -1)
    expected = torch.cat(plain(seen, (h[:, :3], h[:, 3:])), -1)
    found = cell.update(h, x, mask)
    torch.testing.assert_close(found[[0, 1, 3]], expected[[0, 1, 3]])
    assert torch.equal(found[2], h[2])
