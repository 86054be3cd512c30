import numpy as np
import pytest

from ctdyn._checks import DataError
from ctdyn.data import Channel, Series
from ctdyn.data.channels import unique_channels


def series() -> Series:
    return Series(
        "a",
        np.array([0.0, 1.0, 1.0, 3.0]),
        np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, 5.0], [np.nan, 6.0]]),
        noise=np.full((4, 2), 0.1),
        inputs=np.arange(4.0)[:, None],
        static=np.array([7.0]),
        labels=np.array([1.0]),
        start=np.array([0.0, 0.5, 0.5, 2.0]),
    )


def test_rows_are_cut_together() -> None:
    cut = series().after(1.0)
    assert cut.times.tolist() == [1.0, 1.0, 3.0]
    assert cut.inputs is not None
    assert cut.inputs[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert cut.start is not None
    assert cut.start.tolist() == [0.5, 0.5, 2.0]
    assert cut.noise is not None
    assert cut.noise.shape == (3, 2)
    assert cut.static is not None
    assert cut.static.tolist() == [7.0]


def test_before_and_after_share_no_row() -> None:
    one = series()
    for time in (-1.0, 0.0, 1.0, 2.0, 3.0, 9.0):
        assert len(one.before(time)) + len(one.after(time)) == len(one)
        assert (one.before(time).times < time).all()
        assert (one.after(time).times >= time).all()
    assert one.between(1.0, 3.0).times.tolist() == [1.0, 1.0]


def test_observed_and_span() -> None:
    one = series()
    assert one.observed.tolist() == [True, False, True, True]
    assert one.span == 3.0
    assert one.before(0.0).span == 0.0
    assert one.take(one.observed).times.tolist() == [0.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"times": np.array([1.0, 0.0])}, "must not decrease"),
        ({"times": np.array([0.0, np.nan])}, "finite"),
        ({"times": np.array([0.0, np.inf])}, "finite"),
        ({"times": np.array([0.0])}, r"\(time, channel\)"),
        ({"values": np.zeros(2)}, r"\(time, channel\)"),
        ({"noise": np.zeros((2, 2))}, "noise"),
        ({"inputs": np.zeros((3, 1))}, "inputs"),
        ({"start": np.zeros(3)}, "start"),
    ],
)
def test_bad_arrays_name_the_series(fields: dict[str, np.ndarray], message: str) -> None:
    good = {"times": np.array([0.0, 1.0]), "values": np.zeros((2, 1))}
    with pytest.raises(DataError, match=f"series 'walk'.*{message}"):
        Series("walk", **{**good, **fields})


def test_channels() -> None:
    assert [channel.kind for channel in unique_channels(["a", Channel("b", kind="binary")])] == ["real", "binary"]
    with pytest.raises(DataError, match="'a' occurs more than once"):
        unique_channels(["a", "a"])
    with pytest.raises(DataError, match="no channel"):
        unique_channels([])
    with pytest.raises(DataError, match="kinds are"):
        Channel("a", kind="ordinal")
    with pytest.raises(DataError, match="needs a name"):
        Channel("")
