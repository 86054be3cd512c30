"""Schedules refuse what is no learning rate."""

import pytest

from ctdyn.train import Cosine, Exponential


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Cosine(0.0), "lr > 0"),
        (lambda: Cosine(1e-3, warmup=-1), "warmup >= 0"),
        (lambda: Cosine(1e-3, final=2.0), r"final in \[0, 1\]"),
        (lambda: Cosine(1e-3, final=float("nan")), r"final in \[0, 1\]"),
        (lambda: Exponential(1e-3, final=-1.0), r"final in \[0, 1\]"),
        (lambda: Exponential(1e-3, decay=1.5), "at most 1"),
        (lambda: Exponential(1e-3, decay=0.0), "above 0"),
    ],
)
def test_what_is_no_rate_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
