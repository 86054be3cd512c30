"""The demonstration: its parts, and that it runs as a user runs it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import Series, co2
from ctdyn.demo import Outage, _panels, _pieces


def test_an_outage_hides_one_interval() -> None:
    series = Series("a", np.arange(30.0), np.arange(30.0)[:, None])
    for seed in range(20):
        context, target = Outage(5.0)(series, np.random.default_rng(seed)) or pytest.fail("the series is long enough")
        assert len(target) == 5
        assert len(context) == 25
        assert target.times[-1] - target.times[0] == 4.0
        # There is past on one side and future on the other.
        assert context.times[0] < target.times[0]
        assert context.times[-1] > target.times[-1]
    assert Outage(15.0)(series, np.random.default_rng(0)) is None


def test_pieces_are_stretches_of_the_record() -> None:
    (record,) = co2()
    cut = _pieces(co2(), {"early": (1970.5, 365.25), "late": (1999.0, 2 * 365.25)})
    assert cut.ids == ("early", "late")
    early, late = cut
    assert early.span < 365.25
    assert late.span > 700.0
    assert np.isin(early.times, record.times).all()
    dates = cut.axis.to_user(late.times)
    assert dates[0].year == 1999
    assert dates[0].month == 1


def test_the_figure_hides_what_it_shows_as_truth() -> None:
    record = co2()
    seen = _pieces(record, {"all": (1958.0, 50 * 365.25)})
    half = seen[0].take(np.arange(len(seen[0])) % 2 == 0)
    context, truth, times = _panels(type(record)((half,), record.channels, record.axis), record)
    assert context.ids == truth.ids == tuple(times)
    for given, hidden in zip(context, truth, strict=True):
        assert len(hidden)
        assert not np.isin(hidden.times, given.times).any()


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from ctdyn.cli import main; sys.exit(main())", "demo", "--quick"]
    run = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for word in ("latent ODE", "hold last", "Matern GP", "CRPS", "in 90 %"):
        assert word in run.stdout
    frame = pd.read_csv(tmp_path / "forecast.csv", parse_dates=["time"])
    assert frame["time"].max() > pd.Timestamp("2005-01-01")
    assert (frame["q0.05"] <= frame["q0.95"]).all()
    assert (tmp_path / "forecast.png").stat().st_size > 50_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forecast.csv", "forecast.png"]
