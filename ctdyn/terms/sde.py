"""Stochastic differential equations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from .._types import State, Time, Times
from ..paths.base import Path
from ..paths.brownian import Brownian
from ..structure import Calculus, Noise, SDEField
from .base import Term


__all__ = ["ChordTerm", "KnownStep", "SDETerm", "StochasticIncrement", "brownian_size"]

_STEPS_AT_ONCE = 1024
_DECLARE = "declare it in the class of the field, for example noise = Noise.DIAGONAL and calculus = Calculus.ITO."


class StochasticIncrement(NamedTuple):
    """What drives one step of a stochastic equation.

    Args:
        dt: time that passes, `(*batch, 1)`.
        dW: increment of the Brownian motion, `(*batch, brownian)`.
        area: its space-time Levy area, `(*batch, brownian)`; None where it was not asked for.

    Example:
        >>> StochasticIncrement(torch.tensor([0.1]), torch.tensor([0.3])).area is None
        True
    """

    dt: Tensor
    dW: Tensor  # noqa: N815
    area: Tensor | None = None


class KnownStep(NamedTuple):
    """One step whose driver is at hand.

    Args:
        dx: what drives it.
        t0: its start, float64, `(*batch,)`.
        t1: its end.
        start: its start in the dtype that the field is given.
        end: its end likewise.

    Example:
        >>> t = torch.zeros(1)
        >>> KnownStep(StochasticIncrement(t, t), t, t, t, t).dx.area is None
        True
    """

    dx: StochasticIncrement
    t0: Time
    t1: Time
    start: Time
    end: Time


@dataclass(frozen=True, eq=False)
class SDETerm(Term):
    r"""A stochastic differential equation along one sample of its Brownian motion.

    .. math:: dy = f(t, y, u(t))\,dt + g(t, y, u(t))\,dW

    `solve` builds it from an `SDEField` and a generator. Build it yourself to say which Brownian motion is meant: one
    keyed by series, or the same for several solves.

    Args:
        field: drift and diffusion.
        brownian: the Brownian motion, with as many motions per series as the diffusion needs.
        inputs: the path `u`; None where nothing but noise drives the field.

    Raises:
        TypeError: an argument is of the wrong type, or the field does not declare its noise and calculus; or, when
            solving, it returns something else than a tensor of the state's dtype.
        ValueError: when solving, drift or diffusion have a shape that the declared noise does not allow.

    Example:
        >>> import torch
        >>> from ctdyn.paths import VirtualBrownianTree
        >>> from ctdyn.structure import SDEField
        >>> class Walk(SDEField):
        ...     noise, calculus = Noise.DIAGONAL, Calculus.ITO
        ...     def drift(self, t, y, u=None):
        ...         return torch.zeros_like(y)
        ...     def diffusion(self, t, y, u=None):
        ...         return torch.ones_like(y)
        >>> term = SDETerm(Walk(), VirtualBrownianTree(torch.tensor([3]), size=2))
        >>> t0 = torch.zeros(1, dtype=torch.float64)
        >>> dx = term.increment(t0, t0 + 1)
        >>> torch.equal(term.prod(t0, torch.zeros(1, 2, dtype=torch.float64), dx), dx.dW)
        True
    """

    field: SDEField  # type: ignore[assignment]
    brownian: Brownian
    inputs: Path | None = None
    known: KnownStep | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.known is not None:
            return
        if not isinstance(self.field, SDEField):
            raise TypeError(
                f"the field of a stochastic equation must be an SDEField (drift and diffusion); got "
                f"{type(self.field).__name__}."
            )
        if not isinstance(self.brownian, Brownian):
            raise TypeError(
                "brownian must be a Brownian motion, for example ctdyn.paths.VirtualBrownianTree(seeds, size); got "
                f"{type(self.brownian).__name__}."
            )
        if self.inputs is not None and not isinstance(self.inputs, Path):
            raise TypeError(
                f"inputs must be a Path, for example ctdyn.paths.LinearPath(ts, values); got "
                f"{type(self.inputs).__name__}."
            )
        _check_declared(self.field)

    @property
    def noise(self) -> Noise:
        """How Brownian motion enters."""
        return self.field.noise

    @property
    def calculus(self) -> Calculus:
        """How the stochastic integral is meant."""
        return self.field.calculus

    def increment(self, t0: Time, t1: Time) -> StochasticIncrement:  # type: ignore[override]
        """What drives a step; the time that passes and the increment of the motion."""
        if self.known is not None:
            return self.known.dx
        return StochasticIncrement((t1 - t0).unsqueeze(-1), self.brownian.increment(t0, t1))

    def increment_and_area(self, t0: Time, t1: Time) -> StochasticIncrement:
        """What drives a step, with the space-time Levy area of the motion."""
        if self.known is not None and self.known.dx.area is not None:
            return self.known.dx
        return StochasticIncrement((t1 - t0).unsqueeze(-1), *self.brownian.increment_and_area(t0, t1))

    def along(self, ends: Sequence[Time], dtype: torch.dtype, *, area: bool = False) -> Iterator[SDETerm]:
        """The term on each of consecutive steps, for these alone, their increments found all at once.

        Args:
            ends: ends of the steps, float64, `(*batch,)` each.
            dtype: of the state.
            area: whether the method needs the space-time Levy area.
        """
        # A few at a time: a million steps would otherwise be millions of small tensors.
        for first in range(0, len(ends) - 1, _STEPS_AT_ONCE):
            yield from self._next(ends[first : first + _STEPS_AT_ONCE + 1], dtype, area)

    def drawn(self, grid: Tensor, dtype: torch.dtype, *, area: bool = False) -> SDETerm:
        """The term on consecutive steps, along a motion that knows their increments and nothing else.

        Args:
            grid: ends of the steps, float64, `(step + 1, *batch)`.
            dtype: of the increments.
            area: whether the method needs the space-time Levy area.
        """
        if not area:
            return replace(self, brownian=_Drawn(self.brownian.increments(grid).to(dtype), None))
        changes, areas = self.brownian.increments_and_areas(grid)
        return replace(self, brownian=_Drawn(changes.to(dtype), areas.to(dtype)))

    def _next(self, ends: Sequence[Time], dtype: torch.dtype, area: bool) -> Iterator[SDETerm]:
        grid = torch.stack(tuple(ends))
        spans = grid.diff(dim=0).to(dtype).unsqueeze(-1)
        areas: tuple[Tensor | None, ...] = (None,) * len(spans)
        if area:
            changes, drawn = self.brownian.increments_and_areas(grid)
            areas = drawn.to(dtype).unbind(0)
        else:
            changes = self.brownian.increments(grid)
        given = grid.to(spans.real.dtype).unbind(0)
        for k, (dt, dW, H) in enumerate(zip(spans.unbind(0), changes.to(dtype).unbind(0), areas, strict=True)):
            inputs = None if self.inputs is None else self.inputs.restrict(ends[k], ends[k + 1])
            known = KnownStep(StochasticIncrement(dt, dW, H), ends[k], ends[k + 1], given[k], given[k + 1])
            yield SDETerm(self.field, self.brownian, inputs, known)

    def drift(self, t: Time, y: State) -> State:
        """The drift at `(t, y, u(t))`, checked."""
        f = self.field.drift(*self._arguments(t, y))
        if not isinstance(f, Tensor) or f.shape != y.shape or f.dtype != y.dtype:
            _refuse(f, y.shape, y, "drift", "(*batch, state)")
        return f

    def diffusion(self, t: Time, y: State) -> Tensor:
        """The diffusion at `(t, y, u(t))`, checked: `(*batch, state)` or `(*batch, state, brownian)`."""
        g = self.field.diffusion(*self._arguments(t, y))
        _check_diffusion(g, y, self.field.noise, self.brownian.size)
        return g

    def applied(self, g: Tensor, dW: Tensor) -> State:
        """A diffusion applied to an increment, `(*batch, state)`."""
        dW = dW.to(g.dtype)
        return g * dW if g.dim() == dW.dim() else torch.matmul(g, dW.unsqueeze(-1)).squeeze(-1)

    def prod(self, t: Time, y: State, dx: StochasticIncrement) -> State:  # type: ignore[override]
        """Drift times time plus diffusion times Brownian increment."""
        moved = self.applied(self.diffusion(t, y), dx.dW)
        return torch.addcmul(moved, self.drift(t, y), dx.dt.to(y.dtype))

    def derivative(self, t: Time, y: State) -> State:
        """There is none."""
        raise TypeError(
            "Brownian motion has no derivative; a stochastic equation needs a method that steps with its increments, "
            "for example EulerMaruyama(), SRA1() or Heun()."
        )

    def chord(self, t0: Time, t1: Time) -> ChordTerm:
        """The smooth equation along the straight line between the ends of a step of the Brownian motion."""
        dx = self.increment(t0, t1)
        moving = dx.dt != 0
        return ChordTerm(self, torch.where(moving, dx.dW / torch.where(moving, dx.dt, 1.0), 0.0))

    def restrict(self, t0: Time, t1: Time) -> SDETerm:
        """The term with its inputs restricted to the step."""
        return self if self.inputs is None else replace(self, inputs=self.inputs.restrict(t0, t1))

    def knots(self) -> Times | None:
        """The knots of the inputs; Brownian motion has none that a step could land on."""
        return None if self.inputs is None else self.inputs.knots()

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the inputs; Brownian motion is data."""
        return () if self.inputs is None else self.inputs.tensors()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of drift and diffusion."""
        return self.field.parameters()

    def replace(self, tensors: tuple[Tensor, ...]) -> SDETerm:
        """The same equation, along the same motion, with inputs made of other tensors."""
        if self.inputs is None:
            if tensors:
                raise ValueError(f"this term has no inputs to replace; got {len(tensors)} tensors.")
            return self
        return replace(self, inputs=self.inputs.replace(tensors))

    def _given(self, t: Time, dtype: torch.dtype) -> Time:
        """A time as the field is given it."""
        known = self.known
        if known is not None:
            # Within a step the times are the very same tensors; a conversion costs as much as a layer of the field.
            if t is known.t0:
                return known.start
            if t is known.t1:
                return known.end
        return t.to(dtype)

    def _arguments(self, t: Time, y: State) -> tuple[Tensor, ...]:
        time = self._given(t, y.real.dtype)
        return (time, y) if self.inputs is None else (time, y, self.inputs.evaluate(t).to(time.dtype))


@dataclass(frozen=True, eq=False)
class _Drawn(Brownian):
    """The increments of consecutive steps: what a compiled program can be given of a Brownian motion."""

    changes: Tensor
    areas: Tensor | None

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.changes.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return self.changes.shape[1:-1]

    def increments(self, grid: Tensor) -> State:
        return self.changes

    def increments_and_areas(self, grid: Tensor) -> tuple[State, State]:
        return self.changes, torch.zeros_like(self.changes) if self.areas is None else self.areas

    def evaluate(self, t: Time) -> State:
        raise ValueError("only the increments of a few steps are known.")

    def integrate(self, t: Time) -> tuple[State, State]:
        raise ValueError("only the increments of a few steps are known.")


@dataclass(frozen=True, eq=False)
class ChordTerm(Term):
    r"""A stochastic equation along a straight line: what a method for smooth equations sees of one step.

    .. math:: \frac{dy}{dt} = f(t, y) + g(t, y)\,\frac{\Delta W}{\Delta t}

    Solved on ever shorter chords it tends to the Stratonovich solution (Wong and Zakai).

    Args:
        term: the stochastic equation.
        slope: increment over length of the step, 0 where it is empty, `(*batch, brownian)`.

    Reference:
        E. Wong, M. Zakai, On the convergence of ordinary integrals to stochastic integrals, 1965,
        https://doi.org/10.1214/aoms/1177699916

    Example:
        >>> issubclass(ChordTerm, Term)
        True
    """

    term: SDETerm
    slope: Tensor

    @property
    def field(self) -> SDEField:  # type: ignore[override]
        """Drift and diffusion."""
        return self.term.field

    def increment(self, t0: Time, t1: Time) -> Tensor:
        """The time that passes, `t1 - t0`."""
        return t1 - t0

    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        """The velocity times `dx`, `(*batch,)`."""
        return self.derivative(t, y) * dx.to(y.dtype).unsqueeze(-1)

    def derivative(self, t: Time, y: State) -> State:
        """The velocity along the line."""
        return self.term.drift(t, y) + self.term.applied(self.term.diffusion(t, y), self.slope)

    def restrict(self, t0: Time, t1: Time) -> ChordTerm:
        """The line is the same on a part of the step."""
        return replace(self, term=self.term.restrict(t0, t1))

    def knots(self) -> Times | None:
        """The knots of the inputs."""
        return self.term.knots()

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the inputs."""
        return self.term.tensors()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of drift and diffusion."""
        return self.term.parameters()

    def replace(self, tensors: tuple[Tensor, ...]) -> ChordTerm:
        """The same line with inputs made of other tensors."""
        return replace(self, term=self.term.replace(tensors))


def brownian_size(sde: SDEField, t: Time, y: State, u: Tensor | None = None) -> int:
    """How many Brownian motions per series a field needs: read from its diffusion, checked against its noise.

    Args:
        sde: drift and diffusion.
        t: any time, `(*batch,)`.
        y: a state there, `(*batch, state)`.
        u: inputs there, `(*batch, input)`.

    Example:
        >>> from ctdyn.systems import GeometricBrownianMotion
        >>> brownian_size(GeometricBrownianMotion(mu=0.1, sigma=0.2), torch.zeros(1), torch.ones(1, 1))
        1
    """
    _check_declared(sde)
    with torch.no_grad():
        g = sde.diffusion(t, y) if u is None else sde.diffusion(t, y, u)
    if sde.noise is Noise.SCALAR:
        size = 1
    elif isinstance(g, Tensor) and g.dim() == y.dim() + 1:
        size = g.shape[-1]
    else:
        size = y.shape[-1]
    _check_diffusion(g, y, sde.noise, size)
    return size


def _check_declared(sde: SDEField) -> None:
    for name, kind in (("noise", Noise), ("calculus", Calculus)):
        declared = getattr(sde, name, None)
        if not isinstance(declared, kind):
            given = "nothing" if declared is None else repr(declared)
            raise TypeError(f"{type(sde).__name__} must say its {name}, a {kind.__name__}; got {given}: {_DECLARE}")


def _check_diffusion(g: Tensor, y: State, noise: Noise, size: int) -> None:
    """Whether a diffusion has the shape that the declared noise asks for."""
    square = isinstance(g, Tensor) and g.shape == y.shape and noise is not Noise.GENERAL
    fits = isinstance(g, Tensor) and g.dtype == y.dtype
    if fits and square and size == (1 if noise is Noise.SCALAR else y.shape[-1]):
        return
    matrix = (*y.shape, size)
    if noise is Noise.GENERAL or (noise is Noise.ADDITIVE and isinstance(g, Tensor) and g.dim() != y.dim()):
        if not fits or g.shape != matrix:
            _refuse(g, matrix, y, "diffusion", f"(*batch, state, brownian) for {noise.value} noise")
        return
    if not fits or not square:
        _refuse(g, y.shape, y, "diffusion", f"(*batch, state) for {noise.value} noise")
    if noise is Noise.SCALAR:
        raise ValueError(f"scalar noise needs a Brownian motion of size 1; the one given has size {size}.")
    raise ValueError(
        f"a diffusion of shape {tuple(g.shape)} needs a Brownian motion of size {y.shape[-1]}, one per entry of the "
        f"state; the one given has size {size}."
    )


def _refuse(found: Tensor, shape: tuple[int, ...], y: State, name: str, axes: str) -> NoReturn:
    if not isinstance(found, Tensor):
        returned = "None" if found is None else type(found).__name__
        raise TypeError(f"the {name} returned {returned}; it must return a tensor {axes}.")
    if found.shape != shape:
        raise ValueError(
            f"the {name} must be {axes}: expected {tuple(shape)} for a state of {tuple(y.shape)}, got "
            f"{tuple(found.shape)}."
        )
    raise TypeError(
        f"the {name} is of {found.dtype} for a state of {y.dtype}; convert one of them, for example "
        f"field.to({y.dtype}) or y0.to({found.dtype})."
    )
