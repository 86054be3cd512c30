"""The recipe runs on a small file of the format that it reads, and ends with one line of JSON."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn.data import write_parquet


RECIPE = Path(__file__).parents[2] / "recipes" / "koopman_stock.py"


def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("koopman_stock", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def share(days: int, seed: int = 0) -> np.ndarray:
    """Prices that wander, `(day, column)`."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(0.02 * rng.standard_normal(days).cumsum())
    opening = np.concatenate([close[:1], close[:-1]]) * np.exp(0.01 * rng.standard_normal(days))
    high = np.maximum(opening, close) * np.exp(0.005 * rng.exponential(size=days))
    low = np.minimum(opening, close) * np.exp(-0.005 * rng.exponential(size=days))
    return np.stack([opening, high, low, close, close, 1e6 * np.exp(0.3 * rng.standard_normal(days))], -1)


def test_rows_and_prices_are_the_same() -> None:
    module = recipe()
    prices = module.windows(share(40))
    rows = module.to_rows(prices)
    assert rows.shape == (17, 48, 4)
    assert np.isnan(rows[:, 0::2, 1:]).all()
    assert not np.isnan(rows[:, 1::2]).any()
    np.testing.assert_allclose(module.to_prices(rows), prices, rtol=1e-9)


def test_what_is_dropped_is_whole_days() -> None:
    module = recipe()
    rows = torch.as_tensor(module.to_rows(module.windows(share(40))), dtype=torch.float32)
    window = next(iter(module.Batches(rows, 0.3, 1, 8, seed=0)))
    seen = window.context.mask[..., 0].view(8, 24, 2)
    assert (seen[..., 0] == seen[..., 1]).all()
    assert (seen[..., 0].sum(-1) == 24 - 7).all()


def test_stock(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = recipe()
    columns = ["open", "high", "low", "close", "adj_close", "volume"]
    frame = pd.DataFrame(share(48 * 10), columns=columns)
    frame.insert(0, "time", np.arange(len(frame), dtype=np.float64))
    frame.insert(0, "id", "X")
    path = tmp_path / "stocks.parquet"
    write_parquet(frame, path, id="id", time="time", values=columns, time_unit="trading day")
    monkeypatch.setattr("sys.argv", ["recipe", str(path), "--drop", "0.3", "--steps", "2", "--quick"])
    module.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["scores"]) == {"generated", "real against real", "noise"}
    assert all(0.0 <= score <= 0.5 for score in result["scores"].values())
