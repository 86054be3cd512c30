from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctdyn.data import read


def test_a_small_file_of_the_same_format(tmp_path: Path, converted: Callable) -> None:
    traces = np.random.default_rng(0).normal(size=(31, 4, 2))
    (tmp_path / "cheetah").mkdir()
    np.savez(tmp_path / "cheetah" / "halfcheetah_31x1000x17.npz", x=traces)
    out, counts, told = converted("cheetah", tmp_path)
    assert counts == {"rows": 124, "validation": 5, "test": 10, "train": 10, "spare": 6}
    assert "not the file whose sha256" in told
    data = read(out)
    np.testing.assert_array_equal(data.by_id("test-00").values, traces[5])
    np.testing.assert_array_equal(data.by_id("train-09").values, traces[24])
    assert data.by_id("spare-05").times.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_another_number_of_traces_is_refused(tmp_path: Path, converted: Callable) -> None:
    np.savez(tmp_path / "halfcheetah_31x1000x17.npz", x=np.zeros((3, 4, 2)))
    with pytest.raises(SystemExit, match="expected an array of 31 traces"):
        converted("cheetah", tmp_path)


def test_the_real_file(data_root: Path, converted: Callable) -> None:
    out, counts, told = converted("cheetah", data_root)
    assert (counts["rows"], told) == (31000, "")
    assert read(out).by_id("test-03").values.shape == (1000, 17)
