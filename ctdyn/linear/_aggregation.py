"""Observations that are means over intervals: a linear-Gaussian model whose state holds the integrals they are made of.

Each interval has a slot in the state, in which the readings are integrated while it lasts; intervals that do not
overlap share one. A slot is empty, and its variance zero, where no interval is open.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..data import IrregularBatch
from ._conditioning import Whitened, merge
from .chain import Chain
from .dynamics import LinearDynamics
from .holds import Hold
from .integrated import IntegratedDynamics


__all__ = ["Aggregation", "has_intervals"]


def has_intervals(batch: IrregularBatch) -> bool:
    """Whether an observation of the batch begins before its time."""
    return batch.start is not None and bool((batch.start < batch.times).any())


class Aggregation(NamedTuple):
    """A batch with rows at the beginnings of its intervals.

    Args:
        batch: the merged rows, those of the beginnings unobserved, `(*batch, row)`.
        place: where the times of the original batch stand among them, `(*batch, time)`.
        slot: which slot each of these times uses, `(*batch, time)`; -1 for a point.
        length: of the interval of each time; 1 for a point.
        open: True where a row lies in the interval that holds a slot, `(*batch, row, slot)`.
    """

    batch: IrregularBatch
    place: Tensor
    slot: Tensor
    length: Tensor
    open: Tensor

    @classmethod
    def of(cls, batch: IrregularBatch, shape: torch.Size, hold: Hold) -> Aggregation:
        """Of a batch, whose axes are broadcast to `shape`."""
        assert batch.start is not None
        times = batch.times.to(torch.float64).expand(*shape, -1)
        start = batch.start.to(torch.float64).expand(*shape, -1)
        long = start < times
        slot, count = _slots(times, start, long)
        width = max(int(long.sum(-1).max()), 1)
        order = long.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., :width]
        # A series with fewer intervals has rows to spare, behind its last time.
        begins = torch.where(long, start, times[..., -1:]).gather(-1, order)
        # The sort is stable: an interval that ends where another begins is observed first.
        merged, place = merge(batch, begins, hold)
        known, asked = place[..., : times.shape[-1]], place[..., times.shape[-1] :]
        rows = merged.times.shape[-1]
        change = torch.zeros(*shape, rows + 1, count, dtype=torch.int64, device=times.device)
        mark = one_hot(slot.clamp(min=0), count) * long.unsqueeze(-1)
        change.scatter_add_(-2, _wide(asked + 1, count), mark.gather(-2, _wide(order, count)))
        change.scatter_add_(-2, _wide(known + 1, count), -mark)
        opened = change.cumsum(-2)[..., :rows, :] > 0
        return cls(merged, known, torch.where(long, slot, -1), torch.where(long, times - start, 1.0), opened)

    def readings(self, H: Tensor) -> Tensor:
        """What is read at each time of the batch from the state with its slots, `(*batch, time, channel, n + slot)`."""
        direct, _, share = _integrand(H)
        count = self.open.shape[-1]
        own = one_hot(self.slot.clamp(min=0), count).to(H.dtype) / self.length.to(H.dtype).unsqueeze(-1)
        slots = (own[..., :, None, :, None] * share[..., None, :, None, :]).flatten(-2)
        long = (self.slot >= 0)[..., None, None]
        point = direct[..., None, :, :].expand(*slots.shape[:-1], -1)
        return torch.cat([torch.where(long, 0.0, point), torch.where(long, slots, 0.0)], -1)

    def chain(
        self, dynamics: LinearDynamics, H: Tensor, hold: Hold, unit: Whitened, state: tuple[Tensor, Tensor]
    ) -> Chain:
        """The model written out over all rows.

        Args:
            dynamics: what evolves.
            H: observation matrix, `(*parameter_batch, channel, n)`.
            hold: what the inputs do between their times.
            unit: the identity in place of `H` at the times of the batch, in units of the noise.
            state: mean and covariance before the first row.
        """
        _, integrated, _ = _integrand(H)
        whole = IntegratedDynamics(dynamics, integrated)
        times = self.batch.times.to(torch.float64)
        dt = dynamics.elapsed(torch.cat([times[..., :1], times[..., :-1]], -1), times)
        made = whole.discretize(dt, hold=hold, noise=True)
        inputs = None if self.batch.inputs is None else self.batch.inputs.to(torch.float64)
        assert made.Q is not None
        n, extra, count = dynamics.state_size, integrated.shape[-2], self.open.shape[-1]
        b = whole._forcing(made, inputs, hold)
        b = b.expand(*b.shape[:-1], n + extra)
        # From the state with one integral to the state with all slots, of which those that are not open stay empty.
        kept = self.open.to(torch.float64).repeat_interleave(extra, -1)
        one = torch.eye(n + extra, dtype=torch.float64, device=dt.device)
        spread = torch.cat([one[:n], one[n:].repeat(count, 1)])
        keep = torch.cat([torch.ones_like(times[..., None]).expand(*times.shape, n), kept], -1)
        E = keep[..., None] * spread
        F = torch.cat([E @ made.A_bar[..., :n], torch.diag_embed(keep)[..., n:]], -1)
        seen = unit.H @ self.readings(H)
        size = seen.shape[-1]
        zeros = {"dtype": torch.float64, "device": dt.device}
        shape = torch.broadcast_shapes(seen.shape[:-3], unit.y.shape[:-2], self.place.shape[:-1])
        channels, rows = seen.shape[-2], times.shape[-1]
        place = self.place.expand(*shape, -1)
        index = place[..., None, None].expand(*shape, place.shape[-1], channels, size)
        H_all = torch.zeros(*shape, rows, channels, size, **zeros).scatter(-3, index, seen.expand_as(index))
        y = unit.y.expand(*shape, *unit.y.shape[-2:])
        y_all = torch.zeros(*shape, rows, channels, **zeros).scatter(-2, _wide(place, channels), y)
        nats = torch.zeros(*shape, rows, **zeros).scatter(-1, place, unit.nats.expand(*shape, -1))
        Q = E @ made.Q @ E.mT
        m0, P0 = (torch.nn.functional.pad(x, (0, size - n) * axes) for x, axes in zip(state, (1, 2), strict=True))
        return Chain(F, (E @ b[..., None]).squeeze(-1), 0.5 * (Q + Q.mT), H_all, y_all, nats, m0, P0)


def _integrand(H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`H`, what is integrated, and how the mean of `H y` is read from the mean of that: the fewer of both."""
    channels, n = H.shape[-2:]
    eye = torch.eye(min(channels, n), dtype=H.dtype, device=H.device)
    return (H, H, eye) if channels <= n else (H, eye, H)


