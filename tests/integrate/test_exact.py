"""Equations that need no steps, what `solve` chooses by itself, and what it says of its choice."""

import json
import os
from pathlib import Path

import pytest
import torch

from ctdyn.cells import GRUDCell
from ctdyn.fields import (
    GRUODEField,
    LangevinSDEField,
    LinearCDEField,
    MLPCDEField,
    MLPField,
    WiredCfCTransition,
)
from ctdyn.integrate import Checkpoint, ConstantStep, Event, PIDController, StepTo, TorchCDE, explain, solve
from ctdyn.paths import ConstantPath, HermitePath, LinearPath, LogSignaturePath, RectilinearPath
from ctdyn.solvers import RK4, Dopri5, Leapfrog
from ctdyn.structure import Transition
from ctdyn.terms import CDETerm, as_term
from ctdyn.testing import check_path
from ctdyn.wirings import AutoNCP


F64 = torch.float64
ROOT = Path(os.environ.get("CTDYN_REFERENCE", "/nonexistent"))
TIGHT = PIDController(1e-8, 1e-9)


def problem(batch=3, knots=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ts = (0.05 + torch.rand(batch, knots, generator=generator, dtype=F64)).cumsum(-1)
    xs = torch.randn(batch, knots, 3, generator=generator, dtype=F64)
    return ts, xs, torch.randn(batch, 4, generator=generator, dtype=F64)


def field(block_size=None):
    torch.manual_seed(1)
    return LinearCDEField(4, 3, block_size=block_size).double()


@pytest.mark.skipif(not ROOT.is_dir(), reason="CTDYN_REFERENCE is not set")
def test_it_is_exact_to_rounding():
    case = json.loads((ROOT / "cde" / "linear_cde_piecewise_linear.json").read_text())

    def table(name):
        def walk(x):
            return [walk(item) for item in x] if isinstance(x, list) else float(x)

        return torch.tensor(walk(case[name]), dtype=F64)

    ts, xs, A, z0, truth = (table(name) for name in ("times", "X", "A", "z0", "solution_at_times"))
    linear = LinearCDEField(A.shape[-1], len(A)).double()
    with torch.no_grad():
        linear.A.copy_(A.unsqueeze(1))
        linear.b.zero_()
    solution = solve(linear, z0, ts, inputs=LinearPath(ts, xs))
    assert solution.plan.startswith("exact")
    assert ((solution.ys - truth).abs() / (1 + truth.abs())).max() < 1e-13
    (found,) = torch.autograd.grad(solution.ys[-1].square().sum(), linear.A)
    wanted = table("grad_sum_zT_sq_wrt_A")
    assert (found.squeeze(1) - wanted).abs().max() < 1e-12 * wanted.abs().max()


@pytest.mark.parametrize("block_size", [None, 2, 1])
@pytest.mark.parametrize("where", ["at the knots", "backward", "between and beyond"])
def test_steps_tend_to_it(block_size, where):
    ts, xs, y0 = problem()
    at = {
        "at the knots": ts,
        "backward": ts.flip(-1),
        "between and beyond": torch.stack([ts[:, 0] - 3, ts[:, 2] + 0.01, ts[:, -1] + 2], -1),
    }[where]
    term = CDETerm(field(block_size), LinearPath(ts, xs), holds=True)
    exact = solve(term, y0, at)
    stepped = solve(term, y0, at, solver=Dopri5(), controller=TIGHT)
    assert exact.plan.startswith("exact")
    assert not stepped.plan.startswith("exact")
    torch.testing.assert_close(exact.ys, stepped.ys, rtol=1e-6, atol=1e-6)
    between = at[:, :1] + (at[:, -1:] - at[:, :1]) * torch.rand(3, 4, dtype=F64)
    torch.testing.assert_close(exact(between), stepped(between), rtol=3e-6, atol=3e-6)


def test_it_agrees_with_the_tightest_steps_where_published_flows_do_not():
    ts, xs, y0 = problem()
    linear = field()
    exact = solve(linear, y0, ts, inputs=LinearPath(ts, xs)).ys
    tight = {"solver": Dopri5(), "controller": PIDController(1e-10, 1e-12), "max_steps": 100_000}
    torch.testing.assert_close(exact, solve(linear, y0, ts, inputs=LinearPath(ts, xs), **tight).ys, rtol=0, atol=1e-8)
    # The flow of the published code is one Euler step per interval, y <- (1 + sum A dX) y + b dX.
    y, flow = y0, [y0]
    for dx in xs.diff(dim=1).unbind(1):
        y = y + linear.prod(ts[:, 0], y, dx)
        flow.append(y)
    error = (torch.stack(flow, 1) - exact).norm() / exact.norm()
    assert float(error.detach()) > 0.1


def test_it_is_exact_along_every_path_of_straight_lines():
    ts, xs, y0 = problem()
    path = RectilinearPath(ts, xs[..., :2])
    found = solve(field(), y0, path.after(ts), inputs=path)
    stepped = solve(field(), y0, path.after(ts), inputs=path, controller=TIGHT)
    torch.testing.assert_close(found.ys, stepped.ys, rtol=1e-6, atol=1e-6)
    windows = ts[:, [0, 2, 5]]
    path = LogSignaturePath(ts, xs[..., :2], windows)
    found = solve(field(), y0, windows, inputs=path)
    torch.testing.assert_close(
        found.ys, solve(field(), y0, windows, inputs=path, controller=TIGHT).ys, rtol=1e-6, atol=1e-6
    )
    assert "2 straight pieces" in found.plan


def test_a_jump_of_the_control_is_stepped_over_as_by_a_method():
    ts, xs, y0 = problem()
    twice = torch.cat([ts[:, :3], ts[:, 2:]], -1), torch.cat([xs[:, :3], xs[:, 2:] + 1.0], 1)
    found, stepped = (solve(field(), y0, ts, inputs=LinearPath(*twice), controller=c).ys for c in (None, TIGHT))
    torch.testing.assert_close(found, stepped, rtol=1e-6, atol=1e-6)


def test_the_solution_is_a_path():
    ts, xs, y0 = problem()
    for at in (ts, ts.flip(-1)):
        solution = solve(field(), y0, at, inputs=LinearPath(ts, xs))
        check_path(solution.path, ts[:, 0], ts[:, -1])
    assert solution.stats["steps"].tolist() == [5, 5, 5]
    padded = torch.cat([ts, ts[:, -1:].expand(-1, 2)], -1)
    forward = solve(field(), y0, ts, inputs=LinearPath(ts, xs)).ys
    longer = solve(field(), y0, padded, inputs=LinearPath(padded, torch.cat([xs, 9 * xs[:, :2]], 1)))
    assert torch.equal(longer.ys[:, :6], forward)
    assert longer.stats["steps"].tolist() == [5, 5, 5]
    one = solve(field(), y0, ts[:, :1], inputs=LinearPath(ts, xs))
    assert torch.equal(one.ys[:, 0], y0)
    assert torch.equal(one.evaluate(ts[:, 2]), y0)


def test_gradients_reach_the_start_the_matrices_the_control_and_the_times():
    ts, xs, y0 = problem(batch=1, knots=4)
    linear = field(2)

    def run(ts, xs, y0, A, b, at):
        other = torch.func.functional_call
        return _Called(linear, {"A": A, "b": b}, other).solve(y0, at, LinearPath(ts, xs))

    at = torch.stack([ts[:, 0] + 0.01, ts[:, 2] + 0.02], -1)
    leaves = [x.detach().clone().requires_grad_() for x in (ts, xs, y0, linear.A, linear.b, at)]
    assert torch.autograd.gradcheck(run, tuple(leaves))


class _Called:
    """A field with other parameters."""

    def __init__(self, linear, parameters, call):
        self.linear, self.parameters, self.call = linear, parameters, call

    def solve(self, y0, at, path):
        class Module(torch.nn.Module):
            def __init__(self, linear):
                super().__init__()
                self.linear = linear

            def forward(self, y0, at):
                return solve(self.linear, y0, at, t0=path.ts[:, 0], inputs=path).ys

        names = {f"linear.{name}": value for name, value in self.parameters.items()}
        return self.call(Module(self.linear), names, (y0, at))


def test_series_do_not_mix_and_samples_are_accepted():
    ts, xs, y0 = problem()
    path = LinearPath(ts, xs)
    samples = solve(field(), torch.stack([y0, 2 * y0]), ts, inputs=path).ys
    torch.testing.assert_close(samples[1], solve(field(), 2 * y0, ts, inputs=path).ys, rtol=1e-12, atol=1e-12)
    alone = solve(field(), y0[1], ts[1], inputs=LinearPath(ts[1], xs[1])).ys
    torch.testing.assert_close(samples[0, 1], alone, rtol=1e-12, atol=1e-12)
    single = solve(field().float(), y0.float(), ts.float(), inputs=LinearPath(ts.float(), xs.float())).ys
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), samples[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"controller": PIDController()}, "controller="),
        ({"adjoint": Checkpoint()}, "adjoint="),
        ({"aux": lambda t, y: y[..., 0]}, "integrands"),
        ({"event": Event(lambda t, y: y[..., 0] - 99.0)}, "events"),
        ({"solver": RK4(), "controller": StepTo(4)}, "the method that was asked for"),
    ],
)
def test_what_asks_for_steps_gets_steps_and_the_reason(asked, reason):
    ts, xs, y0 = problem()
    path = LinearPath(ts, xs)
    said = explain(field(), inputs=path, **asked)
    if "aux" in asked:
        asked = {"aux": lambda t, y, u=None: y[..., 0]}
    solution = solve(field(), y0, ts, inputs=path, **asked)
    assert reason in said
    assert reason in solution.plan
    assert not solution.plan.startswith("exact")


