"""What paths through knots share: a polynomial between neighbouring knots, constant beyond the last of them."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .._types import State, Time, Times
from ..nn import all_finite, take_items
from .base import Path


__all__ = ["PiecewisePath", "PolygonalPath", "PolynomialPath", "check_knots"]

_AT_ONCE = 256


class PiecewisePath(Path):
    r"""A path through given values at given times: one polynomial per piece, and constant before and after.

    .. math:: X(t) = \sum_d c_{j,d} \, (t - t_j)^d, \qquad t \in [t_j, t_{j+1})

    Trailing knots that repeat the last time are padding: whatever value they carry changes nothing. Two knots at the
    same time anywhere else are a jump; the path is continuous from the right.

    Args:
        ts: times of the knots, non-decreasing, `(*batch, time)`.
        xs: values there, `(*batch, time, channel)`.

    Raises:
        ValueError: the shapes disagree, there is no knot, times decrease, or an entry is not finite.

    Example:
        >>> from ctdyn.paths import LinearPath
        >>> LinearPath(torch.tensor([[0.0, 2.0]]), torch.tensor([[[0.0], [4.0]]])).knots()
        tensor([[0., 2.]])
    """

    def __init__(self, ts: Tensor, xs: Tensor) -> None:
        check_knots(ts, xs)
        self.ts = ts
        self.xs = xs
        # Piece j is what lies between knot j - 1 and knot j; pieces 0 and n hold the end values.
        self._origins = torch.cat([ts[..., :1], ts], -1)
        first_at_end = torch.searchsorted(ts.detach().contiguous(), ts[..., -1:].detach().contiguous())
        end = torch.take_along_dim(xs, first_at_end[..., None], -2)
        gaps = ts.diff(dim=-1)[..., None]
        # A division by a zero gap would give NaN gradients even where its result is masked away.
        slopes = torch.where(gaps > 0, xs.diff(dim=-2) / torch.where(gaps > 0, gaps, 1.0), 0.0)
        inner = self._polynomials(xs[..., :-1, :], slopes, gaps)
        head, tail = _constant(xs[..., :1, :], inner.shape[-2]), _constant(end, inner.shape[-2])
        self._coefficients = torch.cat([head, inner, tail], -3)

    @abstractmethod
    def _polynomials(self, starts: Tensor, slopes: Tensor, gaps: Tensor) -> Tensor:
        """Coefficients of the inner pieces, lowest first.

        Args:
            starts: value at the left end of each piece, `(*batch, time - 1, channel)`.
            slopes: difference quotient of each piece, 0 where it is empty, of the same shape.
            gaps: length of each piece, `(*batch, time - 1, 1)`.

        Returns:
            `(*batch, time - 1, degree + 1, channel)`.
        """

    @property
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""
        return self.ts.shape[:-1]

    def evaluate(self, t: Time) -> State:
        """The value at one time per series, `(*batch, channel)`."""
        return self._at(t, self._piece(t)).evaluate(t)

    def derivative(self, t: Time) -> State:
        """The time derivative at one time per series, `(*batch, channel)`."""
        return self._at(t, self._piece(t)).derivative(t)

    def restrict(self, t0: Time, t1: Time) -> Path:
        """The path between `t0` and `t1` of each series."""
        left, right = torch.minimum(t0, t1), torch.maximum(t0, t1)
        first = self._piece(left)
        last = torch.maximum(self._piece(right, from_left=True), first)
        moving = t0 != t1
        if bool((first == last).all()):
            return self._at(left, first, moving)
        return _Restricted(self, first, last, moving)

    def pieces(self, ends: Sequence[Time]) -> Iterator[Path]:
        """The path on each of consecutive intervals, looked up many at a time.

        A look-up of its own for every interval would give each a gradient of the size of the whole path.
        """
        for first in range(0, len(ends) - 1, _AT_ONCE):
            some = ends[first : first + _AT_ONCE + 1]
            grid = torch.stack(tuple(some))
            path = self.restrict(grid[:-1], grid[1:])
            yield from path.unbind() if isinstance(path, PolynomialPath) else super().pieces(some)

    def knots(self) -> Times | None:
        """The times where the path is not smooth."""
        return self.ts

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the path is made of."""
        return (self.ts, self.xs)

    def replace(self, tensors: tuple[Tensor, ...]) -> PiecewisePath:
        """The same path made of other tensors."""
        ts, xs = tensors
        return type(self)(ts, xs)

    def _piece(self, t: Tensor, *, from_left: bool = False) -> Tensor:
        """Which piece each time lies on, of the shape of `t`; at a knot the piece to its right, unless `from_left`."""
        # Rounding a float64 time to a float32 clock could push it across a knot.
        dtype = torch.promote_types(t.dtype, self.ts.dtype)
        queries = self._as_columns(t.detach().to(dtype)).contiguous()
        found = torch.searchsorted(self.ts.detach().to(dtype).contiguous(), queries, right=not from_left)
        return torch.movedim(found, -1, 0).reshape(t.shape)

    def _as_columns(self, t: Tensor) -> Tensor:
        """`(*extra, *batch)` as `(*batch, extra)`: one search then serves every sample of a series."""
        batch = self.batch_shape
        lead = t.dim() - len(batch)
        # The path of one series serves any number of them.
        if batch.numel() != 1 and (lead < 0 or t.shape[lead:] != batch):
            raise ValueError(
                f"times must be (*batch,) with batch {tuple(batch)}, extra leading axes allowed; got shape "
                f"{tuple(t.shape)}."
            )
        extra = t.numel() if batch.numel() == 1 else t.shape[:lead].numel()
        return torch.movedim(t.reshape(extra, *batch), 0, -1)

    def _at(self, t: Tensor, piece: Tensor, moving: Tensor | None = None) -> PolynomialPath:
        """The polynomials of the pieces numbered `piece`, of the shape of `t`."""
        columns = self._as_columns(piece)
        origin = torch.take_along_dim(self._origins, columns, -1)
        coefficients = take_items(self._coefficients, columns, -3)
        return PolynomialPath(
            torch.movedim(origin, -1, 0).reshape(t.shape),
            torch.movedim(coefficients, -3, 0).reshape(*t.shape, *coefficients.shape[-2:]),
            torch.ones_like(t, dtype=torch.bool) if moving is None else moving,
        )


