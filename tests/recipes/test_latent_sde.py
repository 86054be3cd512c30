"""The recipe runs on a small file of the format that it reads, and ends with one line of JSON."""

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import write_parquet


RECIPES = Path(__file__).parents[2] / "recipes"


def test_latent_sde_mocap(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.arange(160.0)
    walks = [
        pd.DataFrame({"id": f"{part}-{i:02d}", "time": frames, "a": np.sin(frames / 5 + i), "b": np.cos(frames / 5)})
        for part, count in (("train", 2), ("validation", 1), ("test", 1))
        for i in range(count)
    ]
    path = tmp_path / "mocap.parquet"
    write_parquet(pd.concat(walks), path, id="id", time="time", values=["a", "b"], time_unit="frame")
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.setattr("ctdyn.data.scaling._SAMPLED_WINDOWS", 4)
    module, shared = importlib.import_module("latent_sde_mocap"), importlib.import_module("latent_ode_mocap")
    monkeypatch.setattr("sys.argv", ["latent_sde_mocap", str(path), "--steps", "2", "--validate"])
    shared.main(module.MODELS, module.__doc__)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["rows"]) == {*module.MODELS, "hold last", "linear interpolation", "own mean", "Matern GP"}
    (walk,) = (walk[["a", "b"]].to_numpy() for walk in walks if walk["id"].iloc[0].startswith("validation"))
    assert result["rows"]["hold last"]["mse"] == pytest.approx(np.mean((walk[3:] - walk[2]) ** 2), rel=1e-3)
    assert set(result["selection error"]) == set(module.MODELS)
    assert all(np.isfinite(error) for error in result["selection error"].values())


def test_the_selection_error_is_that_of_the_mean_over_contexts_and_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holding the last frame of a straight line that is 1 away after one frame, 2 after two ..."""
    monkeypatch.syspath_prepend(str(RECIPES))
    shared = importlib.import_module("latent_ode_mocap")
    from ctdyn import Forecaster
    from ctdyn.data import from_ragged
    from ctdyn.models import HoldLast

    frames, slopes = np.arange(160.0), (1.0, 3.0)
    walks = from_ragged([(frames, slope * frames) for slope in slopes], channels=["x"])
    model = Forecaster(HoldLast(walks.channels), windows=shared.TASK).fit(walks)
    ahead = [np.mean(np.arange(1.0, 160 - first - 3 + 1) ** 2) for first in range(0, 151, 15)]
    # Of the two walks the second is three times as far away.
    assert shared.selection_error(model, walks) == pytest.approx(3.0 * np.mean(ahead), rel=1e-4)
