"""A path that stands still."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import State, Time, Times
from ..nn import all_finite
from .base import Path


__all__ = ["ConstantPath"]


class ConstantPath(Path):
    r"""A path that keeps one value for ever; use it for a context or a static input that drives a field.

    .. math:: X(t) = x

    Args:
        value: the value of each series, `(*batch, channel)`.

    Raises:
        ValueError: `value` has no channel axis, or is not finite.

    Example:
        >>> ConstantPath(torch.tensor([[1.0, 2.0]])).evaluate(torch.tensor([7.0]))
        tensor([[1., 2.]])
    """

    def __init__(self, value: Tensor) -> None:
        if value.dim() < 1:
            raise ValueError("the value of a ConstantPath must be (*batch, channel); got a tensor without axes.")
        if not all_finite(value):
            raise ValueError("the value of a ConstantPath holds NaN or infinite entries.")
        self.value = value

    @property
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""
        return self.value.shape[:-1]

    def evaluate(self, t: Time) -> State:
        """The value at one time per series, `(*batch, channel)`."""
        return self.value.expand(*t.shape, self.value.shape[-1])

    def derivative(self, t: Time) -> State:
        """Zero, `(*batch, channel)`."""
        return torch.zeros_like(self.evaluate(t))

    def restrict(self, t0: Time, t1: Time) -> ConstantPath:
        """The path itself."""
        return self

    def knots(self) -> Times | None:
        """None: the path is smooth throughout."""
        return None

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the path is made of."""
        return (self.value,)

    def replace(self, tensors: tuple[Tensor, ...]) -> ConstantPath:
        """The same path made of other tensors."""
        (value,) = tensors
        return type(self)(value)
