"""Brownian motion as a value: whoever asks twice is given the same answer, in whatever order and with whatever step."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .._checks import check_count
from .._types import State, Time
from ._counter import inside, key_of, normals


__all__ = ["Brownian", "StoredBrownian", "VirtualBrownianTree"]

_EPS = torch.finfo(torch.float64).eps
_HIGHEST = 2**62
_DRAWN_AT_ONCE = 1 << 14


class Brownian(ABC):
    r"""Independent Brownian motions for every series of a batch, one sample of each.

    .. math:: W(t) - W(s) \sim N(0, t - s), \qquad
              H_{s,t} = \frac1{t - s} \int_s^t \Big(W(r) - W(s) - \frac{r - s}{t - s} (W(t) - W(s))\Big) dr
              \sim N\big(0, \tfrac{t - s}{12}\big)

    A path has no derivative, so this is no `Path`. Its answers are float64 and carry no gradient, not even to the time.
    Times may have extra leading axes, which the answers then have too.

    Example:
        >>> W = VirtualBrownianTree(torch.tensor([1, 2]), size=3)
        >>> s, t, u = torch.zeros(2), torch.full((2,), 0.3), torch.ones(2)
        >>> torch.allclose(W.increment(s, u), W.increment(s, t) + W.increment(t, u), rtol=0, atol=1e-12)
        True
    """

    size: int
    """Motions per series."""

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""

    @abstractmethod
    def evaluate(self, t: Time) -> State:
        """The motion at one time per series, 0 at its origin, `(*batch, size)`."""

    @abstractmethod
    def integrate(self, t: Time) -> tuple[State, State]:
        """The motion at one time per series, and its time integral from the origin to there, `(*batch, size)` each."""

    def increment(self, t0: Time, t1: Time) -> State:
        """`W(t1) - W(t0)`, `(*batch, size)`."""
        start, end = self.evaluate(torch.stack([t0, t1])).unbind(0)
        return end - start

    def increment_and_area(self, t0: Time, t1: Time) -> tuple[State, State]:
        """`W(t1) - W(t0)` and the space-time Levy area `H` between them (0 on an empty interval), `(*batch, size)`."""
        values, integrals = self.integrate(torch.stack([t0, t1]))
        return _differences(torch.stack([t0, t1]), values, integrals)

    def increments(self, grid: Tensor) -> State:
        """The increments of consecutive steps.

        Args:
            grid: ends of the steps, `(step + 1, *batch)`.

        Returns:
            `(step, *batch, size)`.
        """
        return self.evaluate(grid).diff(dim=0)

    def increments_and_areas(self, grid: Tensor) -> tuple[State, State]:
        """The increments and space-time Levy areas of consecutive steps, `(step, *batch, size)` each."""
        values, integrals = self.integrate(grid)
        return _differences(grid, values, integrals, keep=True)


def _differences(grid: Tensor, values: Tensor, integrals: Tensor, *, keep: bool = False) -> tuple[Tensor, Tensor]:
    span = grid.detach().to(torch.float64).diff(dim=0).unsqueeze(-1)
    change = values.diff(dim=0)
    mean = (integrals.diff(dim=0) - values[:-1] * span) / torch.where(span != 0, span, 1.0)
    area = torch.where(span != 0, mean - 0.5 * change, 0.0)
    return (change, area) if keep else (change[0], area[0])


@dataclass(frozen=True, eq=False)
class StoredBrownian(Brownian):
    r"""Brownian motion whose increments on a grid of its own are stored: the fast default of `solve`.

    All increments come out of one stream of normals. Between the nodes of the grid the motion is a bridge keyed by
    series, step and dyadic index, so that any time can be asked for and no question changes the answer to another. The
    bridge is exact in law on the 2^depth parts of a step, and smooth below.

    Args:
        grid: nodes, monotone, float64, `(step + 1, *batch)`; the motion is 0 at the first.
        dW: increments between them, `(step, *batch, size)`.
        keys: int64 keys of the bridges, `(*batch, size)`.
        depth: number of halvings of a step.

    Raises:
        ValueError: the shapes disagree; or, when asked, a time lies outside the grid.

    Reference:
        J. Foster, Numerical approximations for stochastic differential equations, 2020,
        https://ora.ox.ac.uk/objects/uuid:775fc3f4-501c-425f-8b43-fc5a7b2e4310

    Example:
        >>> grid = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)[:, None].expand(11, 2)
        >>> W = StoredBrownian.draw(grid, 3, generator=torch.Generator().manual_seed(0))
        >>> W.increments(grid).shape
        torch.Size([10, 2, 3])
    """

    grid: Tensor
    dW: Tensor  # noqa: N815
    keys: Tensor
    depth: int = 20

    def __post_init__(self) -> None:
        steps, *batch = self.grid.shape
        if self.dW.shape != (steps - 1, *batch, self.size) or self.keys.shape != (*batch, self.size):
            raise ValueError(
                "a stored Brownian motion needs grid (step + 1, *batch), dW (step, *batch, size) and keys "
                f"(*batch, size); got {tuple(self.grid.shape)}, {tuple(self.dW.shape)} and {tuple(self.keys.shape)}."
            )
        if steps < 2:
            raise ValueError(f"the grid needs at least one step, two nodes; got {steps}.")

    @classmethod
    def draw(
        cls,
        grid: Tensor,
        size: int,
        *,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> StoredBrownian:
        """A sample on a grid; a longer grid with the same beginning has the same beginning.

        Which series has which motion is a matter of the place in the batch: to give a series a motion that goes with
        it into any batch, key it by a seed of its own (`VirtualBrownianTree`).

        Args:
            grid: nodes, `(step + 1, *batch)`.
            size: motions per series.
            generator: of the random numbers; None for torch's own.
            dtype: of the normals.
        """
        batch = grid.shape[1:]
        source = grid.device if generator is None else generator.device
        seeds = torch.randint(_HIGHEST, batch, generator=generator, device=source).to(grid.device)
        # Rows in fixed numbers: drawing them all at once, one generator gives other numbers for another length.
        width = max(batch.numel() * size, 1)
        rows = min(max(_DRAWN_AT_ONCE // width, 1), 256)
        drawn = [
            torch.randn(rows, *batch, size, generator=generator, dtype=dtype, device=source)
            for _ in range(0, len(grid) - 1, rows)
        ]
        steps = torch.cat(drawn)[: len(grid) - 1].to(grid.device) if drawn else grid.new_zeros(0, *batch, size)
        span = grid.detach().diff(dim=0).abs().sqrt().to(dtype)
        return cls(grid.detach().to(torch.float64), steps * span.unsqueeze(-1), _keys(seeds, size))

    @property
    def size(self) -> int:  # type: ignore[override]
        """Motions per series."""
        return self.dW.shape[-1]

    def increments(self, grid: Tensor) -> State:
        """The increments of consecutive steps, `(step, *batch, size)`; those that are stored come as they are."""
        place = (self.grid[:, *[0] * (grid.dim() - 1)] - grid[0].flatten()[:1]).abs().argmin() if grid.numel() else 0
        first, last = int(place), int(place) + len(grid)
        if self.grid[first:last].shape == grid.shape:
            rounding = 4.0 * _EPS * grid.abs().amax() + 1e-12 * self._spans.amax()
            if bool(((self.grid[first:last] - grid.detach()).abs() <= rounding).all()):
                return self.dW[first : last - 1]
        return super().increments(grid)

    @property
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""
        return self.grid.shape[1:]

    def evaluate(self, t: Time) -> State:
        """The motion at one time per series, `(*batch, size)`."""
        step, x, shape = self._locate(t)
        value = _rows(self._values, step) + x.unsqueeze(-1) * _rows(self._changes, step)
        return self._bridge(value, None, step, x).reshape(*shape, self.size)

    def integrate(self, t: Time) -> tuple[State, State]:
        """The motion and its integral, `(*batch, size)` each."""
        step, x, shape = self._locate(t)
        span, place = _rows(self._spans, step), x.unsqueeze(-1)
        start, change, area = (_rows(table, step) for table in (self._values, self._changes, self._areas))
        integral = _rows(self._integrals, step) + span * (
            place * start + place.square() * (0.5 * change + (3.0 - 2.0 * place) * area)
        )
        value = self._bridge(start + place * change, integral, step, x)
        integral = integral * self._direction.unsqueeze(-1)
        return value.reshape(*shape, self.size), integral.reshape(*shape, self.size)

    # The tables hold one row per step and, in it, one entry per series of the flattened batch.

    @functools.cached_property
    def _nodes(self) -> Tensor:
        return self.grid.reshape(len(self.grid), -1)

    @functools.cached_property
    def _direction(self) -> Tensor:
        return torch.where(self._nodes[-1] >= self._nodes[0], 1.0, -1.0).to(torch.float64)

    @functools.cached_property
    def _spans(self) -> Tensor:
        return self._nodes.diff(dim=0).abs().unsqueeze(-1)

    @functools.cached_property
    def _changes(self) -> Tensor:
        return self.dW.reshape(len(self.dW), -1, self.size)

    @functools.cached_property
    def _values(self) -> Tensor:
        return _summed(self._changes.to(torch.float64))

    @functools.cached_property
    def _areas(self) -> Tensor:
        number = torch.arange(len(self.dW), device=self.keys.device).reshape(-1, 1, 1)
        return self._area_of(key_of(self.keys.reshape(-1, self.size), number + 1), self._spans)

    @functools.cached_property
    def _integrals(self) -> Tensor:
        return _summed(self._spans * (self._values[:-1] + 0.5 * self._changes + self._areas))

    def _area_of(self, keys: Tensor, span: Tensor) -> Tensor:
        return (span / 12.0).sqrt() * normals(key_of(keys, torch.zeros_like(keys)), torch.float64)[0]

    def _locate(self, t: Time) -> tuple[Tensor, Tensor, torch.Size]:
        """The step that holds each time and the place in it, exactly 0 or 1 on a node but for rounding."""
        times = _as_rows(t, self.batch_shape)
        nodes = (self._nodes * self._direction).mT.contiguous()
        asked = (times * self._direction).mT.contiguous()
        step = (torch.searchsorted(nodes, asked, right=True) - 1).clamp(0, nodes.shape[-1] - 2)
        start, end = nodes.gather(-1, step), nodes.gather(-1, step + 1)
        rounding = 4.0 * _EPS * asked.abs() + 1e-12 * (end - start)
        if bool(((asked < start - rounding) | (asked > end + rounding)).any()):
            raise ValueError(
                "this Brownian motion was asked for a time outside the grid that it is stored on, which goes from "
                f"t={float(self.grid.min()):.10g} to {float(self.grid.max()):.10g}. Draw it on a longer grid, or use "
                "VirtualBrownianTree, which has no end."
            )
        place = (asked - start) / torch.where(end > start, end - start, 1.0)
        place = torch.where(asked - start <= rounding, 0.0, torch.where(end - asked <= rounding, 1.0, place))
        return step.mT, place.mT, t.shape

    def _bridge(self, value: Tensor, integral: Tensor | None, step: Tensor, x: Tensor) -> Tensor:
        """Add what lies between the nodes; in place, and only where a time is no node."""
        between = (x > 0) & (x < 1)
        if not bool(between.any()):
            return value
        query, series = between.nonzero(as_tuple=True)
        number, place = step[query, series], x[query, series]
        keys = key_of(self.keys.reshape(-1, self.size)[series], number.unsqueeze(-1) + 1)
        span = self._spans[number, series]
        wave, area = inside(keys, place, self.depth, self.dW.dtype, integral is not None)
        bow = (6.0 * place * (1.0 - place)).unsqueeze(-1) * self._area_of(keys, span)
        value[query, series] += bow + span.sqrt() * wave
        if integral is not None:
            integral[query, series] += span**1.5 * area
        return value


@dataclass(frozen=True, eq=False)
class VirtualBrownianTree(Brownian):
    r"""Brownian motion computed from seeds when asked: nothing is stored, any time in any order, the same everywhere.

    A series has its motion by its seed: alone, in any batch, with any step size, on any device, and however far it is
    followed. Time is cut at :math:`t_0 \pm 2^k`, and each part is halved until its pieces are shorter than `tol`; below
    that the motion is smooth. A number depends on seed, motion, part and dyadic index through a counter-based
    generator, so there is no recursion and no memory.

    It is what adaptive steps need: a rejected step has revealed nothing that the next attempt does not see as well.

    Args:
        seeds: an integer per series, `(*batch,)`.
        size: motions per series.
        t0: where the motion is 0, a number or `(*batch,)`.
        tol: length of the pieces below which the motion is smooth, in the unit of time; far below the shortest step.

    Raises:
        ValueError: `size` or `tol` is not positive.
        TypeError: the seeds are no integers.

    Reference:
        X. Li, T.-K. L. Wong, R. T. Q. Chen, D. Duvenaud, Scalable gradients for stochastic differential equations,
        2020, https://arxiv.org/abs/2001.01328; A. Jelincic, J. Foster, P. Kidger, Single-seed generation of Brownian
        paths and integrals for adaptive and high order SDE solvers, 2024, https://arxiv.org/abs/2405.06464

    Example:
        >>> W = VirtualBrownianTree(torch.tensor([7, 8]), size=1)
        >>> alone = VirtualBrownianTree(torch.tensor([8]), size=1)
        >>> torch.equal(W.evaluate(torch.ones(2))[1:], alone.evaluate(torch.ones(1)))
        True
    """

    seeds: Tensor
    size: int
    t0: Tensor | float = 0.0
    tol: float = 2.0**-26

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, Tensor) or self.seeds.is_floating_point() or self.seeds.is_complex():
            raise TypeError("seeds must be a tensor of integers, one per series, (*batch,); got something else.")
        check_count("size, the motions per series,", self.size)
        if not 0.0 < self.tol < 1.0:
            raise ValueError(f"tol must lie between 0 and 1 unit of time; got {self.tol}.")

    @classmethod
    def draw(
        cls,
        batch_shape: tuple[int, ...],
        size: int,
        *,
        generator: Generator | None = None,
        t0: Tensor | float = 0.0,
        tol: float = 2.0**-26,
    ) -> VirtualBrownianTree:
        """A sample: one seed per series from a generator."""
        source = torch.device("cpu") if generator is None else generator.device
        seeds = torch.randint(_HIGHEST, batch_shape, generator=generator, device=source)
        return cls(seeds.to(t0.device) if isinstance(t0, Tensor) else seeds, size, t0, tol)

    @property
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""
        return self.seeds.shape

    def evaluate(self, t: Time) -> State:
        """The motion at one time per series, `(*batch, size)`."""
        return self._read(t, integral=False)[0]

    def integrate(self, t: Time) -> tuple[State, State]:
        """The motion and its integral, `(*batch, size)` each."""
        return self._read(t, integral=True)

    def _read(self, t: Time, *, integral: bool) -> tuple[Tensor, Tensor]:
        times = _as_rows(t, self.batch_shape)
        start = torch.as_tensor(self.t0, dtype=torch.float64, device=times.device).detach()
        elapsed = times - start.expand(self.batch_shape).reshape(-1)
        before, elapsed = elapsed < 0, elapsed.abs()
        # Part 0 is [0, 1); part k is [2^(k-1), 2^k).
        part = torch.frexp(elapsed)[1].clamp(min=0).to(torch.int64)
        last = int(part.amax()) if part.numel() else 0
        values, integrals = self._parts(last)
        series = torch.arange(elapsed.shape[1], device=part.device).expand_as(part)
        side = before.to(torch.int64)
        value = values[side, part, series]
        begin = torch.where(part > 0, torch.pow(2.0, part.to(torch.float64) - 1.0), 0.0)
        span = torch.where(part > 0, begin, 1.0)
        x = ((elapsed - begin) / span).unsqueeze(-1)
        keys = key_of(self._keys[side, series], part.unsqueeze(-1))
        depth = math.ceil(-math.log2(self.tol)) + (part - 1).clamp(min=0)
        change, area = self._whole(keys, span)
        wave, waves = inside(keys, x.squeeze(-1), depth, torch.float64, integral)
        span = span.unsqueeze(-1)
        shape, root = (*t.shape, self.size), span.sqrt()
        moved = (value + x * change + 6.0 * x * (1.0 - x) * area + root * wave).reshape(shape)
        if not integral:
            return moved, moved
        total = integrals[side, part, series] + span * (
            x * value + x.square() * (0.5 * change + (3.0 - 2.0 * x) * area) + root * waves
        )
        # Before the origin time runs backward, and so does the integral.
        return moved, torch.where(before.unsqueeze(-1), -total, total).reshape(shape)

    @functools.cached_property
    def _keys(self) -> Tensor:
        """One key per side of the origin, series and motion, `(2, series, size)`."""
        keys = _keys(self.seeds, self.size).reshape(-1, self.size)
        return key_of(keys, torch.arange(2, device=keys.device).reshape(2, 1, 1))

    def _parts(self, last: int) -> tuple[Tensor, Tensor]:
        """Value and integral at the beginning of each part, `(2, part, series, size)` each."""
        number = torch.arange(last + 1, device=self.seeds.device)
        span = torch.pow(2.0, (number - 1).clamp(min=0).to(torch.float64))
        keys = key_of(self._keys.unsqueeze(1), number.reshape(-1, 1, 1))
        change, area = self._whole(keys, span.unsqueeze(-1).expand(keys.shape[:-1]))
        values = _summed(change, 1)
        integrals = _summed(span.reshape(-1, 1, 1) * (values[:, :-1] + 0.5 * change + area), 1)
        return values, integrals

    def _whole(self, keys: Tensor, span: Tensor) -> tuple[Tensor, Tensor]:
        """Increment and area over whole parts."""
        change, area = normals(key_of(keys, torch.zeros_like(keys)), torch.float64)
        size = span.sqrt().unsqueeze(-1)
        return size * change, size * area / math.sqrt(12.0)


def _keys(seeds: Tensor, size: int) -> Tensor:
    motion = torch.arange(1, size + 1, device=seeds.device)
    return key_of(key_of(1, seeds.to(torch.int64)).unsqueeze(-1), motion)


def _summed(steps: Tensor, dim: int = 0) -> Tensor:
    """Running sums that begin with 0."""
    zero = torch.zeros_like(steps.narrow(dim, 0, 1))
    return torch.cat([zero, steps.cumsum(dim)], dim)


def _as_rows(t: Tensor, batch: torch.Size) -> Tensor:
    """`(*extra, *batch)` as `(query, series)`, float64."""
    if t.shape[t.dim() - len(batch) :] != batch or t.dim() < len(batch):
        raise ValueError(
            f"this Brownian motion is for a batch {tuple(batch)} and was asked for times of shape {tuple(t.shape)}; "
            "times are (*batch,), extra leading axes allowed. Give it one seed (or one path) per series."
        )
    return t.detach().to(torch.float64).reshape(-1, batch.numel())


def _rows(table: Tensor, step: Tensor) -> Tensor:
    """Entries of a table `(step, series, entry)` at `(query, series)`."""
    number = step.shape[1]
    flat = (step * number + torch.arange(number, device=step.device)).reshape(-1)
    return table.reshape(-1, table.shape[-1]).index_select(0, flat).reshape(*step.shape, table.shape[-1])
