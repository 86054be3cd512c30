import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn._checks import DataError, DataWarning
from ctdyn._config import from_config, to_config
from ctdyn.data import Channel, Extrapolate, SeriesSet, Standardize, Statistics, TimeAxis, Units, from_ragged


def random_set(count: int = 12, *, level: float = 0.0, seed: int = 0) -> SeriesSet:
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(count):
        n = int(rng.integers(5, 20))
        values = rng.normal(size=(n, 2)) * [2.0, 50.0] + [10.0, -3.0] + level * i
        values[rng.uniform(size=values.shape) < 0.3] = np.nan
        values[0] = np.array([10.0, -3.0]) + level * i
        pairs.append((100.0 + np.sort(rng.uniform(0, 30, n)), values))
    return from_ragged(pairs, noise=[np.abs(v) * 0.1 for _, v in pairs], channels=["a", "b"])


def test_training_values_come_out_standardised() -> None:
    data = random_set()
    batch = data.batch()
    scaler = Standardize().fit(data)
    model = scaler.units(batch).to_model(batch)
    for channel in range(2):
        seen = model.values[..., channel][model.mask[..., channel]]
        assert float(seen.mean()) == pytest.approx(0.0, abs=1e-12)
        assert float(seen.std(correction=0)) == pytest.approx(1.0, abs=1e-12)
    assert not model.values[~model.mask].any()
    assert float(model.times[:, 0].abs().max()) == 0.0
    assert float(model.times.max(dim=1).values.median()) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("center", ["train", "context"])
@pytest.mark.parametrize("origin", ["first", "shared", "given"])
def test_units_are_inverted(center: str, origin: str) -> None:
    data = random_set()
    batch = data.batch()
    units = Standardize(center=center, origin=origin).fit(data).units(batch)  # type: ignore[arg-type]
    model = units.to_model(batch)
    back = torch.where(batch.mask, units.values_to_data(model.values), 0.0)
    torch.testing.assert_close(back, batch.values)
    torch.testing.assert_close(units.times_to_data(model.times), batch.times)
    assert model.noise is not None
    assert batch.noise is not None
    torch.testing.assert_close(units.scale_to_data(model.noise), batch.noise)
    samples = torch.zeros(5, *batch.values.shape)
    assert units.values_to_data(samples).shape == samples.shape


def test_a_change_of_units_changes_nothing_for_the_model() -> None:
    data = random_set()
    other = from_ragged(
        [(one.times * 60 - 7, one.values * [3.0, 0.01] + [5.0, -2.0]) for one in data],
        noise=[one.noise * [3.0, 0.01] for one in data],  # type: ignore[operator]
    )
    first, second = data.batch(), other.batch()
    one = Standardize().fit(data).units(first).to_model(first)
    two = Standardize().fit(other).units(second).to_model(second)
    for name in ("times", "values", "noise"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-9, atol=1e-9)


def test_what_the_mask_hides_does_not_move_the_centre() -> None:
    data = random_set()
    scaler = Standardize(center="context").fit(data)
    context = data.batch()
    poisoned = replace(context, values=torch.where(context.mask, context.values, 1e6))
    units = scaler.units(poisoned)
    torch.testing.assert_close(units.loc, scaler.units(context).loc)
    torch.testing.assert_close(units.to_model(poisoned).values, units.to_model(context).values)


def test_only_training_series_are_looked_at() -> None:
    data = random_set()
    train, test = data.split(0.5)
    shifted = from_ragged([(one.times, one.values + 1e6) for one in test], channels=["a", "b"])
    before = Standardize().fit(train)
    assert before.units(shifted.batch()).loc[0].tolist() == list(before.statistics.loc)  # type: ignore[union-attr]


def test_centre_of_the_context() -> None:
    data = random_set(level=100.0)
    scaler = Standardize(center="context").fit(data)
    batch = data.batch()
    model = scaler.units(batch).to_model(batch)
    seen = model.mask.sum(1)
    torch.testing.assert_close(
        (model.values.sum(1) / seen), torch.zeros_like(seen, dtype=torch.float64), atol=1e-9, rtol=0
    )
    assert scaler.statistics is not None
    # The scale is the spread around each series' own level, not that of the levels.
    assert scaler.statistics.scale[0] < 3.0
    assert Standardize().fit(data).statistics.scale[0] > 100.0  # type: ignore[union-attr]


def test_a_channel_that_the_context_lacks_falls_back_to_training() -> None:
    data = random_set()
    scaler = Standardize(center="context").fit(data)
    batch = data.batch()
    hidden = replace(batch, mask=batch.mask & torch.tensor([True, False]))
    assert scaler.statistics is not None
    assert scaler.units(hidden).loc[:, 1].tolist() == [scaler.statistics.loc[1]] * len(data)


