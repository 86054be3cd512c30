"""The linear map between states a step apart: dynamic mode decomposition."""

from __future__ import annotations

import torch
from torch import Tensor


__all__ = ["fit_transition"]


def fit_transition(now: Tensor, later: Tensor, *, ridge: float = 1e-6) -> Tensor:
    r"""The matrix that best carries states to those a step later; its eigenvalues are those of the dynamics.

    .. math:: K = \operatorname*{argmin}_K \frac{1}{n} \sum_i \lVert y_i - K x_i \rVert^2
        + \epsilon\, \frac{\operatorname{tr} C_x}{d} \lVert K \rVert_F^2, \qquad
        C_x = \frac{1}{n} \sum_i x_i x_i^\top

    A continuous-time eigenvalue is :math:`\log(\mu) / \Delta` of an eigenvalue :math:`\mu` of this matrix, for steps of
    length :math:`\Delta`. Computed in float64, with gradients.

    Args:
        now: states, or features of them, `(pair, state)`.
        later: what they become, `(pair, feature)`.
        ridge: :math:`\epsilon`, a share of the mean square of the states.

    Returns:
        The matrix, `(feature, state)`, float64.

    Raises:
        ValueError: the shapes do not fit, there are no pairs, or the ridge is negative.

    References:
        Dynamic mode decomposition of numerical and experimental data, P. J. Schmid, 2010,
        https://doi.org/10.1017/S0022112010001217

    Example:
        >>> states = torch.eye(2)
        >>> fit_transition(states, states @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), ridge=0.0)
        tensor([[ 0., -1.],
                [ 1.,  0.]], dtype=torch.float64)
    """
    if now.dim() != 2 or later.dim() != 2 or len(now) != len(later) or len(now) < 1:
        raise ValueError(
            f"now and later must be (pair, state) with as many pairs; got {tuple(now.shape)} and {tuple(later.shape)}."
        )
    if not ridge >= 0:
        raise ValueError(f"ridge must be at least 0; got {ridge}.")
    x, y = now.double(), later.double()
    covariance = x.mT @ x / len(x)
    diagonal = ridge * covariance.diagonal().mean() * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(covariance + diagonal, x.mT @ y / len(x)).mT
