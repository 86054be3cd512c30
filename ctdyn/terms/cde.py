"""Controlled differential equations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .._types import State, Time, Times
from ..paths.base import Path
from ..structure import CDEField
from .base import Term


__all__ = ["CDETerm"]


@dataclass(frozen=True, eq=False)
class CDETerm(Term):
    r"""A controlled differential equation along a path; `solve` builds it from a `CDEField` and `inputs`.

    .. math:: dy = F(t, y)\,dX(t), \qquad \frac{dy}{dt} = F(t, y)\,\dot X(t)

    The knots of the control are knots of the equation: adaptive and fixed steps land on them by themselves. Beyond the
    range of its knots a control holds its end value, so that there :math:`dX = 0` and the state would stand still:
    `solve` refuses such times unless `holds` says that this is meant.

    Args:
        field: a `CDEField`, or any callable `f(t, y)` that returns the matrix, `(*batch, state, control)`.
        control: the path :math:`X`.
        holds: let the state stand still before the first knot of the control and after its last.

    Raises:
        TypeError: the field is not callable or the control is not a path; or, when solving, the field returns something
            else than a tensor of the state's dtype.
        ValueError: when solving, the field returns another shape than state times control.

    Reference:
        Neural Controlled Differential Equations for Irregular Time Series, P. Kidger, J. Morrill, J. Foster, T. Lyons,
        2020, https://arxiv.org/abs/2005.08926

    Example:
        >>> import torch
        >>> from ctdyn.paths import LinearPath
        >>> control = LinearPath(torch.tensor([[0.0, 2.0]]), torch.tensor([[[0.0], [4.0]]]))
        >>> term = CDETerm(lambda t, y: y.unsqueeze(-1), control)
        >>> term.derivative(torch.tensor([1.0]), torch.ones(1, 1))
        tensor([[2.]])
    """

    field: Callable[..., Tensor]
    control: Path
    holds: bool = False

    def __post_init__(self) -> None:
        if not callable(self.field):
            raise TypeError(
                f"the field must be a CDEField or a callable f(t, y) -> (*batch, state, control); got "
                f"{type(self.field).__name__}."
            )
        if not isinstance(self.control, Path):
            raise TypeError(
                "a controlled equation needs a control, a Path, for example inputs=ctdyn.paths.HermitePath(ts, xs); "
                f"got {type(self.control).__name__}."
            )

    def check_range(self, ts: Times) -> None:
        """Refuse times that the control does not reach.

        Args:
            ts: times of each series, `(*batch, time)`.

        Raises:
            ValueError: a time lies before the first knot or after the last.
        """
        knots = self.control.knots()
        if self.holds or knots is None or not ts.numel():
            return
        first, last = knots.detach().amin(-1, keepdim=True), knots.detach().amax(-1, keepdim=True)
        # Times and knots may have been rounded to different dtypes.
        slack = 1e-6 * (last - first) + 2 * torch.finfo(torch.float32).eps * last.abs()
        outside = (ts < first - slack) | (ts > last + slack)
        if bool(outside.any()):
            *series, column = torch.nonzero(outside)[0].tolist()
            place = f" of series {', '.join(map(str, series))}" if series else ""
            low, high, t = (x.expand(outside.shape)[(*series, column)] for x in (first, last, ts))
            raise ValueError(
                f"the control{place} runs from t={float(low):.6g} to {float(high):.6g}, and the equation is asked "
                f"about t={float(t):.6g}, where nothing would drive it. Ask within the control, let it go on further, "
                "or let the state stand still there: CDETerm(field, control, holds=True)."
            )

    def increment(self, t0: Time, t1: Time) -> Tensor:
        """What the control does between `t0` and `t1`, `(*batch, control)`."""
        return self.control.evaluate(t1) - self.control.evaluate(t0)

    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        """The matrix at `(t, y)` applied to a change of the control, checked."""
        time, dx = t.to(y.dtype.to_real()), dx.to(y.dtype)
        if isinstance(self.field, CDEField) and type(self.field).prod is not CDEField.prod:
            dy = self.field.prod(time, y, dx)
        else:
            matrix = self.field(time, y)
            _check(matrix, (*y.shape, dx.shape[-1]), y, "F, the matrix of the equation,")
            dy = torch.linalg.vecdot(dx.unsqueeze(-2), matrix)
        _check(dy, tuple(y.shape), y, "F dX, as prod gives it,")
        return dy

    def derivative(self, t: Time, y: State) -> State:
        """The matrix at `(t, y)` applied to the derivative of the control."""
        return self.prod(t, y, self.control.derivative(t))

    def restrict(self, t0: Time, t1: Time) -> CDETerm:
        """The term with its control restricted to the step."""
        return replace(self, control=self.control.restrict(t0, t1))

    def pieces(self, ends: Sequence[Time]) -> Iterator[Term]:
        """The term on each of consecutive steps, its control looked up for many of them at once."""
        return (replace(self, control=path) for path in self.control.pieces(ends))

    def knots(self) -> Times | None:
        """The knots of the control."""
        return self.control.knots()

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the control."""
        return self.control.tensors()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the field, none where it is a plain function."""
        return self.field.parameters() if isinstance(self.field, nn.Module) else iter(())

    def replace(self, tensors: tuple[Tensor, ...]) -> CDETerm:
        """The same equation along a control made of other tensors."""
        return replace(self, control=self.control.replace(tensors))


def _check(found: Tensor, shape: tuple[int, ...], y: State, what: str) -> None:
    if not isinstance(found, Tensor):
        returned = "None" if found is None else type(found).__name__
        raise TypeError(f"{what} must be a tensor of shape {shape}; the field returned {returned}.")
    if tuple(found.shape) != shape:
        raise ValueError(
            f"{what} must have the shape {shape} for a state of {tuple(y.shape)}; the field returned "
            f"{tuple(found.shape)}. Its axes are (*batch, state, control)."
        )
    if found.dtype != y.dtype:
        raise TypeError(
            f"{what} is of {found.dtype} for a state of {y.dtype}; convert one of them, for example "
            f"field.to({y.dtype}) or y0.to({found.dtype})."
        )
