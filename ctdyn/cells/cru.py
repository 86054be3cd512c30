"""The cell of the continuous recurrent unit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._types import Inputs, State, Time
from ..linear._exponentials import exponentials, noise_integrals
from ..nn import MLP
from .base import Cell


__all__ = ["CRUCell"]

#: Added to the diagonal before a covariance is factorised, relative to 1.
_JITTER = 1e-6


class CRUCell(Cell):
    r"""A Kalman filter on a learned latent state: it knows how sure it is, and forgets at the pace of its noise.

    .. math::
        dz = A(m)\,z\,dt + G\,dW, \quad A(m) = \sum_k \alpha_k(m)\,A_k, \qquad
        y = \mathrm{enc}(x), \quad y \sim \mathcal{N}\big([I, 0]\,z, \operatorname{diag} r(x)\big)

    Between observations mean and covariance of z follow the linear equation exactly, with the matrix at the mean
    :math:`m` of where the interval begins; an observation is a Kalman update with a noise that its encoder chooses. The
    basis matrices are skew-symmetric minus a positive diagonal, so that every mixture of them is stable (those of the
    paper are free, and its covariances are cut back to three diagonals). The hidden state holds the mean and, as the
    difference to the identity, a factor of the covariance; `read` gives the mean and the logarithms of the variances.

    Args:
        num_channels: how many channels are observed.
        features: size of `y`; z has twice as many entries, as positions and velocities have.
        basis: number of matrices :math:`A_k`.
        hidden: hidden layers of the encoder of observations.

    References:
        Modeling Irregular Time Series with Continuous Recurrent Units, M. Schirmer, M. Eltayeb, S. Lessmann,
        M. Rudolph, 2022, https://arxiv.org/abs/2111.11344

    Example:
        >>> cell = CRUCell(num_channels=2, features=3)
        >>> h = cell.update(torch.zeros(1, cell.hidden_size), torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool))
        >>> later = cell.evolve(h, t0=torch.zeros(1), t1=torch.ones(1))
        >>> cell.read(later).shape
        torch.Size([1, 12])
    """

    driven = False
    #: The matrix is that of the mean at the start of each interval.
    is_flow = False

    def __init__(self, num_channels: int, features: int = 8, basis: int = 8, hidden: Sequence[int] = (32,)) -> None:
        size = 2 * features
        super().__init__(num_channels, size + size * size)
        self.features, self.size = features, size
        self.encoder = MLP(2 * num_channels, 2 * features, hidden)
        self.mixture = nn.Linear(size, basis)
        self.turn = nn.Parameter(torch.randn(basis, size, size) / size**0.5)
        self.raw_decay = nn.Parameter(torch.empty(basis, size).uniform_(-4.0, 0.0))
        self.raw_noise = nn.Parameter(torch.zeros(size))

    @property
    def read_size(self) -> int:
        """See `Cell.read_size`."""
        return 2 * self.size

    def read(self, h: State) -> Tensor:
        """See `Cell.read`: the mean, and the logarithm of each variance."""
        mean, factor = self._split(h)
        return torch.cat([mean, factor.square().sum(-1).clamp(min=_JITTER).log()], -1)

    def evolve(self, h: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """See `Cell.evolve`; a step backwards in time covers the same gap. Inputs are not used."""
        self._check(h)
        mean, factor = self._split(h)
        share = torch.softmax(self.mixture(mean), -1)
        basis = self.turn - self.turn.mT - torch.diag_embed(softplus(self.raw_decay))
        A = torch.einsum("...k,kij->...ij", share, basis)
        gap = (t1 - t0).abs().to(h.dtype).expand(mean.shape[:-1])[..., None]
        S = torch.diag_embed(softplus(self.raw_noise))
        transition, gathered = exponentials(A, gap, 0)[0].squeeze(-3), noise_integrals(A, S, gap).squeeze(-3)
        moved = transition @ factor
        mean = (transition @ mean.unsqueeze(-1)).squeeze(-1)
        return torch.where(gap == 0, h, self._joined(mean, moved @ moved.mT + gathered))

    def update(self, h: State, x: Tensor, mask: Tensor) -> State:
        """See `Cell.update`."""
        self._check(h, x, mask)
        mean, factor = self._split(h)
        seen = torch.cat([torch.where(mask, x, 0.0), mask.to(h.dtype).expand(x.shape)], -1)
        y, raw = self.encoder(seen).chunk(2, -1)
        R = torch.diag_embed(softplus(raw) + 1e-3)
        P = factor @ factor.mT
        gain = torch.linalg.solve(P[..., : self.features, : self.features] + R, P[..., : self.features, :]).mT
        mean = mean + (gain @ (y - mean[..., : self.features]).unsqueeze(-1)).squeeze(-1)
        kept = torch.eye(self.size, dtype=h.dtype, device=h.device).expand(P.shape).clone()
        kept[..., : self.features] = kept[..., : self.features] - gain
        # The form that stays positive under rounding.
        P = kept @ P @ kept.mT + gain @ R @ gain.mT
        return torch.where(mask.any(-1, keepdim=True), self._joined(mean, P), h)

    def _split(self, h: State) -> tuple[Tensor, Tensor]:
        mean, rest = h[..., : self.size], h[..., self.size :].unflatten(-1, (self.size, self.size))
        return mean, rest + torch.eye(self.size, dtype=h.dtype, device=h.device)

    def _joined(self, mean: Tensor, P: Tensor) -> Tensor:
        identity = torch.eye(self.size, dtype=P.dtype, device=P.device)
        factor = torch.linalg.cholesky(0.5 * (P + P.mT) + _JITTER * identity)
        return torch.cat([mean, (factor - identity).flatten(-2)], -1)
