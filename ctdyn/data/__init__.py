"""Irregular series: from a frame to the tensors of a model, and back."""

from .batch import IrregularBatch, Window


__all__ = ["IrregularBatch", "Window"]
