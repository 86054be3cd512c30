from collections.abc import Callable
from pathlib import Path

import numpy as np

from ctdyn.data import read


def test_a_small_file_of_the_same_format(tmp_path: Path, converted: Callable) -> None:
    values = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    np.save(tmp_path / "mujoco.npy", values)
    out, counts, told = converted("hopper", tmp_path)
    assert counts == {"rows": 15, "trajectories": 3}
    assert "not the file whose sha256" in told
    data = read(out)
    np.testing.assert_array_equal(data.by_id("002").values, values[2])
    assert data.by_id("000").times.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert data.channel_names == ("position0", "position1", "velocity0", "velocity1")


def test_the_real_file(data_root: Path, converted: Callable) -> None:
    out, counts, told = converted("hopper", data_root)
    assert (counts, told) == ({"rows": 10000, "trajectories": 100}, "")
    values = np.stack([series.values for series in read(out)])
    assert 0.05 < np.mean((values - values.mean((0, 1))) ** 2) < 0.07
    for i in range(7):
        rate = np.gradient(values[..., i], axis=1).ravel()
        assert np.corrcoef(rate, values[..., 7 + i].ravel())[0, 1] > 0.99
