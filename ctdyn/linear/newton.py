"""Nonlinear recurrences in parallel over time: Newton's method, whose every iteration is one linear scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import check_count
from ..nn import all_finite
from ._matrix_scan import matrix_recurrence
from ._rows import pull_rows
from ._tensors import shared_batch
from .recurrence import linear_recurrence


__all__ = ["NewtonScan", "NonlinearScan", "nonlinear_recurrence"]


@dataclass(frozen=True)
class NewtonScan:
    r"""How a nonlinear recurrence is solved for all times at once.

    .. math:: h_k \leftarrow J_k h_{k-1} + f(h'_{k-1}, x_k) - J_k h'_{k-1}, \qquad
              J_k = (1 - d)\, \frac{\partial f}{\partial h}(h'_{k-1}, x_k)

    where :math:`h'` is the guess before. A recurrence that forgets (a contracting one) takes a few iterations whatever
    its length; a chaotic one takes as many as it has steps, and is better run step by step. The damping :math:`d` is
    raised for a series whose guess runs away; the fixed point does not depend on it.

    Args:
        max_iterations: series that have not converged by then are run step by step.
        tolerance: largest change, relative to 1 plus the size of the state, that counts as converged; None: 1e-10 in
            float64, 1e-5 in float32.
        diagonal: use the diagonals of the derivatives alone: more iterations, each much cheaper for large states.
        damping: where the damping starts, from 0 (Newton) to below 1.

    Raises:
        ValueError: a number is out of its range.

    References:
        Parallelizing non-linear sequential models over the sequence length, Y. H. Lim, Q. Zhu, J. Selfridge, M. F.
        Kasim, 2024, https://arxiv.org/abs/2309.12252
        Towards Scalable and Stable Parallelization of Nonlinear RNNs, X. Gonzalez, A. Warrington, J. T. H. Smith, S. W.
        Linderman, 2024, https://arxiv.org/abs/2407.19115

    Example:
        >>> NewtonScan(diagonal=True).max_iterations
        50
    """

    max_iterations: int = 50
    tolerance: float | None = None
    diagonal: bool = False
    damping: float = 0.0

    def __post_init__(self) -> None:
        check_count("max_iterations", self.max_iterations)
        if self.tolerance is not None and not self.tolerance > 0.0:
            raise ValueError(f"tolerance must be positive; got {self.tolerance}.")
        if not 0.0 <= self.damping < 1.0:
            raise ValueError(f"damping must be at least 0 and below 1; got {self.damping}.")


class NonlinearScan(NamedTuple):
    """The states of a nonlinear recurrence, and how they were found.

    Args:
        hs: states, `(*batch, time, state)`.
        iterations: Newton iterations of each series, `(*batch,)`.
        sequential: whether a series did not converge and was run step by step, `(*batch,)`.

    Example:
        >>> NonlinearScan._fields
        ('hs', 'iterations', 'sequential')
    """

    hs: Tensor
    iterations: Tensor
    sequential: Tensor


def nonlinear_recurrence(
    step: Callable[[Tensor, Tensor], Tensor],
    h0: Tensor,
    xs: Tensor,
    *,
    guess: Tensor | None = None,
    method: NewtonScan | None = None,
) -> NonlinearScan:
    r"""All states of a nonlinear recurrence, by repeated linear scans.

    .. math:: h_k = f(h_{k-1}, x_k), \qquad k = 1 \dots L

    Gradients to whatever `f` uses are exact: the derivative of the recurrence is one more linear scan, however the
    states were found, and no iteration is stored. Second derivatives are not those of the recurrence.

    Args:
        step: `f(h, x)`, of all times at once: `(*batch, time, state)` and `(*batch, time, input)` to
            `(*batch, time, state)`. Times and series never mix in it.
        h0: states before the first step, `(*batch, state)`.
        xs: inputs, `(*batch, time, input)`.
        guess: states to start from, `(*batch, time, state)`; None: `h0` at all times.
        method: how to solve; default `NewtonScan()`.

    Returns:
        The states and how they were found.

    Raises:
        ValueError: shapes do not fit, the step returns another shape, or `h0`, `xs` or `guess` is not finite.

    Example:
        >>> xs = torch.linspace(-1.0, 1.0, 1000, dtype=torch.float64).reshape(1, -1, 1)
        >>> found = nonlinear_recurrence(lambda h, x: torch.tanh(0.5 * h + x), xs.new_zeros(1, 1), xs)
        >>> int(found.iterations) < 10, bool(found.sequential)
        (True, False)
    """
    method = NewtonScan() if method is None else method
    if xs.dim() < 2 or h0.dim() < 1:
        raise ValueError(
            f"h0 must be (*batch, state) and xs (*batch, time, input); got {tuple(h0.shape)} and {tuple(xs.shape)}."
        )
    batch = shared_batch({"h0": h0.shape[:-1], "xs": xs.shape[:-2]})
    shape = (*batch, xs.shape[-2], h0.shape[-1])
    h0 = h0.expand(*batch, h0.shape[-1])
    if guess is not None and guess.shape != shape:
        raise ValueError(f"guess must be (*batch, time, state), {tuple(shape)}; got {tuple(guess.shape)}.")
    for name, given in (("h0", h0), ("xs", xs), ("guess", guess)):
        if given is not None and not all_finite(given):
            raise ValueError(f"{name} holds NaN or infinite entries, from which no iteration recovers; fill them in.")
    with torch.no_grad():
        start = h0.unsqueeze(-2).expand(shape) if guess is None else guess
        found = _Newton(step, h0.detach(), xs.detach(), method).run(start.detach())
    return found._replace(hs=_attach(step, h0, xs, found.hs)) if torch.is_grad_enabled() else found


class _Newton:
    """The iteration: a guess of all states, improved by one linear scan at a time."""

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor], h0: Tensor, xs: Tensor, method: NewtonScan) -> None:
        self.step, self.h0, self.xs, self.method = step, h0, xs, method
        usual = 1e-10 if h0.dtype.to_real() == torch.float64 else 1e-5
        self.tolerance = usual if method.tolerance is None else method.tolerance

    def run(self, hs: Tensor) -> NonlinearScan:
        batch = hs.shape[:-2]
        iterations = torch.zeros(batch, dtype=torch.int64, device=hs.device)
        running = torch.ones(batch, dtype=torch.bool, device=hs.device)
        damping = hs.new_full((*batch, 1, 1), self.method.damping, dtype=hs.dtype.to_real())
        least = torch.full_like(damping[..., 0, 0], torch.inf)
        for _ in range(self.method.max_iterations):
            value, new = self._improve(hs, damping)
            # By the recurrence itself and not by the last change: a damped iteration creeps before it arrives.
            gap = ((value - hs).abs() / (1.0 + hs.abs())).amax((-2, -1)) if hs.numel() else torch.zeros_like(least)
            running = running & ~(gap <= self.tolerance)
            if not bool(running.any()):
                break
            wild = running & (~torch.isfinite(new).all(-1).all(-1) | (gap > 1e3 * least))
            damping = torch.where(wild[..., None, None], 0.5 + 0.5 * damping, damping)
            least = torch.where(torch.isfinite(gap), torch.minimum(least, gap), least)
            iterations = iterations + running
            restarted = torch.where(torch.isfinite(value), value, self.h0.unsqueeze(-2))
            hs = torch.where(running[..., None, None], torch.where(wild[..., None, None], restarted, new), hs)
        else:
            value = self.step(_before(self.h0, hs), self.xs)
            running = running & ~(((value - hs).abs() / (1.0 + hs.abs())).amax((-2, -1)) <= self.tolerance)
        if bool(running.any()):
            hs = torch.where(running[..., None, None], _one_by_one(self.step, self.h0, self.xs), hs)
        return NonlinearScan(hs, iterations, running)

    def _improve(self, hs: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
        """What the recurrence makes of the guess, and a better guess."""
        before = _before(self.h0, hs)
        value, slope = _linearise(self.step, before, self.xs)
        if self.method.diagonal:
            slope = slope.diagonal(dim1=-2, dim2=-1) * (1.0 - damping)
            return value, linear_recurrence(slope.contiguous(), value - slope * before, self.h0)
        slope = slope * (1.0 - damping[..., None])
        rest = value - (slope @ before.unsqueeze(-1)).squeeze(-1)
        return value, matrix_recurrence(slope, rest, self.h0)


def _before(h0: Tensor, hs: Tensor) -> Tensor:
    """The state that each step starts from."""
    return torch.cat([h0.unsqueeze(-2), hs], -2)[..., :-1, :]


def _linearise(step: Callable[[Tensor, Tensor], Tensor], h: Tensor, xs: Tensor) -> tuple[Tensor, Tensor]:
    """The step at all times and its derivatives by the state, `(*batch, time, state, state)`, without a graph."""
    with torch.inference_mode(False), torch.enable_grad():
        at = h.detach().clone().requires_grad_()
        value = step(at, xs)
        if value.shape != h.shape:
            raise ValueError(
                f"the step must return the next states, {tuple(h.shape)}; got {tuple(value.shape)}. It is called for "
                "all times at once."
            )
        size = h.shape[-1]
        if not value.requires_grad:
            return value.detach(), value.new_zeros(*h.shape, size)
        rows = torch.eye(size, dtype=value.dtype, device=value.device)
        rows = rows.reshape(size, *[1] * (h.dim() - 1), size).expand(size, *h.shape)
        (slope,) = pull_rows(value, (at,), rows)
    slope = rows.new_zeros(rows.shape) if slope is None else slope
    return value.detach(), torch.movedim(slope, 0, -2).detach()


def _one_by_one(step: Callable[[Tensor, Tensor], Tensor], h0: Tensor, xs: Tensor) -> Tensor:
    h, hs = h0.unsqueeze(-2), []
    for x in xs.split(1, -2):
        h = step(h, x)
        hs.append(h)
    return torch.cat(hs, -2)


def _attach(step: Callable[[Tensor, Tensor], Tensor], h0: Tensor, xs: Tensor, hs: Tensor) -> Tensor:
    """The same states, and their gradients: one Newton iteration from a solution is that solution."""
    before = _before(h0.detach(), hs)
    value = step(before, xs)
    if not (value.requires_grad or h0.requires_grad):
        return hs
    _, slope = _linearise(step, before, xs.detach())
    rest = value - (slope @ before.unsqueeze(-1)).squeeze(-1)
    return matrix_recurrence(slope, rest, h0)
