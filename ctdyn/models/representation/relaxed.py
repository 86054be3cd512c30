"""The relaxed score of deep projection networks."""

import torch
from torch import Tensor

from .base import RepresentationScore, moments


__all__ = ["RelaxedScore"]


class RelaxedScore(RepresentationScore):
    r"""The VAMP-2 score without its inverses: a lower bound that is stable to train by, and keeps features orthonormal.

    .. math:: \frac{\lVert C_{xy} \rVert_{\mathrm{HS}}^2}{\lVert C_x \rVert\, \lVert C_y \rVert}
        - \gamma \left(R(C_x) + R(C_y)\right), \qquad
        R(C) = \operatorname{tr}\left(C^2 - C - \log C\right)

    with operator norms and moments about zero, so that the constant function counts 1. `R` is least, and 0, where the
    features are orthonormal; there the score is the VAMP-2 score with the constant.

    Args:
        gamma: weight of the distance from orthonormal features.

    Raises:
        ValueError: the weight is negative.

    References:
        Learning invariant representations of time-homogeneous stochastic dynamical systems, V. R. Kostic,
        P. Novelli, R. Grazzi, K. Lounici, M. Pontil, 2024, https://arxiv.org/abs/2307.09912

    Example:
        >>> x = torch.tensor([[1.0], [-1.0]])
        >>> RelaxedScore()(x, x)
        tensor(1.)
    """

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0; got {gamma}.")
        self.gamma = gamma

    def forward(self, now: Tensor, later: Tensor) -> Tensor:
        """See `RepresentationScore.forward`."""
        C_x, C_y, C_xy = moments(now, later, centered=False)
        spectra = [torch.linalg.eigvalsh(C).clamp(min=1e-12) for C in (C_x, C_y)]
        score = C_xy.square().sum() / (spectra[0][-1] * spectra[1][-1])
        distances = [(values.square() - values - values.log()).sum() for values in spectra]
        return (score - self.gamma * (distances[0] + distances[1])).to(now.dtype)
