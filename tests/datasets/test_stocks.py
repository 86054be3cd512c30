from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import read


COLUMNS = ["Open", "High", "Low", "Close", "Adj_Close", "Volume"]


def test_a_small_file_of_the_same_format(tmp_path: Path, converted: Callable) -> None:
    rows = np.arange(24.0).reshape(4, 6)
    (tmp_path / "stocks").mkdir()
    pd.DataFrame(rows, columns=pd.Index(COLUMNS)).to_csv(tmp_path / "stocks" / "stock_data.csv", index=False)
    out, counts, told = converted("stocks", tmp_path)
    assert counts == {"days": 4}
    assert "not the file whose sha256" in told
    series = read(out).by_id("GOOG")
    np.testing.assert_array_equal(series.values, rows)
    assert series.times.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert [(c.name, c.unit) for c in read(out).channels][-2:] == [("adj_close", "USD"), ("volume", "shares")]


def test_other_columns_are_refused(tmp_path: Path, converted: Callable) -> None:
    pd.DataFrame({"Open": [1.0], "Close": [1.0]}).to_csv(tmp_path / "stock_data.csv", index=False)
    with pytest.raises(SystemExit, match="expected the columns Open, High"):
        converted("stocks", tmp_path)


def test_the_real_file(data_root: Path, converted: Callable) -> None:
    out, counts, told = converted("stocks", data_root)
    assert (counts, told) == ({"days": 3685}, "")
    assert read(out).by_id("GOOG").values.shape == (3685, 6)
