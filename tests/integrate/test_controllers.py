import pytest
import torch

from ctdyn.integrate import ConstantStep, PIDController, StepTo, solve
from ctdyn.paths import LinearPath
from ctdyn.solvers import RK4, Bosh3, Dopri5, Euler, Heun, Tsit5


F64 = torch.float64


def rotation(t, y):
    return torch.stack([-y[..., 1], y[..., 0]], -1)


def own_clocks(batch=5, times=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, times, dtype=F64, generator=generator).mul(4).sort(-1).values


def exact(ts):
    s = ts - ts[..., :1]
    return torch.stack([s.cos(), s.sin()], -1)


@pytest.mark.parametrize("solver", [Heun(), Bosh3(), Dopri5(), Tsit5()], ids=repr)
@pytest.mark.parametrize("rtol", [1e-3, 1e-5])
def test_the_error_follows_the_tolerance(solver, rtol):
    ts = own_clocks()
    y0 = torch.tensor([1.0, 0.0], dtype=F64).expand(5, 2)
    ys = solve(rotation, y0, ts, solver=solver, controller=PIDController(rtol, rtol * 1e-2), max_steps=10**6).ys
    assert float((ys - exact(ts)).abs().max()) < 60 * rtol


def test_asking_for_more_times_never_moves_the_old_answers():
    few = torch.tensor([[0.0, 3.0]], dtype=F64)
    many = torch.linspace(0, 3, 50, dtype=F64)[None]
    y0 = torch.tensor([[1.0, 0.0]], dtype=F64)
    for controller in (PIDController(), ConstantStep(0.07)):
        a, b = solve(rotation, y0, few, controller=controller), solve(rotation, y0, many, controller=controller)
        assert torch.equal(a.ys[:, -1], b.ys[:, -1])
        assert torch.equal(a.stats["steps"], b.stats["steps"])


def test_constant_steps_are_counted_from_the_start_of_each_series():
    ts = torch.tensor([[0.0, 1.0], [0.5, 0.75]], dtype=F64)
    solution = solve(rotation, torch.ones(2, 2, dtype=F64), ts, solver=RK4(), controller=ConstantStep(0.1))
    assert solution.stats["steps"].tolist() == [10, 3]


def test_step_to_takes_the_asked_number_of_steps():
    ts = own_clocks()
    solution = solve(rotation, torch.ones(5, 2, dtype=F64), ts, solver=Euler(), controller=StepTo(3))
    assert solution.stats["steps"].tolist() == [15] * 5
    y, expected = torch.ones(2, dtype=F64), [torch.ones(2, dtype=F64)]
    for a, b in zip(ts[1, :-1], ts[1, 1:], strict=True):
        for _ in range(3):
            y = y + (b - a) / 3 * rotation(None, y)
        expected.append(y)
    torch.testing.assert_close(solution.ys[1], torch.stack(expected), rtol=1e-13, atol=0)


def test_step_to_with_an_earlier_start_steps_there_too():
    ts = torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=F64)
    y0 = torch.tensor([1.0, 0.0], dtype=F64).expand(2, 2)
    solution = solve(rotation, y0, ts, t0=0.0, solver=RK4(), controller=StepTo(40))
    assert solution.stats["steps"].tolist() == [80, 40]
    s = ts[..., None]
    torch.testing.assert_close(solution.ys, torch.cat([s.cos(), s.sin()], -1), rtol=0, atol=1e-6)


def test_a_jagged_input_is_landed_on_by_every_controller():
    knots = torch.tensor([[0.0, 0.3, 0.35, 1.1, 2.0], [0.0, 0.7, 1.3, 1.9, 2.0]], dtype=F64)
    values = torch.tensor([[0.0, 5.0, -5.0, 4.0, 0.0], [1.0, -3.0, 3.0, 0.0, 2.0]], dtype=F64)
    path = LinearPath(knots, values[..., None])
    ts = torch.tensor([[0.0, 0.5, 2.0], [0.0, 1.5, 2.0]], dtype=F64)
    area = torch.zeros(2, 3, dtype=F64)
    fine = torch.linspace(0, 2, 200_001, dtype=F64).expand(2, -1)
    u = path(fine)[..., 0]
    running = torch.cat([torch.zeros(2, 1, dtype=F64), ((u[:, 1:] + u[:, :-1]) * 0.5e-5).cumsum(-1)], -1)
    area = running.gather(-1, (ts * 1e5).round().long())
    for solver, controller in (
        (Tsit5(), PIDController(1e-6, 1e-6)),
        (Heun(), ConstantStep(0.5)),
        (Heun(), StepTo(1)),
    ):
        solution = solve(
            lambda t, y, u: u, torch.zeros(2, 1, dtype=F64), ts, inputs=path, solver=solver, controller=controller
        )
        # Between two knots the answer is a quadratic, which Heun and a cubic dense output find exactly.
        torch.testing.assert_close(solution.ys[..., 0], area, rtol=0, atol=1e-8)
    assert solution.stats["steps"].tolist() == [5, 5]


def test_knots_outside_the_solve_and_backward_time():
    knots = torch.tensor([[-1.0, 0.5, 1.5, 9.0]], dtype=F64)
    path = LinearPath(knots, torch.tensor([[[0.0], [3.0], [-1.0], [2.0]]], dtype=F64))
    forward = torch.tensor([[0.0, 1.0, 2.0]], dtype=F64)
    options = {"inputs": path, "solver": Heun(), "controller": StepTo(1)}
    there = solve(lambda t, y, u: u, torch.zeros(1, 1, dtype=F64), forward, **options)
    back = solve(lambda t, y, u: u, there.ys[:, -1], forward.flip(-1), **options)
    torch.testing.assert_close(back.ys.flip(-2), there.ys, rtol=0, atol=1e-14)
    assert there.stats["steps"].tolist() == [4]


