"""The recipes run on small files of the format that they read, and end with one line of JSON."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import write_parquet


RECIPES = Path(__file__).parents[2] / "recipes"


def run(name: str, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict:
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("sys.argv", [name, *arguments])
    monkeypatch.setattr("ctdyn.data.scaling._SAMPLED_WINDOWS", 4)
    module.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_mocap(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.arange(30.0)
    walks = [
        pd.DataFrame({"id": f"{part}-{i:02d}", "time": frames, "a": np.sin(frames / 5 + i), "b": np.cos(frames / 5)})
        for part, count in (("train", 3), ("validation", 1), ("test", 2))
        for i in range(count)
    ]
    path = tmp_path / "mocap.parquet"
    write_parquet(pd.concat(walks), path, id="id", time="time", values=["a", "b"], time_unit="frame")
    result = run("latent_ode_mocap", [str(path), "--steps", "2"], capsys, monkeypatch)
    assert set(result["rows"]) == {"latent ODE", "hold last", "linear interpolation", "own mean", "Matern GP"}
    held = [walk[["a", "b"]].to_numpy() for walk in walks[-2:]]
    assert result["rows"]["hold last"]["mse"] == pytest.approx(
        np.mean([(walk[3:] - walk[2]) ** 2 for walk in held]), rel=1e-3
    )


def stays(path: Path) -> Path:
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"id": i, "time": np.sort(rng.uniform(0, 48, 24)), "variable": ["HR", "pH"] * 12, "Age": 60.0 + i})
        for i in range(14)
    ]
    table = pd.concat(parts, ignore_index=True)
    table["value"] = np.where(table["variable"] == "HR", 80.0, 7.4) + rng.normal(size=len(table)) * 0.05
    options = {"id": "id", "time": "time", "variable": "variable", "value": "value", "static": ["Age"]}
    write_parquet(table, path, values=["HR", "pH"], time_unit="hour", **options)
    return path


def test_physionet(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = stays(tmp_path / "stays.parquet")
    result = run("latent_ode_physionet", [str(path), "--quick", "--steps", "2"], capsys, monkeypatch)
    assert result["stays"] == 14
    assert 0.0 <= result["rows"]["latent ODE"]["coverage 0.9"] <= 1.0


def test_physionet_by_gaussian_sites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stays(tmp_path / "stays.parquet")
    result = run("gaussian_sites_physionet", [str(path), "--quick", "--steps", "3"], capsys, monkeypatch)
    assert result["stays"] == 3
    for rows in result["tasks"].values():
        # Noise around a level of its own: it is not to be held.
        assert rows["Gaussian sites"]["crps"] < rows["hold last"]["crps"]
        assert 0.0 <= rows["Gaussian sites"]["coverage 0.9"] <= 1.0
