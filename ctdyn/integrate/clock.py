"""The clocks of a batch: when each series begins, what it is asked for, and in which direction it runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._types import Time, Times


__all__ = ["Clock", "landing_times", "rounding"]

# Beyond a distance from 0, the share of the span that the rounding of a float32 time may have.
_FLOAT32_SHARES = ((1e5, 1e-5), (1e3, 1e-3))


@dataclass(frozen=True)
class Clock:
    """The times of a batch, float64 whatever they were given in, one row per series.

    Args:
        ts: times of the outputs, `(*batch, time)`.
        t0: time of the initial state, `(*batch,)`.
        direction: 1 where time runs forward, -1 where it runs backward, `(*batch,)`.
        from_first: the series begin at their first output time.
        epsilon: the relative spacing of the numbers that the times were given in.

    Example:
        >>> Clock.create(torch.tensor([3.0, 1.0]), None, torch.Size([2]), torch.float64).direction
        tensor([-1., -1.], dtype=torch.float64)
    """

    ts: Times
    t0: Time
    direction: Time
    from_first: bool
    epsilon: float = torch.finfo(torch.float64).eps

    @property
    def end(self) -> Time:
        """The last time of each series, `(*batch,)`."""
        return self.ts[..., -1]

    @classmethod
    def create(cls, ts: Tensor, t0: Tensor | float | None, batch_shape: torch.Size, dtype: torch.dtype) -> Clock:
        """Check times as a user gives them.

        Args:
            ts: output times, `(*batch, time)`, or `(time,)` for all series.
            t0: time of the initial state; None: the first output time.
            batch_shape: what to expand to.
            dtype: of the state; a float32 field cannot tell the times of a distant epoch apart.

        Raises:
            ValueError: a time is NaN or infinite, repeated before the end, out of order, or too coarse in float32.
        """
        first = ts[..., 0] if t0 is None else torch.as_tensor(t0, dtype=torch.float64, device=ts.device)
        times = ts.to(torch.float64).expand(*batch_shape, ts.shape[-1])
        start = first.to(torch.float64).expand(batch_shape)
        _check(times.detach(), start.detach(), dtype)
        forward = (times[..., -1] >= start).to(torch.float64)
        given = torch.finfo(ts.dtype).eps if ts.is_floating_point() else cls.epsilon
        return cls(times, start, (2.0 * forward - 1.0).detach(), t0 is None, given)


def rounding(times: Tensor, step: Tensor | float, epsilon: float) -> Tensor:
    """How far times may lie from those that were meant, because of their digits: never more than a part of a step.

    Args:
        times: the times, or anything at their distance from 0, of any shape.
        step: the length of the steps near them, of a shape that broadcasts.
        epsilon: the relative spacing of the numbers that the times were given in.

    Example:
        >>> third = torch.tensor(1 / 3).double()
        >>> bool((third - 1 / 3).abs() < rounding(third, 0.1, torch.finfo(torch.float32).eps))
        True
    """
    return (4.0 * epsilon * times.abs()).clamp(max=1e-3 * step) + 1e-12 * step


def _check(ts: Tensor, t0: Tensor, dtype: torch.dtype) -> None:
    if not ts.numel():
        return
    path = torch.cat([t0[..., None], ts], -1)
    gaps = path.diff(dim=-1)
    ahead, back, still = gaps > 0, gaps < 0, gaps == 0
    # A repeated time is padding when nothing but repeats follows it.
    moves_later = (~still).flip(-1).cummax(-1).values.flip(-1)
    repeated = still & moves_later
    repeated[..., 0] = False
    wrong = ~torch.isfinite(path).all(-1) | repeated.any(-1) | (ahead.any(-1) & back.any(-1))
    scale = path.abs().amax()
    far = dtype in (torch.float32, torch.complex64) and scale > _FLOAT32_SHARES[-1][0]
    if bool(wrong.any()):
        _explain(torch.nonzero(wrong)[0], path, repeated)
    if bool(far):
        share = next(share for limit, share in _FLOAT32_SHARES if scale > limit)
        spacing = float(scale) * torch.finfo(torch.float32).eps
        span = float((path.amax(-1) - path.amin(-1)).amax())
        if spacing > share * span:
            raise ValueError(
                f"times around t={float(scale):.6g} are {spacing:.3g} apart in float32, too coarse for a solve over "
                f"{span:.6g}: a field of float32 could not tell them apart. Subtract an origin (ts - ts[..., :1]) "
                "before the solve, or use a float64 state and field."
            )


def _explain(where: Tensor, path: Tensor, repeated: Tensor) -> None:
    row = tuple(where.tolist())
    name = f" of series {', '.join(map(str, row))}" if row else ""
    times = path[row].tolist()
    for index, time in enumerate(times):
        if time != time or abs(time) == float("inf"):
            kind = "NaN" if time != time else "infinite"
            place = f"ts is {kind} at index {index - 1}" if index else f"t0 is {kind}"
            raise ValueError(
                f"{place}{name}; every time must be finite. Pad a short series by repeating its last time."
            )
    if bool(repeated[row].any()):
        index = int(torch.nonzero(repeated[row])[0])
        raise ValueError(
            f"ts holds a duplicate at index {index}{name}: t={times[index + 1]:.10g} twice. Ask for a time once; only "
            "trailing repeats are allowed, as padding."
        )
    sign = 1.0 if times[-1] >= times[0] else -1.0
    index = next(i for i in range(len(times) - 1) if sign * (times[i + 1] - times[i]) < 0)
    before = f"after {times[index]:.10g}" + ("" if index else " (t0)")
    raise ValueError(
        f"ts must run in one direction from t0; at index {index}{name} it turns: t={times[index + 1]:.10g} {before}. "
        "Sort the times; for times on both sides of t0 solve twice, forward and backward."
    )


def landing_times(nodes: Times, clock: Clock, knots: Tensor | None) -> Tensor:
    """`nodes` and the knots that lie between the ends of each series, in order, each once, padded with the last time.

    Args:
        nodes: monotone times in the direction of the clock, `(*batch, node)`; the first is t0, the last the end.
        clock: the clock of the batch.
        knots: times that no step may straddle, in any order, `(*batch, knot)`.

    Example:
        >>> clock = Clock.create(torch.tensor([0.0, 2.0]), None, torch.Size([]), torch.float64)
        >>> landing_times(clock.ts, clock, torch.tensor([-1.0, 0.5, 2.0, 9.0]))
        tensor([0.0000, 0.5000, 2.0000], dtype=torch.float64)
    """
    direction = clock.direction[..., None]
    if knots is not None:
        nodes = nodes * direction
        inner = knots.to(torch.float64).expand(*nodes.shape[:-1], knots.shape[-1]) * direction
        inner = torch.where(inner < nodes[..., :1], nodes[..., :1], inner)
        inner = torch.where(inner > nodes[..., -1:], nodes[..., -1:], inner)
        # Where a knot meets a node it is the node that stays, with its gradient.
        nodes = torch.cat([nodes, inner], -1).sort(dim=-1, stable=True).values * direction
    new = torch.ones_like(nodes, dtype=torch.bool)
    new[..., 1:] = nodes.detach().diff(dim=-1) != 0
    count = new.sum(-1, keepdim=True)
    width = int(count.amax()) if count.numel() else 1
    order = (~new).to(torch.uint8).argsort(dim=-1, stable=True)[..., :width]
    held = torch.arange(width, device=nodes.device) < count
    return torch.where(held, nodes.gather(-1, order), nodes[..., -1:])
