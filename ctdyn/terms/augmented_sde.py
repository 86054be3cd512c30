"""A stochastic equation together with integrals along its solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .._types import Inputs, State, Time
from ..paths.brownian import Brownian
from ..structure import Noise, SDEField
from .augmented import integrated
from .sde import SDETerm


__all__ = ["augmented_sde"]


def augmented_sde(term: SDETerm, integrands: tuple[Callable[..., Tensor], ...], size: int, extra: int) -> SDETerm:
    r"""The equation whose state carries, behind its own entries, integrals along the solution; they have no noise.

    .. math:: d[y, a] = [f(t, y, u),\; q(t, y, u)]\,dt + [g(t, y, u),\; 0]\,dW

    Args:
        term: the equation.
        integrands: each `q(t, y) -> (*batch,)` or `(*batch, k)`; where inputs drive the equation, `q(t, y, u)`.
        size: size of the equation's own state.
        extra: numbers that the integrands return together.

    Example:
        >>> from ctdyn.paths import VirtualBrownianTree
        >>> from ctdyn.systems import OrnsteinUhlenbeck
        >>> term = SDETerm(OrnsteinUhlenbeck(), VirtualBrownianTree(torch.tensor([1]), size=1))
        >>> larger = augmented_sde(term, (lambda t, y: y.square().sum(-1),), 1, 1)
        >>> larger.drift(torch.zeros(1, dtype=torch.float64), torch.tensor([[2.0, 0.0]]))
        tensor([[-2.,  4.]])
    """
    g_like_state = term.brownian.size == size and term.noise is not Noise.SCALAR
    motion = _Padded(term.brownian, extra) if g_like_state else term.brownian
    return replace(term, field=_AugmentedField(term.field, integrands, size), brownian=motion)


class _AugmentedField(SDEField):
    def __init__(self, base: SDEField, integrands: tuple[Callable[..., Tensor], ...], size: int) -> None:
        super().__init__()
        self.base = base
        self.integrands = integrands
        self.modules_among_integrands = nn.ModuleList(q for q in integrands if isinstance(q, nn.Module))
        self.size = size
        self.noise, self.calculus = base.noise, base.calculus

    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        inner = y[..., : self.size]
        arguments = (t, inner) if u is None else (t, inner, u)
        return torch.cat([self.base.drift(*arguments), integrated(self.integrands, *arguments)], -1)

    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        inner = y[..., : self.size]
        g = self.base.diffusion(t, inner) if u is None else self.base.diffusion(t, inner, u)
        more = y.shape[-1] - self.size
        if g.dim() == y.dim():
            return nn.functional.pad(g, (0, more))
        # One motion more per integral, so that a square matrix and a diagonal one are padded alike.
        return nn.functional.pad(g, (0, more if g.shape[-1] == self.size else 0, 0, more))


@dataclass(frozen=True, eq=False)
class _Padded(Brownian):
    """A Brownian motion with further ones, for entries without noise, that stand still."""

    base: Brownian
    extra: int

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.base.size + self.extra

    @property
    def batch_shape(self) -> torch.Size:
        return self.base.batch_shape

    def evaluate(self, t: Time) -> State:
        return nn.functional.pad(self.base.evaluate(t), (0, self.extra))

    def integrate(self, t: Time) -> tuple[State, State]:
        value, integral = self.base.integrate(t)
        return nn.functional.pad(value, (0, self.extra)), nn.functional.pad(integral, (0, self.extra))
