"""What latents of a whole series share."""

from __future__ import annotations

from torch import Tensor

from .._types import Times
from ..encoders import Encoding


__all__ = ["describe", "last_for_ever"]


def describe(encoding: Encoding, size: int, name: str) -> Tensor:
    """The description of the series, `(*batch, feature)`, or an error that says who can give it."""
    if encoding.static is None:
        raise ValueError(
            f"{name} needs an encoding with static; use an encoder that provides it, such as "
            "SummaryEncoder(GRUEncoder(...)), side by side with others in a JointEncoder."
        )
    given = encoding.static.shape[-1]
    if given != size:
        raise ValueError(f"{name} was built for feature_size={size}; the encoder gives a description of size {given}.")
    return encoding.static


def last_for_ever(z: Tensor, ts: Times) -> Tensor:
    """One state `(sample, *batch, latent)` at all times, `(sample, *batch, time, latent)`."""
    return z.unsqueeze(-2).expand(*z.shape[:-1], ts.shape[-1], z.shape[-1])
