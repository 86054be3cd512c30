"""The recipes run, on small data of the format that they read, and end with one line of JSON."""

import importlib.util
import inspect
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from ctdyn import fields
from ctdyn.data import write_parquet
from ctdyn.structure import CDEField, SDEField, Transition, VectorField


RECIPES = Path(__file__).parents[2] / "recipes"


def recipe(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up.
    importlib.import_module("sys").modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_japanese_vowels(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for i in range(24):
        name, length = f"{'train' if i < 16 else 'test'}-{i:03d}", int(rng.integers(3, 6))
        frame = pd.DataFrame(rng.normal(size=(length, 2)) + i % 2, columns=["a", "b"])
        frames.append(frame.assign(id=name, time=np.arange(length, dtype=float), speaker=i % 2))
    path = tmp_path / "vowels.parquet"
    write_parquet(pd.concat(frames), path, id="id", time="time", values=["a", "b"], labels=["speaker"])
    module = recipe("japanese_vowels")
    for options in (["--validate", "--reader", "linear CDE"], []):
        monkeypatch.setattr("sys.argv", ["japanese_vowels", str(path), "--steps", "2", *options])
        module.main()
        rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
        assert all(0 <= row["accuracy"] <= 1 for row in rows.values())
    assert set(rows) == set(module.READERS)


def test_swap_the_field(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = recipe("swap_the_field")
    names = ("linear", "SDE", "linear CDE", "CfC, wired")
    chosen = [part for name in names for part in ("--field", name)]
    monkeypatch.setattr("sys.argv", ["swap_the_field", "--steps", "2", *chosen])
    module.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert set(rows) == {"hold the start", *names}
    assert all(np.isfinite([row["within"], row["beyond"]]).all() for row in rows.values())
    assert rows["linear CDE"]["way"] == "exact"


def test_every_field_is_swapped_in() -> None:
    """A new field without a row in the recipe fails here."""
    module = recipe("swap_the_field")
    torch.manual_seed(0)
    built = {type(build()) for build in module.FIELDS.values()}
    kinds = (VectorField, SDEField, CDEField, Transition)
    exported = {x for x in (getattr(fields, name) for name in fields.__all__) if isinstance(x, type)}
    concrete = {x for x in exported if issubclass(x, kinds) and not inspect.isabstract(x)}
    assert concrete == built
