"""Scores of a representation: how well the dynamics are linear in given features."""

from .base import RepresentationScore
from .information import InformationScore
from .relaxed import RelaxedScore
from .vamp import VAMPScore


__all__ = ["InformationScore", "RelaxedScore", "RepresentationScore", "VAMPScore"]
