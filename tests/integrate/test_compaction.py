"""Series that are done are left behind: the answer, the steps and the gradients are the same, for less work."""

import pytest
import torch
from torch import nn

from ctdyn.integrate import Checkpoint, ConstantStep, PIDController, Reversible, compaction, solve
from ctdyn.solvers import RK4, Dopri8, ReversibleMethod, Rodas5P, Tsit5


F64 = torch.float64
SERIES, SIZE = 24, 3
LONG = torch.arange(SERIES) % 8 == 0
NEVER = 10**12


class Field(nn.Module):
    """A perceptron that counts the rows that it is given."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, SIZE)).double()
        self.rows = 0

    def forward(self, t, y):
        self.rows += y.shape[:-1].numel()
        return 3.0 * self.net(y) * torch.cos(t)[..., None]


def clocks():
    spans = torch.where(LONG, 6.0, 0.5).double()
    spans[5], spans[8] = 0.0, 12.0
    return spans[:, None] * torch.linspace(0, 1, 4, dtype=F64)


def run(monkeypatch, worth, solver, controller, adjoint=None, field=None, dense=False):
    monkeypatch.setattr(compaction, "_WORTH", worth)
    field = Field() if field is None else field
    y0 = torch.linspace(-1, 1, SERIES * SIZE, dtype=F64).reshape(SERIES, SIZE).requires_grad_()
    solution = solve(field, y0, clocks(), solver=solver, controller=controller, adjoint=adjoint)
    ys = solution(1.1 * clocks()) if dense else solution.ys
    leaves = [y0, *(field.parameters() if isinstance(field, nn.Module) else ())]
    return solution, ys, torch.autograd.grad(ys.square().sum(), leaves), getattr(field, "rows", 0)


WAYS = [
    (Tsit5(), PIDController(1e-5, 1e-6), None),
    (Tsit5(), PIDController(1e-5, 1e-6), Checkpoint()),
    (Dopri8(), PIDController(1e-7, 1e-8, pcoeff=0.3, icoeff=0.4), None),
    (RK4(), ConstantStep(0.3), None),
    (Rodas5P(), PIDController(1e-3, 1e-4), None),
    (ReversibleMethod(Tsit5()), PIDController(1e-4, 1e-5), Reversible()),
]


@pytest.mark.parametrize(("solver", "controller", "adjoint"), WAYS, ids=repr)
def test_fewer_rows_for_the_same_answer(monkeypatch, solver, controller, adjoint):
    fewer, ys, gradients, rows = run(monkeypatch, 16, solver, controller, adjoint)
    whole, expected, truth, all_rows = run(monkeypatch, NEVER, solver, controller, adjoint)
    torch.testing.assert_close(ys, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradients, truth, rtol=1e-9, atol=1e-9)
    for name, counts in whole.stats.items():
        assert torch.equal(fewer.stats[name], counts), name
    assert rows < 0.8 * all_rows


@pytest.mark.parametrize(("solver", "controller"), [(Tsit5(), PIDController()), (RK4(), ConstantStep(0.3))], ids=repr)
def test_the_path_is_the_same_between_and_beyond_the_times(monkeypatch, solver, controller):
    _, ys, gradients, _ = run(monkeypatch, 16, solver, controller, dense=True)
    _, expected, truth, _ = run(monkeypatch, NEVER, solver, controller, dense=True)
    torch.testing.assert_close(ys, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradients, truth, rtol=1e-9, atol=1e-9)


def test_without_gradients_the_steps_of_the_plan_are_the_answer(monkeypatch):
    with torch.no_grad():
        found = []
        for worth in (16, NEVER):
            monkeypatch.setattr(compaction, "_WORTH", worth)
            found.append(solve(Field(), torch.ones(SERIES, SIZE, dtype=F64), clocks()).ys)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("controller", [PIDController(), ConstantStep(0.3)], ids=repr)
def test_a_field_that_holds_something_for_every_series_is_never_divided(monkeypatch, controller):
    rates = torch.linspace(0.1, 2.0, SERIES, dtype=F64)[:, None]

    def field(t, y):
        return -rates * y

    solver = Tsit5() if isinstance(controller, PIDController) else RK4()
    found = run(monkeypatch, 16, solver, controller, field=field)
    whole = run(monkeypatch, NEVER, solver, controller, field=field)
    torch.testing.assert_close(found[1], whole[1], rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(found[2], whole[2], rtol=1e-12, atol=1e-12)


def test_tolerances_per_series_are_kept(monkeypatch):
    controller = PIDController(torch.logspace(-6, -2, SERIES, dtype=F64), 1e-7)
    found, whole = (run(monkeypatch, worth, Tsit5(), controller) for worth in (16, NEVER))
    torch.testing.assert_close(found[1], whole[1], rtol=1e-11, atol=1e-11)


def test_small_batches_stay_together():
    assert compaction.cuts(torch.tensor([[0.0] * 8, [1.0] * 8, [2.0] + [1.0] * 7]), size=16) == []
    assert compaction.cuts(torch.tensor([0.0, 1.0, 2.0]), size=10**6) == []
