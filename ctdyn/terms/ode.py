"""Ordinary differential equations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .._types import State, Time, Times
from ..paths.base import Path
from ..structure import DecayField, SecondOrderField
from .base import Term


__all__ = ["ODETerm"]


@dataclass(frozen=True, eq=False)
class ODETerm(Term):
    r"""An ordinary differential equation, driven by inputs or not; `solve` builds it from a field.

    .. math:: dy = f(t, y, u(t))\,dt

    Args:
        field: a `VectorField`, or any callable `f(t, y)`; with inputs, `f(t, y, u)`.
        inputs: the path `u`, read at every evaluation of the field; None for an autonomous or merely timed field.

    Raises:
        TypeError: the field is not callable, or it returns something else than a tensor of the state's dtype.
        ValueError: the field returns another shape than the state's.

    Example:
        >>> import torch
        >>> term = ODETerm(lambda t, y: -y)
        >>> term.derivative(torch.zeros(2, dtype=torch.float64), torch.ones(2, 1)).squeeze(-1)
        tensor([-1., -1.])
    """

    field: Callable[..., Tensor]
    inputs: Path | None = None

    def __post_init__(self) -> None:
        if not callable(self.field):
            raise TypeError(
                f"the field must be a VectorField or a callable f(t, y) -> dy; got {type(self.field).__name__}."
            )
        if self.inputs is not None and not isinstance(self.inputs, Path):
            raise TypeError(
                f"inputs must be a Path, for example ctdyn.paths.LinearPath(ts, values); got "
                f"{type(self.inputs).__name__}."
            )

    def increment(self, t0: Time, t1: Time) -> Tensor:
        """The time that passes, `t1 - t0`."""
        return t1 - t0

    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        """The velocity times `dx`, `(*batch,)`."""
        return self.derivative(t, y) * dx.to(y.dtype).unsqueeze(-1)

    def derivative(self, t: Time, y: State) -> State:
        """The field at `(t, y, u(t))`, checked: one that broadcasts by mistake is found here and not in a result."""
        dy = self.field(t.to(y.real.dtype), y, *self._drive(t, y))
        if not isinstance(dy, Tensor):
            returned = "None" if dy is None else type(dy).__name__
            raise TypeError(f"the field returned {returned}; it must return dy/dt, a tensor of shape {tuple(y.shape)}.")
        if dy.shape != y.shape:
            raise ValueError(
                f"the field must return dy/dt of the shape of y: expected {tuple(y.shape)}, got {tuple(dy.shape)}."
            )
        if dy.dtype != y.dtype:
            raise TypeError(
                f"the field returned {_name(dy.dtype)} for a state of {_name(y.dtype)}; convert one of them, for "
                f"example field.to({y.dtype}) or y0.to({dy.dtype})."
            )
        return dy

    def decay(self, t: Time, y: State) -> tuple[State, State]:
        """The rates and the drive of a `DecayField` at `(t, y, u(t))`.

        Raises:
            TypeError: the field does not say how it decays.
        """
        if not isinstance(self.field, DecayField):
            raise TypeError(
                "exponential methods need a DecayField, which says decay(t, y, u) -> (a, b); got a "
                f"{type(self.field).__name__}. Subclass DecayField, or use another method such as Tsit5()."
            )
        return self.field.decay(t.to(y.real.dtype), y, *self._drive(t, y))

    def velocity(self, t: Time, p: State) -> State:
        """What the momenta `p` of a `SecondOrderField` do to its positions at time `t`.

        Raises:
            TypeError: the field is not of second order.
        """
        return self._motion().velocity(t.to(p.real.dtype), p)

    def force(self, t: Time, q: State) -> State:
        """What the positions `q` of a `SecondOrderField` do to its momenta at time `t`.

        Raises:
            TypeError: the field is not of second order.
        """
        return self._motion().force(t.to(q.real.dtype), q, *self._drive(t, q))

    def restrict(self, t0: Time, t1: Time) -> ODETerm:
        """The term with its inputs restricted to the step."""
        return self if self.inputs is None else replace(self, inputs=self.inputs.restrict(t0, t1))

    def pieces(self, ends: Sequence[Time]) -> Iterator[Term]:
        """The term on each of consecutive steps, its inputs looked up for many of them at once."""
        if self.inputs is None or self.inputs.knots() is None:
            return super().pieces(ends)
        return (replace(self, inputs=path) for path in self.inputs.pieces(ends))

    def knots(self) -> Times | None:
        """The knots of the inputs."""
        return None if self.inputs is None else self.inputs.knots()

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the inputs."""
        return () if self.inputs is None else self.inputs.tensors()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the field, none where it is a plain function."""
        return self.field.parameters() if isinstance(self.field, nn.Module) else iter(())

    def replace(self, tensors: tuple[Tensor, ...]) -> ODETerm:
        """The same equation with inputs made of other tensors."""
        if self.inputs is None:
            if tensors:
                raise ValueError(f"this term has no inputs to replace; got {len(tensors)} tensors.")
            return self
        return replace(self, inputs=self.inputs.replace(tensors))

    def _drive(self, t: Time, y: State) -> tuple[Tensor, ...]:
        """What the field takes beside time and state: the inputs at that time, or nothing."""
        return () if self.inputs is None else (self.inputs.evaluate(t).to(y.real.dtype),)

    def _motion(self) -> SecondOrderField:
        if not isinstance(self.field, SecondOrderField):
            raise TypeError(
                "symplectic methods need a SecondOrderField, which says force(t, q, u); got a "
                f"{type(self.field).__name__}. Subclass SecondOrderField, or use another method such as Tsit5()."
            )
        return self.field


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
