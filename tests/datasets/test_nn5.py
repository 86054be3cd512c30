from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctdyn.data import read


def test_a_small_file_of_the_same_format(tmp_path: Path, converted: Callable) -> None:
    table = pd.DataFrame({"date": ["1996-03-18", "1996-03-19"], "NN5-001": [13.5, np.nan], "NN5-002": [1.0, 2.0]})
    (tmp_path / "nn5").mkdir()
    table.to_csv(tmp_path / "nn5" / "nn5_daily_with_missing.csv.gz", index=False)
    out, counts, told = converted("nn5", tmp_path)
    assert counts == {"series": 2, "days": 2, "missing": 1}
    assert "not the file whose sha256" in told
    data = read(out)
    assert data.by_id("NN5-002").values.tolist() == [[1.0], [2.0]]
    # A day without an observation is no row.
    assert data.by_id("NN5-001").values.tolist() == [[13.5]]
    assert np.diff(data.by_id("NN5-002").times).tolist() == [1.0]


def test_other_columns_are_refused(tmp_path: Path, converted: Callable) -> None:
    pd.DataFrame({"date": ["1996-03-18"], "x": [1.0]}).to_csv(tmp_path / "nn5_daily_with_missing.csv.gz", index=False)
    with pytest.raises(SystemExit, match="expected the columns date"):
        converted("nn5", tmp_path)


def test_the_real_file(data_root: Path, converted: Callable) -> None:
    out, counts, told = converted("nn5", data_root)
    assert told == ""
    assert counts == {"series": 111, "days": 791, "missing": 1677}
    assert len(read(out)) == 111
