"""The VAMP-2 score."""

import torch
from torch import Tensor

from .base import RepresentationScore, moments


__all__ = ["VAMPScore"]


class VAMPScore(RepresentationScore):
    r"""How much of the future the features know: the sum of the squared singular values of the dynamics in them.

    .. math:: \left\lVert C_x^{-1/2} C_{xy}\, C_y^{-1/2} \right\rVert_{\mathrm{HS}}^2

    with covariances about the mean, so that the constant, which every system keeps, does not count. It is invariant to
    linear maps of the features, at most their number, and greatest where they span the leading singular functions of
    the transfer operator: for a reversible process its slowest modes.

    Args:
        ridge: what is added to the covariances before they are inverted, as a share of their mean diagonal.

    Raises:
        ValueError: the ridge is not positive.

    References:
        VAMPnets for deep learning of molecular kinetics, A. Mardt, L. Pasquali, H. Wu, F. Noe, 2018,
        https://arxiv.org/abs/1710.06012
        Learning invariant representations of time-homogeneous stochastic dynamical systems, V. R. Kostic,
        P. Novelli, R. Grazzi, K. Lounici, M. Pontil, 2024, https://arxiv.org/abs/2307.09912

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> later = 0.6 * x + 0.8 * torch.randn(1000, 1, generator=torch.Generator().manual_seed(1))
        >>> bool((VAMPScore()(x, later) - 0.36).abs() < 0.05)
        True
    """

    def __init__(self, ridge: float = 1e-6) -> None:
        super().__init__()
        if not ridge > 0:
            raise ValueError(f"ridge must be above 0; got {ridge}.")
        self.ridge = ridge

    def forward(self, now: Tensor, later: Tensor) -> Tensor:
        """See `RepresentationScore.forward`."""
        C_x, C_y, C_xy = moments(now, later, centered=True)
        forward = torch.cholesky_solve(C_xy, self._factor(C_x))
        backward = torch.cholesky_solve(C_xy.mT, self._factor(C_y))
        return (forward * backward.mT).sum().to(now.dtype)

    def _factor(self, C: Tensor) -> Tensor:
        diagonal = self.ridge * C.diagonal().mean().clamp(min=1e-300)
        return torch.linalg.cholesky(C + diagonal * torch.eye(C.shape[-1], dtype=C.dtype, device=C.device))
