"""The update of GRU-ODE-Bayes, by hand, and the bound of its flow."""

import torch

from ctdyn.cells import GRUODEBayesCell


F64 = torch.float64


def test_the_update_is_its_formula():
    torch.manual_seed(0)
    cell = GRUODEBayesCell(2, 3, features=2).double()
    h, x = torch.randn(1, 3, dtype=F64), torch.tensor([[0.7, torch.nan]], dtype=F64)
    mean, log_variance = cell.head(h)[0].split(2)
    error = (x[0, 0] - mean[0]) / torch.exp(log_variance[0] / 2)
    seen = torch.stack([x[0, 0], mean[0], log_variance[0], error])
    first = torch.relu(seen @ cell.weight[0] + cell.bias[0])
    expected = cell.gru(torch.cat([first, torch.zeros(2, dtype=F64)])[None], h)
    torch.testing.assert_close(cell.update(h, x, torch.tensor([[True, False]])), expected)


def test_the_hidden_state_stays_bounded_over_any_gap():
    torch.manual_seed(0)
    cell = GRUODEBayesCell(2, 6).double()
    h = 2 * torch.rand(50, 6, dtype=F64) - 1
    gaps = 10.0 ** torch.linspace(-3, 6, 50, dtype=F64)
    assert (cell.evolve(h, torch.zeros(50, dtype=F64), gaps).abs() <= 1 + 1e-12).all()
