"""Forecasts from a memory of the signal: the dynamics are read off in context, and nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._types import Times
from ..data import Channel, IrregularBatch
from ..linear import Ramp, SeriesMemory, legs_matrices
from .baselines import Guess, HoldLast, PointBaseline


__all__ = ["HippoProphecy"]


class HippoProphecy(PointBaseline):
    r"""A forecaster without parameters: the HiPPO memory of each channel, carried on as if it were the signal.

    .. math:: \frac{dc}{dt} = \frac1t (A c + B f), \quad f \approx C c \quad\Rightarrow\quad
        \hat f(t + h) = f(t) + C \left(e^{(A + B C) \log(1 + h / t)} - 1\right) c(t)

    The memory says how it changes with the signal, and what the signal is: together they say how the signal goes on.
    For a short horizon this is the paper's :math:`f + h f'` with :math:`f' = \frac1t C (A c + B f)`; here the equation
    is solved, so that a polynomial of a degree below `size` is continued exactly. With the size grow the powers of time
    at which an error grows: take a small one, and do not look far.

    Within the context it reads the memory. Intervals come from training residuals, as for the other point baselines.

    Args:
        channels: what is observed, in the order of the last axis of the values.
        size: coefficients per channel.

    Raises:
        ValueError: the size is below 1.

    Reference:
        HiPPO-Prophecy: State-Space Models can Provably Learn Dynamical Systems in Context, F. Arangath Joseph,
        K. K. Haefeli, N. Liniger, C. Gulcehre, 2024, https://arxiv.org/abs/2407.09375

    Example:
        >>> times = torch.tensor([[0.0, 0.2, 0.5, 1.0]], dtype=torch.float64)
        >>> context = IrregularBatch(times, 3 * times[..., None], torch.ones(1, 4, 1, dtype=torch.bool))
        >>> model = HippoProphecy([Channel("x")], size=2).double()
        >>> model.predict(context, torch.tensor([[1.5]], dtype=torch.float64)).mean.round(decimals=3)
        tensor([[[4.5000]]], dtype=torch.float64)
    """

    def __init__(self, channels: Sequence[Channel], size: int = 3) -> None:
        super().__init__(channels)
        self.memory = SeriesMemory(size, hold=Ramp())
        self.held = HoldLast(channels)

    def guess(self, context: IrregularBatch, ts: Times) -> Guess:
        """See `PointBaseline.guess`."""
        held = self.held.guess(context, ts)
        if not context.mask.any():
            return held
        coefficients, start, end, last = self._remembered(context)
        times = ts.to(torch.float64)[..., None]
        span = end - start
        known = span > 0
        share = ((times - start) / torch.where(known, span, 1.0)).movedim(-1, -2)
        inside = self._read(coefficients, share.clamp(0.0, 1.0))
        # An exponential per time is dear: within the context there is none.
        ahead = share > 1.0
        remembered = coefficients[..., None, :].expand(*share.shape, self.memory.size)[ahead]
        change = torch.zeros_like(share).masked_scatter(ahead, self._continued(remembered, share[ahead]))
        beyond = last[..., None] + change
        value = torch.where(ahead, beyond, inside).movedim(-2, -1).to(held.value.dtype)
        # Before its first observation, and where there is only one, a channel is held.
        return Guess(torch.where(known & (times >= start), value, held.value), held.distance)

    def _remembered(self, context: IrregularBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coefficients at each channel's last observation, its first and last time, and its last value."""
        wide = IrregularBatch(context.times.to(torch.float64), context.values.to(torch.float64), context.mask)
        rows = torch.arange(context.mask.shape[-2], device=context.mask.device)[:, None]
        latest = torch.where(wide.mask, rows, 0).amax(-2, keepdim=True)
        found = self.memory(wide)
        picked = found.gather(-3, latest[..., None].expand(*latest.shape, found.shape[-1])).squeeze(-3)
        times = wide.times[..., None].expand(wide.values.shape)
        end = times.gather(-2, latest)
        start = torch.where(wide.mask, times, torch.inf).amin(-2, keepdim=True)
        start = torch.where(start.isinf(), end, start)
        return picked, start, end, wide.values.gather(-2, latest).squeeze(-2)

    def _read(self, coefficients: Tensor, share: Tensor) -> Tensor:
        return (self.memory.dynamics.basis(share) * coefficients[..., None, :]).sum(-1)

    def _continued(self, coefficients: Tensor, growth: Tensor) -> Tensor:
        """The change of the signal from now on, where the past grows by these factors, `(query,)`."""
        A, B = (matrix.to(growth) for matrix in legs_matrices(self.memory.size))
        # Triangular, with 0 ... n - 1 on its diagonal: the powers of time.
        flow = torch.linalg.matrix_exp((A + B @ B.mT) * growth.log()[..., None, None].contiguous())
        change = flow - torch.eye(len(A), dtype=flow.dtype, device=flow.device)
        return (change * coefficients[..., None, :] * B).sum((-1, -2))
