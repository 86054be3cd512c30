"""The times at which a sequence of latent states is drawn, whatever times are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from .._types import Time, Times
from ..nn import take_items


__all__ = ["Knots"]

# A gap that is a whole number of steps but for rounding needs no further knot: a clock in float32 is rounded by more
# than a thousandth of a gap where there are many.
_ROUNDING = 1e-2
#: More knots of a series than these are a slip of the pen, which would end in all of the memory.
_MOST = 1_000_000


@dataclass(frozen=True)
class Knots:
    """A clock of knots: those within the context, and after the last of them one every `dt`.

    Args:
        inner: knots of the context, the first of each series at its start; behind the last it is repeated,
            `(*batch, knot)`, float64.
        count: how many of them are real, `(*batch,)`, at least 1.
        more: how many follow behind the context, the same for all series.
        dt: from one of these to the next.
    """

    inner: Times
    count: Tensor
    more: int
    dt: float

    @classmethod
    def make(cls, t0: Time, seen: Times | None, end: Time, dt: float) -> Knots:
        """A knot at the start and at each time of the context, and more of them, evenly, in gaps wider than `dt`.

        Args:
            t0: where the series begin, `(*batch,)`.
            seen: times of the context, non-decreasing, `(*batch, time)`; None where there is none.
            end: how far knots are needed, `(*batch,)`.
            dt: the widest gap.

        Raises:
            ValueError: a series would have more than a million knots.
        """
        with torch.no_grad():
            start = t0.to(torch.float64).unsqueeze(-1)
            times = start if seen is None else torch.cat([start, torch.maximum(seen.to(torch.float64), start)], -1)
            gaps = times.diff(dim=-1)
            length = float((torch.maximum(end.to(times), times[..., -1]) - times[..., 0]).max()) if end.numel() else 0.0
            if length / dt > _MOST:
                raise ValueError(
                    f"dt={dt:.3g} puts {length / dt:.3g} knots on the {length:.3g} units of the model's clock that a "
                    f"series and what is asked of it cover; more than {_MOST:,} are refused. Give a wider dt: "
                    "typically the usual gap between observations."
                )
            parts = torch.where(gaps > 0, (gaps / dt - _ROUNDING).ceil().clamp(min=1), 0.0).to(torch.int64)
            total = torch.cat([torch.zeros_like(start, dtype=torch.int64), parts.cumsum(-1)], -1)
            count = total[..., -1] + 1
            number = torch.arange(int(count.max()) if count.numel() else 1, device=times.device)
            number = torch.minimum(number, total[..., -1:])
            # Knot n lies in the first gap that ends at knot n or behind it.
            right = torch.searchsorted(total, number.contiguous())
            left = (right - 1).clamp(min=0)
            behind = number - total.gather(-1, left)
            share = behind.to(torch.float64) / (total.gather(-1, right) - total.gather(-1, left)).clamp(min=1)
            inner = torch.lerp(times.gather(-1, left), times.gather(-1, right), share)
            beyond = float((end.to(torch.float64) - inner[..., -1]).max()) if end.numel() else 0.0
            return cls(inner, count, max(0, ceil(beyond / dt)), dt)

    @property
    def real(self) -> Tensor:
        """Which of the inner knots are, `(*batch, knot)`."""
        return torch.arange(self.inner.shape[-1], device=self.inner.device) < self.count.unsqueeze(-1)

    @property
    def gaps(self) -> Tensor:
        """From knot to knot, in units of `dt`, `(*batch, knot)`; 0 at the first and at repeats."""
        return self.inner.diff(dim=-1, prepend=self.inner[..., :1]) / self.dt

    @property
    def times(self) -> Times:
        """All knots in order, those behind the context included, `(*batch, knot + more)`; some repeats at the end."""
        last = self.inner[..., -1:]
        after = last + self.dt * torch.arange(1, self.more + 1, dtype=torch.float64, device=last.device)
        return self.join(self.inner.unsqueeze(-1), after.unsqueeze(-1)).squeeze(-1)

    def join(self, inner: Tensor, after: Tensor) -> Tensor:
        """What belongs to the inner knots and to those behind, `(*, *batch, knot, entry)`, in the order of time."""
        if not self.more:
            return inner
        number = torch.arange(inner.shape[-2] + self.more, device=inner.device)
        count = self.count.unsqueeze(-1)
        shift = inner.shape[-2] - count
        place = torch.where(number < count, number, (number + shift).clamp(max=len(number) - 1))
        return take_items(torch.cat([inner, after], -2), place, -2)
