"""Newton's method for the stages of an implicit method, for every series on its own, with exact gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._types import State, Time
from ..terms import Term
from ._jacobian import Systems, linearise, real


__all__ = ["Newton", "Tolerance"]

_MOST = 12
"""Iterations after which a stage has failed: by then a shorter step is cheaper."""


_MOST_PERSISTENT, _MOST_HALVINGS = 40, 8
"""Iterations, and strides tried in each, where no shorter step will be tried."""


class Tolerance(NamedTuple):
    """The error of a step that is allowed for, and the share of it that Newton's method may leave in each stage.

    Without an `atol` nothing is known of the units: small entries then count in proportion to the largest. Where no
    shorter step will be tried, it must be `patient`.
    """

    rtol: float | Tensor
    atol: float | Tensor
    share: float
    patient: bool = False

    def scale(self, y: State) -> Tensor:
        """What one unit of error is in each entry, never less than rounding leaves of it."""
        size = real(y).abs()
        rtol, atol = (_per_series(x, y) for x in (self.rtol, self.atol))
        if not isinstance(atol, Tensor) and not atol and size.shape[-1]:
            size = torch.maximum(size, 1e-3 * size.amax(-1, keepdim=True))
        floor = 20.0 * torch.finfo(size.dtype).eps / self.share
        rtol = rtol.clamp(min=floor) if isinstance(rtol, Tensor) else max(rtol, floor)
        return (atol + rtol * size).clamp(min=torch.finfo(size.dtype).tiny)


class Newton:
    r"""Simplified Newton iteration for the stages of one step, with one Jacobian and one factorisation for all of them.

    .. math:: k = f(t, y + h \gamma k), \qquad
              (I - h \gamma J)\, \delta = f(t, y + h \gamma k) - k, \quad k \leftarrow k + \delta

    Every series stops on its own, by its own rate of convergence, so that its company changes nothing. The velocity is
    what is solved for: the one that belongs to a stage of a stiff equation is then never evaluated from a state that
    carries an error, which the field would magnify.

    Args:
        term: the equation, restricted to this step.
        t0: start of the step, `(*batch,)`.
        y0: state there, `(*batch, state)`.
        dt: the step times the diagonal coefficient, `(*batch, 1)`.
        tolerance: how exactly to solve.
    """

    def __init__(self, term: Term, t0: Time, y0: State, dt: Tensor, tolerance: Tolerance) -> None:
        self.term, self.dt, self.tolerance = term, dt, tolerance
        with torch.no_grad():
            self.scale = tolerance.scale(y0)
            rounding = 20.0 * torch.finfo(self.scale.dtype).eps * real(y0).abs()
            self.grain = _rms(rounding / self.scale).clamp(min=1e-3 * tolerance.share)
            self.relative = not isinstance(tolerance.atol, Tensor) and not tolerance.atol
            self.reach = dt.abs().to(self.scale.dtype)
            self.systems = Systems(linearise(term, t0, y0).by_state, dt)
            self.rate = torch.ones(t0.shape, dtype=self.scale.dtype, device=t0.device)
            self.failed = torch.zeros(t0.shape, dtype=torch.bool, device=t0.device)

    def solve(self, t: Time, y: State, guess: State) -> State:
        """The velocity of the stage at `t` that starts from `y`; `failed` says which series found none."""
        with torch.no_grad():
            velocity = self._iterate(t, y, guess)
            if self.tolerance.patient and bool(self.failed.any()):
                velocity = self._persist(t, y, velocity)
        if not torch.is_grad_enabled():
            return velocity
        # All that the field touches, declared or not, is reached through this one evaluation.
        found = self.term.derivative(t, torch.addcmul(y, self.dt, velocity))
        return _Root.apply(found, t, y, self.dt, velocity, self.term) if found.requires_grad else velocity

    def _iterate(self, t: Time, y: State, guess: State) -> State:
        velocity, active, share = guess, ~self.failed, self.tolerance.share
        scale = self.scale
        # The rate of the stage before is a good first guess, a little distrusted.
        rate = before = self.rate.clamp(min=1e-10) ** 0.8
        for iteration in range(_MOST):
            residual = self.term.derivative(t, torch.addcmul(y, self.dt, velocity)) - velocity
            change = self.systems.solve(residual)
            velocity = torch.where(active.unsqueeze(-1), velocity + change, velocity)
            if not iteration and self.relative:
                scale = torch.maximum(scale, self.tolerance.scale(torch.addcmul(y, self.dt, velocity)))
            size = _rms(real(change) * self.reach / scale)
            if iteration:
                rate = torch.where(active, size / before.clamp(min=1e-300), rate)
            left = torch.where(rate < 1.0, rate / (1.0 - rate).clamp(min=1e-30), torch.inf) * size
            # What has come down to rounding has no rate any more, but it has arrived.
            done = (left <= share) | (size <= self.grain)
            bad = ~torch.isfinite(size)
            if iteration:
                # What cannot arrive in the iterations that are left need not be tried.
                bad = bad | (left * rate ** (_MOST - 1 - iteration) > share)
            self.failed = self.failed | (active & bad & ~done)
            active = active & ~done & ~bad
            before = size
            if not bool(active.any()):
                break
        self.failed = self.failed | active
        self.rate = rate
        return velocity

    def _persist(self, t: Time, y: State, velocity: State) -> State:
        """Newton's method with a Jacobian per iteration and shorter strides where a whole one leads away."""
        active, self.failed = self.failed, torch.zeros_like(self.failed)
        # From the start of the stage: where the iteration has got to by now may be anywhere.
        velocity = torch.where(active.unsqueeze(-1), 0.0, velocity)
        scale = torch.maximum(self.scale, self.tolerance.scale(y))
        for _ in range(_MOST_PERSISTENT):
            at = linearise(self.term, t, torch.addcmul(y, self.dt, velocity))
            systems = Systems(at.by_state, self.dt)
            change = systems.solve(at.velocity - velocity)
            size = _rms(real(change) * self.reach / scale)
            stride, arrived = torch.ones_like(size), size <= torch.maximum(self.grain, size.new_tensor(1e-3))
            for _ in range(_MOST_HALVINGS):
                moved = torch.addcmul(velocity, stride.unsqueeze(-1).to(change.dtype), change)
                residual = self.term.derivative(t, torch.addcmul(y, self.dt, moved)) - moved
                left = _rms(real(systems.solve(residual)) * self.reach / scale)
                away = active & ~arrived & ~(left <= (1.0 - 0.5 * stride) * size)
                if not bool(away.any()):
                    break
                stride = torch.where(away, 0.5 * stride, stride)
            moved = torch.addcmul(velocity, stride.unsqueeze(-1).to(change.dtype), change)
            velocity = torch.where(active.unsqueeze(-1), moved, velocity)
            active = active & ~arrived & torch.isfinite(size)
            self.failed = self.failed | ~torch.isfinite(size)
            if not bool(active.any()):
                break
        self.failed = self.failed | active
        self.rate = torch.ones_like(self.rate)
        return velocity