def _slots(times: Tensor, start: Tensor, long: Tensor) -> tuple[Tensor, int]:
    """A slot for each interval, such that those which overlap have different ones; and how many it takes."""
    shape = times.shape
    ends, begins, real = times.reshape(-1, shape[-1]), start.reshape(-1, shape[-1]), long.reshape(-1, shape[-1])
    order = begins.sort(dim=-1, stable=True).indices
    slot = torch.full_like(order, -1)
    series = torch.arange(len(ends), device=ends.device)
    until = torch.full((len(ends), 1), -torch.inf, dtype=ends.dtype, device=ends.device)
    for column in order.unbind(-1):
        begin, end, is_real = begins[series, column], ends[series, column], real[series, column]
        free = until <= begin.unsqueeze(-1)
        if bool((is_real & ~free.any(-1)).any()):
            until = torch.cat([until, torch.full_like(until[:, :1], -torch.inf)], -1)
            free = until <= begin.unsqueeze(-1)
        chosen = free.to(torch.uint8).argmax(-1)
        slot[series, column] = torch.where(is_real, chosen, -1)
        until[series, chosen] = torch.where(is_real, end, until[series, chosen])
    return slot.view(shape), until.shape[-1]


def _wide(index: Tensor, count: int) -> Tensor:
    return index.unsqueeze(-1).expand(*index.shape, count)