def test_what_solve_will_do_is_said_beforehand_and_is_what_it_does():
    ts, xs, y0 = problem()
    cases = [
        (field(), {"inputs": LinearPath(ts, xs)}, "exact", "no step is needed"),
        (field(), {"inputs": HermitePath(ts, xs)}, "Tsit5()", "straight lines (LinearPath)"),
        (MLPCDEField(4, 3).double(), {"inputs": HermitePath(ts, xs)}, "Tsit5()", "knots"),
        (MLPField(4).double(), {}, "Tsit5()", "no further structure"),
        (GRUODEField(4).double(), {}, "ExponentialMidpoint()", "decay of each entry"),
        (GRUODEField(4).double(), {"controller": PIDController(1e-9, 1e-9)}, "Tsit5()", "higher order"),
        (LangevinSDEField(4).double(), {"controller": ConstantStep(0.1)}, "SRA1()", "Ito equation with additive noise"),
        (field(), {"inputs": LinearPath(ts, xs), "solver": TorchCDE()}, "TorchCDE(", "was asked for"),
    ]
    for what, options, method, reason in cases:
        said = explain(what, **options)
        assert said.startswith(method), said
        assert reason in said
        plan = solve(what, y0, ts, **options).plan
        assert plan.startswith(method), plan
        assert reason in plan or "TorchCDE" in plan


