from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ctdyn.data import read


def test_a_small_file_of_the_same_format(tmp_path: Path, converted: Callable) -> None:
    rows = pd.DataFrame(
        {
            "id": [7, 7, 7, 7, 9, 9, 9],
            "time": [51000.0, 51000.0, 51000.25, 51001.0, 51002.0, 51002.0, 51002.0],
            "mag": [17.0, 18.0, 17.5, 99.0, 16.0, 15.0, 15.5],
            "magerr": [0.01, 0.02, 0.01, 0.01, 0.03, 0.01, 0.01],
            "band": pd.Categorical(["g", "g", "r", "g", "u", "i", "z"]),
        }
    )
    rows.to_parquet(tmp_path / "stripe82_rrlyrae.parquet")
    (tmp_path / "periods.csv").write_text("Num,Type,Per\n7,ab,0.5\n9,c,0.25\n")
    out, counts, told = converted("rrlyrae", tmp_path)
    assert counts == {"stars": 2, "observations": 5, "sentinels_dropped": 1, "duplicates_dropped": 1}
    assert "not the file whose sha256" in told
    data = read(out)
    assert data.channel_names == ("u", "g", "r", "i", "z")
    star = data.by_id(7)
    assert star.times.tolist() == [0.0, 0.5]
    assert star.values[0, 1] == 17.0
    assert star.noise is not None
    assert star.noise[1, 2] == 0.01
    assert star.labels is not None
    assert star.labels.tolist() == [1.0]


def test_the_real_file(data_root: Path, converted: Callable) -> None:
    _, counts, told = converted("rrlyrae", data_root)
    assert counts == {"stars": 483, "observations": 136012, "sentinels_dropped": 176, "duplicates_dropped": 8}
    assert not told
