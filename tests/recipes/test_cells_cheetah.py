"""The recipe runs on a small file of the format that it reads, and ends with one line of JSON."""

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import write_parquet


RECIPES = Path(__file__).parents[2] / "recipes"


def test_cells_cheetah(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    frames, rng = np.arange(300.0), np.random.default_rng(0)
    traces = [
        pd.DataFrame({"id": f"{part}-00", "time": frames, "a": np.sin(frames), "b": rng.normal(size=300)})
        for part in ("train", "validation", "test")
    ]
    path = tmp_path / "cheetah.parquet"
    write_parquet(pd.concat(traces), path, id="id", time="time", values=["a", "b"], time_unit="frame")
    monkeypatch.syspath_prepend(str(RECIPES))
    module, shared = importlib.import_module("cells_cheetah"), importlib.import_module("ssm_cheetah")
    monkeypatch.setattr(shared, "WIDTH", 8)
    monkeypatch.setattr(module, "WIDTH", 8)
    monkeypatch.setattr("sys.argv", ["cells_cheetah", str(path), "--steps", "2"])
    shared.main(module.MODELS, module.__doc__)
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert set(rows) == {"hold last", *module.MODELS}
    assert all(np.isfinite(row[part]["mse"]) for row in rows.values() for part in ("validation", "test"))
