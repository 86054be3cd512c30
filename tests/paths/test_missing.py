"""Fitting with missing values: against exact interpolants, torchcde, and each channel on its own."""

import json
import os
from pathlib import Path

import pytest
import torch

from ctdyn.paths import HermitePath, LinearPath, NaturalCubicPath, fill_forward, fill_linear


F64 = torch.float64
ROOT = Path(os.environ.get("CTDYN_REFERENCE", "/nonexistent"))
needs_references = pytest.mark.skipif(not ROOT.is_dir(), reason="CTDYN_REFERENCE is not set")


def draw(batch=3, time=12, channels=4, share=0.5, seed=0):
    """Own clocks, about half the entries missing; the first series is padded, one channel was never observed."""
    generator = torch.Generator().manual_seed(seed)
    ts = (0.05 + torch.rand(batch, time, generator=generator, dtype=F64)).cumsum(-1)
    xs = torch.randn(batch, time, channels, generator=generator, dtype=F64)
    mask = torch.rand(batch, time, channels, generator=generator) < share
    ts[0, -3:] = ts[0, -4].clone()
    mask[0, -3:] = False
    mask[1, :, 2] = False
    mask[..., 0] |= ts.diff(dim=-1, prepend=ts[:, :1] - 1) > 0
    return ts, torch.where(mask, xs, torch.nan), mask


def table(rows):
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=F64)


@needs_references
def test_interpolants_with_missing_values_are_exact():
    case = json.loads((ROOT / "cde" / "interpolation_missing.json").read_text())
    ts = torch.tensor([float(t) for t in case["times"]], dtype=F64)
    query = torch.tensor([float(t) for t in case["query"]], dtype=F64)
    xs = table(case["X"])
    paths = {"linear": LinearPath(ts, fill_linear(ts, xs)), "natural_cubic": NaturalCubicPath(ts, xs, ~xs.isnan())}
    for name, path in paths.items():
        values = path(query)
        # The derivative of the reference is the one from the left.
        slopes = torch.stack([path.restrict(t - 1e-7, t).derivative(t) for t in query[1:]])
        for wanted in case["channels"]:
            channel = wanted["channel"]
            value, slope = table(wanted[name]).unbind(-1)
            # Two knots 1e-5 apart make the problem itself this sensitive to the rounding of their times.
            close = 1e-11 if name == "linear" else 1e-10 * float(1 + slope.abs().max())
            torch.testing.assert_close(values[:, channel], value, rtol=0, atol=close)
            torch.testing.assert_close(slopes[:, channel], slope[1:], rtol=1e-8, atol=1e-9)
    place = torch.searchsorted(ts, query, right=True) - 1
    held = fill_forward(xs, before=None)[place]
    for wanted in case["channels"]:
        expected = torch.tensor([float(value) for value in wanted["forward_fill"]], dtype=F64)
        torch.testing.assert_close(held[:, wanted["channel"]], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "cubic", "hermite"])