@pytest.mark.parametrize(
    ("what", "options", "error", "match"),
    [
        (MLPField(4), {"solver": Leapfrog()}, ValueError, "requires a SecondOrderField; got a MLPField"),
        (LangevinSDEField(4), {"solver": Leapfrog()}, ValueError, "ordinary equations only"),
        (LinearCDEField(4, 1), {}, ValueError, "driven by a control"),
    ],
)
def test_a_mismatch_is_explained(what, options, error, match):
    with pytest.raises(error, match=match):
        explain(what, **options)


class Gated(Transition):
    """A gate between two states, by the length of the interval: closed form, and no flow."""

    is_flow = False

    def transition(self, y, t0, t1, u=None):
        gate = torch.sigmoid((t1 - t0).unsqueeze(-1) + (0.0 if u is None else u))
        return gate * y + (1 - gate) * y.tanh()


def test_what_is_no_flow_is_refused_by_methods_and_never_chained():
    gated, y0 = Gated(), torch.ones(2, 3, dtype=F64)
    ts = torch.tensor([[0.0, 1.0, 2.5], [1.0, 4.0, 4.0]], dtype=F64)
    for asked in ({"solver": Dopri5()}, {"controller": PIDController()}, {"aux": lambda t, y: y[..., 0]}):
        for verb in (lambda **k: solve(gated, y0, ts, **k), lambda **k: explain(gated, **k)):
            with pytest.raises(TypeError, match=r"Gated has none.*not even a flow"):
                verb(**asked)
    with pytest.raises(TypeError, match="no velocity"):
        as_term(GRUDCell(2, 3))
    assert "not a flow" in explain(gated)
    solution = solve(gated, y0, ts)
    assert "not a flow" in solution.plan
    for column in range(3):
        alone = solve(gated, y0, ts[:, column : column + 1], t0=ts[:, 0]).ys[:, 0]
        assert torch.equal(solution.ys[:, column], alone)
    with pytest.raises(TypeError, match="ask for the times in ts"):
        solution.evaluate(ts[:, 1])
    held = solve(gated, y0, ts, inputs=ConstantPath(torch.ones(2, 3, dtype=F64)))
    wired = WiredCfCTransition(AutoNCP(6, 2), 3).double()
    assert solve(wired, torch.ones(2, 6, dtype=F64), ts, inputs=ConstantPath(y0)).ys.shape == (2, 3, 6)
    assert not torch.allclose(held.ys, solution.ys)
    assert solve(gated, y0.float(), ts, inputs=ConstantPath(y0)).ys.dtype == torch.float32
    with pytest.raises(ValueError, match="holds its inputs"):
        solve(gated, y0, ts, inputs=LinearPath(ts, ts[..., None].expand(2, 3, 3)))