class PolygonalPath(PiecewisePath):
    r"""A path of straight lines between its knots; equations that are linear in the state are solved exactly along it.

    .. math:: X(t) = x_j + \frac{t - t_j}{t_{j+1} - t_j} (x_{j+1} - x_j), \qquad t \in [t_j, t_{j+1})

    Example:
        >>> from ctdyn.paths import LinearPath, RectilinearPath
        >>> issubclass(LinearPath, PolygonalPath), issubclass(RectilinearPath, PolygonalPath)
        (True, True)
    """

    def _polynomials(self, starts: Tensor, slopes: Tensor, gaps: Tensor) -> Tensor:
        return torch.stack([starts, slopes], -2)


class PolynomialPath(Path):
    r"""One polynomial in time per series: what a piecewise path is between two of its knots.

    .. math:: X(t) = \sum_d c_d \, (t - t_0)^d

    Args:
        origin: time at which the polynomial is expanded, `(*batch,)`.
        coefficients: lowest power first, `(*batch, degree + 1, channel)`.
        moving: False where the derivative is to be 0 (an empty interval), `(*batch,)`.

    Example:
        >>> line = PolynomialPath(torch.zeros(1), torch.tensor([[[1.0], [2.0]]]), torch.tensor([True]))
        >>> line.evaluate(torch.tensor([3.0]))
        tensor([[7.]])
    """

    def __init__(self, origin: Tensor, coefficients: Tensor, moving: Tensor) -> None:
        self.origin = origin
        self.coefficients = coefficients
        self.moving = moving

    @property
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""
        return self.origin.shape

    def unbind(self) -> Iterator[PolynomialPath]:
        """The paths along the first axis of the batch, one by one."""
        parts = zip(self.origin.unbind(0), self.coefficients.unbind(0), self.moving.unbind(0), strict=True)
        for origin, coefficients, moving in parts:
            yield PolynomialPath(origin, coefficients, moving)

    def evaluate(self, t: Time) -> State:
        """The value at one time per series, `(*batch, channel)`."""
        return self._horner(self.coefficients.unbind(-2), t)

    def derivative(self, t: Time) -> State:
        """The time derivative at one time per series, `(*batch, channel)`."""
        return self._horner(self._slopes, t)

    @functools.cached_property
    def _slopes(self) -> tuple[Tensor, ...]:
        """The coefficients of the derivative, lowest power first; a solver asks for it once per stage."""
        _, *powers = torch.where(self.moving[..., None, None], self.coefficients, 0.0).unbind(-2)
        return tuple(power if degree == 1 else degree * power for degree, power in enumerate(powers, 1))

    def _horner(self, coefficients: tuple[Tensor, ...], t: Time) -> State:
        *lower, value = coefficients
        if not lower:
            return value.expand(*t.shape, value.shape[-1])
        elapsed = (t - self.origin).to(value.dtype).unsqueeze(-1)
        for coefficient in reversed(lower):
            value = torch.addcmul(coefficient, value, elapsed)
        return value

    def restrict(self, t0: Time, t1: Time) -> PolynomialPath:
        """The path between `t0` and `t1` of each series."""
        return PolynomialPath(self.origin, self.coefficients, self.moving & (t0 != t1))

    def knots(self) -> Times | None:
        """The times where the path is not smooth."""
        return None

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the path is made of."""
        return (self.origin, self.coefficients)

    def replace(self, tensors: tuple[Tensor, ...]) -> PolynomialPath:
        """The same path made of other tensors."""
        origin, coefficients = tensors
        return type(self)(origin, coefficients, self.moving)


class _Restricted(Path):
    """A piecewise path on an interval that holds a knot for some series: it looks at the pieces first to last only."""

    def __init__(self, path: PiecewisePath, first: Tensor, last: Tensor, moving: Tensor) -> None:
        self._path = path
        self._first = first
        self._last = last
        self._moving = moving

    @property
    def batch_shape(self) -> torch.Size:
        """The axes of the series, `(*batch,)`."""
        return self._first.shape

    def evaluate(self, t: Time) -> State:
        """The value at one time per series, `(*batch, channel)`."""
        return self._at(t).evaluate(t)

    def derivative(self, t: Time) -> State:
        """The time derivative at one time per series, `(*batch, channel)`."""
        return self._at(t).derivative(t)

    def restrict(self, t0: Time, t1: Time) -> Path:
        """The path between `t0` and `t1` of each series."""
        return self._path.restrict(t0, t1)

    def knots(self) -> Times | None:
        """The times where the path is not smooth."""
        return self._path.knots()

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that the path is made of."""
        return self._path.tensors()

    def replace(self, tensors: tuple[Tensor, ...]) -> Path:
        """The same path made of other tensors."""
        return type(self)(self._path.replace(tensors), self._first, self._last, self._moving)

    def _at(self, t: Tensor) -> PolynomialPath:
        piece = torch.minimum(torch.maximum(self._path._piece(t), self._first), self._last)
        return self._path._at(t, piece, self._moving.expand(t.shape))


