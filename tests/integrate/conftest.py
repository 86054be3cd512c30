"""What the tests of solving share."""

import jaxtyping
import pytest


@pytest.fixture
def _unchecked(monkeypatch):
    """What a user meets: annotations are checked under pytest only."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
