"""The examples of the README run as they are written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_sixty_second_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    # In a process of its own, as a reader runs it: the type checks of the tests would make it several times slower.
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    scores = {line.split()[-4]: line.split()[-3:] for line in run.stdout.splitlines()[-5:]}
    assert float(scores["ODE"][0]) < min(float(scores[name][0]) for name in ("last", "interpolation", "mean", "GP"))
    assert (tmp_path / "forecast.png").stat().st_size > 10_000


def test_the_make_targets_exist() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([a-z]+)", README))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"the README names `make {target}`"
