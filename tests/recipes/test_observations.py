"""The recipes of intervals and of errors per point run on little data, and end with one line of JSON."""

import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import from_pandas, write_parquet
from ctdyn.models import HoldLast


RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(autouse=True)
def _few_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("ctdyn.compare.models"), "BASELINES", {"hold last": HoldLast})


def recipe(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nowcast(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A season without noise: the mean of a quarter is not its last value, and the model knows the difference."""
    module = recipe("nowcast_co2")
    days = np.arange(0.0, 7 * 365.25, 7.0)
    level = np.sin(2 * np.pi * days / 365.25) + 0.1 * np.random.default_rng(0).normal(size=len(days))
    record = pd.DataFrame({"time": pd.Timestamp("2000-01-01") + pd.to_timedelta(days, "D"), "co2": level})
    monkeypatch.setattr(module, "co2", lambda: from_pandas(record))
    for name, value in (("PAST", 6), ("FIRST", 20)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("sys.argv", ["recipe", "--steps", "8"])
    module.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert set(rows) == {"means as integrals", "means as values", "hold last"}
    assert rows["means as integrals"]["mse"] < min(rows["means as values"]["mse"], rows["hold last"]["mse"])


def test_rrlyrae(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = recipe("rrlyrae")
    monkeypatch.setattr(module, "HARMONICS", (1, 1))
    rng = np.random.default_rng(0)
    parts = []
    for star in range(12):
        times = np.sort(rng.uniform(0, 200, 14))
        phase = rng.uniform()
        for number, band in enumerate("gr"):
            value = 17.0 + np.sin(2 * np.pi * (times + phase)) + 0.01 * rng.normal(size=14)
            parts.append(pd.DataFrame({"id": star, "time": times + 0.001 * number, "band": band, "mag": value}))
    table = pd.concat(parts, ignore_index=True).assign(error=0.01)
    path = tmp_path / "stars.parquet"
    names = {"id": "id", "time": "time", "variable": "band", "value": "mag", "noise": ["error"], "values": ["g", "r"]}
    write_parquet(table, path, **names, time_unit="period")
    monkeypatch.setattr("sys.argv", ["recipe", str(path), "--steps", "8"])
    module.main()
    tasks = json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"]
    assert set(tasks) == {"interpolation", "forecast"}
    for rows in tasks.values():
        assert rows["Gaussian sites"]["mse"] < rows["hold last"]["mse"]
