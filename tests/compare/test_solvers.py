"""The table of methods: right errors, honest counts, and a reference that can be trusted."""

import math

import pytest
import torch

from ctdyn import compare_solvers
from ctdyn.compare import Setting
from ctdyn.fields import MLPField
from ctdyn.integrate import Checkpoint, ConstantStep, PIDController, StepTo, TorchDiffEq
from ctdyn.paths import VirtualBrownianTree
from ctdyn.plot import plot_work_precision
from ctdyn.solvers import RK4, EulerMaruyama, Tsit5
from ctdyn.structure import Calculus, Noise, SDEField
from ctdyn.terms import SDETerm


F64 = torch.float64


def decay(t, y):
    return -y


@pytest.fixture(scope="module")
def table():
    torch.manual_seed(0)
    field = MLPField(3, hidden=(16,))
    with torch.no_grad():
        for weight in field.parameters():
            weight.mul_(2.0)
    ts = 3.0 * torch.rand(4, 6).sort(-1).values
    settings = {
        "Tsit5": [Setting(Tsit5(), PIDController(tol, tol)) for tol in (1e-2, 1e-4)],
        "RK4, checkpointed": Setting(RK4(), StepTo(8), Checkpoint()),
        "torchdiffeq": Setting(TorchDiffEq("dopri5", rtol=1e-4, atol=1e-4)),
    }
    return compare_solvers(field, torch.randn(4, 3), ts, settings, t0=0.0, repeats=1)


def test_the_table_has_a_row_for_every_setting(table):
    assert table["method"].tolist() == ["Tsit5", "Tsit5", "RK4, checkpointed", "torchdiffeq"]
    assert table["setting"].is_unique
    assert (table["failed"] == 0).all()
    assert (table[["forward_ms", "both_ms", "saved_mb", "evaluations"]] > 0).all(axis=None)


def test_errors_and_gradients_are_those_of_the_tolerance(table):
    assert (table["max_error"] < 5e-2).all()
    assert (table["rms_error"] <= table["max_error"]).all()
    assert (table["gradient_error"] < 5e-2).all()
    assert table["max_error"][1] < table["max_error"][0]
    assert table["evaluations"][1] > table["evaluations"][0]
    assert table["saved_mb"][2] < table["saved_mb"][1]


def test_the_plot_has_a_line_per_method(table):
    figure = plot_work_precision(table)
    assert [len(ax.lines) for ax in figure.axes] == [3, 3]
    assert plot_work_precision(table, error="gradient_error").axes[0].get_ylabel() == "gradient error"
    with pytest.raises(ValueError, match="median_error"):
        plot_work_precision(table, error="median_error")


def test_the_exact_states_can_be_given():
    ts = torch.tensor([0.0, 1.0], dtype=F64)
    exact = torch.exp(-ts)[:, None]
    table = compare_solvers(
        decay, torch.ones(1, dtype=F64), ts, {"RK4": Setting(RK4(), StepTo(1))}, reference=exact, repeats=1
    )
    error = abs(0.375 - math.exp(-1)) / (1 + math.exp(-1))
    assert math.isclose(table["max_error"][0], error, rel_tol=1e-9)
    assert "gradient_error" not in table


def test_a_reference_of_another_shape_is_refused():
    ts = torch.linspace(0.0, 1.0, 4, dtype=F64)
    with pytest.raises(ValueError, match=r"\(2, 4, 1\)"):
        compare_solvers(decay, torch.ones(2, 1, dtype=F64), ts, {"Tsit5": Setting()}, reference=torch.exp(-ts))


def test_tolerances_of_each_series_have_a_label():
    control = PIDController(torch.tensor([1e-3, 1e-4]), 1e-6)
    assert Setting(Tsit5(), control).label == repr(control)


def test_series_that_fail_are_counted_and_left_out():
    y0 = torch.tensor([[1.0], [0.1]], dtype=F64)
    table = compare_solvers(
        lambda t, y: y**2,
        y0,
        torch.tensor([0.0, 2.0], dtype=F64),
        {"Tsit5": Setting(Tsit5(), PIDController(1e-6, 1e-6))},
        reference=torch.tensor([[[1.0], [math.inf]], [[0.1], [0.125]]], dtype=F64),
        gradients=False,
        repeats=1,
    )
    assert table["failed"][0] == 1
    assert table["max_error"][0] < 1e-5


class Walk(SDEField):
    noise, calculus = Noise.DIAGONAL, Calculus.ITO

    def drift(self, t, y, u=None):
        return 0.5 * y

    def diffusion(self, t, y, u=None):
        return 0.4 * y


def test_stochastic_methods_see_the_same_noise():
    y0, ts = torch.ones(200, 1, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    brownian = VirtualBrownianTree(torch.arange(200), size=1)
    motion = brownian.increment(torch.zeros(200, dtype=F64), torch.ones(200, dtype=F64))
    end = torch.exp((0.5 - 0.08) * 1.0 + 0.4 * motion)
    exact = torch.stack([y0, end], 1)
    table = compare_solvers(
        SDETerm(Walk(), brownian),
        y0,
        ts,
        {"Euler-Maruyama": [Setting(EulerMaruyama(), ConstantStep(dt)) for dt in (0.1, 0.025)]},
        reference=exact,
        gradients=False,
        repeats=1,
    )
    assert 1.4 < table["rms_error"][0] / table["rms_error"][1] < 2.9
    with pytest.raises(ValueError, match="same noise"):
        compare_solvers(Walk(), y0, ts, {"Euler-Maruyama": Setting(EulerMaruyama(), ConstantStep(0.1))})
    with pytest.raises(ValueError, match="reference="):
        compare_solvers(SDETerm(Walk(), brownian), y0, ts, {"x": Setting(EulerMaruyama(), ConstantStep(0.1))})


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_solvers(decay, torch.ones(1), torch.tensor([0.0, 1.0]), {})
    with pytest.raises(ValueError, match="repeats"):
        compare_solvers(decay, torch.ones(1), torch.tensor([0.0, 1.0]), {"x": Setting()}, repeats=0)
