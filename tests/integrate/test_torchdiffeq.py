import warnings

import pytest
import torch

from ctdyn._checks import MaxStepsError, NonFiniteError, StepSizeError
from ctdyn.integrate import ConstantStep, Direct, PIDController, TorchCDE, TorchDiffEq, solve
from ctdyn.paths import LinearPath
from ctdyn.solvers import Tsit5
from ctdyn.terms import ODETerm
from ctdyn.testing import check_engine


ADAPTIVE = ["dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun"]
FIXED = {"euler": 0.05, "midpoint": 2e-3, "heun2": 2e-3, "heun3": 1e-4, "rk4": 1e-5}
MULTISTEP = ["explicit_adams", "implicit_adams", "fixed_adams"]


def swing(t, y):
    return y * torch.cos(3 * t)[..., None]


def exact(t0, y0, ts):
    return y0[:, None] * torch.exp((torch.sin(3 * ts) - torch.sin(3 * t0[:, None])) / 3)[..., None]


def problem(batch=3, time=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ts = (0.02 + 0.4 * torch.rand(batch, time, generator=generator, dtype=torch.float64)).cumsum(-1)
    ts[1, -3:] = ts[1, -3:-2].clone()
    t0 = torch.tensor([0.0, -0.5, 0.01], dtype=torch.float64)[:batch]
    return t0, 1 + torch.rand(batch, 2, generator=generator, dtype=torch.float64), ts


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_contract_of_adaptive_methods(method):
    check_engine(TorchDiffEq(method, rtol=1e-5, atol=1e-7), tolerance=1e-2)


@pytest.mark.parametrize("method", ["heun3", "rk4"])
def test_contract_of_fixed_steps(method):
    check_engine(TorchDiffEq(method, step_size=0.02))


@pytest.mark.parametrize("method", ["implicit_adams", "fixed_adams"])
def test_contract_of_multistep_methods(method):
    check_engine(TorchDiffEq(method, step_size=0.02), own_clocks=False)


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("sign", [1, -1], ids=["forward", "backward"])
def test_own_clocks_adaptive(method, sign):
    t0, y0, ts = problem()
    solution = solve(swing, y0, sign * ts, t0=sign * t0, solver=TorchDiffEq(method, rtol=1e-6, atol=1e-8))
    # The error estimate of fehlberg2 in torchdiffeq is a loose one.
    tolerance = 2e-3 if method == "fehlberg2" else 1e-4
    assert torch.allclose(solution.ys, exact(sign * t0, y0, sign * ts), atol=tolerance)


@pytest.mark.parametrize(("method", "error"), FIXED.items())
@pytest.mark.parametrize("sign", [1, -1], ids=["forward", "backward"])
def test_own_clocks_fixed_steps(method, error, sign):
    t0, y0, ts = problem()
    solution = solve(swing, y0, sign * ts, t0=sign * t0, solver=TorchDiffEq(method, step_size=0.02))
    assert torch.allclose(solution.ys, exact(sign * t0, y0, sign * ts), atol=3 * error)


@pytest.mark.parametrize("method", [*ADAPTIVE, *FIXED, *MULTISTEP])
def test_shared_clocks(method):
    _, y0, _ = problem()
    ts = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    options = {} if method in ADAPTIVE else {"step_size": 0.01}
    solution = solve(swing, y0, ts, solver=TorchDiffEq(method, rtol=1e-6, atol=1e-8, **options))
    zero = torch.zeros(3, dtype=torch.float64)
    assert torch.allclose(solution.ys, exact(zero, y0, ts.expand(3, -1)), atol=0.15 if method == "euler" else 2e-3)


def test_without_a_jump_at_every_time_the_answer_would_be_wrong():
    """Why the engine does not run over the index of the times: without `jump_t` at each of them it misses by far."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    t0, y0, ts = problem(time=30)
    ts = ts.clone()
    ts[:, 15:] += 3.0
    clock = torch.cat([t0[:, None], ts], -1)
    gaps = clock.diff(dim=-1)

    def naive(s, y):
        k = min(int(s), gaps.shape[-1] - 1)
        return gaps[:, k, None] * swing(clock[:, k] + (s - k) * gaps[:, k], y)

    index = torch.arange(clock.shape[-1], dtype=torch.float64)
    options = {"rtol": 1e-4, "atol": 1e-6}
    wrong = torchdiffeq.odeint(naive, y0, index, method="dopri5", **options).movedim(0, 1)[:, 1:]
    right = solve(swing, y0, ts, t0=t0, solver=TorchDiffEq("dopri5", **options)).ys
    want = exact(t0, y0, ts)
    assert (right - want).abs().max() < 1e-2
    assert (wrong - want).abs().max() > 10 * (right - want).abs().max()


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_knots_of_the_inputs_are_marked(method, shared):
    generator = torch.Generator().manual_seed(3)
    t0, y0, ts = problem()
    if shared:
        t0, ts = torch.zeros_like(t0), torch.linspace(0.1, 2.0, 7, dtype=torch.float64).expand(3, -1)
    knots = (0.3 * torch.rand(3, 9, generator=generator, dtype=torch.float64)).cumsum(-1) - 0.6
    inputs = LinearPath(knots, 3 * torch.randn(3, 9, 2, generator=generator, dtype=torch.float64))

    def field(t, y, u):
        return u - y

    tight = {"inputs": inputs, "t0": t0}
    truth = solve(field, y0, ts, controller=PIDController(1e-11, 1e-12), **tight).ys
    found = solve(field, y0, ts, solver=TorchDiffEq(method, rtol=1e-6, atol=1e-8), **tight).ys
    assert (found - truth).abs().max() < 1e-4


def test_many_outputs_cost_no_more_steps_than_few():
    """Its own steps, and one gather: neither a step nor a copy per output."""
    t0, y0, ts = problem(time=40)
    engine = TorchDiffEq("dopri5", rtol=1e-6, atol=1e-8)
    counts = [solve(swing, y0, times, t0=t0, solver=engine).stats["evaluations"] for times in (ts, ts[:, -1:])]
    assert torch.equal(*counts)


def test_gradients_of_the_times_are_exact_on_own_clocks():
    t0, y0, ts = problem()
    ts[1, -3:] += torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64)
    t0, ts = t0.requires_grad_(), ts.requires_grad_()
    probe = torch.rand(3, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ys = solve(swing, y0, ts, t0=t0, solver=TorchDiffEq("dopri5", rtol=1e-9, atol=1e-11)).ys
    found = torch.autograd.grad((ys * probe).sum(), (t0, ts))
    want = torch.autograd.grad((exact(t0, y0, ts) * probe).sum(), (t0, ts))
    for got, wanted in zip(found, want, strict=True):
        assert torch.allclose(got, wanted, atol=1e-4)


def test_a_step_that_ends_on_a_time_by_itself_is_survived():
    """A smooth field on equal gaps is solved by dopri8 in steps of one gap: torchdiffeq then forgot all later jumps."""
    t0 = torch.zeros(2, dtype=torch.float64)
    gaps = torch.tensor([0.3] * 10 + [0.02] * 4 + [0.5] * 6, dtype=torch.float64)
    ts = torch.stack([gaps, gaps.flip(0)]).cumsum(-1)
    y0 = torch.ones(2, 2, dtype=torch.float64)
    for rtol in torch.logspace(-9, -3, 7).tolist():
        ys = solve(swing, y0, ts, t0=t0, solver=TorchDiffEq("dopri8", rtol=rtol, atol=rtol)).ys
        assert (ys - exact(t0, y0, ts)).abs().max() < 100 * rtol


def test_gradients_are_exact():
    t0, y0, ts = problem()
    y0.requires_grad_()
    probe = torch.rand(3, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ys = solve(swing, y0, ts, t0=t0, solver=TorchDiffEq("dopri5", rtol=1e-8, atol=1e-10)).ys
    (found,) = torch.autograd.grad((ys * probe).sum(), y0)
    (want,) = torch.autograd.grad((exact(t0, y0, ts) * probe).sum(), y0)
    assert torch.allclose(found, want, atol=1e-6)


def test_inputs_parameters_and_their_gradients_agree_with_our_own_solver():
    t0, y0, ts = problem()
    layer = torch.nn.Linear(3, 2, dtype=torch.float64)

    def field(t, y, u):
        return torch.tanh(layer(torch.cat([y, u], -1)))

    xs = torch.rand(3, 7, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    gradients = []
    for options in (
        {"solver": TorchDiffEq("dopri5", rtol=1e-8, atol=1e-10)},
        {"solver": Tsit5(), "controller": PIDController(rtol=1e-9, atol=1e-11)},
    ):
        ys = solve(field, y0, ts, t0=t0, inputs=LinearPath(ts, xs), **options).ys
        gradients.append(torch.autograd.grad(ys.square().sum(), [xs, *layer.parameters()]))
    for found, want in zip(*gradients, strict=True):
        assert torch.allclose(found, want, rtol=1e-5, atol=1e-7)


def test_padding_and_a_first_time_equal_to_t0_cost_nothing():
    t0, y0, ts = problem()
    engine = TorchDiffEq("rk4")
    _, plain = engine.run(ODETerm(swing), y0, ts, t0)
    longer = torch.cat([t0[:, None], ts, ts[:, -1:].expand(-1, 4)], -1)
    ys, padded = engine.run(ODETerm(swing), y0, longer, t0)
    assert torch.equal(plain["evaluations"], padded["evaluations"])
    assert torch.equal(ys[:, 0], y0)
    assert torch.equal(ys[:, -1], ys[:, -5])
    assert plain["evaluations"].tolist() == [4 * 7] * 3


def test_never_more_intervals_than_the_longest_row():
    """The union of all clocks would have 60 times; rk4 evaluates four times per interval of the longest row only."""
    t0, y0, ts = problem(time=20)
    solution = solve(swing, y0, ts, t0=t0, solver=TorchDiffEq("rk4"))
    assert int(solution.stats["evaluations"].max()) == 4 * 20


def test_a_clock_with_a_large_offset_keeps_its_precision_in_float32():
    _, y0, _ = problem()
    steps = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    engine = TorchDiffEq("dopri5", rtol=1e-5, atol=1e-6)
    start = torch.zeros(3, dtype=torch.float64)
    near, _ = engine.run(ODETerm(lambda t, y: -y), y0.float(), steps.expand(3, -1), start)
    far, _ = engine.run(ODETerm(lambda t, y: -y), y0.float(), (1.7e9 + steps).expand(3, -1), start + 1.7e9)
    assert near.dtype == torch.float32
    assert torch.allclose(near, far, atol=1e-5)


def test_one_time_is_the_initial_state():
    t0, y0, _ = problem()
    ys, stats = TorchDiffEq().run(ODETerm(swing), y0, t0[:, None], t0)
    assert torch.equal(ys[:, 0], y0)
    assert stats["evaluations"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("method", [*MULTISTEP, "scipy_solver"])
def test_methods_with_a_memory_refuse_own_clocks(method):
    t0, y0, ts = problem()
    with pytest.raises(ValueError, match="one-step method"):
        solve(swing, y0, ts, t0=t0, solver=TorchDiffEq(method))


@pytest.mark.parametrize("method", MULTISTEP)
def test_multistep_methods_refuse_unequal_steps(method):
    _, y0, _ = problem()
    with pytest.raises(ValueError, match="step_size"):
        solve(swing, y0, torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64), solver=TorchDiffEq(method))


def test_scipy_is_refused_where_gradients_are_wanted():
    _, y0, _ = problem()
    ts = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    engine = TorchDiffEq("scipy_solver", rtol=1e-7, atol=1e-9)
    with pytest.raises(ValueError, match="no gradients"):
        solve(swing, y0.clone().requires_grad_(), ts, solver=engine)
    found = solve(swing, y0, ts, solver=engine).ys
    assert torch.allclose(found, exact(torch.zeros(3, dtype=torch.float64), y0, ts.expand(3, -1)), atol=1e-5)


@pytest.mark.parametrize("option", ["first_step", "max_step", "min_step", "step_t", "jump_t"])
def test_options_in_the_unit_of_time_are_refused_on_own_clocks(option):
    t0, y0, ts = problem()
    value = torch.tensor([0.1]) if option.endswith("_t") else 0.1
    with pytest.raises(ValueError, match=option):
        solve(swing, y0, ts, t0=t0, solver=TorchDiffEq("dopri5", **{option: value}))


def test_step_t_lands_on_a_shared_clock_that_does_not_start_at_zero():
    _, y0, _ = problem()
    ts = torch.linspace(2.0, 3.0, 6, dtype=torch.float64)
    loose = {"rtol": 1e-6, "atol": 1e-8}
    want = exact(torch.full((3,), 2.0, dtype=torch.float64), y0, ts.expand(3, -1))
    landed = solve(swing, y0, ts, solver=TorchDiffEq("dopri8", step_t=ts[1:], **loose)).ys
    read = solve(swing, y0, ts, solver=TorchDiffEq("dopri8", **loose)).ys
    assert (landed - want).abs().max() < 1e-6
    assert (landed - want).abs().max() < (read - want).abs().max()


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="no method 'tsit6'"):
        TorchDiffEq("tsit6")
    with pytest.raises(ValueError, match="step_size"):
        TorchDiffEq("dopri5", step_size=0.1)
    with pytest.raises(ValueError, match="grid_constructor"):
        TorchDiffEq("rk4", grid_constructor=None)
    t0, y0, ts = problem()
    for beside in ({"controller": ConstantStep(0.1)}, {"adjoint": Direct()}):
        with pytest.raises(ValueError, match=next(iter(beside))):
            solve(swing, y0, ts, t0=t0, solver=TorchDiffEq(), **beside)


def test_failures_say_what_to_do():
    _, y0, _ = problem()
    ts = torch.linspace(0.0, 3.0, 4, dtype=torch.float64)
    with pytest.raises(StepSizeError, match="Loosen"):
        solve(lambda t, y: y**2, y0, ts, solver=TorchDiffEq("dopri5"))
    with pytest.raises(MaxStepsError, match="max_num_steps"):
        solve(swing, y0, ts, solver=TorchDiffEq("dopri5", rtol=1e-9, atol=1e-9, max_num_steps=2))
    with pytest.raises((NonFiniteError, StepSizeError), match="TorchDiffEq"):
        solve(lambda t, y: y * torch.nan, y0, ts, solver=TorchDiffEq("dopri5"))


def test_no_warnings():
    t0, y0, ts = problem()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in ("dopri5", "rk4"):
            solve(swing, y0.clone().requires_grad_(), ts, t0=t0, solver=TorchDiffEq(method))


@pytest.mark.parametrize(
    ("engine", "method", "option", "meant"),
    [
        (TorchDiffEq, "dopri5", "max_stepp", "max_step"),
        (TorchDiffEq, "rk4", "stepsize", "step_size"),
        (TorchDiffEq, "rk4", "first_step", "options are interp"),
        (TorchDiffEq, "fixed_adams", "max_ordr", "max_order"),
        (TorchDiffEq, "scipy_solver", "solvr", "solver"),
        (TorchCDE, "dopri5", "safty", "safety"),
    ],
)
def test_options_that_torchdiffeq_would_drop_are_refused_with_the_close_name(engine, method, option, meant):
    with pytest.raises(TypeError, match=f"no option '{option}'.*{meant}"):
        engine(method, **{option: 0.1})
