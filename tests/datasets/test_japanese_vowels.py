import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctdyn.data import read


HEADER = "#Donor : nobody\n@problemName JapaneseVowels\n@dimensions 12\n@classLabel true 1 2\n@data\n"


def line(length: int, speaker: int) -> str:
    channels = [",".join(str(i + 0.5 * j) for j in range(length)) for i in range(12)]
    return ":".join([*channels, str(speaker)])


def write(root: Path) -> None:
    folder = root / "japanese_vowels"
    folder.mkdir()
    train = HEADER + "\n".join([line(3, 1), line(5, 2)]) + "\n"
    (folder / "JapaneseVowels_TRAIN.ts.gz").write_bytes(gzip.compress(train.encode()))
    (folder / "JapaneseVowels_TEST.ts").write_text(HEADER + line(4, 2) + "\n")


def test_small_files_of_the_same_format(tmp_path: Path, converted: Callable) -> None:
    write(tmp_path)
    out, counts, told = converted("japanese_vowels", tmp_path)
    assert counts == {"rows": 12, "train": 2, "test": 1}
    assert "not the file whose sha256" in told
    data = read(out)
    assert list(data.ids) == ["train-000", "train-001", "test-000"]
    assert data.label_names == ("speaker",)
    assert data.by_id("train-001").labels is not None
    np.testing.assert_array_equal(data.by_id("train-001").labels, [1.0])
    np.testing.assert_array_equal(data.by_id("test-000").values[:, 2], [2.0, 2.5, 3.0, 3.5])
    assert data.by_id("train-000").times.tolist() == [0.0, 1.0, 2.0]


def test_bad_files_are_refused(tmp_path: Path, converted: Callable) -> None:
    write(tmp_path)
    path = tmp_path / "japanese_vowels" / "JapaneseVowels_TEST.ts"
    path.write_text(HEADER + line(4, 2).replace("3.5:", "3.5,4.0:", 1) + "\n")
    with pytest.raises(SystemExit, match="test-000: its channels have different lengths"):
        converted("japanese_vowels", tmp_path)
    path.write_text("1,2:3,4:1\n")
    with pytest.raises(SystemExit, match="no line @data"):
        converted("japanese_vowels", tmp_path)


def test_the_real_files(data_root: Path, converted: Callable) -> None:
    out, counts, told = converted("japanese_vowels", data_root)
    assert (counts, told) == ({"rows": 9961, "train": 270, "test": 370}, "")
    data = read(out)
    speakers = [int(one.labels[0]) for one in data if one.labels is not None and str(one.id).startswith("train")]
    assert np.bincount(speakers).tolist() == [30] * 9
    assert {len(one) for one in data} <= set(range(7, 30))
