from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctdyn._checks import DataError, DataWarning
from ctdyn.data import SeriesSet, from_pandas, read


def wide(**columns: object) -> pd.DataFrame:
    frame = {"id": ["a", "a", "b"], "time": [0.0, 1.0, 0.5], "hr": [60.0, np.nan, 80.0], "bp": [np.nan, 120.0, 90.0]}
    return pd.DataFrame({**frame, **columns})


def values(data: SeriesSet) -> list[list[list[float]]]:
    return [np.nan_to_num(one.values, nan=-1.0).tolist() for one in data]


def test_wide() -> None:
    data = from_pandas(wide(), id="id", units={"hr": "1/min"})
    assert data.ids == ("a", "b")
    assert values(data) == [[[60.0, -1.0], [-1.0, 120.0]], [[80.0, 90.0]]]
    assert data.channels[0].unit == "1/min"


def test_long_equals_wide() -> None:
    long = wide().melt(["id", "time"], var_name="name", value_name="v").sample(frac=1.0, random_state=0)
    data = from_pandas(long, id="id", time="time", variable="name", value="v", values=["hr", "bp"])
    reference = from_pandas(wide(), id="id")
    pd.testing.assert_frame_equal(
        data.to_wide().sort_values(["id", "time"], ignore_index=True),
        reference.to_wide().sort_values(["id", "time"], ignore_index=True),
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from("xyz"), st.integers(-9, 9)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(["mean", "first", "last"]),
)
def test_long_frames_against_pandas(rows: list[tuple[int, int, str, int]], policy: str) -> None:
    frame = pd.DataFrame(rows, columns=["id", "time", "name", "v"])
    data = from_pandas(frame, id="id", variable="name", value="v", duplicates=policy)
    found = data.to_long().set_index(["id", "time", "channel"])["value"].sort_index()
    expected = frame.astype({"time": float, "v": float}).groupby(["id", "time", "name"])["v"].agg(policy).sort_index()
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=1e-12)
    assert found.index.tolist() == expected.index.tolist()
    assert data.intake.duplicates == len(frame) - len(expected)
    wide_again = from_pandas(data.to_wide(), id="id").to_long()
    np.testing.assert_allclose(wide_again["value"], data.to_long()["value"])


def test_duplicates_in_a_wide_frame() -> None:
    frame = pd.DataFrame(
        {"id": 1, "time": [0.0, 1.0, 1.0, 1.0], "x": [1.0, 2.0, 4.0, np.nan], "y": [1.0, np.nan, np.nan, 8.0]}
    )
    for policy, expected in (("mean", 3.0), ("first", 2.0), ("last", 4.0)):
        data = from_pandas(frame, id="id", duplicates=policy)
        assert values(data) == [[[1.0, 1.0], [expected, 8.0]]]
        assert data.intake.duplicates == 1
    with pytest.raises(DataError, match=r"series 1, time 1\.0, column 'x': 2 observations at the same time"):
        from_pandas(frame, id="id")
    with pytest.raises(DataError, match="duplicates must be one of"):
        from_pandas(frame, id="id", duplicates="drop")


@pytest.mark.parametrize("kind", ["categorical", "count", "binary"])
def test_classes_and_counts_have_no_mean(kind: str) -> None:
    frame = pd.DataFrame({"time": [0.0, 1.0, 1.0, 2.0, 2.0], "x": [0, 0, 1, 1, 1], "y": [1.0, 2.0, 4.0, 1.0, 2.0]})
    message = rf"time 1\.0, column 'x': different observations at one time have no mean in a {kind} channel.*\"last\""
    with pytest.raises(DataError, match=message):
        from_pandas(frame, kinds={"x": kind}, duplicates="mean")
    assert values(from_pandas(frame.drop(1), kinds={"x": kind}, duplicates="mean")) == [[[0, 1], [1, 4], [1, 1.5]]]
    assert values(from_pandas(frame, kinds={"x": kind}, duplicates="last"))[0][1] == [1.0, 4.0]


