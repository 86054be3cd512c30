"""Linear dynamics whose matrix is learned and which stay stable whatever is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dense import MatrixDynamics


__all__ = ["Stationary"]

#: The least density of the noise, in units of `rate`: without any the state would never be forgotten.
_FLOOR = 1e-3


class Stationary(MatrixDynamics):
    r"""Any stationary linear dynamics, learned: the latent dynamics of a Kalman VAE, or of a classical factor model.

    .. math:: A = K - \tfrac12 S, \qquad K = U - U^\top, \qquad S = L L^\top + \epsilon, \qquad
        A + A^\top + S = 0

    The last equation says that the state has covariance 1 in the long run, whatever :math:`U` and :math:`L` are: the
    dynamics cannot become unstable, and no Lyapunov equation is solved. Nothing is lost, because every stationary
    linear process is one of these in other coordinates, and these are the business of what reads the state (`H`).

    Args:
        size: size of the state.
        rate: how fast a state turns and forgets at the start of training, per unit of time.

    Raises:
        ValueError: `rate` is not positive.

    References:
        A Disentangled Recognition and Nonlinear Dynamics Model for Unsupervised Learning (the Kalman VAE), M. Fraccaro,
        S. Kamronn, U. Paquet, O. Winther, 2017, https://arxiv.org/abs/1710.05741

    Example:
        >>> dynamics = Stationary(3)
        >>> bool((torch.linalg.eigvals(dynamics.A).real < 0).all())
        True
        >>> residual = dynamics.A + dynamics.A.mT + dynamics.S
        >>> torch.allclose(residual, torch.zeros(3, 3), atol=1e-6)
        True
    """

    def __init__(self, size: int, *, rate: float = 1.0) -> None:
        super().__init__(size)
        if not rate > 0:
            raise ValueError(f"rate must be above 0, per unit of time; got {rate}.")
        self.rate = rate
        self.turn = nn.Parameter(torch.randn(size, size))
        self.factor = nn.Parameter(torch.eye(size))
        self.B = None

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return self.rate * (self.turn - self.turn.mT) - 0.5 * self.S

    @property
    def S(self) -> Tensor:  # noqa: N802  # type: ignore[override]
        """The spectral density of the noise."""
        eye = torch.eye(self.state_size, dtype=self.factor.dtype, device=self.factor.device)
        return self.rate * (self.factor @ self.factor.mT + _FLOOR * eye)

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`: 1 in every direction."""
        return torch.eye(self.state_size, dtype=self.factor.dtype, device=self.factor.device)

    @property
    def periods(self) -> Tensor:
        """The times of one turn of the oscillations that it holds, longest first, `(pair,)`."""
        turning = torch.linalg.eigvals(self.A).imag
        return 2.0 * torch.pi / turning[turning > 0].sort().values
