"""A trajectory of stationary dynamics as a value: whoever asks twice is given the same answer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..nn import take_items
from ..paths._counter import key_of, normals
from ._conditioning import root
from ._gains import gains
from .dynamics import LinearDynamics


__all__ = ["StationaryPath"]

_HIGHEST = 2**62
#: What the random numbers of a key are for.
_START, _FORWARD, _BACKWARD = 0, 1, 2


@dataclass(frozen=True, eq=False)
class StationaryPath:
    r"""Trajectories of linear dynamics in their long run, which answer the same however often they are asked.

    .. math::
        x(t_0) \sim N(0, P_\infty), \qquad x(m) \mid x(a), x(b) \ \text{for} \ a < m < b

    Nothing is stored. Time is cut at :math:`t_0` and :math:`t_0 \pm 2^k`, where the states follow each other by the
    transitions of the dynamics (backward ones before :math:`t_0`); each part is halved, and a midpoint is drawn from
    its law given both ends, from random numbers that depend on the trajectory and the cell alone. So a trajectory is
    exact in law, jointly over all times, on the dyadic grid of `resolution`, and is a straight line below it.

    Args:
        dynamics: what evolves; it must be stationary.
        keys: an integer per trajectory, `(*lead,)`, where the last axes of `lead` are the batch axes of the parameters.
        t0: where the trajectories are anchored, broadcasts to `(*lead,)`.
        resolution: the length of the finest cells, a power of 2, in units of time; well below the shortest length scale
            of a rough process (a smooth one is a line long before).

    Raises:
        ValueError: the dynamics have no stationary distribution, or `resolution` is not within (0, 1].

    Reference:
        Scalable gradients for stochastic differential equations (the virtual Brownian tree), X. Li, T.-K. L. Wong,
        R. T. Q. Chen, D. Duvenaud, 2020, https://arxiv.org/abs/2001.01328

    Example:
        >>> from ctdyn.linear import Matern
        >>> path = StationaryPath(Matern(1.5), torch.tensor([7]), torch.zeros(1))
        >>> some, more = path.evaluate(torch.tensor([[1.0, -3.0]])), path.evaluate(torch.tensor([[0.2, 1.0, -3.0]]))
        >>> torch.equal(some, more[:, 1:])
        True
    """

    dynamics: LinearDynamics
    keys: Tensor
    t0: Tensor
    resolution: float = 2.0**-14

    def __post_init__(self) -> None:
        if not 0.0 < self.resolution <= 1.0:
            raise ValueError(f"resolution must lie in (0, 1]; got {self.resolution}.")

    @classmethod
    def draw(
        cls,
        dynamics: LinearDynamics,
        shape: tuple[int, ...],
        t0: Tensor,
        *,
        resolution: float = 2.0**-14,
        generator: Generator | None = None,
    ) -> StationaryPath:
        """Trajectories of a shape `(*lead,)`, one key each from a generator."""
        source = t0.device if generator is None else generator.device
        keys = torch.randint(_HIGHEST, shape, generator=generator, device=source).to(t0.device)
        return cls(dynamics, keys, t0, resolution)

    def evaluate(self, ts: Tensor) -> Tensor:
        """The states at any times.

        Args:
            ts: times, in any order, `(*lead, time)`, or what broadcasts to it.

        Returns:
            States, `(*lead, time, state)`, float64, differentiable in the parameters of the dynamics.
        """
        elapsed = ts.detach().to(torch.float64) - self.t0.detach().to(torch.float64)[..., None]
        before, away = elapsed < 0, elapsed.abs()
        # Part 0 is [0, 1); part k is [2^(k-1), 2^k).
        part = torch.frexp(away)[1].clamp(min=0).to(torch.int64)
        power = (part - 1).clamp(min=0)
        begin = torch.where(part > 0, torch.pow(2.0, power.to(torch.float64)), 0.0)
        share = (away - begin) / torch.pow(2.0, power.to(torch.float64))
        # The place in the part, in the direction of time.
        place = torch.where(before, 1.0 - share, share)
        nodes = self._nodes(int(part.amax()) if part.numel() else 0)
        shape = torch.broadcast_shapes(self.keys.shape, elapsed.shape[:-1])
        side = before.to(torch.int64)
        first, second = (_pick(nodes, side, part + step, shape) for step in (0, 1))
        left = torch.where(before[..., None], second, first)
        right = torch.where(before[..., None], first, second)
        keys = key_of(key_of(self.keys[..., None], _FORWARD + side), part + 1)
        return self._descend(left, right, keys, place, power)

    def _descend(self, left: Tensor, right: Tensor, keys: Tensor, place: Tensor, power: Tensor) -> Tensor:
        """Halve the cells around each time until they are fine enough, then draw a line."""
        lead = left.shape[:-1]
        left, right = self._together(left, lead), self._together(right, lead)
        keys, place, power = (self._together(x[..., None], lead)[..., 0] for x in (keys, place, power))
        top = int(power.amax()) if power.numel() else 0
        finest = math.ceil(math.log2(self.resolution))
        halves = torch.arange(top, finest, -1, dtype=torch.float64, device=place.device)
        made = self.dynamics.discretize(torch.pow(2.0, halves - 1.0), noise=True)
        F, Q = _full(made.A_bar, made.diagonal), made.Q
        assert Q is not None
        gain, spread = gains(Q.expand_as(F), F, Q.expand_as(F))
        # One matrix for both ends and the noise: small products cost by the call.
        weights = torch.cat([F - gain @ F @ F, gain, root(spread)], -1).mT
        for index in range(len(halves)):
            level = power - (top - index)
            cells = torch.pow(2.0, level.clamp(min=0).to(torch.float64))
            scaled = place * cells
            # The end of a part belongs to its last cell.
            number = torch.minimum(scaled.floor(), cells - 1.0)
            drawn = _draw(key_of(keys, (cells + number).to(torch.int64)), left.shape[-1])
            middle = torch.cat([left, right, drawn], -1) @ weights[..., index, :, :]
            later, active = (scaled - number >= 0.5)[..., None], (level >= 0)[..., None]
            left, right = torch.where(active & later, middle, left), torch.where(active & ~later, middle, right)
        cells = torch.pow(2.0, (power - finest).to(torch.float64))
        scaled = place * cells
        return self._apart(
            torch.lerp(left, right, (scaled - torch.minimum(scaled.floor(), cells - 1.0))[..., None]), lead
        )

    def _together(self, x: Tensor, lead: torch.Size) -> Tensor:
        """`(*lead, k)` as `(*batch, row, k)`: all that is moved by one matrix in one product."""
        own, first = self._axes(lead)
        return x.expand(*lead, x.shape[-1]).movedim(own, first).flatten(len(first), -2)

    def _apart(self, x: Tensor, lead: torch.Size) -> Tensor:
        """The way back."""
        own, first = self._axes(lead)
        others = [size for axis, size in enumerate(lead) if axis not in own]
        return x.unflatten(-2, others).movedim(first, own)

    def _axes(self, lead: torch.Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Where the batch axes of the dynamics are, just before that of time, and where they go."""
        count = len(self.dynamics.batch_shape)
        ahead = len(lead) - 1 - count
        return tuple(range(ahead, ahead + count)), tuple(range(count))

    def _nodes(self, last: int) -> Tensor:
        """The states where the parts begin and end, on both sides, `(*lead, 2, part + 2, state)`."""
        dynamics = self.dynamics
        number = torch.arange(last + 1, dtype=torch.float64, device=self.keys.device)
        made = dynamics.discretize(torch.pow(2.0, (number - 1.0).clamp(min=0.0)), noise=True)
        P = dynamics.stationary().to(torch.float64)
        F, Q = _full(made.A_bar, made.diagonal), made.Q
        assert Q is not None
        back, spread = gains(P[..., None, :, :].expand_as(F), F, Q.expand_as(F))
        start = root(P) @ _draw(key_of(self.keys, torch.full_like(self.keys, _START)), P.shape[-1])[..., None]
        sides = []
        for side, transition, factor in ((_FORWARD, F, root(Q)), (_BACKWARD, back, root(spread))):
            keys = key_of(self.keys, torch.full_like(self.keys, side))
            states = [start]
            for index in range(last + 1):
                key = key_of(keys, torch.full_like(keys, -1 - index))
                drawn = _draw(key, P.shape[-1])[..., None]
                moved = transition[..., index, :, :] @ states[-1]
                states.append(moved + factor[..., index, :, :] @ drawn)
            sides.append(torch.cat(states, -1).mT)
        return torch.stack(sides, -3)


def _full(weights: Tensor, diagonal: bool) -> Tensor:
    return torch.diag_embed(weights) if diagonal else weights


def _pick(nodes: Tensor, side: Tensor, part: Tensor, shape: torch.Size) -> Tensor:
    """Entries of `(*lead, side, part, state)` at `(*lead, time)`."""
    count = nodes.shape[-2]
    return take_items(nodes.flatten(-3, -2), (side * count + part).expand(*shape, part.shape[-1]), -2)


def _draw(keys: Tensor, count: int) -> Tensor:
    """Standard normals, `(*keys, count)`."""
    number = torch.arange((count + 1) // 2, device=keys.device)
    return torch.cat(normals(key_of(keys[..., None], number), torch.float64), -1)[..., :count]