def test_cells_are_carried_by_themselves():
    torch.manual_seed(0)
    cell = GRUDCell(2, 3).double()
    y0 = torch.randn(2, cell.hidden_size, dtype=F64)
    ts = torch.tensor([[0.0, 1.0], [2.0, 5.0]], dtype=F64)
    ys = solve(cell, y0, ts).ys
    torch.testing.assert_close(ys[:, 1], cell.evolve(y0, ts[:, 0], ts[:, 1]))
    assert explain(cell).startswith("in one piece: GRUDCell")
    with pytest.raises(TypeError, match=r"solver=Dopri5\(\) needs a velocity"):
        solve(cell, y0, ts, solver=Dopri5())


@pytest.mark.usefixtures("_unchecked")
def test_failures_and_bad_input_are_named():
    ts, xs, y0 = problem()
    from ctdyn._checks import NonFiniteError

    with pytest.raises(NonFiniteError, match="series 0"):
        solve(field(), 1e300 * y0, ts, inputs=LinearPath(ts, 60 * xs))
    solution = solve(field(), 1e300 * y0, ts, inputs=LinearPath(ts, 60 * xs), throw=False)
    assert bool(solution.status.all())
    with pytest.raises(ValueError, match="3 control channels"):
        solve(field(), y0, ts, inputs=LinearPath(ts, xs[..., :2]))
    with pytest.raises(ValueError, match="state_size=4"):
        solve(field(), y0[:, :3], ts, inputs=LinearPath(ts, xs))
    with pytest.raises(ValueError, match="block_size=3 do not fill"):
        LinearCDEField(4, 3, block_size=3)