def _constant(value: Tensor, powers: int) -> Tensor:
    """The coefficients of a polynomial that stays at `value`, `(*batch, 1, powers, channel)`."""
    return torch.cat([value[..., None, :], value.new_zeros(*value.shape[:-1], powers - 1, value.shape[-1])], -2)


def check_knots(ts: Tensor, xs: Tensor) -> None:
    """Refuse knots that no path can pass through.

    Args:
        ts: times of the knots, `(*batch, time)`.
        xs: values there, `(*batch, time, channel)`.

    Raises:
        ValueError: the shapes disagree, there is no knot, times decrease, or an entry is not finite.

    Example:
        >>> check_knots(torch.tensor([0.0, 1.0]), torch.zeros(2, 1))
    """
    if ts.dim() < 1 or xs.shape[:-1] != ts.shape:
        raise ValueError(
            f"a path needs values xs (*batch, time, channel) on times ts (*batch, time); got xs {tuple(xs.shape)} and "
            f"ts {tuple(ts.shape)}."
        )
    if ts.shape[-1] == 0:
        raise ValueError("a path needs at least one knot per series; got ts without any time.")
    if not all_finite(ts):
        raise ValueError("ts hold NaN or infinite entries; pad a series by repeating its last time.")
    if not all_finite(xs):
        raise ValueError(
            "xs hold NaN or infinite entries; fill missing values before building a path (fill_linear, fill_forward)."
        )
    if bool((ts.diff(dim=-1) < 0).any()):
        raise ValueError("ts must not decrease along the last axis; sort the knots of each series.")
