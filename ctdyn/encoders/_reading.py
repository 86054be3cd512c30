"""What encoders share: reading the observed rows of a batch, backwards or forwards, and the head that ends in `q0`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from ..data import IrregularBatch
from ..nn import MLP, take_items


__all__ = [
    "NormalHead",
    "Reading",
    "backwards",
    "forwards",
    "read_values",
    "take_rows",
    "turned",
]

#: The narrowest `q0`: without a floor a confident encoder ends in infinite densities.
_MIN_STD = 1e-3


class NormalHead(nn.Module):
    """A hidden state and static covariates to a diagonal normal distribution."""

    def __init__(self, in_size: int, latent_size: int, hidden: Sequence[int], static_size: int) -> None:
        super().__init__()
        self.static_size = static_size
        self.net = MLP(in_size + static_size, 2 * latent_size, hidden)

    def forward(self, h: Tensor, static: Tensor | None) -> Distribution:
        if self.static_size:
            given = 0 if static is None else static.shape[-1]
            if static is None or given != self.static_size:
                raise ValueError(
                    f"the encoder was built for {self.static_size} static covariates; the batch has {given}. Name "
                    "their columns: from_pandas(..., static=[...])."
                )
            h = torch.cat([h, static], -1)
        mean, raw = self.net(h).chunk(2, -1)
        # Starting below the prior's width keeps the first gradients of the decoder from drowning in noise.
        return Independent(Normal(mean, _MIN_STD + softplus(raw - 1.0), validate_args=False), 1, validate_args=False)


def backwards(batch: IrregularBatch) -> tuple[Tensor, Tensor]:
    """Where the observed rows are, latest first, `(*batch, row)`, and which of these entries are real."""
    observed = batch.observed
    count, number = _counted(observed)
    order = observed.flip(-1).sort(dim=-1, descending=True, stable=True).indices[..., : len(number)]
    return observed.shape[-1] - 1 - order, number < count


def _counted(observed: Tensor) -> tuple[Tensor, Tensor]:
    """How many rows hold an observation, `(*batch, 1)`, and numbers for as many as the longest series has."""
    if observed.shape[-1] == 0:
        raise ValueError("the batch has no times to read; pass at least one (unobserved) row.")
    count = observed.sum(-1, keepdim=True)
    width = max(int(count.max()) if count.numel() else 0, 1)
    return count, torch.arange(width, device=observed.device)


def turned(valid: Tensor) -> Tensor:
    """Where the rows that `backwards` gives stand from the first to the last; behind the last comes the last again."""
    number = torch.arange(valid.shape[-1], device=valid.device)
    return (valid.sum(-1, keepdim=True) - 1 - number).clamp(min=0)


def forwards(batch: IrregularBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times, values and mask of the rows that hold an observation, first to last, and which of them are real."""
    observed = batch.observed
    count, number = _counted(observed)
    rows = observed.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., : len(number)]
    real = number < count
    # A series that has been read to its end waits there.
    rows = torch.where(real, rows, rows.gather(-1, (count - 1).clamp(min=0)))
    mask = take_rows(batch.mask, rows) & real[..., None]
    return batch.times.gather(-1, rows), torch.where(mask, take_rows(batch.values, rows), 0.0), mask, real


def with_gaps(times: Tensor, read: Tensor) -> Tensor:
    """What was read of rows, behind the time between each row and the one before it, `(*batch, row, 1 + feature)`."""
    gaps = times.diff(dim=-1, prepend=times[..., :1]).abs()
    # Times may be finer than values.
    return torch.cat([gaps.unsqueeze(-1).to(read.dtype), read], -1)


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    return take_items(x, rows, -2)


def read_values(batch: IrregularBatch, rows: Tensor) -> tuple[Tensor, Tensor]:
    mask = take_rows(batch.mask, rows)
    return torch.where(mask, take_rows(batch.values, rows), 0), mask.to(batch.values.dtype)


class Reading(NamedTuple):
    """What an encoder reads of a row: values and mask, and what else it was built for."""

    num_channels: int
    input_size: int
    noise: bool = False
    rates: bool = False

    @property
    def size(self) -> int:
        return (2 + self.noise + self.rates) * self.num_channels + self.input_size

    def of(self, batch: IrregularBatch, rows: Tensor) -> Tensor:
        """Of these rows, in the order in which they are read, `(*batch, row, size)`."""
        values, mask = read_values(batch, rows)
        read = [values, mask]
        if self.noise:
            noise = torch.zeros_like(values) if batch.noise is None else take_rows(batch.noise, rows)
            read.append(torch.where(mask.bool(), noise, 0))
        if self.rates:
            read.append(_rates(batch.times.gather(-1, rows), values, mask))
        if self.input_size:
            given = 0 if batch.inputs is None else batch.inputs.shape[-1]
            if batch.inputs is None or given != self.input_size:
                raise ValueError(
                    f"the encoder was built for {self.input_size} inputs; the batch has {given}. Name their columns: "
                    "from_pandas(..., inputs=[...])."
                )
            read.append(take_rows(batch.inputs, rows))
        return torch.cat(read, -1)


def _rates(times: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """How fast each channel moves towards its next observation, the one that was read before; 0 where there is none."""
    number = torch.arange(times.shape[-1], device=times.device).unsqueeze(-1)
    latest = torch.where(mask.bool(), number, -1).cummax(-2).values
    before = torch.nn.functional.pad(latest, (0, 0, 1, 0), value=-1)[..., :-1, :]
    known = mask.bool() & (before >= 0)
    at = before.clamp(min=0)
    gaps = times.unsqueeze(-1).expand_as(values).gather(-2, at) - times.unsqueeze(-1)
    known = known & (gaps > 0)
    rates = (values.gather(-2, at) - values) / torch.where(known, gaps, 1)
    return torch.where(known, rates, 0).asinh().to(values.dtype)
