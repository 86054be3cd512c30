import datetime
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctdyn._checks import DataError
from ctdyn._config import from_config, to_config
from ctdyn.data import AnyOf, Extrapolate, Interpolate, OneStep, Reconstruct, Series, TimeAxis, TimeWarp, WindowMaker


MAKERS = [
    Extrapolate(),
    Extrapolate(include_context=True),
    Extrapolate(context=3.0, horizon=2.0),
    Extrapolate(horizon=2.0),
    Extrapolate(cut=5.0),
    Extrapolate(cut=5, context=2, horizon=3),
    Interpolate(),
    Interpolate(keep=0.2, length=4.0),
    Interpolate(include_context=True),
    OneStep(),
    OneStep(context=2.0),
    Reconstruct(),
    Reconstruct(length=3.0),
    AnyOf(Interpolate(), Extrapolate(context=2.0)),
    TimeWarp(Extrapolate(context=2.0), 1.0, 1.0),
]
CLASSES = {maker.__name__: maker for maker in (AnyOf, Extrapolate, Interpolate, OneStep, Reconstruct, TimeWarp)}


def series(count: int, *, hidden: float = 0.3, seed: int = 0) -> Series:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, 2))
    values[rng.uniform(size=values.shape) < hidden] = np.nan
    return Series("a", np.sort(rng.uniform(0.0, 10.0, count)), values)


@pytest.mark.parametrize("maker", MAKERS, ids=str)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 1000))
def test_every_maker_on_any_series(maker: WindowMaker, count: int, seed: int) -> None:
    one = series(count, seed=seed)
    window = maker(one, np.random.default_rng(seed))
    if window is None:
        return
    context, target = window
    assert context.observed.any()
    assert target.observed.any()
    rows = {(time, value.tobytes()) for time, value in zip(one.times, one.values, strict=True)}
    for part in (context, target):
        assert all((time, value.tobytes()) in rows for time, value in zip(part.times, part.values, strict=True))
    again = maker(one, np.random.default_rng(seed))
    assert again is not None
    np.testing.assert_array_equal(again[0].times, context.times)
    np.testing.assert_array_equal(again[1].times, target.times)


@pytest.mark.parametrize("maker", [m for m in MAKERS if isinstance(m, Extrapolate | Interpolate | OneStep)], ids=str)
def test_the_target_never_reaches_the_context(maker: WindowMaker) -> None:
    for seed in range(20):
        window = maker(series(30, seed=seed), np.random.default_rng(seed))
        assert window is not None
        context, target = window
        shared = np.isin(context.times, target.times[target.observed])
        scored = "context" in maker.bounds
        assert shared[context.observed].all() if scored else not shared.any()
        if not isinstance(maker, Interpolate) and not scored:
            assert context.times[-1] < target.times[0]


def test_fixed_cut() -> None:
    one = Series("a", np.arange(48.0), np.zeros((48, 1)))
    context, target = Extrapolate(cut=24.0, horizon=12.0)(one, np.random.default_rng(0))  # type: ignore[misc]
    assert (context.times[0], context.times[-1]) == (0.0, 23.0)
    assert (target.times[0], target.times[-1]) == (24.0, 35.0)
    assert Extrapolate(cut=0.0)(one, np.random.default_rng(0)) is None
    assert Extrapolate(cut=99.0)(one, np.random.default_rng(0)) is None
    assert Extrapolate(cut=24.0, min_observations=30)(one, np.random.default_rng(0)) is None


def test_random_cuts_fall_into_the_middle_half() -> None:
    one = Series("a", np.linspace(100.0, 200.0, 1001), np.zeros((1001, 1)))
    cuts = [Extrapolate()(one, np.random.default_rng(i))[1].times[0] for i in range(200)]  # type: ignore[index]
    assert 125.0 <= min(cuts) < 130.0
    assert 170.0 < max(cuts) <= 175.1


def test_context_and_horizon_have_their_lengths() -> None:
    one = Series("a", np.linspace(0.0, 100.0, 1001), np.zeros((1001, 1)))
    starts = []
    for seed in range(100):
        context, target = Extrapolate(context=20.0, horizon=10.0)(one, np.random.default_rng(seed))  # type: ignore[misc]
        assert context.span == pytest.approx(20.0, abs=0.2)
        assert target.span == pytest.approx(10.0, abs=0.2)
        starts.append(context.times[0])
    assert min(starts) < 5.0
    assert max(starts) > 65.0


def test_interpolate_keeps_its_share() -> None:
    one = series(100, hidden=0.0)
    for keep, kept in ((0.3, 30), (0.001, 1), (0.999, 99)):
        context, target = Interpolate(keep=keep)(one, np.random.default_rng(0))  # type: ignore[misc]
        assert (len(context), len(target)) == (kept, 100 - kept)


def test_interpolate_hides_a_time_stamp_with_all_that_ends_there() -> None:
    ends, begins = np.repeat(np.arange(1.0, 7.0), 2), np.repeat(np.arange(6.0), 2) + [0.0, 0.5] * 6
    series = Series("a", ends, np.arange(12.0)[:, None], start=begins)
    for seed in range(20):
        window = Interpolate(keep=0.5)(series, np.random.default_rng(seed))
        assert window is not None
        assert [len(part) for part in window] == [6, 6]
        assert not set(window[0].times) & set(window[1].times)
    assert Interpolate()(series.take(np.arange(2)), np.random.default_rng(0)) is None


def test_rows_that_carry_only_inputs_stay_in_the_context() -> None:
    values = np.array([[1.0], [np.nan], [2.0], [3.0]])
    one = Series("a", np.arange(4.0), values, inputs=np.ones((4, 1)))
    context, target = Interpolate()(one, np.random.default_rng(0))  # type: ignore[misc]
    assert 1.0 in context.times
    assert target.observed.all()


