import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctdyn.metrics import average_per_channel, average_per_series_and_channel, average_pooled


ERRORS = np.array([1.0, 3.0, 10.0, 2.0, 4.0, 6.0])
SERIES = np.array([0, 0, 0, 1, 1, 2])
CHANNEL = np.array(["a", "a", "b", "a", "a", "b"])


def test_three_protocols_by_hand():
    assert average_pooled(ERRORS) == pytest.approx(26 / 6)
    assert average_per_series_and_channel(ERRORS, SERIES, CHANNEL) == pytest.approx((2 + 10 + 3 + 6) / 4)
    assert average_per_channel(ERRORS, CHANNEL) == pytest.approx((10 / 4 + 16 / 2) / 2)


def test_literature_variant_counts_empty_pairs_as_zero():
    assert average_per_series_and_channel(ERRORS, SERIES, CHANNEL, num_pairs=6) == pytest.approx(21 / 6)


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match="4 pairs"):
        average_per_series_and_channel(ERRORS, SERIES, CHANNEL, num_pairs=3)


def test_nothing_to_average_is_nan():
    assert np.isnan(average_pooled([]))
    assert np.isnan(average_per_channel([], []))
    assert np.isnan(average_per_series_and_channel([], [], []))


@given(
    errors=hnp.arrays(np.float64, (3, 4, 5), elements=st.floats(0, 1e3)),
    order=st.permutations(range(60)),
)
def test_protocols_agree_on_a_full_grid_in_any_order(errors, order):
    series, channel, _ = np.indices(errors.shape)
    flat, series, channel = (array.ravel()[order] for array in (errors, series, channel))
    expected = pytest.approx(errors.mean(), rel=1e-9, abs=1e-12)
    assert average_pooled(flat) == expected
    assert average_per_channel(flat, channel) == expected
    assert average_per_series_and_channel(flat, series, channel) == expected
