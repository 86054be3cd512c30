"""An equation together with integrals along its solution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .._types import State, Time, Times
from .base import Term
from .ode import ODETerm
from .sde import SDETerm


__all__ = ["AugmentedTerm", "integrated"]


@dataclass(frozen=True, eq=False)
class AugmentedTerm(Term):
    r"""A smooth equation whose state carries, behind its own entries, integrals along the solution.

    .. math:: \frac{d}{dt} [y, a] = [f(t, y, u),\; q(t, y, u)]

    `solve` builds it from `aux`, and keeps the integrals out of the error norm.

    Args:
        base: the equation.
        integrands: each `q(t, y) -> (*batch,)` or `(*batch, k)`; where inputs drive the equation, `q(t, y, u)`.
        size: size of the equation's own state.

    Raises:
        ValueError: when solving, an integrand returns something else.

    Example:
        >>> term = AugmentedTerm(ODETerm(lambda t, y: -y), (lambda t, y: y.square().sum(-1),), 1)
        >>> term.derivative(torch.zeros(1, dtype=torch.float64), torch.tensor([[2.0, 0.0]]))
        tensor([[-2.,  4.]])
    """

    base: Term
    integrands: tuple[Callable[..., Tensor], ...]
    size: int

    def field(self, t: Time, y: State) -> State:
        """The velocity of the whole state: whatever structure the equation's own field has is not that of the whole."""
        return self.derivative(t, y)

    def increment(self, t0: Time, t1: Time) -> Tensor:
        """The time that passes, `t1 - t0`."""
        return t1 - t0

    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        """The velocity times `dx`, `(*batch,)`."""
        return self.derivative(t, y) * dx.to(y.dtype).unsqueeze(-1)

    def derivative(self, t: Time, y: State) -> State:
        """The velocity of the state and the integrands, `(*batch, state + integral)`."""
        inner = y[..., : self.size]
        return torch.cat([self.base.derivative(t, inner), self.rates(t, inner)], -1)

    def rates(self, t: Time, y: State) -> Tensor:
        """The integrands at `(t, y)`, side by side, `(*batch, integral)`."""
        time = t.to(y.dtype.to_real())
        inputs = self.base.inputs if isinstance(self.base, ODETerm | SDETerm) else None
        arguments = (time, y) if inputs is None else (time, y, inputs.evaluate(t).to(y.dtype.to_real()))
        return integrated(self.integrands, *arguments)

    def restrict(self, t0: Time, t1: Time) -> AugmentedTerm:
        """The equation and its integrals on one step."""
        return replace(self, base=self.base.restrict(t0, t1))

    def pieces(self, ends: Sequence[Time]) -> Iterator[Term]:
        """The equation and its integrals on each of consecutive steps."""
        return (replace(self, base=piece) for piece in self.base.pieces(ends))

    def knots(self) -> Times | None:
        """The knots of the equation."""
        return self.base.knots()

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of what drives the equation."""
        return self.base.tensors()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the field, and those of integrands that are modules."""
        yield from self.base.parameters()
        for integrand in self.integrands:
            if isinstance(integrand, nn.Module):
                yield from integrand.parameters()

    def replace(self, tensors: tuple[Tensor, ...]) -> AugmentedTerm:
        """The same equation driven by other tensors."""
        return replace(self, base=self.base.replace(tensors))


def integrated(integrands: tuple[Callable[..., Tensor], ...], t: Time, y: State, *inputs: Tensor) -> Tensor:
    """The integrands at one place, side by side, checked and in the dtype of the state, `(*batch, integral)`.

    Args:
        integrands: each `q(t, y) -> (*batch,)` or `(*batch, k)`; where inputs drive the equation, `q(t, y, u)`.
        t: time of each series, in the dtype of the state, `(*batch,)`.
        y: states, without the integrals, `(*batch, state)`.
        *inputs: those at that time, `(*batch, input)`, where there are any.

    Raises:
        ValueError: an integrand returns something else.

    Example:
        >>> integrated((lambda t, y: y.square().sum(-1),), torch.zeros(1), torch.tensor([[2.0, 1.0]]))
        tensor([[5.]])
    """
    columns = []
    for number, integrand in enumerate(integrands):
        value = integrand(t, y, *inputs)
        if isinstance(value, Tensor) and value.shape == y.shape[:-1]:
            value = value.unsqueeze(-1)
        if not isinstance(value, Tensor) or value.shape[:-1] != y.shape[:-1]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"aux[{number}] must return a number per series, {tuple(y.shape[:-1])}, or several, (*batch, k); "
                f"got {got}."
            )
        columns.append(value.to(y.dtype))
    return torch.cat(columns, -1)
