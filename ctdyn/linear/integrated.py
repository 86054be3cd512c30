"""Linear dynamics together with the integral of what is read from them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ._tensors import as_tensor, check_matrix, keep
from .dense import MatrixDynamics
from .dynamics import LinearDynamics


__all__ = ["IntegratedDynamics"]


class IntegratedDynamics(MatrixDynamics):
    r"""Dynamics with the running integral of some of their readings in the state: what a mean or a sum is made of.

    .. math:: d\begin{pmatrix} y \\ c \end{pmatrix} =
        \begin{pmatrix} A & 0 \\ H & 0 \end{pmatrix} \begin{pmatrix} y \\ c \end{pmatrix} dt +
        \begin{pmatrix} dW \\ 0 \end{pmatrix}

    The mean of :math:`H y` over :math:`(s, t]` is :math:`(c(t) - c(s)) / (t - s)`. An integral has no stationary
    distribution: give the initial state.

    Args:
        dynamics: the dynamics.
        H: what is integrated, `(*parameter_batch, reading, state)`.

    Raises:
        ValueError: `H` does not fit the state.

    Reference:
        Forecasting, structural time series models and the Kalman filter (section 6.3, on temporal aggregation),
        A. C. Harvey, 1989, https://doi.org/10.1017/CBO9781107049994

    Example:
        >>> from ctdyn.linear import OU
        >>> both = IntegratedDynamics(OU(rate=1.0, sigma=1.0), torch.ones(1, 1))
        >>> both.discretize(torch.tensor(2.0)).advance(torch.tensor([1.0, 0.0])).detach()
        tensor([0.1353, 0.8647])
    """

    H: Tensor

    def __init__(self, dynamics: LinearDynamics, H: Tensor) -> None:
        super().__init__(dynamics.state_size + H.shape[-2])
        check_matrix("H", as_tensor("H", H), None, dynamics.state_size)
        self.dynamics = dynamics
        keep(self, "H", H)

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        A = self.dynamics.A
        H = self.H.to(A.dtype)
        H = H.expand(*torch.broadcast_shapes(A.shape[:-2], H.shape[:-2]), *H.shape[-2:])
        return pad(torch.cat([A.expand(*H.shape[:-2], *A.shape[-2:]), H], -2), (0, H.shape[-2]))

    @property
    def S(self) -> Tensor:  # noqa: N802  # type: ignore[override]
        """The spectral density of the noise, which no integral has of its own."""
        extra = self.H.shape[-2]
        return pad(self.dynamics.density(), (0, extra, 0, extra))

    @property
    def B(self) -> Tensor | None:  # noqa: N802  # type: ignore[override]
        """The input matrix: inputs drive the dynamics alone."""
        n, extra = self.dynamics.state_size, self.H.shape[-2]
        B = self.dynamics.B
        B = torch.eye(n, dtype=self.dtype, device=self.H.device) if B is None else B
        return pad(B, (0, 0, 0, extra))