def test_rows_that_observe_different_channels_are_put_together() -> None:
    frame = pd.DataFrame({"time": [0.0, 0.0], "x": [1.0, np.nan], "y": [np.nan, 2.0]})
    data = from_pandas(frame)
    assert values(data) == [[[1.0, 2.0]]]
    assert data.intake.duplicates == 0


def test_the_noise_of_a_mean() -> None:
    frame = pd.DataFrame({"time": [0.0, 0.0, 1.0], "x": [1.0, 3.0, 5.0], "sd": [0.3, 0.4, 0.1]})
    data = from_pandas(frame, values="x", noise="sd", duplicates="mean")
    assert data[0].noise is not None
    np.testing.assert_allclose(data[0].noise[:, 0], [0.25, 0.1])
    long = pd.DataFrame({"time": frame["time"], "v": frame["x"], "sd": frame["sd"], "name": "x"})
    again = from_pandas(long, variable="name", value="v", noise="sd", duplicates="mean")
    np.testing.assert_allclose(again[0].noise, data[0].noise)


def test_unsorted_rows_are_sorted_or_refused() -> None:
    frame = wide().iloc[::-1]
    data = from_pandas(frame, id="id")
    assert data.by_id("a").times.tolist() == [0.0, 1.0]
    assert data.intake.unsorted == 1
    with pytest.raises(DataError, match=r"series 'a', time 0\.0: the times go backwards"):
        from_pandas(frame, id="id", sort=False)
    with pytest.raises(DataError, match="go backwards"):
        from_pandas(data.to_long().iloc[::-1], id="id", variable="channel", value="value", sort=False)
    assert from_pandas(wide(), id="id", sort=False).intake.unsorted == 0


def test_the_frame_is_left_alone() -> None:
    frame = wide().iloc[::-1]
    before = frame.copy()
    data = from_pandas(frame, id="id")
    pd.testing.assert_frame_equal(frame, before)
    with pytest.raises(ValueError, match="read-only"):
        data[0].values[0, 0] = 1.0


def test_rows_without_observations_are_dropped_and_counted() -> None:
    frame = wide(hr=[60.0, np.nan, 80.0], bp=[np.nan, np.nan, 90.0])
    data = from_pandas(frame, id="id")
    assert [len(one) for one in data] == [1, 1]
    assert data.intake.empty_rows == 1
    assert "1 rows without any observation dropped" in str(data.describe())


def test_rows_with_inputs_stay() -> None:
    frame = pd.DataFrame({"time": [0.0, 1.0, 2.0], "x": [1.0, np.nan, np.nan], "dose": [0.0, 5.0, 5.0]})
    data = from_pandas(frame, values=["x"], inputs=["dose"])
    assert data[0].times.tolist() == [0.0, 1.0, 2.0]
    assert data.input_names == ("dose",)
    with pytest.raises(DataError, match=r"series 0, time 1\.0: the input 'dose' is nan"):
        from_pandas(frame.replace({"dose": {5.0: np.nan}}), values=["x"], inputs=["dose"])


