"""A linear-Gaussian model over the times of a batch, and what the filter and the smoother make of it."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..nn import all_finite
from ._conditioning import smoothed, smoothed_covariance
from ._gains import gains
from ._kalman import Steps, kalman_filter
from ._matrix_scan import matrix_recurrence


__all__ = ["Chain", "Solved"]

#: Of a variance that is zero but for rounding, relative to the largest.
_TOLERANCE = 1e-9


class Chain(NamedTuple):
    r"""A linear-Gaussian model written out over given steps; for transitions that come from anywhere.

    .. math:: x_k = F_k x_{k-1} + b_k + \epsilon_k, \quad \epsilon_k \sim N(0, Q_k); \qquad
        y_k = H_k x_k + \eta_k, \quad \eta_k \sim N(0, 1)

    `LinearGaussian.chain` makes one from dynamics and times. Filters that learn their transitions make their own.

    Args:
        F: transitions, `(*batch, time, n, n)`, float64 as all others.
        b: what is added, `(*batch, time, n)`.
        Q: covariances of the noise, `(*batch, time, n, n)`.
        H: rows that are observed, divided by the standard deviation of their noise, `(*batch, time, channel, n)`; zeros
            where a channel is missing.
        y: observations, divided likewise, `(*batch, time, channel)`; zero where missing.
        nats: what is added to the log-likelihood, `(*batch, time)`: minus the logarithm of the standard deviations
            times the root of 2 pi.
        m0: mean before the first step, `(*batch, n)`.
        P0: covariance before the first step, `(*batch, n, n)`.

    Example:
        >>> one = torch.ones(3, 1, 1, dtype=torch.float64)
        >>> zero = torch.zeros(3, 1, dtype=torch.float64)
        >>> chain = Chain(one, zero, 0 * one, one, zero + 2.0, zero[:, 0], zero[0], one[0])
        >>> mean, covariance, nats = chain.filter()
        >>> mean.flatten(), covariance.flatten()
        (tensor([1.0000, 1.3333, 1.5000], dtype=torch.float64), tensor([0.5000, 0.3333, 0.2500], dtype=torch.float64))
    """

    F: Tensor
    b: Tensor
    Q: Tensor
    H: Tensor
    y: Tensor
    nats: Tensor
    m0: Tensor
    P0: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes, of series and parameters together."""
        kept = {"F": 3, "b": 2, "Q": 3, "H": 3, "y": 2, "nats": 1, "m0": 1, "P0": 2}
        return torch.broadcast_shapes(*(x.shape[: x.dim() - kept[name]] for name, x in self._asdict().items()))

    def filter(self, *, chunks: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Distributions of the states given the observations up to each time.

        Args:
            chunks: pieces of a series that are filtered side by side; 1 goes step by step; None picks what is fastest.

        Returns:
            Means `(*batch, time, n)`, covariances `(*batch, time, n, n)`, and nats, `(*batch, time)`, whose sum is the
            log-likelihood.

        Raises:
            ValueError: sizes do not fit, something is not finite, or a variance is negative. That the covariances are
                positive semi-definite is not looked at beyond that: it would cost as much as the filter.
        """
        self._check()
        shape, n = self.batch_shape, self.m0.shape[-1]
        given = [_lanes(x, shape) for x in (self.F, self.b[..., None], self.Q, self.H, self.y[..., None])]
        m0, P0 = self.m0.expand(*shape, n).reshape(-1, n, 1), self.P0.expand(*shape, n, n).reshape(-1, n, n)
        found = kalman_filter(Steps(given[0], given[1], given[2], given[3], given[4], m0, P0), chunks)
        mean, P, nats = (x.transpose(0, 1).unflatten(0, shape) if shape else x.squeeze(1) for x in found)
        return mean.squeeze(-1), P, nats + self.nats

    def solve(self, *, chunks: int | None = None) -> Solved:
        """The filter, and what the smoother makes of it where that is asked for: one run for all questions.

        Args:
            chunks: as in `filter`.

        Returns:
            What the filter found.
        """
        return Solved(self, *self.filter(chunks=chunks))

    def _check(self) -> None:
        n, channels = self.m0.shape[-1:], self.y.shape[-1:]
        trailing = {"F": n + n, "b": n, "Q": n + n, "H": channels + n, "y": channels, "nats": (), "m0": n, "P0": n + n}
        for name, x in self._asdict().items():
            own = trailing[name]
            if x.dtype != torch.float64 or x.shape[x.dim() - len(own) :] != torch.Size(own):
                raise ValueError(
                    f"{name} must be float64 and end in axes {tuple(own)}; got {tuple(x.shape)} of {x.dtype}."
                )
            if not all_finite(x):
                cure = (
                    "where nothing was observed, y and H are zero"
                    if name in ("H", "y", "nats")
                    else "dynamics that are not stable overflow over a long gap; or a parameter has run off"
                )
                raise ValueError(f"{name} holds NaN or infinite entries; {cure}.")
        lengths = {
            name: getattr(self, name).shape[-1 - len(trailing[name])] for name in ("F", "b", "Q", "H", "y", "nats")
        }
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise ValueError(f"the parts of a chain must have as many times, (*batch, time, ...); got {listed}.")
        for name, x in (("Q", self.Q), ("P0", self.P0)):
            variances = x.detach().diagonal(dim1=-2, dim2=-1)
            if variances.numel() and bool(variances.amin() < -_TOLERANCE * variances.abs().amax()):
                raise ValueError(
                    f"{name} has a negative variance, {float(variances.amin()):.3g}: a covariance must be positive "
                    "semi-definite (PSD). Build it as L @ L.mT."
                )


class Solved:
    """What the filter found along a chain, and the smoother behind it; what several questions need is made once.

    Args:
        chain: the model.
        mean: filtered means, `(*batch, time, n)`.
        covariance: filtered covariances, `(*batch, time, n, n)`.
        nats: what each time adds to the log-likelihood, `(*batch, time)`.

    Example:
        >>> one = torch.ones(2, 1, 1, dtype=torch.float64)
        >>> zero = torch.zeros(2, 1, dtype=torch.float64)
        >>> solved = Chain(one, zero, 0 * one, one, zero + 2.0, zero[:, 0], zero[0], one[0]).solve()
        >>> solved.smooth()[0].flatten(), solved.correction(zero + 2.0).flatten()
        (tensor([1.3333, 1.3333], dtype=torch.float64), tensor([1.3333, 1.3333], dtype=torch.float64))
    """

    def __init__(self, chain: Chain, mean: Tensor, covariance: Tensor, nats: Tensor) -> None:
        self.chain = chain
        self.mean = mean
        self.covariance = covariance
        self.nats = nats

    def smooth(self) -> tuple[Tensor, Tensor, Tensor]:
        """Distributions of the states given all observations.

        Returns:
            Means `(*batch, time, n)`, covariances `(*batch, time, n, n)`, and covariances of each state with the one
            before it, `(*batch, time - 1, n, n)`.
        """
        gain, left = self._back
        covariance = smoothed_covariance(left, gain)
        cross = covariance[..., 1:, :, :] @ gain[..., :-1, :, :].mT
        return self._smoothed(self.mean, self.chain.b), covariance, cross

    def correction(self, surprise: Tensor) -> Tensor:
        """What the smoother makes of surprises: states that start at zero, are not driven, and share their covariances.

        Args:
            surprise: differences from what was expected, `(*more, *batch, time, channel)`; zero where missing.

        Returns:
            Smoothed means, `(*more, *batch, time, n)`.
        """
        gain = self._gain()
        eye = torch.eye(gain.shape[-2], dtype=gain.dtype, device=gain.device)
        moved = (eye - gain @ self.chain.H) @ self.chain.F
        return self._smoothed(matrix_recurrence(moved, (gain @ surprise[..., None]).squeeze(-1)))

    def _smoothed(self, mean: Tensor, driven: Tensor | None = None) -> Tensor:
        """Means given all observations, from those given the observations up to each time."""
        ahead = (self.chain.F[..., 1:, :, :] @ mean[..., :-1, :, None]).squeeze(-1)
        ahead = ahead if driven is None else ahead + driven[..., 1:, :]
        return smoothed(mean, self._back[0], torch.cat([ahead, torch.zeros_like(mean[..., -1:, :])], -2))

    @cached_property
    def _back(self) -> tuple[Tensor, Tensor]:
        """Smoother gains and what is left, `(*batch, time, n, n)`; at the end zero, and the filtered covariance."""
        F, Q, P = self.chain.F, self.chain.Q, self.covariance
        gain, left = gains(P[..., :-1, :, :], F[..., 1:, :, :], Q[..., 1:, :, :])
        last = P[..., -1:, :, :]
        return torch.cat([gain, torch.zeros_like(last)], -3), torch.cat([left, last], -3)

    def _gain(self) -> Tensor:
        """Kalman gains, `(*batch, time, n, channel)`."""
        F, Q, H, P0, P = self.chain.F, self.chain.Q, self.chain.H, self.chain.P0, self.covariance
        start = P0.expand(*P.shape[:-3], *P0.shape[-2:])[..., None, :, :]
        ahead = F @ torch.cat([start, P[..., :-1, :, :]], -3) @ F.mT + Q
        # From the prediction: precise observations leave a covariance that is small against its own rounding.
        noise = torch.eye(H.shape[-2], dtype=P.dtype, device=P.device)
        return gains(ahead, H, noise)[0]


def _lanes(x: Tensor, shape: torch.Size) -> Tensor:
    """`(*batch, time, row, column)` as `(time, lane, row, column)`."""
    return x.expand(*shape, *x.shape[-3:]).reshape(-1, *x.shape[-3:]).transpose(0, 1)
