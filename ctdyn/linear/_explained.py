"""What linear dynamics say of how they are solved."""

from __future__ import annotations

from .._config import Configurable
from ..structure import Explained


__all__ = ["ExactlySolved"]


class ExactlySolved(Configurable, Explained):
    """Something linear, whose flow over any interval is known."""

    def explain(self) -> str:
        """See `Explained.explain`."""
        return f"exact: {type(self).__name__} is linear, so that its flow over any interval is known: no step is needed"