def test_inputs_alone(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a", "a", "b"], "time": [0.0, 1.0, 0.5], "dose": [1.0, 2.0, 3.0]})
    data = from_pandas(frame, id="id", inputs=["dose"])
    assert data.channels == ()
    assert [one.times.tolist() for one in data] == [[0.0, 1.0], [0.5]]
    assert "channels: none" in repr(data)
    assert data.describe().rows == 3
    assert str(data.describe())
    assert data.to_wide().equals(frame)
    assert not len(data.to_long())
    assert read(data.to_parquet(tmp_path / "ahead.parquet")).to_wide().equals(frame)
    # A channel that is there but empty is a slip, or else says what it means.
    with pytest.raises(DataError, match=r"no observations.*name no channel \(values=\[\]\)"):
        from_pandas(frame.assign(x=np.nan), id="id", inputs=["dose"])
    assert from_pandas(frame.assign(x=np.nan), id="id", inputs=["dose"], values=[]).channels == ()
    assert [one.times.tolist() for one in from_pandas(frame, id="id", values=[])] == [[0.0, 1.0], [0.5]]
    twice = pd.concat([frame, frame])
    for policy in ("error", "mean"):
        assert [len(one) for one in from_pandas(twice, id="id", values=[], duplicates=policy)] == [2, 1]
    with pytest.raises(DataError, match="there is no channel"):
        from_pandas(frame.drop(columns="dose"), id="id")


def test_a_series_without_observations() -> None:
    frame = wide(hr=[60.0, 61.0, np.nan], bp=[np.nan, np.nan, np.nan])
    with pytest.raises(DataError, match=r"series 'b': no observations.*drop_empty=True"):
        from_pandas(frame, id="id", values=["hr", "bp"])
    data = from_pandas(frame, id="id", drop_empty=True)
    assert data.ids == ("a",)
    assert data.intake.empty_series == 1
    with pytest.raises(DataError, match="no observations"):
        from_pandas(frame.assign(hr=np.nan), id="id", drop_empty=True)


def test_one_observation_is_a_series() -> None:
    data = from_pandas(pd.DataFrame({"time": [3.0], "x": [1.0]}))
    assert len(data[0]) == 1
    assert "1 series have a single observation" in str(data.describe())


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinite_values_name_series_column_and_time(bad: float) -> None:
    frame = wide(bp=[np.nan, bad, 90.0])
    with pytest.raises(DataError, match=r"series 'a', time 1\.0, column 'bp': the value is infinite"):
        from_pandas(frame, id="id")
    long = frame.melt(["id", "time"], var_name="name", value_name="v")
    with pytest.raises(DataError, match=r"series 'a', time 1\.0, column 'bp': the value is infinite"):
        from_pandas(long, id="id", variable="name", value="v")


def test_missing_and_infinite_times() -> None:
    with pytest.raises(DataError, match=r"column 'time': 1 times are missing.*series 'a'.*dropna"):
        from_pandas(wide(time=[0.0, np.nan, 0.5]), id="id")
    with pytest.raises(DataError, match="infinite, in series 'b'"):
        from_pandas(wide(time=[0.0, 1.0, np.inf]), id="id")
    with pytest.raises(DataError, match=r"NaT.*series 'a'"):
        from_pandas(wide(time=pd.to_datetime(["2020-01-01", None, "2020-01-02"])), id="id")
    long = wide(time=[0.0, np.nan, 0.5]).melt(["id", "time"], var_name="name", value_name="v")
    with pytest.raises(DataError, match="missing"):
        from_pandas(long, id="id", variable="name", value="v")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_epoch_integers_are_refused_with_the_cure(unit: str) -> None:
    stamps = pd.date_range("2020-01-01", periods=3, freq="h").astype(f"datetime64[{unit}]")
    with pytest.raises(
        DataError, match=rf'column \'time\'.*epoch in {unit}.*pandas.to_datetime\(column, unit="{unit}"\)'
    ):
        from_pandas(wide(time=stamps.astype("int64")), id="id")
    if unit != "ns":
        assert len(from_pandas(wide(time=stamps.astype("int64").astype(float)), id="id")) == 2


def test_packed_days_are_refused_with_the_cure() -> None:
    with pytest.raises(DataError, match=r"YYYYMMDD.*%Y%m%d"):
        from_pandas(wide(time=[20200101, 20200102, 20200103]), id="id")


def test_mixed_zones() -> None:
    naive_and_aware = [
        pd.Timestamp("2020-01-01"),
        pd.Timestamp("2020-01-02", tz="UTC"),
        pd.Timestamp("2020-01-02", tz="UTC"),
    ]
    with pytest.raises(DataError, match=r"series 'a', column 'time': times mix naive"):
        from_pandas(wide(time=naive_and_aware), id="id")
    offsets = ["2020-01-01T00:00+01:00", "2020-01-01T00:00-05:00", "2020-01-01T00:00Z"]
    data = from_pandas(wide(time=offsets), id="id")
    assert data.axis.zone == "UTC"
    assert data.by_id("a").span * 60 == 6 * 3600  # minutes


def test_unreadable_times_name_the_series() -> None:
    with pytest.raises(DataError, match=r"series 'b', column 'time': '1/2/2020' could not be read"):
        from_pandas(wide(time=["2020-01-01", "2020-01-02", "1/2/2020"]), id="id")


@pytest.mark.parametrize("zone", [None, "America/New_York"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetimes_go_out_as_they_came(unit: str, zone: str | None) -> None:
    times = pd.DatetimeIndex(["2020-11-01 00:30", "2020-11-01 05:30", "2020-11-02 00:00"], tz=zone).as_unit(unit)  # type: ignore[arg-type]
    data = from_pandas(wide(time=times), id="id")
    for frame in (data.to_wide(), data.to_long().drop_duplicates("time")):
        assert frame["time"].tolist() == times.tolist()
    assert str(pd.DatetimeIndex(data.to_wide()["time"]).tz) == str(times.tz)


def test_strings_in_a_value_column() -> None:
    message = r"series 'b', column 'hr': 'high' is not a number \(1 such entries\).*pandas\.to_numeric\(df\['hr'\]"
    with pytest.raises(DataError, match=message):
        from_pandas(wide(hr=[60.0, np.nan, "high"]), id="id")
    with pytest.raises(DataError, match="'61' is not a number"):
        from_pandas(wide(hr=["61", None, "62"]), id="id")
    long = wide(hr=["60", "x", "80"]).melt(["id", "time"], var_name="name", value_name="v")
    with pytest.raises(DataError, match="column 'v'"):
        from_pandas(long, id="id", variable="name", value="v")


def test_columns_that_are_no_numbers() -> None:
    with pytest.raises(DataError, match="column 'hr' holds datetime64"):
        from_pandas(wide(hr=pd.to_datetime(["2020-01-01"] * 3)), id="id")
    with pytest.raises(DataError, match="column 'hr'"):
        from_pandas(wide(hr=pd.Categorical(["lo", "hi", "lo"])), id="id")


def test_a_column_of_words_is_told_how_to_become_classes() -> None:
    frame = wide(hr=["walks", None, "runs"])
    message = r"'walks' is not a number.*df\['hr'\]\.map\(\{'walks': 0, 'runs': 1\}\).*kinds=\{'hr': 'categorical'\}"
    with pytest.raises(DataError, match=message):
        from_pandas(frame, id="id")
    cured = frame.assign(hr=frame["hr"].map({"walks": 0, "runs": 1}))
    data = from_pandas(cured, id="id", kinds={"hr": "categorical"})
    assert data.channels[0].kind == "categorical"
    with pytest.raises(DataError, match=r"pandas\.to_numeric\(df\['hr'\]\), or leave"):
        from_pandas(wide(hr=["61", None, "62"]), id="id")


def test_number_like_columns_are_accepted() -> None:
    from decimal import Decimal

    frame = wide(
        hr=pd.Series([1, None, 3], dtype="Int64"),
        bp=[True, False, True],
        t=[Decimal("1.5"), None, Decimal(2)],
        e=[None] * 3,
    )
    data = from_pandas(frame, id="id")
    assert [channel.kind for channel in data.channels] == ["real", "binary", "real", "real"]
    assert values(data)[0] == [[1.0, 1.0, 1.5, -1.0], [-1.0, 0.0, -1.0, -1.0]]
    gappy = from_pandas(wide(hr=[True, None, False], bp=[1, None, True]), id="id")
    assert [channel.kind for channel in gappy.channels] == ["binary", "real"]
    assert from_pandas(wide(on=[0, 1, 1]), id="id", kinds={"on": "binary"}).channels[2].kind == "binary"


def test_binary_channels_hold_zero_and_one() -> None:
    with pytest.raises(
        DataError, match=r"series 'a', time 0\.0, column 'hr': a binary channel holds 0 and 1 only; got 60"
    ):
        from_pandas(wide(), id="id", kinds={"hr": "binary"})


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("positive", 0.0, r"a positive channel holds values above 0 only; got 0\.0.*declare it nonnegative"),
        ("positive", -1.0, r"a positive channel holds values above 0 only; got -1\.0.*declare it real"),
        ("nonnegative", -1.0, "a nonnegative channel holds 0 and values above only; got -1"),
        ("count", 1.5, r"a count channel holds 0, 1, 2 \.\.\. only; got 1.5"),
        ("categorical", -1.0, r"a categorical channel holds 0, 1, 2 \.\.\. only; got -1"),
    ],
)
def test_a_channel_holds_what_its_kind_says(kind: str, value: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_pandas(wide(x=[2.0, 3.0, value]), id="id", kinds={"x": kind})


def test_columns_that_are_called_by_numbers() -> None:
    data = from_pandas(pd.DataFrame({"time": [0.0, 1.0], 0: [1.0, 2.0], 1: [3.0, 4.0]}))
    assert data.channel_names == ("0", "1")
    assert values(data) == [[[1.0, 3.0], [2.0, 4.0]]]


def test_infinite_covariates_and_labels() -> None:
    frame = wide(age=[30.0, 30.0, np.inf])
    with pytest.raises(DataError, match=r"series 'b': the static covariate 'age' is infinite"):
        from_pandas(frame, id="id", static="age")
    with pytest.raises(DataError, match=r"series 'b': the label 'age' is infinite"):
        from_pandas(frame, id="id", labels="age")


def test_durations_since_a_start_begin_and_end_intervals() -> None:
    hours = pd.to_timedelta([1, 2, 4], unit="h")
    frame = pd.DataFrame({"time": hours, "begin": hours - pd.Timedelta("30min"), "x": [1.0, 2.0, 3.0]})
    data = from_pandas(frame, start="begin", time_unit="hour")
    assert data[0].start is not None
    assert data[0].start.tolist() == [0.5, 1.5, 3.5]
    assert len(data.before(pd.Timedelta("3h"))[0]) == 2


def test_missing_columns_are_listed() -> None:
    with pytest.raises(DataError, match="column 'time' is missing; the columns are 'id', 'hr', 'bp'"):
        from_pandas(wide().drop(columns="time"), id="id")
    with pytest.raises(DataError, match=r"name it: df\.rename_axis\('time'\)"):
        from_pandas(wide().set_index(pd.date_range("2020", periods=3)).drop(columns="time"), id="id")
    with pytest.raises(DataError, match="column 'spo2' is missing"):
        from_pandas(wide(), id="id", values=["hr", "spo2"])
    with pytest.raises(DataError, match="'spo2', which is no channel"):
        from_pandas(wide(), id="id", units={"spo2": "%"})
    with pytest.raises(DataError, match="variable 'z' does not occur"):
        from_pandas(wide().melt(["id", "time"]), id="id", variable="variable", value="value", values=["z"])
    with pytest.raises(DataError, match="both variable="):
        from_pandas(wide(), id="id", variable="hr")


def test_index_levels_serve_as_columns() -> None:
    data = from_pandas(wide().set_index(["id", "time"]), id="id")
    assert values(data) == values(from_pandas(wide(), id="id"))
    assert from_pandas(wide().set_index("time"), id="id").ids == ("a", "b")


def test_no_rows_no_frame_and_twice_the_same_column() -> None:
    with pytest.raises(DataError, match="no rows"):
        from_pandas(wide().iloc[:0], id="id")
    with pytest.raises(TypeError, match="from_ragged"):
        from_pandas([1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'hr' occurs more than once"):
        from_pandas(pd.concat([wide(), wide()[["hr"]]], axis=1), id="id")


def test_ids() -> None:
    assert from_pandas(wide(id=[7, 7, 9]), id="id").ids == (7, 9)
    assert all(type(one) is int for one in from_pandas(wide(id=[7, 7, 9]), id="id").ids)
    assert from_pandas(wide(), values=["hr"]).ids == (0,)
    for missing in (["a", None, "b"], ["a", "", "b"]):
        with pytest.raises(DataError, match=r"column 'id': 1 rows have no id \(first: row 1\)"):
            from_pandas(wide(id=missing), id="id")
    with pytest.raises(DataError, match="name no channel"):
        from_pandas(wide(n=["x", None, "y"]), id="id", variable="n", value="hr")


def test_static_covariates_and_labels() -> None:
    frame = wide(age=[54.0, 54.0, np.nan], died=[1, 1, 0])
    data = from_pandas(frame, id="id", static="age", labels=["died"])
    assert data.channel_names == ("hr", "bp")
    assert data.static_names == ("age",)
    first = data.by_id("a")
    assert first.static is not None
    assert first.labels is not None
    assert (first.static[0], first.labels[0]) == (54.0, 1.0)
    with pytest.raises(DataError, match=r"series 'a', column 'age'.*constant within a series; got 54\.0 and 55\.0"):
        from_pandas(frame.assign(age=[54.0, 55.0, 60.0]), id="id", static="age")
    # A value that is written down once per series is no value that changes.
    once = frame.assign(age=[54.0, np.nan, 60.0])
    with pytest.raises(DataError, match=r"df\['age'\] = df\.groupby\(id\)\['age'\]\.transform\('first'\)"):
        from_pandas(once, id="id", static="age")
    filled = once.assign(age=once.groupby("id")["age"].transform("first"))
    assert [one.static.tolist() for one in from_pandas(filled, id="id", static="age")] == [[54.0], [60.0]]


@pytest.mark.parametrize("noise", [[-0.1, 0.2, 0.3], [np.nan, 0.1, 0.1], [np.inf, 0.1, 0.1]])
def test_a_standard_error_is_finite_and_not_negative(noise: list[float]) -> None:
    with pytest.raises(DataError, match=r"series 'a', time 0\.0: the noise of column 'hr' is"):
        from_pandas(wide(sd=noise), id="id", values=["hr", "bp"], noise={"hr": "sd"})


def test_noise_by_channel() -> None:
    frame = wide(sd=[0.1, np.nan, 0.3])
    data = from_pandas(frame, id="id", noise={"hr": "sd"})
    assert data.channel_names == ("hr", "bp")
    assert data.by_id("b").noise.tolist() == [[0.3, 0.0]]  # type: ignore[union-attr]
    with pytest.raises(DataError, match="one column per channel"):
        from_pandas(frame, id="id", values=["hr", "bp"], noise=["sd"])
    with pytest.raises(DataError, match="no channel"):
        from_pandas(frame, id="id", values=["hr"], noise={"bp": "sd"})


def test_aggregated_observations() -> None:
    data = from_pandas(wide(begin=[-1.0, 0.0, 0.0]), id="id", start="begin")
    assert data.by_id("a").start.tolist() == [-1.0, 0.0]  # type: ignore[union-attr]
    with pytest.raises(DataError, match="start is missing or lies after"):
        from_pandas(wide(begin=[3.0, 0.0, 0.0]), id="id", start="begin")


def test_intervals_that_end_together_stay_apart_in_a_long_frame_too() -> None:
    ends = {"time": [3.0, 3.0, 3.0, 4.0], "begin": [2.0, 0.0, 0.0, 3.0]}
    data = from_pandas(
        pd.DataFrame({**ends, "month": [1.0, np.nan, 5.0, 2.0], "quarter": [np.nan, 7.0, 8.0, np.nan]}),
        start="begin",
        duplicates="last",
    )
    assert len(data[0]) == 3
    long = data.to_long()
    back = from_pandas(long, id="id", variable="channel", value="value", values=["month", "quarter"], start="start")
    pd.testing.assert_frame_equal(back.to_wide(), data.to_wide())
    # What has one interval shares a row; what is there twice is a repetition.
    assert values(data)[0] == [[5.0, 8.0], [1.0, -1.0], [2.0, -1.0]]
    with pytest.raises(DataError, match="2 observations at the same time"):
        from_pandas(pd.concat([long, long[:1]]), id="id", variable="channel", value="value", start="start")


def test_near_duplicates_are_kept_with_a_warning() -> None:
    frame = pd.DataFrame({"time": [0.0, 1.0, 1.0 + 1e-12, 2.0], "x": [1.0, 2.0, 5.0, 3.0]})
    with pytest.warns(DataWarning, match=r"series 0, time 1\.0.*1 near-duplicate times"):
        data = from_pandas(frame)
    assert len(data[0]) == 4
    assert "near-duplicate" in str(data.describe())


def test_intervals_that_share_an_end_are_no_near_duplicates(recwarn: pytest.WarningsRecorder) -> None:
    frame = pd.DataFrame({"time": [1.0, 1.0, 2.0], "begin": [0.0, 0.5, 1.0], "x": [1.0, 2.0, 3.0]})
    assert from_pandas(frame, start="begin").intake.near_duplicates == 0
    assert not recwarn
    with pytest.warns(DataWarning, match="near-duplicate"):
        from_pandas(frame.assign(begin=[0.5 - 1e-12, 0.5, 1.0]), start="begin")


def test_two_rows_at_one_time_must_agree_on_their_inputs() -> None:
    frame = pd.DataFrame({"time": [0.0, 0.0], "x": [1.0, np.nan], "y": [np.nan, 1.0], "u": [1.0, 2.0]})
    with pytest.raises(DataError, match="different inputs"):
        from_pandas(frame, values=["x", "y"], inputs=["u"])
    long = pd.DataFrame({"time": [0.0, 0.0], "v": [1.0, 2.0], "name": ["x", "y"], "u": [1.0, 2.0]})
    with pytest.raises(DataError, match="different inputs"):
        from_pandas(long, variable="name", value="v", inputs=["u"])


def test_frames_out_of_an_empty_set() -> None:
    empty = from_pandas(wide(), id="id")[[]]
    assert len(empty.to_long()) == len(empty.to_wide()) == 0


@pytest.mark.slow
def test_a_million_long_rows_in_seconds() -> None:
    import time

    rng = np.random.default_rng(0)
    size = 1_700_000
    frame = pd.DataFrame(
        {
            "id": rng.integers(0, 4000, size),
            "time": rng.integers(0, 72, size) / 1.5,  # as many times per stay as in an intensive care unit
            "name": pd.Categorical.from_codes(rng.integers(0, 37, size), [f"c{i}" for i in range(37)]),
            "v": rng.normal(size=size).astype(np.float32),
        }
    )
    start = time.perf_counter()
    data = from_pandas(frame, id="id", variable="name", value="v", duplicates="mean")
    assert time.perf_counter() - start < 30
    assert len(data) == 4000


def test_the_word_in_a_column_of_text_is_named_and_not_the_numbers_around_it() -> None:
    frame = pd.DataFrame({"id": "a", "time": [0.0, 1.0, 2.0], "hr": ["70", "high", "72"]})
    with pytest.raises(DataError, match=r"'high' is not a number \(1 such entries\)"):
        from_pandas(frame, id="id", time="time")


def test_sums_become_means_per_unit_of_time() -> None:
    frame = pd.DataFrame(
        {"t": [2.0, 5.0, 5.0], "begin": [0.0, 5.0, 2.0], "sales": [8.0, np.nan, 6.0], "x": [1.0, 3.0, np.nan]}
    )
    data = from_pandas(frame, time="t", start="begin", sums="sales", units={"sales": "EUR"}, time_unit="day")
    np.testing.assert_allclose(data[0].values[:, 0], [4.0, 2.0, np.nan])
    assert data[0].start is not None
    assert data[0].start.tolist() == [0.0, 2.0, 5.0]
    assert data.channels[0].unit == "EUR/day"
    assert data.to_long()["start"].tolist() == [0.0, 0.0, 2.0, 5.0]
    with pytest.raises(DataError, match="of which interval is not known; give start="):
        from_pandas(frame.drop(columns="begin"), time="t", sums="sales", duplicates="first")
    with pytest.raises(DataError, match="a sum over an interval of no length"):
        from_pandas(frame, time="t", start="begin", sums=["x"])
    with pytest.raises(DataError, match="sums names 'y', which is no channel"):
        from_pandas(frame, time="t", start="begin", sums="y")


def test_means_and_values_survive_a_file(tmp_path) -> None:
    frame = pd.DataFrame({"t": [2.0, 5.0, 5.0], "begin": [0.0, 5.0, 2.0], "x": [1.0, 3.0, 2.0]})
    data = from_pandas(frame, time="t", start="begin")
    again = read(data.to_parquet(tmp_path / "x.parquet"))
    assert again.to_wide().equals(data.to_wide())
    assert len(again[0]) == 3
