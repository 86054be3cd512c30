"""Strengths of noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._types import Time


__all__ = ["TimedNoise"]

_SIZE = 8


class TimedNoise(nn.Module):
    r"""A positive, bounded function of the time for every entry, :math:`\sigma(t)`; it begins as a constant."""

    def __init__(self, size: int, start: float) -> None:
        super().__init__()
        if not 0 < start < float("inf"):
            raise ValueError(f"sigma must be positive and finite, per square root of time; got {start}.")
        self.time = nn.Linear(1, _SIZE)
        self.strength = nn.Linear(_SIZE, size)
        level = torch.tensor(start)
        with torch.no_grad():
            self.strength.weight.zero_()
            # The inverse of softplus.
            self.strength.bias.fill_(float(level + (-torch.expm1(-level)).log()))

    def forward(self, t: Time, dtype: torch.dtype) -> Tensor:
        """`(*batch, size)`."""
        return softplus(self.strength(torch.tanh(self.time(t[..., None].to(dtype)))))