@pytest.mark.parametrize(
    ("make", "fragments"),
    [
        (lambda: PIDController(0.0, 0.0), ["rtol", "atol"]),
        (lambda: PIDController(float("nan"), 1e-6), ["rtol"]),
        (lambda: PIDController(1e-3, -1.0), ["atol"]),
        (lambda: PIDController(dt0=-1.0), ["dt0"]),
        (lambda: ConstantStep(0.0), ["step_size"]),
        (lambda: ConstantStep(float("nan")), ["step_size"]),
        (lambda: StepTo(0), ["num_steps"]),
    ],
)
def test_bad_options_are_refused(make, fragments):
    with pytest.raises(ValueError, match=fragments[0]) as error:
        make()
    for fragment in fragments:
        assert fragment in str(error.value)


def test_pi_control_solves_too_and_a_pure_relative_tolerance_survives_zeros():
    y0 = torch.tensor([[1.0, 0.0]], dtype=F64)
    ts = torch.tensor([[0.0, 3.0]], dtype=F64)
    for controller in (
        PIDController(1e-6, 1e-8, pcoeff=0.3, icoeff=0.4),
        PIDController(1e-6, 0.0),
        PIDController(dt0=0.5),
    ):
        ys = solve(rotation, y0, ts, controller=controller).ys
        torch.testing.assert_close(ys, exact(ts), rtol=0, atol=2e-4)
    still = solve(lambda t, y: 0 * y, torch.zeros(1, 2, dtype=F64), ts, controller=PIDController(1e-6, 0.0))
    assert torch.equal(still.ys, torch.zeros(1, 2, 2, dtype=F64))


@pytest.mark.parametrize("solver", [Bosh3(), Tsit5(), Dopri5()], ids=repr)
@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2), (1, 2)])
def test_tolerances_per_series_and_per_entry(shape, solver):
    ts, y0 = own_clocks(), torch.tensor([1.0, 0.0], dtype=F64).expand(5, 2)
    tolerance = torch.logspace(-2, -5, 10, dtype=F64).reshape(5, 2)[: shape[0], : shape[-1] if len(shape) > 1 else 1]
    tolerance = tolerance.reshape(shape)
    together = solve(rotation, y0, ts, solver=solver, controller=PIDController(tolerance, tolerance * 1e-2))
    for row in range(5):
        own = tolerance[row if shape[0] == 5 else 0]
        own = own if own.numel() == 2 else own.reshape(())
        alone = solve(rotation, y0[row], ts[row], solver=solver, controller=PIDController(own, own * 1e-2))
        torch.testing.assert_close(together.ys[row], alone.ys, rtol=1e-12, atol=1e-12)
        assert int(together.stats["steps"][row]) == int(alone.stats["steps"])


def test_a_tighter_series_takes_more_steps_and_errs_less():
    ts, y0 = torch.tensor([0.0, 4.0], dtype=F64), torch.tensor([1.0, 0.0], dtype=F64).expand(2, 2)
    rtol = torch.tensor([1e-3, 1e-9], dtype=F64)
    solution = solve(rotation, y0, ts, controller=PIDController(rtol, 1e-12))
    assert 5 * int(solution.stats["steps"][0]) < int(solution.stats["steps"][1])
    wrong = (solution.ys[:, -1] - exact(ts)[-1]).abs().amax(-1)
    assert float(wrong[1]) < 1e-8 < 1e-5 < float(wrong[0])


def test_controllers_with_tensors_are_values():
    rtol = torch.full((6,), 1e-3)
    assert PIDController(rtol) == PIDController(rtol.clone())
    assert hash(PIDController(rtol)) == hash(PIDController(rtol.clone()))
    assert PIDController(rtol) != PIDController(1e-3) != PIDController(2e-3)
    assert PIDController(1e-3) != "PIDController"
    assert repr(PIDController(rtol)) == (
        "PIDController(rtol=<tensor (6,), 0.001 to 0.001>, atol=1e-06, pcoeff=0.0, icoeff=1.0, dcoeff=0.0, dt0=None, "
        "safety=None)"
    )


@pytest.mark.parametrize(
    ("make", "error", "fragments"),
    [
        (lambda: PIDController(torch.tensor([1e-3, -1.0])), ValueError, ["rtol", "-1", "index (1,)"]),
        (lambda: PIDController(1e-3, torch.tensor([float("nan")])), ValueError, ["atol", "nan"]),
        (lambda: PIDController(torch.tensor([1, 2])), TypeError, ["rtol", "int64"]),
        (lambda: PIDController(torch.ones(2, requires_grad=True)), ValueError, ["rtol", "detach"]),
        (lambda: PIDController(torch.zeros(2), 0.0), ValueError, ["rtol and atol", "both 0"]),
        (
            lambda: solve(rotation, torch.ones(5, 2), own_clocks(), controller=PIDController(torch.ones(3))),
            ValueError,
            ["rtol", "(*batch,) = (5,)", "(3,)"],
        ),
        (
            lambda: solve(rotation, torch.ones(5, 2), own_clocks(), controller=PIDController(1.0, torch.ones(5, 3))),
            ValueError,
            ["atol", "(5, 2)", "(5, 3)"],
        ),
    ],
)
def test_bad_tolerances_are_named(make, error, fragments):
    with pytest.raises(error) as caught:
        make()
    for fragment in fragments:
        assert fragment in str(caught.value)