def test_series_that_are_too_short() -> None:
    rng = np.random.default_rng(0)
    for maker in (Extrapolate(), Interpolate(), OneStep(), Extrapolate(context=5.0)):
        assert maker(series(1, hidden=0.0), rng) is None
        assert maker(series(0), rng) is None
    assert Reconstruct()(series(0), rng) is None
    assert Reconstruct()(series(1, hidden=0.0), rng) is not None
    only_reconstructed = AnyOf(Extrapolate(), Reconstruct())(series(1, hidden=0.0), rng)
    assert only_reconstructed is not None


def test_what_is_bounded() -> None:
    assert Extrapolate().bounds == Interpolate().bounds == OneStep().bounds == "log p(target)"
    assert Extrapolate(include_context=True).bounds == "log p(context, target)"
    assert Reconstruct().bounds == "log p(context)"
    assert AnyOf(Interpolate(), Reconstruct()).bounds == "log p(target) or log p(context)"


@pytest.mark.parametrize(
    ("maker", "options"),
    [
        (Extrapolate, {"horizon": 0.0}),
        (Extrapolate, {"context": -1.0}),
        (Extrapolate, {"horizon": float("inf")}),
        (Interpolate, {"keep": 1.0}),
        (Interpolate, {"length": -1.0}),
        (OneStep, {"context": 0.0}),
        (Reconstruct, {"length": 0.0}),
        (AnyOf, {}),
    ],
)
def test_bad_arguments(maker: type, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options), "at least one")):
        maker(**options)


@pytest.mark.parametrize("maker", MAKERS, ids=str)
def test_makers_are_plain_data(maker: WindowMaker) -> None:
    assert from_config(to_config(maker), CLASSES) == maker


def test_a_warp_stretches_the_clock_and_nothing_else() -> None:
    one = series(30)
    rng = np.random.default_rng(0)
    factors = []
    for _ in range(200):
        context, _ = TimeWarp(Reconstruct(), 0.5, 2.0)(one, rng)  # pyright: ignore[reportGeneralTypeIssues]
        np.testing.assert_array_equal(context.values, one.values)
        ratio = context.times / one.times
        assert np.ptp(ratio) < 1e-12
        factors.append(ratio[0])
    assert 0.5 <= min(factors) < 0.6
    assert 1.7 < max(factors) <= 2.0
    assert np.mean(np.log(factors)) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (1.0, np.inf), (-1.0, 1.0)])
def test_a_warp_needs_factors_in_order(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 < low <= high"):
        TimeWarp(Reconstruct(), low, high)


def test_numbers_of_numpy_are_written_down_as_numbers() -> None:
    maker = Extrapolate(context=np.float32(2.0), horizon=np.int64(3), cut=np.float64(5.0))
    assert from_config(json.loads(json.dumps(to_config(maker))), CLASSES) == maker == Extrapolate(2.0, 3, 5.0)
    sizes = json.dumps(to_config((np.int64(8), np.float32(0.5), np.bool_(True))))
    assert sizes == "[8, 0.5, true]"


DAYS = TimeAxis("day", "2024-04-24", "Europe/Vienna")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (Extrapolate(context="36h", horizon=pd.Timedelta("3D")), Extrapolate(context=1.5, horizon=3.0)),
        (Extrapolate(cut=pd.Timestamp("2024-05-01", tz="UTC")), Extrapolate(cut=7.0)),
        (Extrapolate(cut="2024-05-01 02:00"), Extrapolate(cut=7.0)),
        (Interpolate(length=datetime.timedelta(days=2)), Interpolate(length=2.0)),
        (OneStep(context=np.timedelta64(12, "h")), OneStep(context=0.5)),
        (Reconstruct(length="3D"), Reconstruct(length=3.0)),
        (AnyOf(Reconstruct("1D"), Extrapolate()), AnyOf(Reconstruct(1.0), Extrapolate())),
        (TimeWarp(Reconstruct("1D"), 0.5, 2.0), TimeWarp(Reconstruct(1.0), 0.5, 2.0)),
    ],
    ids=str,
)
def test_lengths_and_times_of_a_calendar(given: WindowMaker, meant: WindowMaker) -> None:
    assert given.on(DAYS) == meant
    assert meant.on(DAYS) == meant
    # They are saved with a run, and read again.
    assert from_config(json.loads(json.dumps(to_config(given))), CLASSES).on(DAYS) == meant


def test_a_calendar_needs_a_clock_that_knows_it() -> None:
    with pytest.raises(DataError, match=r"'3D' .*windows\.on\(series_set\.axis\)"):
        Extrapolate(horizon="3D")(series(10), np.random.default_rng(0))
    with pytest.raises(DataError, match="time_unit='hour'"):
        Extrapolate(horizon="3D").on(TimeAxis())
    with pytest.raises(DataError, match="a datetime was given"):
        Extrapolate(cut="2024-05-01").on(TimeAxis("hour"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": "soon"}, "horizon='soon' is not a length of time"),
        ({"horizon": "24"}, "horizon='24' is text without a unit"),
        ({"context": "-1D"}, "context must be a positive length"),
        ({"context": pd.Timedelta(0)}, "context must be a positive length"),
        ({"cut": "tomorrow"}, "cut must be a number .* a datetime"),
        ({"cut": "3D"}, "cut must be a number .* a datetime"),
    ],
)
def test_what_is_no_length_and_no_time_is_refused_at_once(arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Extrapolate(**arguments)
