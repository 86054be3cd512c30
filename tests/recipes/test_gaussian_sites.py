"""The recipe runs on a small file of the format that it reads, and ends with one line of JSON."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import write_parquet
from ctdyn.models import LinearInterpolation


RECIPE = Path(__file__).parents[2] / "recipes" / "gaussian_sites_hopper.py"


def test_hopper(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("gaussian_sites_hopper", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    frames = np.arange(30.0)
    rng = np.random.default_rng(0)
    phases = rng.uniform(0, 6, 10)
    falls = [
        pd.DataFrame({"id": f"{i:03d}", "time": frames, "a": np.sin(frames / 4 + p), "b": np.cos(frames / 4 + p)})
        for i, p in enumerate(phases)
    ]
    path = tmp_path / "hopper.parquet"
    write_parquet(pd.concat(falls), path, id="id", time="time", values=["a", "b"], time_unit="frame")
    options = ["--steps", "15", "--latent", "2", "--keep", "15"]
    monkeypatch.setattr("sys.argv", ["recipe", str(path), *options])
    monkeypatch.setattr("ctdyn.data.scaling._SAMPLED_WINDOWS", 4)
    baselines = {"linear interpolation": LinearInterpolation}
    monkeypatch.setattr(importlib.import_module("ctdyn.compare.models"), "BASELINES", baselines)
    module.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["rows"]) == {"Gaussian sites", *baselines}
    assert result["rows"]["Gaussian sites"]["mse"] < result["rows"]["linear interpolation"]["mse"]
    assert 0.0 <= result["rows"]["Gaussian sites"]["coverage 0.9"] <= 1.0


def test_mocap(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPE.parent))
    module = importlib.import_module("gaussian_sites_mocap")
    frames = np.arange(60.0)
    walks = [
        pd.DataFrame(
            {"id": f"{part}-{i:02d}", "time": frames, "a": np.sin(frames / 5 + i), "b": np.cos(frames / 5 + i)}
        )
        for part, count in (("train", 3), ("validation", 1), ("test", 2))
        for i in range(count)
    ]
    path = tmp_path / "mocap.parquet"
    write_parquet(pd.concat(walks), path, id="id", time="time", values=["a", "b"], time_unit="frame")
    monkeypatch.setattr("sys.argv", ["recipe", str(path), "--steps", "2"])
    monkeypatch.setattr("ctdyn.data.scaling._SAMPLED_WINDOWS", 4)
    baselines = {"linear interpolation": LinearInterpolation}
    monkeypatch.setattr(importlib.import_module("ctdyn.compare.models"), "BASELINES", baselines)
    module.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["rows"]) == {"Kalman VAE", "Markovian GP-VAE", *baselines}
    assert all(0.0 <= result["rows"][name]["coverage 0.9"] <= 1.0 for name in module.MODELS)
