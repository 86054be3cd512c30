import pytest
import torch

from ctdyn.integrate import ConstantStep, PIDController, StepTo, solve
from ctdyn.integrate.clock import Clock
from ctdyn.solvers import RK4, Euler, ReversibleHeun


F64 = torch.float64


def decay(t, y):
    return -y


def ask(ts, y0=None, **options):
    return solve(decay, torch.ones(2, dtype=F64) if y0 is None else y0, ts, **options)


@pytest.mark.parametrize(
    ("ts", "fragments"),
    [
        ([0.0, 1.0, 1.0, 2.0], ["t=1", "index 2", "duplicate"]),
        ([0.0, float("nan"), 1.0], ["NaN", "index 1"]),
        ([0.0, float("inf"), 1.0], ["infinite", "index 1"]),
        ([], ["ts", "empty"]),
        ([0.0, 2.0, 1.0], ["index 2", "direction", "Sort"]),
        ([[0.0, 1.0, 2.0], [0.0, 3.0, 3.5], [5.0, 5.5, 5.2]], ["series 2", "index 2"]),
        ([[0.0, 1.0, 2.0], [0.0, 1.0, 1.0], [5.0, 5.0, 5.2]], ["series 2", "index 1", "duplicate"]),
    ],
)
def test_bad_times_are_refused_with_their_place(ts, fragments):
    times = torch.tensor(ts, dtype=F64)
    with pytest.raises(ValueError, match=fragments[0]) as error:
        ask(times, torch.ones(*times.shape[:-1], 2, dtype=F64))
    for fragment in fragments:
        assert fragment in str(error.value)


def test_times_on_both_sides_of_t0_are_refused():
    with pytest.raises(ValueError, match="solve twice"):
        ask(torch.tensor([-1.0, 1.0], dtype=F64), t0=0.0)


def test_a_bad_t0_is_named():
    with pytest.raises(ValueError, match="t0 is NaN"):
        ask(torch.tensor([1.0, 2.0], dtype=F64), t0=float("nan"))


def test_integer_times_are_float64():
    solution = ask(torch.arange(4))
    assert solution.ts.dtype == F64
    torch.testing.assert_close(solution.ys[:, 0], torch.exp(-torch.arange(4, dtype=F64)), rtol=1e-3, atol=1e-5)


def test_trailing_repeats_are_padding():
    short = torch.tensor([[0.0, 0.5, 1.5]], dtype=F64)
    padded = torch.tensor([[0.0, 0.5, 1.5, 1.5, 1.5]], dtype=F64)
    y0 = torch.ones(1, 2, dtype=F64)
    for options in ({}, {"solver": RK4(), "controller": StepTo(3)}):
        ys, more = ask(short, y0, **options).ys, ask(padded, y0, **options).ys
        assert torch.equal(more[:, :3], ys)
        assert torch.equal(more[:, 3:], ys[:, 2:].expand(-1, 2, -1))


def test_a_series_of_one_time_stays_where_it_is():
    ts = torch.tensor([[2.0, 2.0, 2.0], [0.0, 1.0, 2.0]], dtype=F64)
    y0 = torch.randn(2, 2, dtype=F64)
    for options in ({}, {"solver": RK4(), "controller": StepTo(1)}):
        assert torch.equal(ask(ts, y0, **options).ys[0], y0[:1].expand(3, -1))


def test_every_series_may_run_in_its_own_direction():
    ts = torch.tensor([[0.0, 1.0], [0.0, -1.0]], dtype=F64)
    ys = ask(ts, torch.ones(2, 1, dtype=F64), controller=PIDController(1e-8, 1e-10)).ys
    torch.testing.assert_close(ys[:, 1, 0], torch.exp(-ts[:, 1]), rtol=1e-7, atol=0)


def test_epoch_seconds_with_a_float32_state_are_refused_with_the_cure():
    ts = 1.7e9 + torch.linspace(0, 300, 4, dtype=F64)
    with pytest.raises(ValueError, match="Subtract an origin"):
        ask(ts, torch.ones(1, 1))


def test_epoch_seconds_with_a_float64_state_are_right():
    start = 1.7e9
    ts = start + torch.linspace(0, 300, 4, dtype=F64)
    field = lambda t, y: torch.cos((t - start) / 20)[..., None].expand_as(y)  # noqa: E731
    ys = solve(field, torch.zeros(1, 1, dtype=F64), ts, controller=PIDController(1e-8, 1e-10)).ys
    torch.testing.assert_close(ys[0, :, 0], 20 * torch.sin((ts - start) / 20), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("start", "span", "fits"), [(5e4, 0.5, False), (5e4, 100.0, True), (2e3, 1.0, True)])
