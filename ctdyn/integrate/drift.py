"""Whether gradients of a stiff solve obey the law that all of them obey where the field does not depend on time."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from .._checks import AdjointInstabilityWarning
from .._types import State, States, Time, Times
from ..terms import Term


__all__ = ["Conservation"]

_SHARE = 5e-3
"""From which share of its parts on the defect is worth a word: the gradient is then off by about a hundredth."""


class Conservation:
    r"""Compares the gradient at the start of a solve with those at its outputs, in the direction of the flow.

    .. math:: \frac{d}{dt}\, \lambda^\top f = \lambda^\top \partial_t f = 0 \quad\Rightarrow\quad
              \lambda(t_0)^\top f(y_0) = \sum_i \Big( \frac{\partial L}{\partial y(t_i)} \Big)^\top f(y(t_i))

    The gradient of a numerical solution is exact for the steps that were taken, but the derivative of their errors is
    as many times larger than the errors as the solution changes faster than its steps: where a relaxation oscillator
    jumps, a solution right to 1e-6 can have a gradient that is right to 1e-2 only. It costs a glance at the field: once
    for every output, in the backward pass.

    Args:
        term: the equation, without knots.
        t0: where the series start, `(*batch,)`.
        ts: the output times, `(*batch, time)`.

    Reference:
        L. S. Pontryagin, V. G. Boltyanskii, R. V. Gamkrelidze, E. F. Mishchenko, The Mathematical Theory of Optimal
        Processes, 1962 (the Hamiltonian of an autonomous problem is constant).

    Example:
        >>> from ctdyn.terms import ODETerm
        >>> zero = torch.zeros(1)
        >>> Conservation(ODETerm(lambda t, y: -y), zero, zero[None]).holds(torch.ones(1, 2))
        True
        >>> Conservation(ODETerm(lambda t, y: y * t[..., None]), zero, zero[None] + 1).holds(torch.ones(1, 2))
        False
    """

    def __init__(self, term: Term, t0: Time, ts: Times) -> None:
        self.term, self.t0, self.ts = term, t0.detach(), ts.detach()
        self.complete = True
        self._ys: Tensor | None = None
        self._along: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def holds(self, y0: State) -> bool:
        """Whether the field is the same at the start, in the middle and at the end, as far as one state can tell."""
        end = self.ts[..., -1]
        first, *later = (self.term.derivative(t, y0.detach()) for t in (self.t0, torch.lerp(self.t0, end, 0.37), end))
        return all(torch.equal(first, velocity) for velocity in later)

    def begins(self, y0: State) -> State:
        """The start, watched."""
        y0 = y0.clone() if y0.requires_grad else y0.detach().clone().requires_grad_()
        start = y0.detach()
        y0.register_hook(lambda gradient: self._guarded(lambda: self._compare(start, gradient.detach())))
        return y0

    def ends(self, ys: States) -> None:
        """The outputs, watched."""
        if ys.requires_grad:
            self._ys = ys.detach()
            ys.register_hook(lambda gradient: self._guarded(lambda: self._sum(gradient.detach())))

    def _guarded(self, look: Callable[[], None]) -> None:
        """A look that never disturbs the pass which it looks at."""
        twice = torch.is_grad_enabled()
        try:
            look()
        except RuntimeError:
            # Many gradients in one pass (is_grads_batched) have no values to look at.
            self.complete = False
        # Of a gradient of gradients the law says nothing.
        self.complete = self.complete and not (twice and self._along is None)

    @torch.no_grad()
    def _sum(self, gradient: Tensor) -> None:
        if self._ys is None or not self.complete:
            return
        parts = []
        for t, y, weight in zip(self.ts.unbind(-1), self._ys.unbind(-2), gradient.unbind(-2), strict=True):
            parts.append(_product(weight, self.term.derivative(t, y)))
        total = torch.stack(parts)
        self._along = total.sum((0, -1)), total.abs().sum((0, -1))

    @torch.no_grad()
    def _compare(self, y0: State, gradient: Tensor) -> None:
        along, self._along = self._along, None
        if along is None or not self.complete:
            return
        start = _product(gradient, self.term.derivative(self.t0, y0))
        defect, size = (start.sum(-1) - along[0]).abs(), start.abs().sum(-1) + along[1]
        wrong = defect > _SHARE * size
        if bool(wrong.any()):
            where = tuple(torch.nonzero(wrong)[0].tolist())
            name = f"series {', '.join(map(str, where))}" if where else "the series"
            warnings.warn(
                f"the gradient of {name} is probably off by {float((2.0 * defect / size)[where]):.0e} of its size or "
                "more: the errors of the solution change faster with its start than the solution does, as in the jumps "
                "of a stiff oscillator. Tighten rtol and atol for exact gradients.",
                AdjointInstabilityWarning,
                stacklevel=2,
            )


def _product(weight: Tensor, velocity: Tensor) -> Tensor:
    product = weight.conj() * velocity
    return product.real if product.is_complex() else product