def test_windows_set_the_unit_of_time_and_the_spread() -> None:
    times = np.linspace(0.0, 1000.0, 4001)
    data = from_ragged([(times, 0.5 * times)])
    windows = Extrapolate(context=20.0, horizon=20.0)
    scaler = Standardize(center="context").fit(data, windows)
    assert scaler.statistics is not None
    assert scaler.statistics.time_scale == pytest.approx(40.0, rel=0.05)
    assert scaler.statistics.scale[0] == pytest.approx(0.5 * np.sqrt((20**2 / 12 + 20**2 + 20**2 / 12) / 2), rel=0.2)
    assert Standardize(center="context").fit(data, windows) == scaler
    assert Standardize(time_scale=7).fit(data).statistics.time_scale == 7.0  # type: ignore[union-attr]
    hours = replace(data, axis=TimeAxis("hour"))
    known = Standardize(time_scale="1D").fit(hours, Extrapolate(horizon="2D")).statistics
    assert known is not None
    assert known.time_scale == 24.0
    with pytest.raises(DataError, match="time_unit='hour'"):
        Standardize(time_scale=pd.Timedelta("1D")).fit(data)
    with pytest.raises(DataError, match="time_scale='long' is not a length of time"):
        Standardize(time_scale="long")


@pytest.mark.parametrize("spread", [0.0, 1e-12])
def test_constant_channels_are_named_and_keep_a_scale(spread: float) -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=50), 5.0 + spread * rng.normal(size=50)], axis=1)
    data = from_ragged([(np.arange(50.0), values)], channels=["x", "flat"])
    with pytest.warns(DataWarning, match="channel 'flat' is constant"):
        scaler = Standardize().fit(data)
    assert scaler.statistics is not None
    assert scaler.statistics.scale[1] == 1.0
    batch = data.batch()
    assert torch.isfinite(scaler.units(batch).to_model(batch).values).all()


