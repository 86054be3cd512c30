import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ctdyn.integrate import ConstantStep, Direct, PIDController, StepTo, solve
from ctdyn.integrate.compiled import Program, fresh
from ctdyn.integrate.status import MaxStepsError
from ctdyn.paths import LinearPath
from ctdyn.solvers import RK4, Bosh3, Dopri5, Euler, Heun, Tsit5


F64 = torch.float64
TS = torch.rand(4, 7, dtype=F64, generator=torch.Generator().manual_seed(0)).mul(3).sort(-1).values
SETTINGS = [
    (Heun(), PIDController(1e-3, 1e-5)),
    (Dopri5(), PIDController(1e-6, 1e-8, pcoeff=0.3, icoeff=0.4)),
    (Bosh3(), PIDController(torch.tensor([1e-3, 1e-4, 1e-5, 1e-6], dtype=F64), 1e-6)),
    (RK4(), StepTo(3)),
    (Tsit5(), ConstantStep(0.21)),
    (Euler(), StepTo(1)),
]


def names(setting):
    return type(setting[0]).__name__ + "-" + type(setting[1]).__name__


class Turning(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[0.1, -2.0], [2.0, 0.1]], dtype=F64))

    def forward(self, t, y, u=None):
        force = 0.0 if u is None else u
        return torch.tanh(y @ self.matrix) * torch.cos(t)[..., None] - 0.1 * y**3 + force


def run(setting, adjoint, *, driven=False, grad=True, **options):
    solver, controller = setting
    field, y0 = Turning(), torch.linspace(0.5, 2.0, 8, dtype=F64).reshape(4, 2).requires_grad_(grad)
    values = torch.linspace(-1, 1, 12, dtype=F64).reshape(4, 3, 1).requires_grad_(grad)
    knots = torch.tensor([0.0, 0.8, 3.0], dtype=F64).expand(4, 3)
    inputs = LinearPath(knots, values) if driven else None
    with torch.set_grad_enabled(grad):
        solution = solve(field, y0, TS, inputs=inputs, solver=solver, controller=controller, adjoint=adjoint, **options)
        if not grad:
            return solution, ()
        ts_weights = torch.linspace(1, 2, solution.ys.numel(), dtype=F64).reshape(solution.ys.shape)
        leaves = (y0, field.matrix, *((values,) if driven else ()))
        return solution, torch.autograd.grad((solution.ys * ts_weights).sum(), leaves)


def same(found, expected):
    torch.testing.assert_close(found[0].ys, expected[0].ys, rtol=1e-12, atol=1e-12, equal_nan=True)
    for name, counts in expected[0].stats.items():
        if name != "evaluations":
            assert torch.equal(found[0].stats[name], counts), name
    for a, b in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.fixture
def _runs_only(monkeypatch):
    """The runs of several steps without the compiler, whose answers the tests below check once."""
    monkeypatch.setattr(Program, "__call__", lambda self, parts, device, *rest: self.uncompiled(*rest))


@pytest.mark.usefixtures("_runs_only")
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("driven", [False, True])
@pytest.mark.parametrize("setting", SETTINGS, ids=names)
def test_runs_of_steps_are_the_steps(setting, driven, grad):
    expected = run(setting, Direct(), driven=driven, grad=grad)
    same(run(setting, Direct(compile=True), driven=driven, grad=grad), expected)


@pytest.mark.usefixtures("_runs_only")
def test_runs_make_no_more_attempts_than_allowed():
    for most in (1, 3, 5):
        with pytest.raises(MaxStepsError, match="max_steps"):
            run(SETTINGS[0], Direct(compile=True), max_steps=most)
    found = run(SETTINGS[0], Direct(compile=True), max_steps=6, throw=False, grad=False)
    same(found, run(SETTINGS[0], Direct(), max_steps=6, throw=False, grad=False))


SCRIPT = """
import sys, warnings
import torch
import test_compiled as t
from ctdyn.integrate import Direct, StepTo, solve
from ctdyn.solvers import Heun

torch.set_num_threads(1)
compiler = torch.compile
if sys.argv[1] == "traced":
    trace = lambda function, **options: compiler(function, **{**options, "options": None, "backend": "aot_eager"})
    torch.compile = trace
warnings.filterwarnings("error", message=".*cannot be compiled")
for number in map(int, sys.argv[2:]):
    t.same(t.run(t.SETTINGS[number], Direct(compile=True)), t.run(t.SETTINGS[number], Direct()))

def field(t, y):
    return -y * (2.0 if float(y.sum()) > 0 else 1.0)

y0, ts = torch.ones(1, 2, dtype=t.F64), torch.tensor([0.0, 0.5, 1.0], dtype=t.F64)
options = {"solver": Heun(), "controller": StepTo(9)}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = solve(field, y0, ts, adjoint=Direct(compile=True), **options)
assert [str(w.message).startswith("Heun on field cannot be compiled") for w in caught] == [True], caught
assert torch.equal(found.ys, solve(field, y0, ts, **options).ys)
solve(field, y0, ts, adjoint=Direct(compile=True), **options)
"""


def compile_for_real(*arguments):
    """In a process of its own, without the annotations that are checked under pytest, which are not compiled."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_traced_programs_give_the_same_answers_and_gradients():
    """Everything but the machine code; a field that cannot be compiled runs as it is, after one warning."""
    compile_for_real("traced", "0", "3")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU with g++")
def test_compiled_programs_give_the_same_answers_and_gradients():
    compile_for_real("compiled", "0", "3")


def test_fresh_copies_share_no_memory():
    x = torch.zeros(3)
    first, (second, nothing) = fresh((x, (x[:1], None)))
    first += 1
    second += 2
    assert nothing is None
    assert torch.equal(x, torch.zeros(3))
