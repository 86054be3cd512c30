from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ctdyn.data import co2, read


def test_a_small_file_of_the_same_format(tmp_path: Path, converted: Callable) -> None:
    (tmp_path / "co2.csv").write_text("date,co2\n19580329,316.1\n19580405,\n19580412,317.6\n")
    out, counts, told = converted("co2", tmp_path)
    assert counts == {"weeks": 3, "missing": 1}
    assert "not the file whose sha256" in told
    data = read(out)
    assert data.ids == ("Mauna Loa",)
    assert data[0].times.tolist() == [0.0, 14.0]
    assert data.channels[0].unit == "ppm"


def test_the_real_file(data_root: Path, converted: Callable) -> None:
    out, counts, told = converted("co2", data_root)
    assert counts == {"weeks": 2284, "missing": 59}
    assert not told
    pd.testing.assert_frame_equal(read(out).to_wide(), co2().to_wide())
