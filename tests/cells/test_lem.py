"""The LEM cell against the equations of its paper."""

import pytest
import torch

from ctdyn.cells import LEMCell


def test_for_a_short_gap_it_is_the_step_of_the_paper():
    cell = LEMCell(2, 4).double()
    generator = torch.Generator().manual_seed(0)
    y, z, x = (torch.rand(3, n, generator=generator, dtype=torch.float64) for n in (4, 4, 2))
    h = torch.cat([y, z, x, torch.ones_like(x)], -1)
    seen = torch.cat([x, torch.ones_like(x)], -1)
    errors = []
    for gap in (1e-2, 1e-3):
        rates = gap * torch.sigmoid(cell.gates(torch.cat([y, seen], -1)))
        a, c = rates.chunk(2, -1)
        z1 = (1 - a) * z + a * torch.tanh(cell.to_z(torch.cat([y, seen], -1)))
        y1 = (1 - c) * y + c * torch.tanh(cell.to_y(torch.cat([z1, seen], -1)))
        t1 = torch.full((3,), gap, dtype=torch.float64)
        found = cell.evolve(h, torch.zeros_like(t1), t1)
        errors.append(float((found[:, :8] - torch.cat([y1, z1], -1)).abs().max().detach()))
    assert 50 < errors[0] / errors[1] < 200


def test_it_stays_within_its_bounds_whatever_the_gaps():
    cell = LEMCell(2, 4).double()
    generator = torch.Generator().manual_seed(0)
    h, t = torch.zeros(5, cell.hidden_size, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for _ in range(100):
        later = t + 1e3 * torch.rand(5, generator=generator, dtype=torch.float64) ** 8
        h = cell.evolve(h, t, later)
        x = 100.0 * torch.randn(5, 2, generator=generator, dtype=torch.float64)
        h, t = cell.update(h, x, torch.rand(5, 2, generator=generator) < 0.7), later
        assert bool((h[:, :8].abs() <= 1.0).all())


def test_it_begins_as_the_authors_do():
    torch.manual_seed(0)
    cell = LEMCell(3, 100)
    for parameter in cell.parameters():
        assert 0.095 < float(parameter.detach().abs().max()) <= 0.1
        assert float(parameter.detach().mean().abs()) < 0.02


def test_what_was_seen_is_held_channel_by_channel():
    cell = LEMCell(2, 1)
    mask = torch.tensor([[True, False]])
    h = cell.update(torch.zeros(1, 6), torch.tensor([[3.0, torch.nan]]), mask)
    assert h[0, 2:].tolist() == [3.0, 0.0, 1.0, 0.0]
    h = cell.update(h, torch.tensor([[9.0, 5.0]]), ~mask)
    assert h[0, 2:].tolist() == [3.0, 5.0, 0.0, 1.0]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="step must be positive"):
        LEMCell(2, 3, step=0.0)
    cell = LEMCell(2, 3, input_size=1)
    with pytest.raises(ValueError, match="input_size=1; got 0"):
        cell.evolve(torch.zeros(1, cell.hidden_size), torch.zeros(1), torch.ones(1))