def test_a_float32_clock_is_refused_where_it_is_coarse(start, span, fits):
    ts = start + torch.linspace(0, span, 4, dtype=F64)
    field = lambda t, y: torch.cos(6 * (t - start) / span)[..., None] / span + 0 * y  # noqa: E731
    if not fits:
        with pytest.raises(ValueError, match="Subtract an origin"):
            solve(field, torch.zeros(1, 1), ts)
        return
    ys = solve(field, torch.zeros(1, 1), ts, controller=PIDController(1e-4, 1e-6)).ys
    exact = torch.sin(6 * (ts - start) / span) / 6
    torch.testing.assert_close(ys[0, :, 0].double(), exact, rtol=0, atol=1e-3)


def test_a_float32_state_keeps_float64_clocks_for_its_steps():
    ts = 1e4 + torch.linspace(0, 50, 5, dtype=F64)
    ys = solve(decay, torch.ones(1, 1), ts, solver=RK4(), controller=StepTo(50)).ys
    torch.testing.assert_close(ys[0, :, 0], torch.exp(-(ts - 1e4)).float(), rtol=1e-4, atol=1e-7)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"y0 \(3, 1\), ts \(2, 4\)"):
        ask(torch.rand(2, 4).sort(-1).values, torch.ones(3, 1))


def test_steps_land_exactly_on_both_ends():
    """Ten thousand random starts, ends and steps, forward and backward, near 0 and far from it."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(*shape, dtype=F64, generator=generator)  # noqa: E731
    for _ in range(50):
        dt = float(10 ** (6 * draw(1) - 3))
        t0 = (draw(200) - 0.5) * 10 ** (8 * draw(200))
        t0 = torch.where(t0.abs() < 1e9 * dt, t0, t0.sign() * dt)
        steps = torch.where(draw(200) < 0.3, (60 * draw(200)).round(), 60 * draw(200))
        t1 = t0 + dt * steps * torch.where(draw(200) < 0.5, 1.0, -1.0)
        clock = Clock.create(t1[:, None], t0, torch.Size([200]), F64)
        for controller in (ConstantStep(dt), StepTo(7)):
            grid = controller.grid(clock, None)
            assert torch.equal(grid[0], t0)
            assert torch.equal(grid[-1], t1)
            lengths = grid.diff(dim=0) * clock.direction
            assert float(lengths.min()) >= 0
            longest = dt if isinstance(controller, ConstantStep) else float((t1 - t0).abs().max()) / 7
            assert float(lengths.max()) <= longest * (1 + 1e-9) + 1e-15 * float(t0.abs().max())


@pytest.mark.parametrize("controller", [PIDController(1e-6, 1e-8), ConstantStep(2.0**-4), StepTo(2)], ids=repr)
def test_a_shift_of_time_changes_nothing(controller):
    generator = torch.Generator().manual_seed(1)
    ts = torch.randint(1, 4096, (20, 9), generator=generator).sort(-1).values.unique_consecutive(dim=-1) / 1024.0
    ts = (ts + torch.arange(9) * 2.0**-10).to(F64)
    y0 = torch.rand(20, 2, dtype=F64, generator=generator)
    field = lambda t, y: torch.stack([y[..., 1], -torch.sin(y[..., 0])], -1)  # noqa: E731
    here = solve(field, y0, ts, controller=controller)
    far = solve(field, y0, ts + 2.0**30, controller=controller)
    back = solve(field, y0, -ts, controller=controller)
    torch.testing.assert_close(far.ys, here.ys, rtol=0, atol=1e-7)
    assert torch.equal(far.stats["steps"], here.stats["steps"])
    # Time that runs backward is the same field with the other sign.
    other = solve(lambda t, y: -field(t, y), y0, ts, controller=controller)
    torch.testing.assert_close(back.ys, other.ys, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [Euler(), ReversibleHeun()])
@pytest.mark.parametrize("t0", [0.0, 3.0, -50.0])
def test_rounded_times_that_mean_the_ends_of_steps_cost_nothing(solver, t0):
    calls = []

    def field(t, y):
        calls.append(y.numel())
        return -y

    exact = t0 + torch.arange(301, dtype=F64) / 30
    y0 = torch.ones(2, 1, dtype=F64)
    solutions = [
        solve(field, y0, times, solver=solver, controller=ConstantStep(1 / 30)) for times in (exact, exact.float())
    ]
    assert sum(calls) < 2 * 2 * 303, "a step of its own for every output"
    torch.testing.assert_close(solutions[1].ys, solutions[0].ys, rtol=1e-5, atol=0.0)
    assert torch.equal(*(solution.stats["steps"] for solution in solutions))


def test_rounding_hides_no_more_than_a_thousandth_of_a_step():
    """Float32 numbers near 2e7 are 2 apart; those that are given exactly are still where they are."""
    ts = 2e7 + torch.tensor([0.0, 2.0, 6.0, 8.0], dtype=torch.float32)
    ys = solve(
        lambda t, y: torch.ones_like(y), torch.zeros(1, dtype=F64), ts, controller=ConstantStep(4.0), solver=Euler()
    ).ys
    torch.testing.assert_close(ys[:, 0], torch.tensor([0.0, 2.0, 6.0, 8.0], dtype=F64), rtol=0.0, atol=1e-6)
