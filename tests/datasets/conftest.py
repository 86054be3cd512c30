import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


FOLDER = Path(__file__).parent.parent.parent / "datasets"


@pytest.fixture
def script() -> Callable[[str], ModuleType]:
    """A provenance script as a module; the folder is no package."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def converted(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[Path, dict[str, Any], str]]:
    """Run a script; the file it wrote, the counts of its last line, and what it complained about."""

    def run(name: str, root: Path, *options: str) -> tuple[Path, dict[str, Any], str]:
        out = tmp_path / f"{name}.parquet"
        script(name).main(["--root", str(root), "--out", str(out), *options])
        told = capsys.readouterr()
        return out, json.loads(told.out.splitlines()[-1]), told.err

    return run
