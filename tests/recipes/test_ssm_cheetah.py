"""The recipe runs on a small file of the format that it reads, and ends with one line of JSON."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import write_parquet


RECIPE = Path(__file__).parents[2] / "recipes" / "ssm_cheetah.py"


def test_cheetah(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    frames, rng = np.arange(150.0), np.random.default_rng(0)
    traces = [
        pd.DataFrame({"id": f"{part}-{i:02d}", "time": frames, "a": np.sin(frames + i), "b": rng.normal(size=150)})
        for part, count in (("train", 2), ("validation", 1), ("test", 2))
        for i in range(count)
    ]
    path = tmp_path / "cheetah.parquet"
    write_parquet(pd.concat(traces), path, id="id", time="time", values=["a", "b"], time_unit="frame")
    spec = importlib.util.spec_from_file_location("ssm_cheetah", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("sys.argv", ["ssm_cheetah", str(path), "--steps", "2"])
    module.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert set(rows) == {"hold last", *module.MODELS}
    assert all(np.isfinite(row["test"]["mse"]) for row in rows.values())
    # White noise is on average twice its variance from its last value.
    assert 0.5 < rows["hold last"]["test"]["mse"] < 3.0
