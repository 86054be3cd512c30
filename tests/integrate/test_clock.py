import pytest
import torch

from ctdyn.integrate import PIDController, StepTo, solve
from ctdyn.solvers import RK4


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


def test_a_float32_state_keeps_float64_clocks_for_its_steps():
    ts = 1e4 + torch.linspace(0, 50, 5, dtype=F64)
    ys = solve(decay, torch.ones(1, 1), ts, solver=RK4(), controller=StepTo(50)).ys
    torch.testing.assert_close(ys[0, :, 0], torch.exp(-(ts - 1e4)).float(), rtol=1e-4, atol=1e-7)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"y0 \(3, 1\), ts \(2, 4\)"):
        ask(torch.rand(2, 4).sort(-1).values, torch.ones(3, 1))
