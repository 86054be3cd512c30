"""Controls from observations with gaps: their channels, and what they know of the future."""

import pytest
import torch

from ctdyn.data import IrregularBatch
from ctdyn.encoders import CDEEncoder, StartEncoder
from ctdyn.fields import LogODEField, MLPCDEField
from ctdyn.integrate import StepTo, solve
from ctdyn.paths import (
    Control,
    HermitePath,
    LinearPath,
    LogSignaturePath,
    NaturalCubicPath,
    RectilinearPath,
    fill_forward,
    fill_linear,
)
from ctdyn.solvers import RK4
from ctdyn.testing import check_path


F64 = torch.float64
KINDS = (LinearPath, HermitePath, NaturalCubicPath, RectilinearPath)
CUT = 6


def draw(missing=0.4, batch=3, time=12, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ts = (0.05 + torch.rand(batch, time, generator=generator, dtype=F64)).cumsum(-1)
    xs = torch.randn(batch, time, channels, generator=generator, dtype=F64)
    hidden = torch.rand(batch, time, channels, generator=generator) < missing
    return ts, torch.where(hidden, torch.nan, xs)


def states(control, ts, xs):
    """A neural CDE along the control, at the times of the rows."""
    torch.manual_seed(0)
    path = control(ts, xs)
    field = MLPCDEField(4, control.size(xs.shape[-1])).double()
    at = path.after(ts) if isinstance(path, RectilinearPath) else ts
    y0 = torch.zeros(*ts.shape[:-1], 4, dtype=F64)
    return solve(field, y0, at, inputs=path, solver=RK4(), controller=StepTo(2)).ys


def leak(control, ts, xs):
    """Relative change of the states up to a row when all observations after it change."""
    later = torch.arange(ts.shape[-1])[:, None] >= CUT
    before, after = states(control, ts, xs), states(control, ts, torch.where(later, xs + 3.0, xs))
    change = (after - before).detach()[:, :CUT].norm() / before.detach()[:, :CUT].norm()
    assert not torch.allclose(before[:, CUT:], after[:, CUT:])
    return float(change)


@pytest.mark.parametrize("counts", [0.0, 1.0])
def test_what_each_path_knows_of_the_future(counts):
    """The table of perturbations: zero is exactly zero."""
    found = {}
    for missing in (0.0, 0.4):
        ts, xs = draw(missing)
        found[missing] = [leak(Control(kind, counts=counts), ts, xs) for kind in KINDS]
    linear, hermite, natural, rectilinear = found[0.0]
    assert linear == hermite == rectilinear == 0.0
    assert natural > 0.02
    linear, hermite, natural, rectilinear = found[0.4]
    assert rectilinear == 0.0
    assert min(linear, hermite, natural) > 0.02


def test_nothing_that_is_marked_causal_leaks():
    for missing in (0.0, 0.4):
        ts, xs = draw(missing)
        for kind in KINDS:
            try:
                control = Control(kind, causal=True)
                assert leak(control, ts, xs) == 0.0
            except ValueError as error:
                assert "causal=True" in str(error)  # noqa: PT017
                assert kind is NaturalCubicPath or missing
                continue
            assert kind is RectilinearPath or not missing
    held = fill_forward(draw(0.4)[1])
    assert leak(Control(HermitePath, causal=True), ts, held) == 0.0


def upstream(ts, xs, *, straight=False):
    """A neural CDE on one series by torchcde, as its examples call it, at the times of the rows."""
    import torchcde

    torch.manual_seed(0)
    field, rows = MLPCDEField(4, xs.shape[-1]).double(), ts[0]
    if straight:
        path = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(xs[:1], rows), rows)
    else:
        path = torchcde.CubicSpline(torchcde.hermite_cubic_coefficients_with_backward_differences(xs[:1], rows), rows)
    y0 = torch.zeros(1, 4, dtype=F64)
    options = {"rtol": 1e-8, "atol": 1e-10, "options": {"jump_t": rows[1:-1]}, "adjoint": False}
    return torchcde.cdeint(X=path, func=lambda t, y: field(t.expand(len(y)), y), z0=y0, t=rows, **options)


def test_upstream_interpolates_across_what_is_missing_and_says_nothing():
    ts, xs = draw(0.4)
    later = torch.arange(ts.shape[-1])[:, None] >= CUT
    before, after = upstream(ts, xs), upstream(ts, torch.where(later, xs + 3.0, xs))
    change = (after - before).detach()[:, :CUT].norm() / before.detach()[:, :CUT].norm()
    # Ours is 0, or `causal=True` refuses it.
    assert float(change) > 0.02