class _Root(torch.autograd.Function):
    r"""The root :math:`k = f(t, y + h \gamma k)`, differentiated as such: the gradient of `found` behind a solve.

    .. math:: \bar f = (I - h \gamma J)^{-\top}\, \bar k

    J is that of the root, so that the gradient is exact, however coarse the Jacobian was that led there.
    """

    @staticmethod
    def forward(ctx: Any, found: Tensor, t: Time, y: State, dt: Tensor, velocity: Tensor, term: Term) -> Tensor:
        root = velocity.clone()
        ctx.save_for_backward(t, y, dt, root)
        ctx.term = term
        return root

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        t, y, dt, root = ctx.saved_tensors
        (gradient,) = gradients
        stage = torch.addcmul(y, dt, root)
        with torch.no_grad():
            systems = Systems(linearise(ctx.term, t, stage).by_state, dt)
            solved = systems.solve_adjoint(gradient)
        # Where this pass is recorded, what was found does not know that its own stage moves with the root.
        solved = _Once.apply(solved, root) if torch.is_grad_enabled() else solved
        return solved, None, None, None, None, None


class _Once(torch.autograd.Function):
    """A gradient that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, root: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError(
            "second derivatives do not pass through a method that iterates (Kvaerno5, Kvaerno3, ImplicitEuler); take "
            "solver=Rodas5P(), which has them."
        )


def _rms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1) / max(x.shape[-1], 1) ** 0.5


def _per_series(tolerance: float | Tensor, y: State) -> float | Tensor:
    """One tolerance per series, `(*batch, 1)`, the strictest of its entries; or one for all."""
    if not isinstance(tolerance, Tensor):
        return tolerance
    tolerance = tolerance.to(y.real.dtype if y.is_complex() else y.dtype)
    return tolerance.amin(-1, keepdim=True) if tolerance.dim() >= y.dim() else tolerance.unsqueeze(-1)
