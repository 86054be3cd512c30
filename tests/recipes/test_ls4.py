"""The recipe runs on small files of the formats that it reads, and ends with one line of JSON."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import write_parquet


RECIPE = Path(__file__).parents[2] / "recipes" / "ls4_generation.py"
SMALL = ["--steps", "3", "--latent", "2", "--width", "6", "--batch-size", "4"]


@pytest.mark.parametrize(("names", "length"), [(["a"], 6), ([f"{i}" for i in range(10)], 10)])
def test_generation(
    names: list[str], length: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("ls4_generation", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    days, rng = np.arange(60.0), np.random.default_rng(0)
    parts = [
        pd.DataFrame({"id": name, "time": days, "x": rng.choice([-1.0, 1.0], 60), "y": np.sin(days)}) for name in names
    ]
    table = pd.concat(parts)
    table.loc[table["time"] % 7 == 3, "x"] = np.nan
    path = tmp_path / "data.parquet"
    write_parquet(table, path, id="id", time="time", values=["x", "y"], time_unit="day")
    monkeypatch.setattr("sys.argv", ["recipe", str(path), "--length", str(length), "--models", "LS4", *SMALL])
    module.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["rows"]) == {"iid Gaussian", "iid resampled", "LS4"}
    assert result["floor"] > 0
    assert result["rows"]["iid resampled"]["values"] < result["rows"]["iid Gaussian"]["values"]
    assert result["rows"]["LS4"]["values"] > 0


def test_a_second_half_is_at_distance_one() -> None:
    spec = importlib.util.spec_from_file_location("ls4_generation", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rng = np.random.default_rng(0)
    seen, other = rng.normal(size=(2, 30, 20, 1))
    found = module.Histograms(seen, other)
    assert found.distance(other) == 0.0
    assert found.distance(seen) == found.floor
    # Half the L1 distance between shares lies between 0 and 1, and is 1 where nothing is common.
    assert found.distance(np.full((3, 20, 1), 100.0)) == pytest.approx(1.0, abs=0.01)
