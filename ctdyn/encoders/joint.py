"""Several encoders side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields

from torch import nn

from .._checks import check_list
from ..data import IrregularBatch
from .base import Encoder, Encoding


__all__ = ["JointEncoder"]


class JointEncoder(Encoder):
    """Encoders that read the same series, each for another part of the encoding; for a `JointProcess`.

    Args:
        parts: the encoders.

    Raises:
        ValueError: there are no parts, two of them provide the same, or they read different numbers of channels.

    Example:
        >>> import torch
        >>> from ctdyn.encoders import GRUEncoder, SiteEncoder, SummaryEncoder
        >>> encoder = JointEncoder([SiteEncoder(2, 4), SummaryEncoder(GRUEncoder(2, 3))])
        >>> sorted(encoder.provides)
        ['sites', 'static']
    """

    def __init__(self, parts: Sequence[Encoder]) -> None:
        check_list("parts", parts, Encoder, "[SiteEncoder(num_channels, latent_size)]")
        if not parts:
            raise ValueError("JointEncoder needs at least one part.")
        known = {part.num_channels for part in parts if part.num_channels is not None}
        if len(known) > 1:
            raise ValueError(
                f"the parts of a JointEncoder read the same channels; they are built for num_channels {sorted(known)}."
            )
        inputs, static = ([getattr(part, name) for part in parts] for name in ("input_size", "static_size"))
        super().__init__(
            next(iter(known), None),
            input_size=None if None in inputs else max(inputs),
            static_size=None if None in static else max(static),
        )
        counts = Counter(field for part in parts for field in part.provides)
        twice = sorted(field for field, count in counts.items() if count > 1)
        if twice:
            raise ValueError(
                f"each part of a JointEncoder must provide something else; {twice[0]} comes from "
                f"{[type(part).__name__ for part in parts if twice[0] in part.provides]}."
            )
        self.parts = nn.ModuleList(parts)
        self.provides = frozenset(counts)
        self.sizes = {field: size for part in parts for field, size in part.sizes.items()}

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        found = [part(batch) for part in self.parts]
        names = [f.name for f in fields(Encoding)]
        given = {name: getattr(one, name) for one in found for name in names if getattr(one, name) is not None}
        return Encoding(**given)
