"""What every cell refuses, and the forms that recurrent matrices can have."""

import pytest
import torch
from torch import nn

from ctdyn import cells, fields
from ctdyn._config import from_config, to_config
from ctdyn.cells import Cell, CfCCell, LTCCell
from ctdyn.fields import CfCTransition, CTRNNField, GRUODEField, LinearCDEField, LogODEField, MLPCDEField
from ctdyn.nn import LeCunTanh, LowRankSparse
from ctdyn.wirings import AutoNCP


BUILDS = {
    "wired": lambda **options: CfCCell(2, AutoNCP(8, 2), **options),
    **{
        name: lambda kind=kind, **options: kind(2, 4, **options)
        for name in cells.__all__
        if isinstance(kind := getattr(cells, name), type) and issubclass(kind, Cell) and kind is not Cell
        if name not in {"HeldCell"}
    },
}
FORM = LowRankSparse(rank=2, sparsity=0.5)


@pytest.mark.parametrize("name", BUILDS)
def test_what_would_broadcast_by_mistake_is_refused(name):
    cell = BUILDS[name]()
    h, t, x, mask = torch.zeros(3, cell.hidden_size), torch.zeros(3), torch.zeros(3, 2), torch.ones(3, 2).bool()
    for short in (h[:, :-1], h[:, :1]):
        with pytest.raises(ValueError, match=f"this {type(cell).__name__} has hidden_size={cell.hidden_size}"):
            cell.evolve(short, t, t + 1)
        with pytest.raises(ValueError, match="hidden_size="):
            cell.update(short, x, mask)
    for values, seen in ((x[:, :1], mask[:, :1]), (x, mask[:, :1]), (torch.zeros(3, 3), torch.ones(3, 3).bool())):
        with pytest.raises(ValueError, match="num_channels=2"):
            cell.update(h, values, seen)
    with pytest.raises(ValueError, match=r"mask must be boolean.*float32"):
        cell.update(h, x, mask.float())
    with pytest.raises(ValueError, match="num_channels=2"):
        cell.scan(h, torch.rand(3, 5).cumsum(-1), torch.zeros(3, 5, 3), torch.ones(3, 5, 3).bool())


@pytest.mark.parametrize("name", [name for name in BUILDS if name != "wired"])
def test_sizes_below_one_are_refused(name):
    kind = getattr(cells, name)
    for sizes in ((0, 4), (2, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            kind(*sizes)


def test_a_layer_refuses_what_it_cannot_read():
    for cell in (CfCCell(2, 4), LTCCell(2, 4)):
        xs = torch.zeros(3, 5, 2)
        with pytest.raises(ValueError, match="finite and not negative"):
            cell(xs, timespans=float("nan"))
        with pytest.raises(ValueError, match="hidden_size="):
            cell(xs, torch.zeros(3, 7))
        with pytest.raises(ValueError, match=r"int64.*xs.float\(\)"):
            cell(xs.long())
    with pytest.raises(ValueError, match=r"every hidden size of \(0,\) must be at least 1"):
        CfCCell(2, 4, hidden=(0,))
    for build in (lambda: CfCCell(2, 4, mode="default"), lambda: LTCCell(2, 4, solver="fused")):
        with pytest.raises(TypeError, match=r"mode|solver"):
            build()


def test_a_control_of_another_size_is_refused():
    t, y = torch.zeros(5), torch.zeros(5, 4)
    for changes in (torch.zeros(5, 3), torch.zeros(5, 7)):
        with pytest.raises(ValueError, match=r"control_size=3.*of 6 channels.*LogSignaturePath"):
            LogODEField(MLPCDEField(4, 3), 3).prod(t, y, changes)
    with pytest.raises(ValueError, match=r"control_size=3.*\(5, 2\)"):
        LinearCDEField(4, 3).prod(t, y, torch.zeros(5, 2))


CONSTRAINED = {
    "GRUODEField": lambda: (f := GRUODEField(6, input_size=2, recurrent=FORM), [f.gates.weight, f.candidate.weight]),
    "CTRNNField": lambda: (f := CTRNNField(6, recurrent=FORM), [f.recurrent.weight]),
    "CfCTransition": lambda: (f := CfCTransition(6, 2, recurrent=FORM), [f.first.weight[:, 2:]]),
    "GRUDCell": lambda: (c := cells.GRUDCell(2, 6, recurrent=FORM), [c.gru.weight_hh]),
    "ODERNNCell": lambda: (c := cells.ODERNNCell(2, 6, recurrent=FORM), [c.gru.weight_hh]),
    "ODELSTMCell": lambda: (c := cells.ODELSTMCell(2, 6, recurrent=FORM), [c.memory.recurrent.weight]),
    "GRUODEBayesCell": lambda: (
        c := cells.GRUODEBayesCell(2, 6, recurrent=FORM),
        [c.gru.weight_hh, c.field.gates.weight, c.field.candidate.weight],
    ),
    "LEMCell": lambda: (c := cells.LEMCell(2, 6, recurrent=FORM), [c.gates.weight, c.to_z.weight, c.to_y.weight]),
}


@pytest.mark.parametrize("name", CONSTRAINED)
def test_recurrent_matrices_can_be_of_low_rank_and_sparse(name):
    torch.manual_seed(0)
    part, matrices = CONSTRAINED[name]()
    for matrix in matrices:
        empty = (matrix[:, :6] == 0).double().mean()
        assert 0.25 < float(empty) < 0.75
    classes = {x.__name__: x for x in (LowRankSparse, fields.CfCMode, LeCunTanh, type(part))}
    again = from_config(to_config(part), classes)
    again.load_state_dict(part.state_dict())
    assert all(torch.equal(x, y) for x, y in zip(again.state_dict().values(), part.state_dict().values(), strict=True))
    factors = [value for key, value in part.named_parameters() if "original1" in key or "original2" in key]
    assert len(factors) == 2 * len(matrices)
    assert all(min(factor.shape) == 2 for factor in factors)
    with pytest.raises(ValueError, match="rank must be at most"):
        type(part)(*((2, 6) if isinstance(part, Cell) else (6,)), recurrent=LowRankSparse(rank=7))


def test_a_constrained_cell_trains():
    torch.manual_seed(0)
    cell = cells.GRUDCell(2, 6, recurrent=FORM)
    gone = cell.gru.weight_hh == 0
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1)
    ts, xs = torch.rand(4, 5).cumsum(-1), torch.randn(4, 5, 2)
    h = torch.zeros(4, cell.hidden_size)
    before, _ = cell.scan(h, ts, xs, torch.ones_like(xs, dtype=torch.bool))
    nn.functional.mse_loss(before, torch.ones_like(before)).backward()
    old = cell.gru.weight_hh.clone()
    optimizer.step()
    assert not torch.equal(cell.gru.weight_hh, old)
    assert torch.equal(cell.gru.weight_hh == 0, gone)
