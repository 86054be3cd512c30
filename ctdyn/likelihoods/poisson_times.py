"""When observations are made, as something that tells about the latent state."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn

from .._config import Configurable
from ..nn import MLP


__all__ = ["PoissonTimes"]

#: The logarithm of an intensity, in units of the typical one, beyond which it grows no longer exponentially.
_STEEP = 6.0


class PoissonTimes(nn.Module, Configurable):
    r"""Observation times as an inhomogeneous Poisson process whose intensity depends on the latent state.

    .. math:: \log p(t_1, \dots, t_n) = \sum_i \log \lambda(z(t_i)) - \int_a^b \lambda(z(\tau))\,d\tau, \qquad
              \log \lambda(z) = \log \lambda_0 + \sigma(g(z))

    For series that are measured when something happens: a patient who is worse is seen more often. The logarithm
    :math:`\sigma(x)` is `x` up to a factor of 400, beyond which the intensity grows linearly and no longer
    exponentially, so that a stray latent state cannot make it overflow.

    Args:
        latent_size: size of the latent state.
        hidden: hidden layers of the network `g`; empty for an affine map.
        rate: :math:`\lambda_0`, the typical number of observation times per unit of the model's clock; it is learned
            from there.

    Raises:
        ValueError: `rate` is not positive.

    References:
        Latent ODEs for Irregularly-Sampled Time Series, Rubanova, Chen, Duvenaud, 2019.
        https://arxiv.org/abs/1907.03907

    Example:
        >>> arrivals = PoissonTimes(latent_size=2, rate=20.0)
        >>> arrivals(torch.zeros(3, 5), torch.zeros(3, 5, 2)).shape
        torch.Size([3, 5, 1])
    """

    def __init__(self, latent_size: int, hidden: Sequence[int] = (), rate: float = 10.0) -> None:
        super().__init__()
        if not rate > 0:
            raise ValueError(f"rate, the observation times per unit of the clock, must be above 0; got {rate}.")
        self.latent_size = latent_size
        self.net = MLP(latent_size, 1, hidden)
        self.log_rate = nn.Parameter(torch.tensor(log(rate)))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """The intensity, per unit of time, `(..., 1)`; it does not depend on the times `(...)` but through the state.

        Args:
            t: times, `(...)`.
            z: latent states at them, `(..., latent)`.
        """
        return self.log_intensity(z).exp().unsqueeze(-1)

    def log_intensity(self, z: Tensor) -> Tensor:
        """The logarithm of the intensity at latent states `(..., latent)`, `(...)`."""
        x = self.net(z).squeeze(-1)
        excess = (x - _STEEP).clamp(min=0.0)
        return self.log_rate + x.clamp(max=_STEEP) + torch.log1p(excess)

    def log_prob(self, z: Tensor, seen: Tensor, compensator: Tensor) -> Tensor:
        """The log density of observation times given trajectories, in nats.

        Args:
            z: latent states at the times, `(sample, *batch, time, latent)`.
            seen: True at times that count, `(*batch, time)`.
            compensator: the integral of the intensity over the interval in which they fall, `(sample, *batch)`.

        Returns:
            `(sample, *batch)`.
        """
        return torch.where(seen, self.log_intensity(z), 0.0).sum(-1) - compensator

    @staticmethod
    def interval(
        target: tuple[Tensor, Tensor], context: tuple[Tensor, Tensor], t0: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """In which interval the observation times of a window fall: behind the context, or all of the series.

        Where a target lies among the rows of its context, both are observation times of one series, and all count.

        Args:
            target: times of the target, and where they are observation times, and not padding, `(*batch, time)` each.
            context: the same for the context.
            t0: where the latent state begins, `(*batch,)`.

        Returns:
            Beginning and end of the interval, `(*batch,)` each, and which times of target and context, one behind the
            other, count in it.
        """
        (later, asked), (earlier, shown) = target, context
        last = torch.where(shown, earlier, -torch.inf).amax(-1).maximum(t0)
        first = torch.where(asked, later, torch.inf).amin(-1)
        begin = torch.where(last < first, last, t0)
        twice = ((earlier.unsqueeze(-1) == later.unsqueeze(-2)) & asked.unsqueeze(-2)).any(-1)
        times, observed = torch.cat([later, earlier], -1), torch.cat([asked, shown & ~twice], -1)
        end = torch.maximum(torch.where(observed, times, -torch.inf).amax(-1), begin)
        return begin, end, observed & (times > begin.unsqueeze(-1))
