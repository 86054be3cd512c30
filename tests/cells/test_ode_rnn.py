import inspect

import pytest
import torch

from ctdyn import cells
from ctdyn.cells import (
    CfCCell,
    CRUCell,
    GRUDCell,
    GRUODEBayesCell,
    LEMCell,
    LTCCell,
    ODELSTMCell,
    ODERNNCell,
)
from ctdyn.fields import CfCMode, VectorField
from ctdyn.nn import LowRankSparse
from ctdyn.solvers import RK4, Euler, FusedEuler
from ctdyn.testing import check_cell
from ctdyn.wirings import AutoNCP


PARTS = {
    "CRUCell": [lambda: CRUCell(2, 2, 3, (4,)), lambda: CRUCell(1, 1, 2, ())],
    "CfCCell": [
        lambda: CfCCell(2, 3),
        lambda: CfCCell(1, 4, mode=CfCMode.PURE, hidden=(3, 3), reads_mask=False),
        lambda: CfCCell(2, 4, mode=CfCMode.NO_GATE, hidden=(5,), recurrent=LowRankSparse(2, 0.3)),
        lambda: CfCCell(2, AutoNCP(7, 2)),
        lambda: CfCCell(2, 3, mixed_memory=True),
    ],
    "LTCCell": [
        lambda: LTCCell(2, 3),
        lambda: LTCCell(2, 3, solver=RK4(), num_steps=2),
        lambda: LTCCell(2, AutoNCP(7, 2), solver=FusedEuler(), num_steps=3, reads_mask=False),
        lambda: LTCCell(1, 3, mixed_memory=True),
    ],
    "ODELSTMCell": [lambda: ODELSTMCell(2, 3), lambda: ODELSTMCell(1, 2, solver=RK4(), num_steps=2)],
    "GRUDCell": [lambda: GRUDCell(2, 3)],
    "GRUODEBayesCell": [lambda: GRUODEBayesCell(2, 3), lambda: GRUODEBayesCell(1, 4, 16, solver=RK4(), num_steps=3)],
    "LEMCell": [lambda: LEMCell(2, 3), lambda: LEMCell(1, 4, step=0.3)],
    "ODERNNCell": [
        lambda: ODERNNCell(num_channels=2, hidden_size=3),
        lambda: ODERNNCell(num_channels=1, hidden_size=4, solver=RK4(), num_steps=3),
    ],
}


class Clock(VectorField):
    """The state counts time."""

    def forward(self, t, y, u=None):
        return torch.ones_like(y)


class Driven(VectorField):
    def forward(self, t, y, u=None):
        return u.expand_as(y)


def test_every_exported_cell_is_checked():
    kinds = {name: getattr(cells, name) for name in cells.__all__}
    concrete = {name for name, kind in kinds.items() if inspect.isclass(kind) and not inspect.isabstract(kind)}
    assert concrete == set(PARTS)


@pytest.mark.parametrize("build", [build for builds in PARTS.values() for build in builds])
def test_contract(build):
    check_cell(build())


def test_the_flow_covers_exactly_the_interval_of_each_series():
    cell = ODERNNCell(num_channels=1, hidden_size=1, field=Clock(), solver=Euler()).double()
    t0 = torch.tensor([0.0, 1.0, 5.0, 2.0], dtype=torch.float64)
    t1 = torch.tensor([0.25, 1.0, 3.0, 2.0 + 1e-9], dtype=torch.float64)
    h = cell.evolve(torch.zeros(4, 1, dtype=torch.float64), t0, t1)
    torch.testing.assert_close(h.squeeze(-1), t1 - t0, rtol=0, atol=1e-15)


def test_inputs_are_held_over_the_interval():
    cell = ODERNNCell(num_channels=1, hidden_size=2, field=Driven()).double()
    u = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    t1 = torch.tensor([0.5, 3.0], dtype=torch.float64)
    h = cell.evolve(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), t1, u)
    torch.testing.assert_close(h[:, 0], u.squeeze(-1) * t1)


def test_more_steps_follow_the_field_more_closely():
    h = torch.ones(1, 3, dtype=torch.float64)
    t0, t1 = torch.zeros(1, dtype=torch.float64), torch.full((1,), 2.0, dtype=torch.float64)
    coarse = ODERNNCell(1, 3).double()
    fine, finest = (ODERNNCell(1, 3, coarse.field, num_steps=steps).double() for steps in (8, 128))
    reference = finest.evolve(h, t0, t1)
    assert (fine.evolve(h, t0, t1) - reference).norm() < (coarse.evolve(h, t0, t1) - reference).norm() / 4
