import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


FOLDER = Path(__file__).parent.parent.parent / "datasets"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_where_the_data_come_from(script: Callable[[str], ModuleType], name: str) -> None:
    text = script(name).__doc__ or ""
    for word in ("Url:", "sha256:", "Licence:", "Citation:", "Task:", "Traps:", "--root", "--out"):
        assert word in text, f"{name} does not state {word}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_root_is_needed(
    script: Callable[[str], ModuleType], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CTDYN_DATA", raising=False)
    with pytest.raises(SystemExit):
        script(name).main(["--out", str(tmp_path / "out.parquet")])
    with pytest.raises(SystemExit, match="see the url"):
        script(name).main(["--root", str(tmp_path), "--out", str(tmp_path / "out.parquet")])
    assert not list(tmp_path.iterdir())


def test_a_script_runs_from_the_shell() -> None:
    done = subprocess.run([sys.executable, FOLDER / "co2.py", "--help"], capture_output=True, text=True, check=True)
    assert "--out" in done.stdout
