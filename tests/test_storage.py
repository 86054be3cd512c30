"""Folders of safetensors and JSON: everything comes back, damage is noticed, a crash leaves what loads."""

import json
import math
import os
import pickle
import random
import shutil

import pytest
import torch

import ctdyn._storage as storage
from ctdyn._checks import CheckpointWriteError, DataError, VersionError
from ctdyn._storage import decode_tree, encode_tree, read_folder, write_file, write_folder


TREE = {
    "int keys": {0: {"exp_avg": torch.arange(3.0)}, -1: None},
    "tuple": (1, (2.5, "text"), [True, False]),
    "numbers": [0.1 + 0.2, 1e300, 2**70, -0.0],
    ("a", 1): torch.tensor(3),
    None: "none is a key",
    "empty": [torch.zeros(0, 2), {}, [], ()],
    "kinds": {"tuple": "a key called tuple", "float": 1, "tensor": []},
    "types": [torch.ones(2, dtype=t) for t in (torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8)],
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path, "config.json", {"kind": "thing", "note": "é"}, {"w": torch.arange(5.0)})
    return tmp_path


def edit(folder, **changes):
    """Change the document and give it a checksum that fits: what an attacker would do."""
    path = folder / "config.json"
    document = json.loads(path.read_text())
    document.pop("checksum")
    document.update(changes)
    document["checksum"] = storage._checksum(document)
    path.write_text(json.dumps(document))


def test_a_tree_comes_back_exactly(tmp_path):
    document, tensors = encode_tree(TREE)
    write_folder(tmp_path, "tree.json", {"kind": "tree", "tree": document}, tensors)
    read, tensors = read_folder(tmp_path, "tree.json", "tree")
    back = decode_tree(read["tree"], tensors)
    assert same(back, TREE)
    assert list(back) == list(TREE)


def test_numbers_that_json_lacks_come_back():
    document, tensors = encode_tree([math.nan, math.inf, -math.inf])
    json.dumps(document, allow_nan=False)
    back = decode_tree(document, tensors)
    assert math.isnan(back[0])
    assert back[1:] == [math.inf, -math.inf]


def test_tied_and_strided_tensors_are_written(tmp_path):
    x = torch.arange(6.0).view(2, 3)
    write_folder(tmp_path, "c.json", {"kind": "k"}, {"a": x, "b": x.T, "c": x[:, 1]})
    _, tensors = read_folder(tmp_path, "c.json", "k")
    assert torch.equal(tensors["b"], x.T)
    assert torch.equal(tensors["c"], x[:, 1])


def test_other_objects_are_refused_with_their_place():
    with pytest.raises(TypeError, match="object at /a/1"):
        encode_tree({"a": [1, object()]})


@pytest.mark.parametrize(
    "document", [{"dict": 3}, {"tensor": "x"}, {"float": "1"}, {"class": "os.system"}, {"a": 1, "b": 2}, {}]
)
def test_documents_that_are_no_trees_are_refused(document):
    with pytest.raises(DataError, match="damaged"):
        decode_tree([document], {})


def test_nothing_but_json_and_safetensors_is_written(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "weights.safetensors"]


def test_writing_again_leaves_one_pair(folder):
    for value in range(3):
        write_folder(folder, "config.json", {"kind": "thing"}, {"w": torch.tensor([float(value)])})
        assert len(list(folder.iterdir())) == 2
        assert read_folder(folder, "config.json", "thing")[1]["w"].item() == value


@pytest.mark.parametrize("moment", range(8))
def test_a_crash_while_writing_leaves_the_old_or_the_new(folder, monkeypatch, moment):
    class Crash(BaseException):
        pass

    left = iter(range(moment))

    def dying(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            if next(left, None) is None:
                raise Crash
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace", "fdopen"):
        dying(name)
    with pytest.raises(Crash):
        write_folder(folder, "config.json", {"kind": "thing"}, {"w": torch.tensor([7.0])})
    monkeypatch.undo()
    old_or_new = read_folder(folder, "config.json", "thing")[1]["w"]
    assert old_or_new.tolist() in ([0.0, 1.0, 2.0, 3.0, 4.0], [7.0])
    write_folder(folder, "config.json", {"kind": "thing"}, {"w": torch.tensor([8.0])})
    assert read_folder(folder, "config.json", "thing")[1]["w"].item() == 8.0


def test_a_full_disk_leaves_the_old_file_and_no_litter(folder, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointWriteError, match="No space left"):
        write_folder(folder, "config.json", {"kind": "thing"}, {"w": torch.zeros(1)})
    monkeypatch.undo()
    assert read_folder(folder, "config.json", "thing")[1]["w"].shape == (5,)
    assert len(list(folder.iterdir())) == 2


def test_a_written_file_has_the_usual_permissions(tmp_path):
    write_file(tmp_path / "a", b"x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_every_flipped_bit_and_every_truncation_is_noticed(folder, tmp_path_factory):
    rng = random.Random(0)
    work = tmp_path_factory.mktemp("damaged")
    for name in ("config.json", "weights.safetensors"):
        content = (folder / name).read_bytes()
        damaged = [content[: rng.randrange(len(content))] for _ in range(20)]
        for _ in range(100):
            place, bit = rng.randrange(len(content) - 1), 1 << rng.randrange(8)
            damaged.append(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        for wrong in damaged:
            shutil.copytree(folder, work, dirs_exist_ok=True)
            (work / name).write_bytes(wrong)
            try:
                found = read_folder(work, "config.json", "thing")
            except (DataError, VersionError):
                continue
            # White space inside the JSON is the one thing that may change unnoticed: nothing that counts is in it.
            assert found[0] == read_folder(folder, "config.json", "thing")[0]
            assert name == "config.json"


def test_a_pickle_in_place_of_the_weights_is_not_run(folder):
    marker = folder / "marker"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    content = pickle.dumps(Evil())
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        read_folder(folder, "config.json", "thing")
    import hashlib

    edit(
        folder,
        weights={
            "file": "weights.safetensors",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        },
    )
    with pytest.raises(DataError, match="not a safetensors file"):
        read_folder(folder, "config.json", "thing")
    assert not marker.exists()


@pytest.mark.parametrize("file", ["../weights.safetensors", "/etc/passwd", "other.safetensors", 3, None])
def test_only_weight_files_of_that_folder_are_opened(folder, file):
    edit(folder, weights={"file": file, "bytes": 1, "sha256": ""})
    with pytest.raises(DataError, match="names no weight file"):
        read_folder(folder, "config.json", "thing")


def test_a_newer_version_says_so(folder):
    edit(folder, version=99)
    with pytest.raises(VersionError, match="Upgrade"):
        read_folder(folder, "config.json", "thing")


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "thing", "kind": "thing"}',
        '{"kind": NaN}',
        '{"kind": 1e999}',
        "[" * 100_000,
        "[]",
        "",
        "\x80",
        '{"a":' * 70 + "1" + "}" * 70,
    ],
)
def test_json_that_is_not_strict_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"config\.json"):
        read_folder(folder, "config.json", "thing")


def test_a_document_that_is_too_large_is_not_read(folder):
    with pytest.raises(DataError, match="bytes"):
        read_folder(folder, "config.json", "thing", max_bytes=10)


def test_a_missing_or_other_document_is_named(folder):
    with pytest.raises(FileNotFoundError, match=r"no other\.json"):
        read_folder(folder, "other.json", "thing")
    with pytest.raises(DataError, match="'thing'"):
        read_folder(folder, "config.json", "forecaster")