def test_missing_values_are_filled_as_torchcde_does(kind):
    torchcde = pytest.importorskip("torchcde")
    ts, xs, mask = draw()
    xs[1, :, 2] = 0.0
    for series in range(3):
        width = int((ts[series] < ts[series, -1]).sum()) + 1
        clock, values = ts[series, :width], xs[series : series + 1, :width]
        if kind == "linear":
            peer = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(values, clock), clock)
        elif kind == "cubic":
            peer = torchcde.CubicSpline(torchcde.natural_cubic_coeffs(values, clock), clock)
        else:
            coefficients = torchcde.hermite_cubic_coefficients_with_backward_differences(values, clock)
            peer = torchcde.CubicSpline(coefficients, clock)
        mine = {
            "linear": lambda: LinearPath(ts, fill_linear(ts, xs)),
            "hermite": lambda: HermitePath(ts, fill_linear(ts, xs)),
            "cubic": lambda: NaturalCubicPath(ts, xs, mask | (xs == 0)),
        }[kind]()
        for t in torch.linspace(float(clock[0]) + 1e-3, float(clock[-1]) - 1e-3, 30, dtype=F64):
            times = ts[:, 0].clone().index_fill(0, torch.tensor(series), float(t))
            torch.testing.assert_close(mine.evaluate(times)[series], peer.evaluate(t)[0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(mine.derivative(times)[series], peer.derivative(t)[0], rtol=1e-7, atol=1e-7)


def test_the_natural_cubic_is_scipys_where_nothing_is_missing():
    interpolate = pytest.importorskip("scipy.interpolate")
    ts, xs, _ = draw()
    xs = torch.nan_to_num(xs)
    path = NaturalCubicPath(ts[1:], xs[1:])
    for series in range(2):
        clock = ts[1 + series].numpy()
        peer = interpolate.CubicSpline(clock, xs[1 + series].numpy(), bc_type="natural")
        query = torch.linspace(float(clock[0]), float(clock[-1]) - 1e-9, 50, dtype=F64)
        found = path(query.expand(2, -1))[series]
        torch.testing.assert_close(found, torch.from_numpy(peer(query.numpy())), rtol=0, atol=1e-10)


def test_a_channel_with_missing_values_is_fitted_as_if_it_were_alone():
    ts, xs, mask = draw()
    path = NaturalCubicPath(ts, xs, mask)
    series, channel = 2, 1
    held = mask[series, :, channel].clone()
    ends = (held.cumsum(0) == 0) | (held.flip(0).cumsum(0) == 0).flip(0)
    values = fill_linear(ts[series], xs[series])[:, channel : channel + 1]
    alone = NaturalCubicPath(ts[series, held | ends], values[held | ends])
    query = torch.linspace(float(ts[series, 0]), float(ts[series, -1]), 40, dtype=F64)
    torch.testing.assert_close(
        path(query.expand(3, -1))[series, :, channel], alone(query)[:, 0], rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_channel_that_was_never_observed_is_zero(share):
    ts, xs, mask = draw(share=share)
    for filled in (fill_linear(ts, xs), fill_forward(xs), fill_forward(xs, before=None)):
        assert torch.isfinite(filled).all()
        assert torch.equal(filled[1, :, 2], torch.zeros(12, dtype=F64))
    path = NaturalCubicPath(ts, xs, mask)
    assert torch.equal(path(ts)[1, :, 2], torch.zeros(12, dtype=F64))


def test_filling_keeps_what_was_observed_and_a_mask_says_the_same_as_nan():
    ts, xs, mask = draw()
    junk = torch.where(mask, xs, 1e9)
    for with_nan, masked in (
        (fill_linear(ts, xs), fill_linear(ts, junk, mask)),
        (fill_forward(xs), fill_forward(junk, mask)),
        (NaturalCubicPath(ts, xs, mask)(ts), NaturalCubicPath(ts, junk, mask)(ts)),
    ):
        assert torch.equal(with_nan, masked)
        assert torch.allclose(with_nan[mask], xs[mask])


def test_filling_forward_does_not_look_ahead():
    _, xs, mask = draw()
    later = torch.where(torch.arange(12)[:, None] >= 6, 7.0, xs)
    assert torch.equal(fill_forward(xs)[:, :6], fill_forward(later)[:, :6])
    first = mask.to(torch.int64).cumsum(1) == 0
    assert torch.equal(fill_forward(xs, before=-1.0)[first], torch.full((int(first.sum()),), -1.0, dtype=F64))


def test_gradients_with_missing_values_are_exact_and_none_reach_the_junk():
    ts, xs, mask = draw(batch=2, time=6, channels=3)
    junk = torch.where(mask, xs, 1.0)
    query = torch.rand(2, 4, generator=torch.Generator().manual_seed(1), dtype=F64) + ts[:, :1]

    def both(ts, xs):
        return LinearPath(ts, fill_linear(ts, xs, mask))(query), NaturalCubicPath(ts, xs, mask)(query)

    steady = ts[1:].clone().requires_grad_(), junk[1:].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda ts, xs: (
            LinearPath(ts, fill_linear(ts, xs, mask[1:]))(query[1:]),
            NaturalCubicPath(ts, xs, mask[1:])(query[1:]),
        ),
        steady,
    )
    poisoned = xs.clone().requires_grad_()
    sum(values.sum() for values in both(ts, poisoned)).backward()
    assert torch.isfinite(poisoned.grad).all()
    assert torch.equal(poisoned.grad[~mask], torch.zeros(int((~mask).sum()), dtype=F64))


def test_a_long_natural_cubic_is_as_exact_as_a_short_one():
    ts = torch.linspace(0.0, 20.0, 3000, dtype=F64)
    path = NaturalCubicPath(ts, ts.sin()[:, None])
    query = torch.linspace(1.0, 19.0, 997, dtype=F64)
    torch.testing.assert_close(path(query)[:, 0], query.sin(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("ts", "xs", "mask", "match"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4, 1), None, "time, channel"),
        (torch.tensor([0.0, 1.0]), torch.zeros(2, 1), torch.ones(2, 1), "boolean"),
        (torch.tensor([0.0, 1.0]), torch.zeros(2, 1), torch.ones(2, 2, dtype=torch.bool), "shape of xs"),
        (torch.tensor([0.0, 1.0]), torch.full((2, 1), torch.inf), None, "index"),
        (torch.tensor([0.0, 1.0]), torch.full((2, 1), torch.nan), torch.ones(2, 1, dtype=torch.bool), "mask says"),
    ],
)
def test_bad_values_are_refused(ts, xs, mask, match):
    with pytest.raises(ValueError, match=match):
        fill_linear(ts, xs, mask)


def test_a_spline_needs_values_and_times_that_increase():
    with pytest.raises(ValueError, match="xs hold NaN"):
        NaturalCubicPath(torch.tensor([0.0, 1.0]), torch.full((2, 1), torch.nan))
    with pytest.raises(ValueError, match="increase strictly"):
        NaturalCubicPath(torch.tensor([0.0, 1.0, 1.0, 2.0]), torch.zeros(4, 1))