def test_small_numbers_are_not_constant() -> None:
    data = from_ragged([(np.arange(50.0), 1e-12 * np.random.default_rng(0).normal(size=50))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = Standardize().fit(data)
    assert scaler.statistics is not None
    assert scaler.statistics.scale[0] == pytest.approx(1e-12, rel=0.5)


def test_a_channel_that_training_never_observes_is_named() -> None:
    data = from_ragged([([0.0, 1.0], [[1.0, np.nan], [2.0, np.nan]]), ([0.0], [[1.0, 2.0]])], channels=["x", "rare"])
    with pytest.raises(DataError, match="channel 'rare' is never observed in the training series"):
        Standardize().fit(data[:1])
    with pytest.raises(DataError, match="set is empty"):
        Standardize().fit(data[[]])


def test_binary_channels_are_left_alone() -> None:
    data = from_ragged(
        [([0.0, 1.0, 2.0], [[0.0, 5.0], [1.0, 6.0], [1.0, 7.0]])], channels=[Channel("on", kind="binary"), "x"]
    )
    for scaler in (Standardize(), Standardize(center="context")):
        batch = data.batch()
        model = scaler.fit(data).units(batch).to_model(batch)
        assert model.values[0, :, 0].tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", ["count", "categorical"])
def test_counts_and_classes_are_left_alone(kind: str) -> None:
    data = from_ragged(
        [([0.0, 1.0, 2.0], [[0.0, 5.0], [4.0, 6.0], [2.0, 7.0]])], channels=[Channel("n", kind=kind), "x"]
    )
    for scaler in (Standardize(), Standardize(center="context"), Standardize(common=True)):
        batch = data.batch()
        model = scaler.fit(data).units(batch).to_model(batch)
        assert model.values[0, :, 0].tolist() == [0.0, 4.0, 2.0]


def test_a_positive_channel_stays_positive_at_unit_spread() -> None:
    data = from_ragged([([0.0, 1.0, 2.0], [10.0, 40.0, 20.0])], channels=[Channel("x", kind="positive")])
    for scaler in (Standardize(), Standardize(center="context")):
        batch = data.batch()
        values = scaler.fit(data).units(batch).to_model(batch).values
        assert bool((values > 0).all())
        np.testing.assert_allclose(values[0, 1:, 0] / values[0, 0, 0], [4.0, 2.0])
    np.testing.assert_allclose(values.numpy().std(), 1.0)


def test_zeros_of_a_nonnegative_channel_stay_zeros_at_unit_spread() -> None:
    data = from_ragged([([0.0, 1.0, 2.0], [0.0, 40.0, 20.0])], channels=[Channel("rain", kind="nonnegative")])
    for scaler in (Standardize(), Standardize(center="context"), Standardize(common=True)):
        batch = data.batch()
        units = scaler.fit(data).units(batch)
        values = units.to_model(batch).values
        assert values[0, 0, 0] == 0.0
        np.testing.assert_allclose(values.numpy().std(), 1.0)
        assert units.values_to_data(values)[0, 0, 0] == 0.0


def test_inputs_and_static_covariates_are_scaled() -> None:
    data = from_ragged(
        [([0.0, 1.0], [1.0, 2.0]), ([0.0, 1.0], [3.0, 5.0]), ([0.0, 1.0], [3.0, 5.0])],
        inputs=[[[10.0], [20.0]]] * 3,
        static=[[50.0], [70.0], [np.nan]],
    )
    batch = data.batch()
    units = Standardize().fit(data).units(batch)
    model = units.to_model(batch)
    assert model.static is not None
    assert model.static[:, 0].tolist() == pytest.approx([-1.0, 1.0, 0.0])
    assert model.inputs is not None
    assert model.inputs[0, :, 0].tolist() == pytest.approx([-1.0, 1.0])
    assert batch.inputs is not None
    torch.testing.assert_close(units.inputs_to_model(batch.inputs), model.inputs)


def test_origins() -> None:
    data = random_set()
    batch = data.before(115.0).batch()
    firsts = [one.times[0] for one in data]
    units = {origin: Standardize(origin=origin).fit(data).units(batch) for origin in ("first", "shared", "given")}  # type: ignore[arg-type]
    assert units["first"].origin.tolist() == firsts
    assert units["shared"].origin.tolist() == [min(firsts)] * len(data)
    assert units["given"].origin.tolist() == [0.0] * len(data)


def test_julian_dates_keep_their_minutes_in_float32() -> None:
    times = 2451545.0 + np.arange(100) / 1440
    data = from_ragged([(times, np.sin(np.arange(100.0)))])
    batch = data.batch()
    model = Standardize().fit(data).units(batch).to_model(batch).to(torch.float32)
    assert (model.times.diff(dim=-1) > 0).all()


def test_it_is_plain_data() -> None:
    scaler = Standardize(center="context").fit(random_set())
    assert from_config(to_config(scaler), {"Standardize": Standardize, "Statistics": Statistics}) == scaler


@pytest.mark.parametrize(
    "options", [{"center": "median"}, {"origin": "last"}, {"time_scale": 0.0}, {"time_scale": np.nan}]
)
def test_bad_arguments(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        Standardize(**options)  # type: ignore[arg-type]


def test_misuse() -> None:
    batch = random_set().batch()
    with pytest.raises(RuntimeError, match="not fitted"):
        Standardize().units(batch)
    scaler = Standardize().fit(from_ragged([([0.0, 1.0], [1.0, 2.0])]))
    with pytest.raises(DataError, match="expected 1 channels 'x'; got 2"):
        scaler.units(batch)
    assert isinstance(Standardize().fit(random_set()).units(batch), Units)


def test_the_centre_of_a_context_is_pulled_as_far_as_its_noise_asks() -> None:
    """Levels of spread 1 seen through noise of spread 2: the best linear guess counts the mean as 4 observations."""
    rng = np.random.default_rng(0)
    levels = 10.0 + rng.normal(size=400)
    data = from_ragged(
        [(np.arange(4.0), np.stack([level + 2.0 * rng.normal(size=4), np.repeat(level, 4)], 1)) for level in levels],
        channels=["noisy", "exact"],
    )
    scaler = Standardize(center="context").fit(data, Extrapolate(cut=2.0))
    assert scaler.statistics is not None
    assert scaler.statistics.pull[0] in (2.0, 4.0, 8.0)
    assert scaler.statistics.pull[1] == 0.0
    context = data[:1].before(2.0).batch()
    units = scaler.units(context)
    pull, loc = scaler.statistics.pull[0], scaler.statistics.loc[0]
    expected = (float(context.values[0, :, 0].sum()) + pull * loc) / (2 + pull)
    assert float(units.loc[0, 0]) == pytest.approx(expected, abs=1e-9)
    assert float(units.loc[0, 1]) == pytest.approx(levels[0], abs=1e-9)


def test_a_common_scale_keeps_the_proportions_of_the_channels() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 3)) * [3.0, 4.0, 0.0] + [0.0, 100.0, 5.0]
    data = from_ragged([(np.arange(200.0), values)], channels=["a", "b", "still"])
    scaler = Standardize(common=True).fit(data)
    assert scaler.statistics is not None
    assert len(set(scaler.statistics.scale)) == 1
    assert scaler.statistics.scale[0] == pytest.approx(np.sqrt(np.mean(values[:, :2].var(axis=0))), rel=1e-12)