def test_sampling_times_and_levels_matter_as_they_do_not_upstream():
    """The time is a channel, and the first state knows the first values; an increment alone knows neither."""
    ts, xs = draw(0.0)
    other = ts[:, :1] + (ts - ts[:, :1]).pow(1.5)
    torch.manual_seed(0)
    encoder = StartEncoder(CDEEncoder(2, 4, MLPCDEField(4, 5), Control(HermitePath)), 4, 3, ()).double()

    def ours(ts, xs):
        batch = IrregularBatch(ts, xs, torch.ones_like(xs, dtype=torch.bool))
        return encoder(batch).q0.mean

    with torch.no_grad():
        usual = ours(ts, xs)
        assert float((ours(other, xs) - usual).abs().max()) > 1e-2
        assert float((ours(ts, xs + 10.0) - usual).abs().max()) > 1e-2
        plain = upstream(ts, xs, straight=True)
        torch.testing.assert_close(upstream(other, xs, straight=True), plain, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(upstream(ts, xs + 10.0, straight=True), plain, rtol=1e-6, atol=1e-6)


def test_whether_a_value_will_come_is_of_the_future_too():
    """Counts change when an observation is made and not before, and no channel is filled from what is first seen."""
    ts, xs = draw(0.4)
    xs[:, :CUT, 0] = torch.nan
    gone = xs.clone()
    gone[:, CUT:] = torch.nan
    control = Control(RectilinearPath, causal=True)
    assert torch.equal(states(control, ts, xs)[:, :CUT], states(control, ts, gone)[:, :CUT])


def test_its_channels_are_time_counts_and_values():
    ts, xs = draw(0.4)
    seen = ~xs.isnan()
    path = Control(LinearPath, counts=0.5)(ts, xs)
    assert Control(LinearPath, counts=0.5).size(2) == path.xs.shape[-1] == 5
    assert Control(LinearPath, counts=0.0).size(2) == Control(counts=0.0)(ts, xs).xs.shape[-1] == 3
    torch.testing.assert_close(path.xs[..., 0], ts - ts[:, :1])
    torch.testing.assert_close(path.xs[..., 1:3], 0.5 * seen.to(F64).cumsum(1))
    torch.testing.assert_close(path.xs[..., 3:], fill_linear(ts, xs))
    steps = Control(RectilinearPath)(ts, xs)
    torch.testing.assert_close(steps(steps.after(ts))[..., 3:], fill_forward(xs))
    torch.testing.assert_close(steps(steps.before(ts))[:, 1:, 1], seen[:, :-1, 0].to(F64).cumsum(1))
    for kind in (LinearPath, NaturalCubicPath):
        check_path(Control(kind)(ts, torch.nan_to_num(xs)), ts[:, 0], ts[:, -1])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_what_stands_under_the_mask_change_nothing(kind):
    ts, xs = draw(0.4)
    control = Control(kind)
    longer = torch.cat([ts, ts[:, -1:].expand(-1, 3)], -1)
    padded = torch.cat([xs, torch.full_like(xs[:, :3], torch.nan)], 1)
    torch.testing.assert_close(states(control, longer, padded)[:, :12], states(control, ts, xs), rtol=1e-12, atol=0)
    path, junk = control(ts, xs), control(ts, torch.where(xs.isnan(), 1e6, xs), ~xs.isnan())
    at = path.ts
    torch.testing.assert_close(path(at), junk(at), rtol=0, atol=0)


def test_time_is_felt_only_where_it_is_a_channel():
    """Without time among the channels the pace of the observations is lost; ours has it, always."""
    ts, xs = draw(0.0)
    slower = ts * torch.linspace(1.0, 3.0, 12, dtype=F64)
    torch.manual_seed(0)
    field, y0 = MLPCDEField(4, 2).double(), torch.zeros(3, 4, dtype=F64)
    bare = [solve(field, y0, t[:, [0, -1]], inputs=LinearPath(t, xs)).ys[:, -1] for t in (ts, slower)]
    assert (bare[0] - bare[1]).abs().max() < 1e-3 * bare[0].abs().max()
    felt = [states(Control(LinearPath), t, xs)[:, -1] for t in (ts, slower)]
    assert (felt[0] - felt[1]).abs().max() > 0.05 * felt[0].abs().max()


def test_log_signatures_over_windows():
    ts, xs = draw(0.3)
    control = Control(LinearPath, counts=0.0, window=4)
    path = control(ts, xs)
    assert isinstance(path, LogSignaturePath)
    assert control.size(2) == path.xs.shape[-1] == 6
    torch.testing.assert_close(path.ts, ts[:, [0, 4, 8, 11]])
    ends = torch.cat([(ts - ts[:, :1])[..., None], fill_linear(ts, xs)], -1)
    torch.testing.assert_close(path.xs[:, -1, :3], ends[:, -1] - ends[:, 0])
    field = LogODEField(MLPCDEField(4, 3).double(), 3)
    assert solve(field, torch.zeros(3, 4, dtype=F64), path.ts, inputs=path).ys.shape == (3, 4, 4)
    steps = Control(RectilinearPath, counts=0.0, window=5)(ts, xs)
    assert isinstance(steps, LogSignaturePath)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"interpolation": NaturalCubicPath, "causal": True}, "RectilinearPath, which never looks ahead"),
        ({"interpolation": HermitePath, "window": 3}, "straight lines"),
        ({"interpolation": LinearPath, "window": 3, "causal": True}, "end of each window"),
        ({"window": -1}, "window"),
        ({"interpolation": LogSignaturePath}, "one of the classes"),
    ],
)
def test_a_control_that_cannot_be_is_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        Control(**arguments)


def test_bad_observations_are_named():
    ts, xs = draw(0.0)
    xs[1, 5, 0] = torch.nan
    with pytest.raises(ValueError, match="channel 0 of series 1 has no value at row 5, which LinearPath"):
        Control(LinearPath, causal=True)(ts, xs)
    with pytest.raises(ValueError, match="index"):
        Control()(ts, torch.full_like(xs, torch.inf))
    with pytest.raises(ValueError, match="time, channel"):
        Control()(ts[:, :3], xs)
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"decrease|increase"):
            Control(kind)(ts.flip(-1), torch.nan_to_num(xs))
