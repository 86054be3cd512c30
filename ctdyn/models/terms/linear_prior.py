"""The penalty of a prior for not being linear."""

import torch
from torch import Generator, Tensor

from ...linear import fit_transition
from ...processes import LatentProcess
from .base import Inference, LossTerm


__all__ = ["LinearPriorPenalty"]


class LinearPriorPenalty(LossTerm):
    r"""What keeps a prior that need not be linear close to linear: the published Koopman VAE's soft constraint.

    .. math:: w\, \frac{\sum_{k > 0} \lVert z_k - K z_{k-1} \rVert^2}{\sum_{k > 0} \lVert z_k \rVert^2}, \qquad
        K = \operatorname*{argmin}_K \sum_{k > 0} \lVert z_k - K z_{k-1} \rVert^2 + \epsilon \lVert K \rVert_F^2

    over trajectories that are drawn from the prior on a regular grid at each step of training. The matrix is a dynamic
    mode decomposition, by ridge regression in float64, and gradients go through it. `LinearGaussianProcess` needs no
    such penalty: it is linear by construction.

    Args:
        weight: :math:`w`, in nats per series.
        steps: steps of each trajectory.
        dt: their length, on the model's clock.
        num_trajectories: how many are drawn; with the steps many more than the square of the latent size.
        ridge: :math:`\epsilon`, as a share of the mean square of the states.

    Raises:
        ValueError: a number is not positive.

    References:
        Generative modeling of regular and irregular time series data via Koopman VAEs, I. Naiman, N. B. Erichson,
        P. Ren, M. W. Mahoney, O. Azencot, 2024, https://arxiv.org/abs/2310.02619

    Example:
        >>> from ctdyn.fields import LinearField
        >>> from ctdyn.processes import ODEProcess
        >>> process = ODEProcess(LinearField(2, matrix=[[0.0, 1.0], [-1.0, 0.0]]), 2)
        >>> float(LinearPriorPenalty().residual(process).detach()) < 1e-6
        True
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        steps: int = 8,
        dt: float = 0.1,
        num_trajectories: int = 64,
        ridge: float = 1e-6,
    ) -> None:
        super().__init__()
        if not all(number > 0 for number in (weight, steps, dt, num_trajectories, ridge)):
            raise ValueError(
                "LinearPriorPenalty needs weight, steps, dt, num_trajectories and ridge above 0; got "
                f"{weight}, {steps}, {dt}, {num_trajectories}, {ridge}."
            )
        self.weight, self.steps, self.dt = weight, steps, dt
        self.num_trajectories, self.ridge = num_trajectories, ridge

    def forward(self, inference: Inference) -> Tensor:
        """See `LossTerm.forward`."""
        like = inference.latent.zs
        return self.weight * self.residual(inference.process, inference.generator, like).to(like.dtype)

    def residual(
        self, process: LatentProcess, generator: Generator | None = None, like: Tensor | None = None
    ) -> Tensor:
        """The share of the states of a prior that no linear map explains, a scalar in float64.

        Args:
            process: whose prior.
            generator: the source of randomness.
            like: a tensor of the dtype and device to draw in; default: torch's default.
        """
        like = torch.zeros(()) if like is None else like
        ts = self.dt * torch.arange(self.steps + 1, dtype=like.dtype, device=like.device)
        ts = ts.expand(self.num_trajectories, -1)
        zs = process.prior(ts[:, 0], ts, 1, generator).zs.squeeze(0).double()
        now, later = zs[:, :-1].flatten(0, 1), zs[:, 1:].flatten(0, 1)
        K = fit_transition(now, later, ridge=self.ridge)
        return (later - now @ K.mT).square().sum() / later.square().sum()
