"""What every test and doctest finds in place: a seed, a drawing backend without a screen, and the optional data."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch


os.environ.setdefault("MPLBACKEND", "Agg")
# The parts under test are small: a second thread costs more than it brings.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Doctests and tests draw the same numbers wherever and in whatever order they run."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (for libraries that draw from the global state)
    torch.manual_seed(0)


def _folder(variable: str) -> Path:
    root = os.environ.get(variable)
    if root is None:
        pytest.skip(f"{variable} is not set")
    return Path(root)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of data sets that are not shipped (`CTDYN_DATA`); the test is skipped where it is not set."""
    return _folder("CTDYN_DATA")


@pytest.fixture(scope="session")
def reference_root() -> Path:
    """The folder of reference values that are not shipped (`CTDYN_REFERENCE`); skipped where it is not set."""
    return _folder("CTDYN_REFERENCE")
