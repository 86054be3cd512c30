from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io

from ctdyn.data import read


def test_a_small_file_of_the_same_format(tmp_path: Path, converted: Callable) -> None:
    rng = np.random.default_rng(0)
    parts = {"Xtr": rng.normal(size=(3, 5, 4)), "Xval": rng.normal(size=(1, 5, 4)), "Xtest": rng.normal(size=(2, 5, 4))}
    (tmp_path / "mocap").mkdir()
    scipy.io.savemat(tmp_path / "mocap" / "mocap35.mat", {**parts, "u": np.eye(4)})
    out, counts, told = converted("mocap35", tmp_path)
    assert counts == {"rows": 30, "train": 3, "validation": 1, "test": 2}
    assert "not the file whose sha256" in told
    data = read(out)
    np.testing.assert_array_equal(data.by_id("test-01").values, parts["Xtest"][1])
    assert data.by_id("train-00").times.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert data.channel_names == ("joint00", "joint01", "joint02", "joint03")


def test_the_real_file(data_root: Path, converted: Callable) -> None:
    out, counts, told = converted("mocap35", data_root)
    assert (counts, told) == ({"rows": 6900, "train": 16, "validation": 3, "test": 4}, "")
    data = read(out)
    test = np.stack([data.by_id(f"test-{i:02d}").values for i in range(4)])
    mean_frame = np.stack([data.by_id(f"train-{i:02d}").values for i in range(16)]).mean(axis=(0, 1))
    assert 33 < np.mean((test[:, 3:] - mean_frame) ** 2) < 35
    assert 60 < np.mean((test[:, 3:] - test[:, 2:3]) ** 2) < 63
